"""Where the anchors nearby say that an aligned prediction is wrong, it is not sure.

A robust fit calls anchors wrong that it cannot follow. But wrong ones lie anywhere: where some around a pixel
contradict the prediction to one side and agree about the depth, a thing stands there that the network did not
see, and these anchors are right. The larger sigma there lets photos be searched that far, and what they show
replaces the prediction.
"""

from dataclasses import replace

import numpy as np

from recon.alignment.noise import NORMAL_MEDIAN
from recon.geometry import sample_depth
from recon.scene import DepthMap, SparseDepth

CELL = 4  # px, whose pixels ask the same anchors
ASKED, AGREEING = 12, 3  # anchors nearest to a cell, and so many of them of one mind
ALIKE = 0.05  # of depth, between those that agree
CONTRADICTS = 3.0  # standard deviations
MIN_ANCHORS = 50
SIGMA_SHARE = 0.5  # of the error: what is true then lies within the band that photos are searched in


def doubted(depth_map: DepthMap, anchors: SparseDepth) -> DepthMap:
    """Returns the map with at least half the error as sigma where anchors nearby agree that there is one.

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
    uv, true = anchors.uv[known], np.log(anchors.depth[known])
    error = np.log(depth[known]) - true
    own = anchors.values_of(depth_map.sigma) / np.maximum(anchors.values_of(depth_map.depth), 1e-12)
    expected = np.hypot(own, anchors.sigma / anchors.depth)[known]
    usual = np.median(np.abs(error)) / NORMAL_MEDIAN  # of the view: where all are off, none stands out
    contradicts = np.abs(error) > CONTRADICTS * np.hypot(expected, usual)
    v, u = np.mgrid[: -(-height // CELL), : -(-width // CELL)] * CELL + CELL / 2
    near = cKDTree(uv).query(np.stack([u, v], axis=-1), k=ASKED)[1]
    wrong = np.zeros(u.shape)
    for side in (-1, 1):
        to_side = (contradicts & (side * error > 0))[near]
        told = np.sort(np.where(to_side, true[near], np.inf), axis=-1)
        first, last = told[..., : 1 - AGREEING], told[..., AGREEING - 1 :]
        agree = (np.isfinite(last) & (last <= first + ALIKE)).any(axis=-1)
        sizes = np.sort(np.where(to_side, side * error[near], np.inf), axis=-1)
        middle = np.maximum(to_side.sum(axis=-1, keepdims=True) - 1, 0) // 2
        size = np.take_along_axis(sizes, middle, axis=-1)[..., 0]
        wrong = np.where(agree, np.maximum(size, wrong), wrong)
    wrong = np.repeat(np.repeat(wrong, CELL, axis=0), CELL, axis=1)[:height, :width]
    sigma = np.maximum(depth_map.sigma, (SIGMA_SHARE * wrong * depth_map.depth).astype(np.float32))
    return replace(depth_map, sigma=sigma)
