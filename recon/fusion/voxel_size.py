"""A voxel size that fits the depth maps."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from recon.errors import PipelineError
from recon.scene import DepthMap

PIXELS_PER_VOXEL = 1.5  # finer voxels would only copy the pixels' noise
SIGMAS_PER_VOXEL = 0.75  # then three sigma fit into the truncation distance of four voxels
MIN_COSINE = 0.17  # of 80 degrees
SPREADS_PER_VOXEL = 1.5  # less leaves holes between the surfaces of several views
SPREAD_PIXELS_PER_VOXEL = 6.0  # at most for the spread's sake; coarser voxels lose what photos show
BLOCK_SIDE = 8  # voxels
BYTES_PER_VOXEL = 20.5  # tsdf, weight, variance, gradient, colour, share of the free votes
MAX_SURFACE_VOXELS = 4e7  # summed over the views; about 3 GB where each place is seen five times


def choose_voxel_size(depth_maps: Sequence[DepthMap], spread: float = 0.0) -> float:
    """Returns a voxel size, scene units, for maps of one scene; proportional to the scene's scale.

    It is the median over the maps of max(1.5 d / f, 0.75 sigma), d / f the median width of a pixel on the
    surface, sigma the standard deviation of depth that half of the map's weight, 1 / sigma^2, is below: what
    is vague weighs little in the volume and must not make it coarse. Where maps lie farther apart than their
    sigma says, finer voxels would hold several surfaces, full of holes: it is at least 1.5 times the spread,
    but for that no more than 6 d / f. It grows where the surface that the maps show, sum over pixels of
    d^2 / (f_x f_y |n . r|) with rays r of z = 1, would take over 4e7 voxels.

    Args:
        depth_maps: Some of those that are fused.
        spread: Standard deviation of their depth, scene units, by what they say of the same places
            (`recon.consistency.depth_spread`); 0 if it is not known.

    Raises:
        PipelineError: No map has any depth.
    """
    sizes, area = [], 0.0
    for depth_map in depth_maps:
        valid = depth_map.depth > 0
        if not valid.any():
            continue
        focal = np.sqrt(depth_map.camera.K[0, 0] * depth_map.camera.K[1, 1])
        footprint = np.median(depth_map.depth[valid]) / focal
        sigma = _typical(depth_map.sigma[valid].astype(np.float64))
        apart = min(SPREADS_PER_VOXEL * spread, SPREAD_PIXELS_PER_VOXEL * footprint)
        sizes.append(float(max(PIXELS_PER_VOXEL * footprint, SIGMAS_PER_VOXEL * sigma, apart)))
        area += surface_area(depth_map)
    if not sizes:
        raise PipelineError(f"no voxel size: none of the {len(depth_maps)} depth maps has any depth")
    return float(max(np.median(sizes), np.sqrt(area / MAX_SURFACE_VOXELS)))


def _typical(sigma: Float64[np.ndarray, "n"]) -> float:
    """Returns the median of standard deviations, weighted by precision."""
    ordered = np.sort(np.maximum(sigma, np.finfo(float).tiny))
    weight = np.cumsum(np.square(ordered[0] / ordered))
    return float(ordered[np.searchsorted(weight, weight[-1] / 2)])


def surface_area(depth_map: DepthMap) -> float:
    """Returns the area that a map shows, scene units squared: sum of d^2 / (f_x f_y |n . r|)."""
    v, u = np.nonzero(depth_map.depth > 0)
    depth = depth_map.depth[v, u].astype(np.float64)
    slant, tilt, level = (depth_map.normals[v, u] @ np.linalg.inv(depth_map.camera.K)).T
    facing = -(slant * (u + 0.5) + tilt * (v + 0.5) + level)  # -n . r of the ray r = K^-1 (u, v, 1)
    facing = np.where(facing > 0, np.maximum(facing, MIN_COSINE), 1)
    return float((depth**2 / facing).sum() / (depth_map.camera.K[0, 0] * depth_map.camera.K[1, 1]))


def needed_bytes(depth_map: DepthMap, voxel_size: float, truncation: float) -> float:
    """Returns about how much memory a volume takes for one map alone: its surface, thick as truncation."""
    layers = 2 * truncation / voxel_size + BLOCK_SIDE  # blocks reach half a block farther to either side
    return surface_area(depth_map) / voxel_size**2 * layers * BYTES_PER_VOXEL
