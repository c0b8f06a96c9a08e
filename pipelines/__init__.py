"""Stages and the three pipelines made of them: one photo, a folder of photos, a posed stream."""
