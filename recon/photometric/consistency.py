"""What other views' depth says about a view's depth: how many agree, and how many look through it.

A point of the view lies in another view at depth z, where that view has depth d. They agree if

    |z - d| <= t,   t = max(3 sqrt(sigma_z^2 + sigma_d^2), d * 0.5 %) <= d * 3 %

with sigma_z the point's own along the other view's axis, taken as its sigma. If z < d - t, the other view
sees through the point: it is wrong, or the other's depth is. If z > d + t, it is hidden there, which says
nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from recon.geometry import invert, points_from_depth, project, sample, sample_depth, transform
from recon.photometric.refinement import Measurement
from recon.scene import DepthMap

SIGMAS = 3.0
CONTRADICTED = np.uint8(9)  # outcome of a pixel that is left out, beside those of `fitting`
LEAST_SHARE, MOST_SHARE = 0.005, 0.03  # of depth: what always agrees, what never does


def cross_check(
    measured: Measurement,
    cam_from_world: Float64[np.ndarray, "4 4"],
    others: Sequence[tuple[DepthMap, Float64[np.ndarray, "4 4"]]],
) -> Measurement:
    """Returns the measurement without the pixels that fewer other views confirm than look through.

    Args:
        measured: Of the view.
        cam_from_world: Its pose.
        others: Depth maps that other views measured, best those it was measured with, and their poses.
    """
    agree, against = count_witnesses(measured.depth_map, cam_from_world, others)
    kept = (measured.depth_map.depth > 0) & (agree > against)
    left_out = (measured.depth_map.depth > 0) & ~kept
    return Measurement(
        depth_map=replace(
            measured.depth_map,
            depth=np.where(kept, measured.depth_map.depth, 0).astype(np.float32),
            normals=np.where(kept[..., None], measured.depth_map.normals, 0).astype(np.float32),
            sigma=np.where(kept, measured.depth_map.sigma, 0).astype(np.float32),
        ),
        ncc=np.where(kept, measured.ncc, 0).astype(np.float32),
        outcome=np.where(left_out, CONTRADICTED, measured.outcome).astype(np.uint8),
    )


def count_witnesses(
    depth_map: DepthMap,
    cam_from_world: Float64[np.ndarray, "4 4"],
    others: Sequence[tuple[DepthMap, Float64[np.ndarray, "4 4"]]],
) -> tuple[Int64[np.ndarray, "h w"], Int64[np.ndarray, "h w"]]:
    """Returns how many other views agree with each pixel's depth, and how many look through it.

    Args:
        depth_map: Of the view.
        cam_from_world: Its pose.
        others: Depth maps of other views and their poses.
    """
    known = depth_map.depth > 0
    points = points_from_depth(depth_map.camera.K, depth_map.depth)[known]
    sigmas = depth_map.sigma[known].astype(np.float64)
    agree, against = np.zeros(known.shape, np.int64), np.zeros(known.shape, np.int64)
    for other, other_from_world in others:
        points_other = transform(other_from_world @ invert(cam_from_world), points)
        uv = np.nan_to_num(project(other.camera.K, points_other), nan=-1.0)
        depth = sample_depth(other.depth, uv)
        seen = depth > 0
        sigma = sample(other.sigma, np.where(seen[:, None], uv, 0.5))
        tolerance = np.clip(SIGMAS * np.hypot(sigmas, sigma), LEAST_SHARE * depth, MOST_SHARE * depth)
        off = points_other[:, 2] - depth
        agree[known] += seen & (np.abs(off) <= tolerance)
        against[known] += seen & (off < -tolerance)
    return agree, against
