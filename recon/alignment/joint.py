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

In the end each view is as sure as the others make it, once they agree themselves, apart from what the own
errors of its anchors bring, which the others share; and the residuals tell the noise of the predictions
better than a few anchors did.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from recon.alignment.aligning import Alignment
from recon.alignment.comparison import (
    GATE,
    MIN_RELATIVE,
    Comparison,
    State,
    compare,
    compare_all,
    find_neighbours,
    joined,
    sampled,
)
from recon.alignment.depth import line_variance
from recon.alignment.noise import MIN_ERROR, NORMAL_MEDIAN
from recon.alignment.waves import Waves
from recon.scene import DepthMap, View

SWEEPS = 4
MIN_COMPARED = 50  # samples that a view needs to be changed
NOISE_OF_PAIRS = 0.2  # deviation of the logarithm of the noise that they show: views may err alike
NOISE_OF_ANCHORS = 3.5  # the same, of one anchor: of 60, 0.45 is seen
NOISE_STEPS = 30
SHARED = 0.7  # of the variance that anchors' own errors bring: views weigh the same points differently
TYPICAL_PAIRS = 2  # that each view has besides its own: of few samples, pairs may tell of no noise at all


@dataclass(frozen=True, eq=False)
class Correction:
    """What a view's alignment needs to agree with its neighbours."""

    waves: Waves
    coefficients: Float64[np.ndarray, "m"]
    variances: tuple[Float64[np.ndarray, "nu nv nw"], ...]
    """Of s, for `Waves.summed`: from the anchors alone, with the neighbours, and the part of the first that
    all views have in common."""

    noise: float
    """Relative, of the prediction alone, where neighbours know better than few anchors."""

    compared: int
    """Comparisons with other views that it rests on."""

    disagreement_before: float
    """Median |r| over them."""

    disagreement_after: float


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
                states.append(sampled(view, alignment))
            progress(len(states), total)
        neighbours = find_neighbours(states)
        before = [
            compare_all(state, [states[j] for j in near])
            for state, near in zip(states, neighbours, strict=True)
        ]
        for sweep in range(SWEEPS):
            for index, (state, near) in enumerate(zip(states, neighbours, strict=True)):
                _update(state, [states[j] for j in near])
                progress((1 + sweep) * len(views) + index, total)
        for state in states:
            state.open_variance = _variance(state.sampled_waves, _variances(state), state.predicted)
        parts = [
            [compare(state, states[j]) for j in near] for state, near in zip(states, neighbours, strict=True)
        ]
        noise = _noise(states, neighbours, parts)
        found = {}
        for index, state in enumerate(states):
            after = joined(parts[index])
            if len(after.residual) >= MIN_COMPARED:
                state.precision, _ = _normal_equations(state, after)
                found[state.view.name] = _correction(state, before[index], after, noise[index])
        progress(total, total)
    return found


def corrected(alignment: Alignment, correction: Correction) -> Alignment:
    """Returns an alignment bent as its correction says."""
    depth_map = alignment.depth_map
    known = depth_map.depth > 0
    safe = np.where(known, depth_map.depth, 1).astype(np.float64)
    assert alignment.field is not None
    log_depth = alignment.field.before(np.log(safe))
    waves = correction.waves
    bend = waves.total(correction.coefficients, log_depth)
    before = np.maximum(waves.summed(correction.variances[0], log_depth), 0)
    after = _variance(waves, correction.variances, log_depth)
    of_line = line_variance(alignment.fit, alignment.fit.covariance, np.exp(log_depth))
    before, after = (
        variance + of_line * np.minimum(variance / alignment.field.amplitude**2, 1) ** 2 + tau**2
        for variance, tau in ((before, alignment.field.noise.tau), (after, correction.noise))
    )
    sigma = np.sqrt(after + np.maximum(np.square(depth_map.sigma / safe) - before, 0))
    depth = np.where(known, safe * np.exp(bend), 0)
    noise = replace(alignment.field.noise, tau=correction.noise)
    return replace(
        alignment,
        field=replace(alignment.field, noise=noise),
        depth_map=DepthMap(
            camera=depth_map.camera,
            depth=depth.astype(np.float32),
            normals=depth_map.normals,
            sigma=np.where(known, depth * sigma, 0).astype(np.float32),
        ),
    )


def _update(state: State, others: Sequence[State]) -> None:
    """Solves one view's correction with the others as they are."""
    seen = compare_all(state, others)
    if len(seen.residual) >= MIN_COMPARED:
        state.precision, moment = _normal_equations(state, seen)
        state.whitened = np.linalg.solve(state.precision, moment)
        bend = state.sampled_waves.total(state.root.T @ state.whitened, state.predicted)
        state.log_depth = state.start + bend


def _normal_equations(
    state: State, seen: Comparison
) -> tuple[Float64[np.ndarray, "m m"], Float64[np.ndarray, "m"]]:
    """Returns the precision of the whitened coefficients that comparisons tell, and its product with them."""
    spread = np.sqrt(state.noise**2 + MIN_RELATIVE**2)
    robust = (1 + (seen.residual / (GATE * spread)) ** 2) ** -2
    weight = robust * seen.gain**2 / seen.variance
    compared = state.compared
    current = (state.log_depth - state.start)[compared]
    target = current[seen.index] - seen.residual / seen.gain
    total, moment = np.zeros(compared.shape), np.zeros(compared.shape)
    total[compared] = np.bincount(seen.index, weight, len(current))
    moment[compared] = np.bincount(seen.index, weight * target, len(current))
    waves = state.sampled_waves
    precision = state.root @ waves.gram(total, state.predicted) @ state.root.T
    return np.eye(len(precision)) + precision, state.root @ waves.moment(moment, state.predicted)


def _variances(state: State) -> tuple[Float64[np.ndarray, "nu nv nw"], ...]:
    """Returns the variances of a view as its correction has them."""
    from scipy.linalg import solve_triangular

    root = solve_triangular(np.linalg.cholesky(state.precision), state.root, lower=True)
    return state.variance, state.waves.variance(root), state.shared


def _variance(
    waves: Waves,
    variances: tuple[Float64[np.ndarray, "nu nv nw"], ...],
    log_depth: Float64[np.ndarray, "h w"],
) -> Float64[np.ndarray, "h w"]:
    """Returns the variance of s at every pixel once views agree: what they have in common stays."""
    own, agreed, shared = (np.maximum(waves.summed(one, log_depth), 0) for one in variances)
    shared = np.minimum(SHARED * shared, own)
    return shared + np.where(own > 0, 1 - shared / np.where(own > 0, own, 1), 0) * agreed


def _noise(
    states: Sequence[State], neighbours: Sequence[Sequence[int]], parts: Sequence[Sequence[Comparison]]
) -> Float64[np.ndarray, "v"]:
    """Returns the noise of each view's prediction: what its anchors and its neighbours show, weighed.

    Residuals of views i and j have the variance n_i + n_j; steps by the mean ratio of what is found to what
    n says lead to the n that fit all pairs, and typical ones.
    """
    noise = np.array([state.noise for state in states])
    pairs = [
        (i, j, float(np.median(np.abs(part.residual))) / NORMAL_MEDIAN)
        for i, near in enumerate(neighbours)
        for j, part in zip(near, parts[i], strict=True)
        if len(part.residual) >= MIN_COMPARED
    ]
    if not pairs:
        return noise
    first, second, spread = (np.array(column) for column in zip(*pairs, strict=True))
    both = np.concatenate([first, second])
    count = np.bincount(both, minlength=len(noise))
    typical = max(float(np.median(spread**2)) / 2, MIN_ERROR**2)
    variance = np.full(len(noise), typical)
    for _ in range(NOISE_STEPS):
        ratio = spread**2 / (variance[first] + variance[second])
        mean = np.bincount(both, np.tile(ratio, 2), len(noise)) / np.maximum(count, 1)
        variance = np.maximum(variance * np.where(count > 0, mean, 1), MIN_ERROR**2)
    variance = (count * variance + TYPICAL_PAIRS * typical) / (count + TYPICAL_PAIRS)
    anchors = np.array([state.anchors for state in states])
    trust = np.where(count > 0, 1 / (1 + NOISE_OF_PAIRS**2 * anchors / NOISE_OF_ANCHORS**2), 0)
    return noise ** (1 - trust) * variance ** (trust / 2)


def _correction(state: State, before: Comparison, after: Comparison, noise: float) -> Correction:
    return Correction(
        waves=state.waves,
        coefficients=state.root.T @ state.whitened,
        variances=_variances(state),
        noise=float(noise),
        compared=len(after.residual),
        disagreement_before=float(np.median(np.abs(before.residual)))
        if len(before.residual)
        else float("nan"),
        disagreement_after=float(np.median(np.abs(after.residual))),
    )
