"""How far the depth maps of one scene lie apart, which their sigma may not know."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from recon.geometry import invert, rays, sample_depth, transform
from recon.scene import DepthMap, View

STEP = 2  # px, between the pixels that are asked
SAME_PLACE = 0.1  # of log depth; farther apart they are of different things
MEDIAN_OF_DIFFERENCE = 0.954  # of |a - b|, where a and b have a standard deviation of 1
VAGUE = 2.0  # times the relative sigma of half of the map; what is vaguer is no measure of noise
LEAST_PIXELS = 100


def depth_spread(view: View, depth_map: DepthMap, neighbours: Sequence[tuple[View, DepthMap]]) -> float:
    """Returns the standard deviation of a map's depth, scene units, by its differences to the neighbours'.

    Half of the pixels are nearer than their neighbour says, by the median |a - b| of two independent values
    a and b of that standard deviation, if they are normal. Those that are farther are left out: they may be
    hidden.

    Args:
        view: Of the depth map.
        depth_map: Any size.
        neighbours: Other views with theirs.

    Returns:
        NaN if the neighbours see less than 100 of the pixels.
    """
    nearer = [_nearer(view, depth_map, *neighbour) for neighbour in neighbours]
    found = np.concatenate([np.zeros(0), *nearer])
    return float(np.median(found) / MEDIAN_OF_DIFFERENCE) if len(found) >= LEAST_PIXELS else float("nan")


def _nearer(view: View, depth_map: DepthMap, other: View, other_map: DepthMap) -> Float64[np.ndarray, "n"]:
    """Returns by how much pixels lie before the other map's surface, scene units."""
    camera, known = depth_map.camera, depth_map.depth > 0
    surest = VAGUE * np.median(depth_map.sigma[known] / depth_map.depth[known]) if known.any() else 0
    depth = np.where(depth_map.sigma <= surest * depth_map.depth, depth_map.depth, 0)[::STEP, ::STEP]
    points = (rays(camera.K, camera.width, camera.height)[::STEP, ::STEP] * depth[..., None])[depth > 0]
    moved = transform(other.cam_from_world @ invert(view.cam_from_world), points)
    moved = moved[moved[:, 2] > 0]
    pixels = moved @ other_map.camera.K.T
    there, says = moved[:, 2], sample_depth(other_map.depth, pixels[:, :2] / pixels[:, 2:])
    known = says > 0
    gap = says[known] - there[known]
    return gap[(gap > 0) & (gap < SAME_PLACE * says[known])]
