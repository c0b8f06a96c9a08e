"""What the views of a scene say of each other's depth: samples of one moved into another.

See `joint.py` for the residual and its derivative.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64

from recon.alignment.aligning import Alignment
from recon.alignment.waves import Waves
from recon.geometry import depth_edges, invert, project, transform, unproject
from recon.scene import Camera, View

STEP = 4  # pixels between samples along u and v at 640 px; views are compared there
REFERENCE_SIDE = 640
NEIGHBOURS = 6  # views that each view is compared with
MIN_SHARED = 0.05  # share of a view's samples that a neighbour must see
ANGLES_DEG = (1.0, 60.0)  # between the directions to a shared surface; others say little of each other
GATE = 3.0  # standard deviations, beyond which points are hidden
MIN_RELATIVE = 0.005  # standard deviation that every comparison has: resampling, curvature
MAX_RELATIVE_SIGMA = 0.15  # less certain depth takes no part
# Of the picture's longer side: samples this near count as one where the other's correction errs. The error
# is the same over more than that, but gets smaller as the other agrees in its turn. Half of it is a little
# better with few anchors, twice with many.
CORRELATED = 0.06
MAX_GAIN = 3.0  # of g; beyond, the surface is grazing in one of the views


@dataclass(eq=False)
class State:
    """A view while corrections are sought; maps are samples of the full one."""

    view: View
    camera: Camera
    """Of the samples."""

    log_depth: Float64[np.ndarray, "h w"]
    usable: Bool[np.ndarray, "h w"]
    sigma: Float64[np.ndarray, "h w"]
    """Relative, of the alignment."""

    noise: float
    """Relative, of the prediction alone."""

    anchors: int
    """That tell it."""

    variance: Float64[np.ndarray, "nu nv nw"]
    """Of s from the anchors alone, for `Waves.summed`."""

    shared: Float64[np.ndarray, "nu nv nw"]
    """The part of it that agreement cannot take away, since the others err likewise."""

    open_variance: Float64[np.ndarray, "h w"]
    """Of s as others have to reckon with it: from the anchors alone until views agree."""

    waves: Waves
    """Of the full picture."""

    root: Float64[np.ndarray, "m m"]
    whitened: Float64[np.ndarray, "m"]
    """y = R^-T c, whose prior is the identity."""

    precision: Float64[np.ndarray, "m m"]
    start: Float64[np.ndarray, "h w"]
    predicted: Float64[np.ndarray, "h w"]
    """Log depth before any smooth correction: where the waves are taken."""

    @property
    def compared(self) -> Bool[np.ndarray, "h w"]:
        """Samples that are moved into other views: every other one along u and v."""
        chosen = np.zeros_like(self.usable)
        chosen[::2, ::2] = self.usable[::2, ::2]
        return chosen

    @property
    def compared_uv(self) -> Float64[np.ndarray, "n 2"]:
        """Their pixels."""
        v, u = np.nonzero(self.compared)
        return np.stack([u + 0.5, v + 0.5], axis=1)

    @property
    def sampled_waves(self) -> Waves:
        """The waves in pixels of the samples."""
        return replace(self.waves, size=(self.camera.width, self.camera.height))


def sampled(view: View, alignment: Alignment) -> State:
    """Returns the samples of a view whose alignment has a field, not corrected yet."""
    field, depth_map = alignment.field, alignment.depth_map
    assert field is not None
    height, width = depth_map.depth.shape
    step = max(1, round(STEP * max(height, width) / REFERENCE_SIDE))
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
    pick = np.ix_(rows, columns)
    K = depth_map.camera.K.copy()
    K[:2, 2] -= np.array([columns[0], rows[0]]) + 0.5 - step * 0.5  # first sample's centre to (step / 2)
    K[:2] /= step
    depth = depth_map.depth[pick].astype(np.float64)
    known = depth > 0
    safe = np.where(known, depth, 1.0)
    sigma = np.where(known, depth_map.sigma[pick] / safe, np.inf)
    usable = known & (sigma < MAX_RELATIVE_SIGMA) & ~_near_edges(depth_map.depth)[pick]
    log_depth = np.log(safe)
    small = replace(field.waves, size=(len(columns), len(rows)))
    predicted = field.before(log_depth, small)
    variance = field.waves.variance(field.root)
    size = len(field.root)
    return State(
        view=view,
        camera=Camera(K, len(columns), len(rows)),
        log_depth=log_depth,
        usable=usable,
        sigma=sigma,
        noise=field.noise.tau,
        anchors=int(field.inliers.sum()),
        variance=variance,
        shared=field.waves.variance(field.shared_root),
        open_variance=np.maximum(small.summed(variance, predicted), 0),
        waves=field.waves,
        root=field.root,
        whitened=np.zeros(size),
        precision=np.eye(size),
        start=log_depth.copy(),
        predicted=predicted,
    )


def _near_edges(depth: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns True within 3 pixels of a depth edge, where predictions mix surfaces."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(depth_edges(depth), iterations=3)


def find_neighbours(states: Sequence[State]) -> list[list[int]]:
    """Returns for each view the others that see most of the same surface from another side."""
    found = []
    for i, state in enumerate(states):
        shares = []
        for j, other in enumerate(states):
            if i != j:
                shares.append((-_shared(state, other), j))
        found.append([j for share, j in sorted(shares)[:NEIGHBOURS] if -share >= MIN_SHARED])
    return found


def _shared(state: State, other: State) -> float:
    """Returns the share of a view's samples that another sees at a useful angle, at about their depth."""
    every = 3  # samples; enough for a share
    uv, log_depth = state.compared_uv[::every], state.log_depth[state.compared][::every]
    if not len(uv):
        return 0.0
    world = transform(invert(state.view.cam_from_world), unproject(state.camera.K, uv, np.exp(log_depth)))
    first, second = world - state.view.center, world - other.view.center
    cosine = np.einsum("nc,nc->n", first, second)
    cosine /= np.linalg.norm(first, axis=1) * np.maximum(np.linalg.norm(second, axis=1), 1e-12)
    low, high = np.cos(np.radians(ANGLES_DEG[::-1]))
    moved = _moved(state, other, uv, log_depth)
    seen = moved.seen & (np.abs(moved.residual) < 0.3)
    return float((seen & (cosine > low) & (cosine < high)).mean())


@dataclass(frozen=True, eq=False)
class Comparison:
    """Samples of one view against other views."""

    index: np.ndarray
    """Row of the sample among the view's compared ones."""

    residual: Float64[np.ndarray, "n"]
    gain: Float64[np.ndarray, "n"]
    variance: Float64[np.ndarray, "n"]
    """For weights: of both predictions, and of the other view's correction as often as it is sampled."""


def compare_all(state: State, others: Sequence[State]) -> Comparison:
    """Returns all comparisons of a view with others, one after the other."""
    return joined([compare(state, other) for other in others])


def joined(parts: Sequence[Comparison]) -> Comparison:
    """Returns comparisons as one."""
    if not parts:
        return Comparison(np.zeros(0, np.int64), *(np.zeros(0) for _ in range(3)))
    return Comparison(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("index", "residual", "gain", "variance")
        )
    )


def compare(state: State, other: State) -> Comparison:
    """Returns the comparison of a view with another."""
    uv, log_depth = state.compared_uv, state.log_depth[state.compared]
    here = _moved(state, other, uv, log_depth)
    nudge = 1e-3
    there = _moved(state, other, uv, log_depth + nudge)
    gain = (there.residual - here.residual) / nudge
    row, column = here.pixel.T
    both = np.sqrt(state.sigma[state.compared] ** 2 + other.sigma[row, column] ** 2 + MIN_RELATIVE**2)
    fits = here.seen & there.seen & (gain > 1 / MAX_GAIN) & (gain < MAX_GAIN)
    fits &= np.abs(here.residual) < GATE * both
    chosen = np.flatnonzero(fits)
    per_cell = (CORRELATED * max(state.log_depth.shape) / 2) ** 2
    variance = state.noise**2 + other.noise**2 + MIN_RELATIVE**2
    of_other = per_cell * other.open_variance[row[chosen], column[chosen]]
    return Comparison(chosen, here.residual[chosen], gain[chosen], variance + of_other)


@dataclass(frozen=True, eq=False)
class _Moved:
    residual: Float64[np.ndarray, "n"]
    seen: Bool[np.ndarray, "n"]
    pixel: np.ndarray
    """(n, 2), row and column of the nearest sample of the other view."""


def _moved(
    state: State, other: State, uv: Float64[np.ndarray, "n 2"], log_depth: Float64[np.ndarray, "n"]
) -> _Moved:
    """Returns L - l_j of samples moved to another view; interpolated in disparity, exact on planes."""
    j_from_i = other.view.cam_from_world @ invert(state.view.cam_from_world)
    points = transform(j_from_i, unproject(state.camera.K, uv, np.exp(log_depth)))
    ahead = points[:, 2] > 0
    q = project(other.camera.K, np.where(ahead[:, None], points, [0.0, 0.0, 1.0])) - 0.5
    height, width = other.log_depth.shape
    u, v = q.T
    inside = ahead & (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
    q = np.where(inside[:, None], q, 0.0)
    base = np.minimum(q.astype(np.int64), [width - 2, height - 2])
    fraction = q - base
    disparity = np.exp(-other.log_depth)
    total, all_usable = np.zeros(len(q)), inside.copy()
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = base[:, 0] + right, base[:, 1] + down
        weight = np.abs(1 - right - fraction[:, 0]) * np.abs(1 - down - fraction[:, 1])
        total += weight * disparity[row, column]
        all_usable &= other.usable[row, column]
    nearest = np.rint(q).astype(np.int64)
    residual = np.log(np.where(ahead, points[:, 2], 1.0)) + np.log(np.where(all_usable, total, 1.0))
    return _Moved(residual, all_usable, nearest[:, ::-1])
