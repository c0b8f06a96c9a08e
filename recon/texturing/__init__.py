"""Meshes textured from photos: each face takes its colours from the view that shows it best.

A face's view is the one in which the face and what lies around it are large, unoccluded and of the colour
that all views agree on (Lempitsky and Ivanov 2007; Waechter, Moehrle and Goesele 2014, section 4). Connected
faces of one view are a chart: its place in the texture is its piece of the photo, unchanged but for an
offset per vertex that makes colours meet where charts do (global seam levelling, there section 5). Faces
that no view shows keep the colours of their vertices.
"""

from recon.texturing.texture import MAX_SIZE, MIN_SIZE, texture_mesh

__all__ = ["MAX_SIZE", "MIN_SIZE", "texture_mesh"]
