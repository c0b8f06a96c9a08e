"""What the kernels compute, in plain numpy, pixel by pixel: the reference that they are tested against."""

import numpy as np
from jaxtyping import Float64, Int64

from recon.geometry import invert, points_from_depth, project, sample, sample_depth, transform
from recon.photometric.consistency import LEAST_SHARE, MOST_SHARE, SIGMAS, Posed
from recon.photometric.cost import COLOR_LEVELS, INVALID, SPATIAL_PX, TAPS_U, TAPS_V
from recon.photometric.levels import Level
from recon.photometric.pictures import smoothed
from recon.photometric.sweep import BAND_SIGMAS, PRIOR_WEIGHT
from recon.scene import DepthMap

Plane = Float64[np.ndarray, "3"]


def plain_patch(
    level: Level, row: int, column: int
) -> tuple[Float64[np.ndarray, "t"], Float64[np.ndarray, "t"]]:
    """Returns grey levels and weights (of sum 1) of a pixel's patch."""
    grey, colors = smoothed(level.grey).astype(np.float64), smoothed(level.colors).astype(np.float64)
    rows = np.clip(row + TAPS_V.astype(np.int64), 0, grey.shape[0] - 1)
    columns = np.clip(column + TAPS_U.astype(np.int64), 0, grey.shape[1] - 1)
    distance = (np.square(TAPS_U) + np.square(TAPS_V)) / (2 * SPATIAL_PX**2)
    difference = np.square(colors[rows, columns] - colors[row, column]).sum(axis=1) / (2 * COLOR_LEVELS**2)
    weights = np.exp(-distance) * np.maximum(1 - difference / 256, 0) ** 256
    return grey[rows, columns], weights / weights.sum()


def plain_costs(level: Level, row: int, column: int, plane: Plane) -> Float64[np.ndarray, "k"]:
    """Returns the costs of the plane (w, wu, wv) at a pixel in all other views; INVALID where unseen."""
    values, weights = plain_patch(level, row, column)
    uv = np.stack([column + 0.5 + TAPS_U, row + 0.5 + TAPS_V, np.ones_like(TAPS_U)], axis=1)  # (t, 3)
    w = plane[0] + plane[1] * TAPS_U + plane[2] * TAPS_V
    points = uv @ np.linalg.inv(level.camera.K).T / w[:, None]
    costs = []
    for grey, camera, other_from_reference in level.others:
        at = project(camera.K, transform(other_from_reference, points))
        low, high = at.min(axis=0), at.max(axis=0)
        if not ((low >= 0.5).all() and (high < [camera.width - 0.5, camera.height - 0.5]).all()):
            costs.append(float(INVALID))
            continue
        found = sample(smoothed(grey), at)
        centred = [x - weights @ x for x in (values, found)]
        spread = np.sqrt([weights @ np.square(x) for x in centred])
        costs.append(1 - weights @ (centred[0] * centred[1]) / (spread[0] * spread[1]))
    return np.array(costs)


def plain_score(level: Level, row: int, column: int, plane: Plane) -> float:
    """Returns the mean cost of the better half of the views that see a plane, and what the prior adds."""
    costs = np.sort(plain_costs(level, row, column, plane))
    costs = costs[costs < INVALID]
    if not len(costs):
        return float(INVALID)
    away = (plane[0] - level.planes[row, column, 0]) / level.bands[row, column]
    prior = PRIOR_WEIGHT * 0.5 * min(away * away, BAND_SIGMAS**2)
    return float(costs[: (len(costs) + 1) // 2].mean() + prior)


def plain_witnesses(
    depth_map: DepthMap, cam_from_world: Float64[np.ndarray, "4 4"], others: list[Posed]
) -> tuple[Int64[np.ndarray, "h w"], Int64[np.ndarray, "h w"]]:
    """Returns what `consistency.count_witnesses` counts."""
    known = depth_map.depth > 0
    points = points_from_depth(depth_map.camera.K, depth_map.depth)[known]
    sigmas = depth_map.sigma[known].astype(np.float64)
    agree, against = np.zeros(known.shape, np.int64), np.zeros(known.shape, np.int64)
    for other, other_from_world in others:
        points_other = transform(other_from_world @ invert(cam_from_world), points)
        uv = np.nan_to_num(project(other.camera.K, points_other), nan=-1.0)
        depth = sample_depth(other.depth, uv)
        seen = depth > 0
        u, v = np.where(seen[:, None], uv, 0.5).astype(np.int64).T
        tolerance = SIGMAS * np.hypot(sigmas, other.sigma[v, u])
        tolerance = np.clip(tolerance, LEAST_SHARE * depth, MOST_SHARE * depth)
        off = points_other[:, 2] - depth
        agree[known] += seen & (np.abs(off) <= tolerance)
        against[known] += seen & (off < -tolerance)
    return agree, against
