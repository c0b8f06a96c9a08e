"""What the integration kernels compute, in plain numpy: the reference that they are tested against.

One view updates a voxel x that projects to a pixel with plane n, point p, weight w, support T:

    phi = n . (x - p) / truncation                               signed point-to-plane distance
    B = max(min(2 T - 3/2, T - 1/4), min(T, 1/2 or 2 voxels))    support behind the surface
    w'  = w clip(min((T - phi) / (3/4), (B + phi) / (1/4)), 0, 1)                                taper
    w'' = w' min(1, 3 s / |phi - tsdf|)  if W > 2 w'             robust: s^2 = max(variance, (1/4)^2)
    d = clip(phi, -1, 1) - tsdf,  W <- W + w'',  r = w'' / W
    tsdf <- tsdf + r d,  variance <- (1 - r) (variance + r d^2)  weighted mean and variance (West, 1979)
    gradient, colour <- mean + r (new - mean), rounded by chance

Point to plane (Voxfield, Pan et al. 2022, in its plane form): the projective distance is too large by
1 / cos(theta), so that views from different sides pull the surface and round its edges. The taper acts on
both sides of the surface. One-sided drop-off behind it (Voxblox, Oleynikova et al. 2017) would leave the mean
of noisy distances positive at the true surface, which moves it away from the cameras; with both sides the
zero crossing is that of a redescending M-estimator, sum w psi(phi) = 0, and disagreeing views count little.
Where noise is small the far side ends after two voxels, so that the two sides of a thin part do not meet.

Space that a view sees through is not averaged in, which would shift surfaces nearby. It is counted apart as
votes of 1 a view, less near depth edges, and a voxel is free where they outweigh the surface behind it. A
view votes for voxels with phi > T; in blocks that it sees no surface in, for cells of 2 x 2 x 2.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt32

from recon.fusion.integration import (
    CELL_MARGIN,
    LEAST_BEHIND,
    LEAST_SHARE,
    LEAST_VOXELS_BEHIND,
    LESS_1,
    LESS_2,
    MIN_VARIANCE,
    OUTLIER_SIGMAS2,
    SURER,
    TAPER_BEHIND,
)
from recon.fusion.observations import (
    COLOR,
    DIRECTION,
    OFFSET,
    TAPER_LENGTH,
    TRUST,
    Frame,
    Observations,
)
from recon.geometry import project

STEPS = np.array([2046.0, 2046.0, 1022.0])


@dataclass(frozen=True, eq=False)
class Voxels:
    """What some voxels hold; gradients and colours unpacked, in the steps that they are packed in."""

    tsdf: Float64[np.ndarray, "n"]
    weight: Float64[np.ndarray, "n"]
    variance: Float64[np.ndarray, "n"]
    votes: Int64[np.ndarray, "n"]
    """Steps of 1 / 63."""

    gradient: Float64[np.ndarray, "n 3"]
    color: Float64[np.ndarray, "n 3"]


def three(words: UInt32[np.ndarray, "n"]) -> Float64[np.ndarray, "n 3"]:
    """Returns the three numbers in each word."""
    return np.stack([words & 2047, words >> 11 & 2047, words >> 22], axis=-1).astype(np.float64)


def directions(words: UInt32[np.ndarray, "n"]) -> Float64[np.ndarray, "n 3"]:
    """Returns the unit vector in each word, as exact as it is there."""
    return 2 * three(words) / STEPS - 1


def variances(words: UInt32[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Returns the variances in words that hold votes, too."""
    return (words & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def votes(words: UInt32[np.ndarray, "*n"]) -> Int64[np.ndarray, "*n"]:
    """Returns the steps of votes in these words."""
    return (words & np.uint32(0xFFFF)).astype(np.int64)


def pixels_of(
    points: Float64[np.ndarray, "n 3"], frame: Frame, seen: Observations
) -> tuple[Int64[np.ndarray, "m"], tuple[np.ndarray, np.ndarray]]:
    """Returns which points project into the picture, and rows and columns of their records.

    Args:
        points: Frame of the view, voxels.
        frame: Of the view.
        seen: What it sees.
    """
    height, width = seen.records.shape[0] - 2, seen.records.shape[1] - 2
    uv = np.nan_to_num(project(frame.K, (points - frame.center) @ frame.rotation.T), nan=-1.0)
    inside = np.flatnonzero(((uv >= 0) & (uv < [width, height])).all(axis=1))
    u, v = uv[inside].astype(np.int64).T
    return inside, (v + 1, u + 1)


def planes_at(
    points: Float64[np.ndarray, "m 3"], records: UInt32[np.ndarray, "m 4"], frame: Frame
) -> tuple[Float64[np.ndarray, "m 3"], Float64[np.ndarray, "m"], Float64[np.ndarray, "m"]]:
    """Returns the normals of the pixels' planes, the points' distances / truncation to them, and supports."""
    normals = directions(np.ascontiguousarray(records[:, DIRECTION]))
    offset = np.ascontiguousarray(records[:, OFFSET]).view(np.float32).astype(np.float64)
    phi = (np.einsum("nc,nc->n", normals, points) - offset) * frame.voxel_size / frame.truncation
    return normals, phi, (records[:, TRUST] >> 6 & 1023) / 64.0


def fuse_voxels(
    points: Float64[np.ndarray, "n 3"], frame: Frame, seen: Observations, before: Voxels, sign: float = 1.0
) -> Voxels:
    """Returns what voxels hold after one more view, or one less.

    Args:
        points: Centres of the voxels, frame of the view, voxels.
        frame: Of the view.
        seen: Of `observations.observe`, with colours.
        before: What they hold before.
        sign: 1 to add the view, -1 to take it away.
    """
    inside, pixels = pixels_of(points, frame, seen)
    records = seen.records[pixels]
    normals, phi, support = planes_at(points[inside], records, frame)
    base = (records[:, TRUST] & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    least = max(LEAST_BEHIND, LEAST_VOXELS_BEHIND * frame.voxel_size / frame.truncation)
    behind = np.maximum(np.minimum(2 * support - LESS_2, support - LESS_1), np.minimum(support, least))
    taper = np.minimum((support - phi) / TAPER_LENGTH, (behind + phi) / TAPER_BEHIND)
    weight = base * np.clip(taper, 0, 1)
    mean, old, variance = before.tsdf[inside], before.weight[inside], before.variance[inside]
    change = np.clip(phi, -1, 1) - mean
    limit = OUTLIER_SIGMAS2 * np.maximum(variance, MIN_VARIANCE)
    weight = np.where(old > SURER * weight, weight * np.sqrt(limit / np.maximum(change**2, limit)), weight)
    total = old + sign * weight
    total = np.where(total > LEAST_SHARE * weight, total, 0)
    share = np.divide(sign * weight, total, out=np.zeros(len(total)), where=total > 0)
    after = Voxels(*(getattr(before, name).copy() for name in Voxels.__dataclass_fields__))
    after.tsdf[inside] += share * change
    after.weight[inside] = total
    after.variance[inside] = np.maximum((1 - share) * (variance + share * change**2), 0)
    cast = np.where(phi > support, records[:, TRUST] & 63, 0).astype(np.int64)
    after.votes[inside] = np.clip(before.votes[inside] + int(sign) * cast, 0, 65535)
    after.gradient[inside] += share[:, None] * ((normals + 1) * STEPS / 2 - after.gradient[inside])
    colors = three(np.ascontiguousarray(records[:, COLOR]))
    after.color[inside] += share[:, None] * (colors - after.color[inside])
    return after


def free_votes(
    points: Float64[np.ndarray, "n 3"], frame: Frame, seen: Observations
) -> Int64[np.ndarray, "n"]:
    """Returns the votes of one view that these centres of cells are free, in steps of 1 / 63.

    Args:
        points: Centres of the cells, frame of the view, voxels.
        frame: Of the view.
        seen: Of `observations.observe`.
    """
    inside, pixels = pixels_of(points, frame, seen)
    records = seen.records[pixels]
    _, phi, support = planes_at(points[inside], records, frame)
    found = np.zeros(len(points), np.int64)
    margin = CELL_MARGIN * frame.voxel_size / frame.truncation
    found[inside] = np.where(phi > support + margin, records[:, TRUST] & 63, 0)
    return found
