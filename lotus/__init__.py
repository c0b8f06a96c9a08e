"""Lotus, the default predictor: depth and normals of one photo in one diffusion step (arXiv 2409.18124)."""
