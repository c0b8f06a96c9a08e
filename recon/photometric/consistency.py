"""What other views' depth says about a view's depth: how many agree, and how many look through it.

A point of the view lies in another view at depth z, where that view has depth d. They agree if

    |z - d| <= t,   t = min(max(3 sqrt(sigma_z^2 + sigma_d^2), 0.5 % of d), 3 % of d)

with sigma_z the point's own sigma. If z < d - t, the other view looks through the point: it is wrong, or the
other's depth is. If z > d + t, it is hidden there, which says nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, UInt8

from recon.geometry import RELATIVE_DEPTH_JUMP, invert
from recon.jit import compiled, run_pieces
from recon.photometric.planes import pair_geometry
from recon.photometric.refinement import Measurement
from recon.scene import DepthMap

SIGMAS = 3.0
LEAST_SHARE, MOST_SHARE = 0.005, 0.03  # of depth: what always agrees, what never does
CONTRADICTED = 9  # outcome of a pixel that is left out, beside those of `fitting`

Posed = tuple[DepthMap, Float64[np.ndarray, "4 4"]]


def cross_check(
    measured: Measurement,
    cam_from_world: Float64[np.ndarray, "4 4"],
    others: Sequence[Posed],
    *,
    threads: int | None = None,
) -> Measurement:
    """Returns the measurement without the pixels that no more views confirm than look through.

    Args:
        measured: Of the view.
        cam_from_world: Its pose.
        others: Depth maps that other views measured, best those it was measured with, and their poses.
        threads: None takes one per processor.
    """
    agree, against = count_witnesses(measured.depth_map, cam_from_world, others, threads=threads)
    known = measured.depth_map.depth > 0
    kept = known & (agree > against)
    return Measurement(
        depth_map=replace(
            measured.depth_map,
            depth=np.where(kept, measured.depth_map.depth, 0).astype(np.float32),
            normals=np.where(kept[..., None], measured.depth_map.normals, 0).astype(np.float32),
            sigma=np.where(kept, measured.depth_map.sigma, 0).astype(np.float32),
        ),
        ncc=np.where(kept, measured.ncc, 0).astype(np.float32),
        outcome=np.where(known & ~kept, CONTRADICTED, measured.outcome).astype(np.uint8),
    )


def count_witnesses(
    depth_map: DepthMap,
    cam_from_world: Float64[np.ndarray, "4 4"],
    others: Sequence[Posed],
    *,
    threads: int | None = None,
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Returns how many other views agree with each pixel's depth, and how many look through it.

    Args:
        depth_map: Of the view.
        cam_from_world: Its pose.
        others: Depth maps of at most 255 other views and their poses; of any size.
        threads: None takes one per processor.
    """
    counts = np.zeros((2, *depth_map.depth.shape), np.uint8)
    for other, other_from_world in others:
        motion = other_from_world @ invert(cam_from_world)
        pair = np.concatenate([pair_geometry(depth_map.camera.K, other.camera.K, motion), motion[2]])
        maps = (depth_map.depth, depth_map.sigma, other.depth, other.sigma)
        run_pieces(
            _count_rows, len(depth_map.depth), threads, maps, pair, np.linalg.inv(depth_map.camera.K), counts
        )
    return counts[0], counts[1]


@compiled
@no_type_check
def _count_rows(start: int, stop: int, maps: Any, pair: Any, inverse_K: Any, counts: Any) -> None:
    depth, sigma, other_depth, other_sigma = maps
    height, width = other_depth.shape
    for row in range(start, stop):
        for column in range(depth.shape[1]):
            own = np.float64(depth[row, column])
            if own <= 0:
                continue
            u, v = column + 0.5, row + 0.5
            scale = pair[6] * u + pair[7] * v + pair[8] + pair[11] / own
            x = (pair[0] * u + pair[1] * v + pair[2] + pair[9] / own) / scale
            y = (pair[3] * u + pair[4] * v + pair[5] + pair[10] / own) / scale
            ray_x = inverse_K[0, 0] * u + inverse_K[0, 1] * v + inverse_K[0, 2]
            ray_y = inverse_K[1, 0] * u + inverse_K[1, 1] * v + inverse_K[1, 2]
            z = own * (pair[12] * ray_x + pair[13] * ray_y + pair[14]) + pair[15]
            if not (z > 0 and 0 <= x < width and 0 <= y < height):
                continue
            found, spread = _sampled(other_depth, other_sigma, x - 0.5, y - 0.5)
            if found <= 0:
                continue
            tolerance = SIGMAS * np.hypot(np.float64(sigma[row, column]), spread)
            tolerance = min(max(tolerance, LEAST_SHARE * found), MOST_SHARE * found)
            if abs(z - found) <= tolerance:
                counts[0, row, column] += 1
            elif z < found:
                counts[1, row, column] += 1


@compiled
@no_type_check
def _sampled(depth: Any, sigma: Any, x: Any, y: Any) -> Any:
    """Returns depth at array position (x, y), as `geometry.sample_depth` does, and the nearest sigma."""
    height, width = depth.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    c, r = min(np.int64(x), max(width - 2, 0)), min(np.int64(y), max(height - 2, 0))
    c1, r1 = min(c + 1, width - 1), min(r + 1, height - 1)
    fx, fy = x - c, y - r
    near_r, near_c = r1 if fy > 0.5 else r, c1 if fx > 0.5 else c
    a, b = np.float64(depth[r, c]), np.float64(depth[r, c1])
    d, e = np.float64(depth[r1, c]), np.float64(depth[r1, c1])
    low, high = min(a, b, d, e), max(a, b, d, e)
    found = np.float64(depth[near_r, near_c])
    if low > 0 and high - low <= RELATIVE_DEPTH_JUMP * low:
        top, bottom = (1 - fx) / a + fx / b, (1 - fx) / d + fx / e
        found = 1 / ((1 - fy) * top + fy * bottom)
    return found, np.float64(sigma[near_r, near_c])
