"""COLMAP: photos to posed cameras and sparse points, models read and written, lenses undistorted.

The only place that knows pycolmap. In the order of the method: `options`, `features` (one photo), `pairs`
(which photos to compare), `matching` (the database), `mapping` (poses and points), `poses` (given ones that
are off), `sfm` (all of these), `model` (its files), `undistort` (a `Scene`), `dense` (depth maps for COLMAP's
fusion, and from its stereo).
"""

from recon.io.colmap.dense import read_dense, write_dense, write_fusion_list
from recon.io.colmap.from_scene import model_from_scene
from recon.io.colmap.model import ColmapModel, read_model, write_model
from recon.io.colmap.options import SfmOptions
from recon.io.colmap.poses import doubts_about
from recon.io.colmap.sfm import reconstruct, triangulate
from recon.io.colmap.undistort import photo_pixels, scene_from_model

__all__ = [
    "ColmapModel",
    "SfmOptions",
    "doubts_about",
    "model_from_scene",
    "photo_pixels",
    "read_dense",
    "read_model",
    "reconstruct",
    "scene_from_model",
    "triangulate",
    "write_dense",
    "write_fusion_list",
    "write_model",
]
