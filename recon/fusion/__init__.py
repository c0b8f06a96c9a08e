"""Depth maps to one surface: a sparse truncated signed distance field that knows how sure each pixel is.

In the order of the method: `voxel_size` chooses the grid, `observations` turns a depth map into planes with
weights, `blocks` finds the blocks of voxels that they touch, `integration` brings them into the voxels
(`reference` says the same in numpy), `smoothing` averages them where views disagree, `marching_cubes` makes
the mesh; `volume` holds them together.
"""

from recon.fusion.volume import TSDFVolume
from recon.fusion.voxel_size import choose_voxel_size, needed_bytes

__all__ = ["TSDFVolume", "choose_voxel_size", "needed_bytes"]
