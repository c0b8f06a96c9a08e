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
from jaxtyping import Float64

from recon.alignment.aligning import Alignment
from recon.alignment.comparison import (
    GATE,
    MIN_RELATIVE,
    Comparison,
    State,
    compare_all,
    find_neighbours,
    sampled,
)
from recon.alignment.waves import Waves
from recon.scene import DepthMap, View

SWEEPS = 4
MIN_KEPT_VARIANCE = 0.2  # share of a pixel's variance that agreement with others cannot take away
MIN_COMPARED = 50  # samples that a view needs to be changed


@dataclass(frozen=True, eq=False)
class Correction:
    """What a view's alignment needs to agree with its neighbours."""

    waves: Waves
    coefficients: Float64[np.ndarray, "m"]
    variance: Float64[np.ndarray, "nu nv nw"]
    """Of the corrected view, for `Waves.summed`."""

    variance_before: Float64[np.ndarray, "nu nv nw"]
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
        found = {}
        for state, near, first in zip(states, neighbours, before, strict=True):
            after = compare_all(state, [states[j] for j in near])
            if len(after.residual) >= MIN_COMPARED:
                found[state.view.name] = _correction(state, first, after)
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
    change = waves.summed(correction.variance - correction.variance_before, log_depth)
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


def _update(state: State, others: Sequence[State]) -> None:
    """Solves one view's correction with the others as they are."""
    seen = compare_all(state, others)
    if len(seen.residual) < MIN_COMPARED:
        return
    spread = np.sqrt(state.noise**2 + MIN_RELATIVE**2)
    robust = (1 + (seen.residual / (GATE * spread)) ** 2) ** -2
    weight = robust * seen.gain**2 / seen.variance
    compared = state.compared
    basis = state.sampled_waves.at(state.compared_uv, state.predicted[compared]) @ state.root.T
    current = basis @ state.whitened
    target = current[seen.index] - seen.residual / seen.gain
    total = np.bincount(seen.index, weight, len(basis))
    moment = np.bincount(seen.index, weight * target, len(basis))
    rows = total > 0
    weighted = basis[rows] * np.sqrt(total[rows])[:, None]
    state.precision = np.eye(len(state.root)) + weighted.T @ weighted
    right = weighted.T @ (moment[rows] / np.sqrt(total[rows]))
    state.whitened = np.linalg.solve(state.precision, right)
    bend = state.sampled_waves.total(state.root.T @ state.whitened, state.predicted)
    state.log_depth = state.start + bend


def _correction(state: State, before: Comparison, after: Comparison) -> Correction:
    from scipy.linalg import solve_triangular

    factor = np.linalg.cholesky(state.precision)
    root = solve_triangular(factor, state.root, lower=True)
    own, agreed = state.waves.variance(state.root), state.waves.variance(root)
    return Correction(
        waves=state.waves,
        coefficients=state.root.T @ state.whitened,
        variance=state.shared * own + (1 - state.shared) * agreed,
        variance_before=own,
        compared=len(after.residual),
        disagreement_before=float(np.median(np.abs(before.residual)))
        if len(before.residual)
        else float("nan"),
        disagreement_after=float(np.median(np.abs(after.residual))),
    )
