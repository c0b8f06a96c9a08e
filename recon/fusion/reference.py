"""What the integration kernels compute, in plain numpy: the reference that they are tested against.

One view updates a voxel x (camera frame) that projects to a pixel with plane n, point p, weight w, support T:

    phi = n . (x - p) / truncation                               signed point-to-plane distance
    used if |phi| < T and z_x within the range of the pixel
    w'  = w min(1, (T - |phi|) / (3/4))                          taper
    tsdf <- (W tsdf + w' clip(phi, -1, 1)) / (W + w'),  W <- W + w'      weighted mean, colour alike

Point to plane (Voxfield, Pan et al. 2022, in its plane form): the projective distance is too large by
1 / cos(theta), so that views from different sides pull the surface and round its edges. The taper acts on
both sides of the surface. One-sided drop-off behind it (Voxblox, Oleynikova et al. 2017) would leave the mean
of noisy distances positive at the true surface, which moves it away from the cameras; with both sides the
zero crossing is that of a redescending M-estimator, sum w psi(phi) = 0, and disagreeing views count little.

Space that a view sees through is not averaged in, which would shift surfaces nearby. It is counted apart as
votes, and a voxel is taken as unknown where the votes for free space outweigh the surface behind it.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt16

from recon.fusion.integration import COLOR_STEPS, FREE_SHARE, VOXEL_SHARE
from recon.fusion.observations import NZ, OFFSET, SUPPORT, TAPER_LENGTH, WEIGHT, Observations
from recon.geometry import project


def _pixels(
    points_cam: Float64[np.ndarray, "n 3"], K: Float64[np.ndarray, "3 3"], seen: Observations
) -> tuple[Int64[np.ndarray, "m"], tuple[np.ndarray, np.ndarray]]:
    """Returns which points project into the picture, and rows and columns of their pixels."""
    height, width = seen.ranges.shape[:2]
    uv = np.nan_to_num(project(K, points_cam), nan=-1.0)
    inside = np.flatnonzero(((uv >= 0) & (uv < [width, height])).all(axis=1))
    u, v = uv[inside].astype(np.int64).T
    return inside, (v, u)


def fuse_voxels(
    points_cam: Float64[np.ndarray, "n 3"],
    K: Float64[np.ndarray, "3 3"],
    seen: Observations,
    voxels: tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "n"], UInt16[np.ndarray, "n 3"]],
) -> tuple[
    Float32[np.ndarray, "n"], Float32[np.ndarray, "n"], UInt16[np.ndarray, "n 3"], Float64[np.ndarray, "n"]
]:
    """Returns tsdf, weights and colours of voxels after one more view, and its votes that they are free.

    Args:
        points_cam: Centres of the voxels.
        K: Intrinsics, px.
        seen: Of `observations.observe`, with colours.
        voxels: tsdf, weights and colours before it.
    """
    tsdf, weights, colors = (values.copy() for values in voxels)
    inside, pixels = _pixels(points_cam, K, seen)
    ranges, planes, points = seen.ranges[pixels], seen.planes[pixels], points_cam[inside]
    near = (ranges[:, 0] <= points[:, 2]) & (points[:, 2] <= ranges[:, 1])
    distance = np.einsum("nc,nc->n", planes[:, : NZ + 1], points) - planes[:, OFFSET]
    left = planes[:, SUPPORT] - np.abs(distance)
    votes = np.zeros(len(points_cam))
    votes[inside] = np.where(near & (left <= 0) & (distance > 0), VOXEL_SHARE * planes[:, WEIGHT], 0)
    used = near & (left > 0)
    inside, distance = inside[used], np.clip(distance[used], -1, 1)
    weight = planes[used, WEIGHT] * np.minimum(left[used] / TAPER_LENGTH, 1)
    weights[inside] += weight.astype(np.float32)
    share = weight / weights[inside]
    tsdf[inside] += (share * (distance - tsdf[inside])).astype(np.float32)
    new = seen.colors[pixels][used]
    mixed = colors[inside] + share[:, None] * (new * float(COLOR_STEPS) - colors[inside]) + 0.5
    colors[inside] = mixed
    return tsdf, weights, colors, votes


def free_votes(
    points_cam: Float64[np.ndarray, "n 3"], K: Float64[np.ndarray, "3 3"], seen: Observations, margin: float
) -> Float64[np.ndarray, "n"]:
    """Returns the votes of one view that these centres of cells are free.

    Args:
        points_cam: Centres of the cells.
        K: Intrinsics, px.
        seen: Of `observations.observe`.
        margin: How far before the range of the pixel's plane a cell must be, scene units.
    """
    inside, pixels = _pixels(points_cam, K, seen)
    before = points_cam[inside, 2] < seen.ranges[pixels][:, 0] - margin
    votes = np.zeros(len(points_cam))
    votes[inside] = np.where(before, FREE_SHARE * seen.planes[pixels][:, WEIGHT], 0)
    return votes
