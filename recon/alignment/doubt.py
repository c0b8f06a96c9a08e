"""Where the anchors nearby say that an aligned prediction is wrong, it is not sure.

A robust fit calls anchors wrong that it cannot follow. But wrong ones lie anywhere and err to either side:
where most of those around a pixel contradict the prediction to one side, a thing stands there that the
network did not see, and the anchors are right. The larger sigma there lets photos be searched that far, and
what they show replaces the prediction.
"""

from dataclasses import replace

import numpy as np

from recon.geometry import sample_depth
from recon.scene import DepthMap, SparseDepth

CELL = 4  # px, whose pixels ask the same anchors
ASKED, MOST = 7, 4  # anchors nearest to a cell, and so many of them to one side
CONTRADICTS = 3.0  # standard deviations
MIN_ANCHORS = 50
SIGMA_SHARE = 0.5  # of the error: what is true then lies within the band that photos are searched in


def doubted(depth_map: DepthMap, anchors: SparseDepth) -> DepthMap:
    """Returns the map with at least half the error as sigma where most anchors nearby show one.

    Args:
        depth_map: Aligned with these anchors.
        anchors: Pixels of its camera; those beside known depth are not asked.
    """
    from scipy.spatial import cKDTree

    height, width = depth_map.depth.shape
    depth = sample_depth(depth_map.depth, anchors.uv)
    known = depth > 0
    if known.sum() < MIN_ANCHORS:
        return depth_map
    uv, error = anchors.uv[known], np.log(depth[known] / anchors.depth[known])
    own = anchors.values_of(depth_map.sigma) / np.maximum(anchors.values_of(depth_map.depth), 1e-12)
    contradicts = np.abs(error) > CONTRADICTS * np.hypot(own, anchors.sigma / anchors.depth)[known]
    v, u = np.mgrid[: -(-height // CELL), : -(-width // CELL)] * CELL + CELL / 2
    near = cKDTree(uv).query(np.stack([u, v], axis=-1), k=ASKED)[1]
    wrong = np.zeros(u.shape)
    for side in (-1, 1):
        to_side = (contradicts & (side * error > 0))[near]
        size = np.median(np.where(to_side, side * error[near], 0), axis=-1)
        wrong = np.where(to_side.sum(axis=-1) >= MOST, size, wrong)
    wrong = np.repeat(np.repeat(wrong, CELL, axis=0), CELL, axis=1)[:height, :width]
    sigma = np.maximum(depth_map.sigma, (SIGMA_SHARE * wrong * depth_map.depth).astype(np.float32))
    return replace(depth_map, sigma=sigma)
