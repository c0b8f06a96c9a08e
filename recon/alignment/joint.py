"""The smooth corrections of all views made to agree where views see the same surface.

Each view's log depth may still bend by s_i = B_i c_i, with c_i ~ N(0, R_i^T R_i): what its own anchors left
open. A pixel p of view i, moved to view j, lies there at log depth L_ij(p) where j says l_j; the residual

    r_ijp = L_ij(p) - l_j(q),    q = projection of p into j

should be 0. One sweep solves each view in turn for

    min_c |c|^2_prior + sum_jp w_ijp rho((r_ijp + g_ijp s_i(p)) / s_ijp),    g = d r / d l_i

with the other views as they are (Gauss-Seidel on the joint problem); the anchors stay in through the prior.
Asymmetric gates (after DoubleTake and MP-SfM): a point behind j's surface is probably hidden there and says
nothing; one in front of it contradicts what j sees, and counts, robustly. w has the variance of both
predictions, and that of j's own correction as often as one and the same error is sampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64

from recon.alignment.aligning import Alignment
from recon.alignment.waves import Waves
from recon.geometry import depth_edges, invert, project, transform, unproject
from recon.scene import Camera, DepthMap, View

STEP = 4  # pixels between samples along u and v at 640 px; views are compared there
REFERENCE_SIDE = 640
NEIGHBOURS = 6  # views that each view is compared with
MIN_SHARED = 0.05  # share of a view's samples that a neighbour must see
ANGLES_DEG = (
    1.0,
    60.0,
)  # between the directions to a shared surface; outside, views say little of each other
SWEEPS = 4
GATE = 3.0  # standard deviations, beyond which points are hidden
MIN_RELATIVE = 0.005  # standard deviation that every comparison has: resampling, curvature
MAX_RELATIVE_SIGMA = 0.15  # less certain depth takes no part
CORRELATED = 0.12  # of the picture's longer side, over which an error of a correction is the same
MAX_GAIN = 3.0  # of g; beyond, the surface is grazing in one of the views
MIN_KEPT_VARIANCE = 0.2  # share of a pixel's variance that agreement with others cannot take away
MIN_COMPARED = 50  # samples that a view needs to be changed


@dataclass(frozen=True, eq=False)
class Correction:
    """What a view's alignment needs to agree with its neighbours."""

    waves: Waves
    coefficients: Float64[np.ndarray, "m"]
    variance: Float64[np.ndarray, "nu nv nw"]
    """Of the corrected view at the waves' nodes."""

    variance_before: Float64[np.ndarray, "nu nv nw"]
    compared: int
    """Comparisons with other views that it rests on."""

    disagreement_before: float
    """Median |r| over them."""

    disagreement_after: float


@dataclass(eq=False)
class _State:
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

    own_variance: Float64[np.ndarray, "h w"]
    """Of s from the anchors alone."""

    waves: Waves
    """Of the full picture."""

    root: Float64[np.ndarray, "m m"]
    whitened: Float64[np.ndarray, "m"]
    """y = R^-T c, whose prior is the identity."""

    precision: Float64[np.ndarray, "m m"]
    start: Float64[np.ndarray, "h w"]

    @property
    def compared(self) -> Bool[np.ndarray, "h w"]:
        """Samples that are moved into other views: every other one along u and v."""
        chosen = np.zeros_like(self.usable)
        chosen[::2, ::2] = self.usable[::2, ::2]
        return chosen

    @property
    def sampled_waves(self) -> Waves:
        """The waves in pixels of the samples."""
        return replace(self.waves, size=(self.camera.width, self.camera.height))


def agree(
    views: Sequence[View],
    alignments: Callable[[str], Alignment],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Correction]:
    """Returns the corrections of the views that others can be compared with, by name.

    Args:
        views: Posed; the order decides nothing but rounding.
        alignments: Returns the alignment of a view, called once for each.
        progress: Called with (done, total).
    """
    from threadpoolctl import threadpool_limits

    total = 2 * len(views) + SWEEPS * len(views)
    with threadpool_limits(1, user_api="blas"):
        states = []
        for view in views:
            alignment = alignments(view.name)
            if alignment.field is not None:
                states.append(_sampled(view, alignment))
            progress(len(states), total)
        neighbours = _neighbours(states)
        before = [
            _compare_all(state, [states[j] for j in near])
            for state, near in zip(states, neighbours, strict=True)
        ]
        for sweep in range(SWEEPS):
            for index, (state, near) in enumerate(zip(states, neighbours, strict=True)):
                _update(state, [states[j] for j in near])
                progress((1 + sweep) * len(views) + index, total)
        found = {}
        for state, near, first in zip(states, neighbours, before, strict=True):
            after = _compare_all(state, [states[j] for j in near])
            if len(after.residual) >= MIN_COMPARED:
                found[state.view.name] = _correction(state, first, after)
        progress(total, total)
    return found


def corrected(alignment: Alignment, correction: Correction) -> Alignment:
    """Returns an alignment bent as its correction says."""
    depth_map = alignment.depth_map
    known = depth_map.depth > 0
    safe = np.where(known, depth_map.depth, 1).astype(np.float64)
    log_depth = np.log(safe)
    waves = correction.waves
    bend = waves.total(correction.coefficients, log_depth)
    change = waves.between(correction.variance - correction.variance_before, log_depth)
    relative = np.square(depth_map.sigma / safe)
    sigma = np.sqrt(np.maximum(relative + change, MIN_KEPT_VARIANCE * relative))
    depth = np.where(known, safe * np.exp(bend), 0)
    return replace(
        alignment,
        depth_map=DepthMap(
            camera=depth_map.camera,
            depth=depth.astype(np.float32),
            normals=depth_map.normals,
            sigma=np.where(known, depth * sigma, 0).astype(np.float32),
        ),
    )


def _sampled(view: View, alignment: Alignment) -> _State:
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
    variance = small.between(field.waves.variance_at_nodes(field.root), log_depth)
    size = len(field.root)
    return _State(
        view=view,
        camera=Camera(K, len(columns), len(rows)),
        log_depth=log_depth,
        usable=usable,
        sigma=sigma,
        noise=field.noise.tau,
        own_variance=variance,
        waves=field.waves,
        root=field.root,
        whitened=np.zeros(size),
        precision=np.eye(size),
        start=log_depth.copy(),
    )


def _near_edges(depth: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns True within 3 pixels of a depth edge, where predictions mix surfaces."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(depth_edges(depth), iterations=3)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Samples of one view against other views."""

    index: np.ndarray
    """Row of the sample among the view's compared ones."""

    residual: Float64[np.ndarray, "n"]
    gain: Float64[np.ndarray, "n"]
    variance: Float64[np.ndarray, "n"]
    """For weights: of both predictions, and of the other view's correction as often as it is sampled."""


def _neighbours(states: Sequence[_State]) -> list[list[int]]:
    """Returns for each view the others that see most of the same surface from another side."""
    found = []
    for i, state in enumerate(states):
        shares = []
        for j, other in enumerate(states):
            if i != j:
                shares.append((-_shared(state, other), j))
        found.append([j for share, j in sorted(shares)[:NEIGHBOURS] if -share >= MIN_SHARED])
    return found


def _shared(state: _State, other: _State) -> float:
    """Returns the share of a view's samples that another sees at a useful angle, at about their depth."""
    every = 3  # samples; enough for a share
    uv, log_depth = _pixels(state)[::every], state.log_depth[state.compared][::every]
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


def _pixels(state: _State) -> Float64[np.ndarray, "n 2"]:
    v, u = np.nonzero(state.compared)
    return np.stack([u + 0.5, v + 0.5], axis=1)


@dataclass(frozen=True, eq=False)
class _Moved:
    residual: Float64[np.ndarray, "n"]
    seen: Bool[np.ndarray, "n"]
    pixel: np.ndarray
    """(n, 2), row and column of the nearest sample of the other view."""


def _moved(
    state: _State, other: _State, uv: Float64[np.ndarray, "n 2"], log_depth: Float64[np.ndarray, "n"]
) -> _Moved:
    """Returns L - l_j of samples moved to another view; interpolated in disparity, exact on planes."""
    j_from_i = other.view.cam_from_world @ invert(state.view.cam_from_world)
    points = transform(j_from_i, unproject(state.camera.K, uv, np.exp(log_depth)))
    ahead = points[:, 2] > 0
    q = project(other.camera.K, np.where(ahead[:, None], points, [0.0, 0.0, 1.0])) - 0.5
    height, width = other.log_depth.shape
    inside = ahead & (q >= 0).all(axis=1) & (q <= [width - 1, height - 1]).all(axis=1)
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


def _compare(state: _State, other: _State) -> _Comparison:
    uv, log_depth = _pixels(state), state.log_depth[state.compared]
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
    of_other = per_cell * other.own_variance[row[chosen], column[chosen]]
    return _Comparison(chosen, here.residual[chosen], gain[chosen], variance + of_other)


def _compare_all(state: _State, others: Sequence[_State]) -> _Comparison:
    parts = [_compare(state, other) for other in others]
    if not parts:
        return _Comparison(np.zeros(0, np.int64), *(np.zeros(0) for _ in range(3)))
    return _Comparison(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("index", "residual", "gain", "variance")
        )
    )


def _update(state: _State, others: Sequence[_State]) -> None:
    """Solves one view's correction with the others as they are."""
    seen = _compare_all(state, others)
    if len(seen.residual) < MIN_COMPARED:
        return
    spread = np.sqrt(state.noise**2 + MIN_RELATIVE**2)
    robust = (1 + (seen.residual / (GATE * spread)) ** 2) ** -2
    weight = robust * seen.gain**2 / seen.variance
    compared = state.compared
    basis = state.sampled_waves.at(_pixels(state), state.start[compared]) @ state.root.T
    current = basis @ state.whitened
    target = current[seen.index] - seen.residual / seen.gain
    total = np.bincount(seen.index, weight, len(basis))
    moment = np.bincount(seen.index, weight * target, len(basis))
    rows = total > 0
    weighted = basis[rows] * np.sqrt(total[rows])[:, None]
    state.precision = np.eye(len(state.root)) + weighted.T @ weighted
    right = weighted.T @ (moment[rows] / np.sqrt(total[rows]))
    state.whitened = np.linalg.solve(state.precision, right)
    bend = state.sampled_waves.total(state.root.T @ state.whitened, state.start)
    state.log_depth = state.start + bend


def _correction(state: _State, before: _Comparison, after: _Comparison) -> Correction:
    from scipy.linalg import solve_triangular

    factor = np.linalg.cholesky(state.precision)
    root = solve_triangular(factor, state.root, lower=True)
    return Correction(
        waves=state.waves,
        coefficients=state.root.T @ state.whitened,
        variance=state.waves.variance_at_nodes(root),
        variance_before=state.waves.variance_at_nodes(state.root),
        compared=len(after.residual),
        disagreement_before=float(np.median(np.abs(before.residual)))
        if len(before.residual)
        else float("nan"),
        disagreement_after=float(np.median(np.abs(after.residual))),
    )
