"""A line through points with many outliers: exact start, robust fit, covariance, held-out errors.

The objective is that of `recon.alignment`, steps 1 to 3, with names of a plain regression: y = a * x + b.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from recon.alignment.noise import GEMAN_MCCLURE_WIDTH, Noise, estimate_noise
from recon.alignment.points import FOLDS, TILES, Points, evenly, folds

TYPICAL_ERROR = 0.05  # relative depth error of a good monocular prediction; sets the truncation of the start
MIN_NEAR = 0.5  # share of points within a deviation that keeps a rising line where the refined one falls
TRUNCATION = 2.5  # standard deviations; residuals beyond it cost the same at the start
CHOICE_WIDTH = 2.0  # times the deviations: a prediction bent that much is likelier than a part all wrong
MAX_PIVOTS = 100  # points through which lines are tried
MAX_START_POINTS = 1500  # points that judge those lines
MIN_SPREAD_OF_FOLD = 0.01  # share of the range of x that a training set must span
MIN_JUDGED = 5  # points that a held-out fit or a noise estimate needs
NOISE_ROUNDS = 3
MAX_REWEIGHTINGS = 100
CONVERGED = 1e-9  # standard deviations


@dataclass(frozen=True, eq=False)
class Line:
    """y = scale * x + shift, fitted."""

    scale: float
    shift: float
    covariance: Float64[np.ndarray, "2 2"]
    hidden: Float64[np.ndarray, "2 2"]
    """Part of the covariance that is no error at the points, but what they cannot show of the slope."""

    noise: Noise
    """As held-out residuals show it, where that is more than the fit's own residuals do."""

    inliers: Bool[np.ndarray, "n"]
    held_out: Float64[np.ndarray, "n"]
    """y as fits to the other folds predict it; NaN where those folds cannot carry a fit."""

    fold_lines: Float64[np.ndarray, "f 2"]
    """Scale and shift of the fits without each fold; NaN where there is none."""


def fit_line(points: Points, *, with_shift: bool, lowest: float = np.nan) -> Line:
    """Returns the robust line through points; its scale is 0 or less where y falls with x.

    Args:
        points: At least 2, in an order that does not depend on how they came.
        with_shift: False fits y = scale * x.
        lowest: x at which y must stay positive, if any line of the start allows it; NaN for no such x.
    """
    noise = Noise(TYPICAL_ERROR, 1.0, float(np.median(points.unit)))
    start = _truncated_l1(points, noise.spread(points), with_shift, lowest)
    line = _refined(points, start, noise, with_shift)
    residuals = points.y - start[0] * points.x - start[1]
    near = np.abs(residuals) <= noise.spread(points)
    if line.scale > 0 or start[0] <= 0 or near.mean() < MIN_NEAR:
        return line
    # a scene of less depth than the prediction bends by: the best rising line is as good as any
    return replace(
        line,
        scale=start[0],
        shift=start[1],
        inliers=np.abs(residuals) <= GEMAN_MCCLURE_WIDTH * noise.spread(points),
        held_out=points.y - residuals,
        fold_lines=np.tile(start, (FOLDS, 1)),
    )


def _refined(points: Points, start: tuple[float, float], noise: Noise, with_shift: bool) -> Line:
    scale, shift = start
    for _ in range(NOISE_ROUNDS):
        noise = estimate_noise(points.y - scale * points.x - shift, points)
        scale, shift = _geman_mcclure(points, noise.spread(points), (scale, shift), with_shift)
    spread = noise.spread(points)
    residuals = points.y - scale * points.x - shift
    fold_lines = _fold_lines(points, spread, (scale, shift), with_shift)
    scales, shifts = fold_lines[folds(points.tile)].T
    held_out = scales * points.x + shifts
    judged = np.isfinite(held_out)
    if judged.sum() >= MIN_JUDGED:
        outside = estimate_noise((points.y - held_out)[judged], points.take(judged))
        noise = max(noise, outside, key=lambda one: one.tau)
    hidden = _hidden_slope(points, scale, with_shift)
    return Line(
        scale=scale,
        shift=shift,
        covariance=_covariance(points, spread, residuals, with_shift) + hidden,
        hidden=hidden,
        noise=noise,
        inliers=np.abs(residuals) <= GEMAN_MCCLURE_WIDTH * spread,
        held_out=held_out,
        fold_lines=fold_lines,
    )


def _truncated_l1(
    points: Points, spread: Float64[np.ndarray, "n"], with_shift: bool, lowest: float
) -> tuple[float, float]:
    """Returns the line of smallest sum_k min(|y_k - a x_k - b| / s_k, T)^2 over a > 0, of one per pivot.

    Through each pivot, a point, or the origin where there is no shift, that of the smallest sum without the
    square, exactly. The square chooses among them: where most points lie on one wall, the line without slope
    fits those far better than the prediction is right, and costs all others. Lines that are not positive at
    `lowest` are out, unless all are. Where no line rises, the returned scale is 0.
    """
    chosen = evenly(len(points.x), MAX_START_POINTS)
    x, y, s = points.x[chosen], points.y[chosen], spread[chosen]
    pivot_x, pivot_y = np.zeros((1, 1)), np.zeros((1, 1))
    if with_shift:
        pivots = np.lexsort((y, x))[evenly(len(x), MAX_PIVOTS)]
        pivot_x, pivot_y = x[pivots, None], y[pivots, None]
    kinks, cost = _costs_through(x - pivot_x, y - pivot_y, s)
    rising = kinks > 0
    possible = rising & ~(kinks * (lowest - pivot_x) + pivot_y <= 0)  # NaN compares as possible
    cost = np.where(possible if possible.any() else rising, cost, np.inf)
    slopes = np.take_along_axis(kinks, cost.argmin(axis=1)[:, None], axis=1)  # (pivots, 1)
    away = np.minimum(np.abs(y - pivot_y - slopes * (x - pivot_x)) / (CHOICE_WIDTH * s), TRUNCATION)
    exact = np.square(away).sum(axis=1)
    exact = np.where(np.isfinite(cost).any(axis=1), exact, np.inf)
    winner = int(exact.argmin())
    scale = float(slopes[winner, 0]) if np.isfinite(exact[winner]) else 0.0
    return scale, float(pivot_y[winner, 0] - scale * pivot_x[winner, 0])


def _costs_through(
    run: Float64[np.ndarray, "m n"], rise: Float64[np.ndarray, "m n"], spread: Float64[np.ndarray, "n"]
) -> tuple[Float64[np.ndarray, "m k"], Float64[np.ndarray, "m k"]]:
    """Returns the slopes at which the cost of lines through each of m pivots bends, and the cost there.

    With run and rise from the pivot, a point's cost falls from a = (rise - T s) / run to rise / run, rises to
    (rise + T s) / run and is flat elsewhere; sorted kinks and two cumulative sums give the total. The cost is
    relative to that of a line on which every point is an outlier.
    """
    rise, run = np.where(run < 0, -rise, rise), np.abs(run)
    moves = run > 0  # the pivot itself fits every line
    divisor = np.where(moves, run, 1.0)
    margin = TRUNCATION * spread
    kinks = np.concatenate([(rise - margin) / divisor, rise / divisor, (rise + margin) / divisor], axis=1)
    turns = np.concatenate([-run / spread, 2 * run / spread, -run / spread], axis=1)
    order = np.argsort(kinks, axis=1, kind="stable")
    kinks, turns = np.take_along_axis(kinks, order, axis=1), np.take_along_axis(turns, order, axis=1)
    changes = np.cumsum(turns, axis=1)[:, :-1] * np.diff(kinks, axis=1)
    return kinks, np.concatenate([np.zeros_like(kinks[:, :1]), np.cumsum(changes, axis=1)], axis=1)


def _geman_mcclure(
    points: Points, spread: Float64[np.ndarray, "n"], start: tuple[float, float], with_shift: bool
) -> tuple[float, float]:
    """Returns the minimum of sum_k u_k^2 / (u_k^2 + c^2), u = residual / spread, that `start` leads to."""
    scale, shift = start
    for _ in range(MAX_REWEIGHTINGS):
        before = scale * points.x + shift
        scale, shift = _least_squares(points, _robust_weights(points.y - before, spread), with_shift)
        if (np.abs(scale * points.x + shift - before) <= CONVERGED * spread).all():
            break
    return scale, shift


def _robust_weights(
    residuals: Float64[np.ndarray, "n"], spread: Float64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n"]:
    return (1 + (residuals / (GEMAN_MCCLURE_WIDTH * spread)) ** 2) ** -2 / spread**2


def _least_squares(
    points: Points, weights: Float64[np.ndarray, "n"], with_shift: bool
) -> tuple[float, float]:
    x, y = points.x, points.y
    if not with_shift:
        return float((weights * x * y).sum() / (weights * x * x).sum()), 0.0
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    spread = (weights * (x - mean_x) ** 2).sum()
    scale = (weights * (x - mean_x) * (y - mean_y)).sum() / spread if spread > 0 else np.nan
    return float(scale), float(mean_y - scale * mean_x)


def _fold_lines(
    points: Points, spread: Float64[np.ndarray, "n"], start: tuple[float, float], with_shift: bool
) -> Float64[np.ndarray, "f 2"]:
    fold = folds(points.tile)
    lines = np.full((FOLDS, 2), np.nan)
    for held_out in range(FOLDS):
        kept = fold != held_out
        if kept.sum() < MIN_JUDGED or np.ptp(points.x[kept]) <= MIN_SPREAD_OF_FOLD * np.ptp(points.x):
            continue
        lines[held_out] = _geman_mcclure(points.take(kept), spread[kept], start, with_shift)
    return lines


def _hidden_slope(points: Points, scale: float, with_shift: bool) -> Float64[np.ndarray, "2 2"]:
    """Returns the covariance of a slope that a typical error of x would hide, about the points' mean.

    On a wall that faces the camera y is the same everywhere, whatever x: residuals look small, the slope is
    0, and neither says anything of what stands before the wall.
    """
    spread = float(np.std(points.x))
    hidden = TYPICAL_ERROR * float(np.median(points.unit)) - abs(scale) * spread
    if not with_shift or hidden <= 0:
        return np.zeros((2, 2))
    lever = np.array([1.0, -float(np.mean(points.x))]) * hidden / max(spread, np.finfo(float).tiny)
    return np.outer(lever, lever)


def _covariance(
    points: Points,
    spread: Float64[np.ndarray, "n"],
    residuals: Float64[np.ndarray, "n"],
    with_shift: bool,
) -> Float64[np.ndarray, "2 2"]:
    """Returns the covariance of (scale, shift), grown for residuals that agree within a tile.

    (J^T W J)^-1 takes residuals for independent; those of a smooth bend are not. The design effect (Kish
    1965) with tiles as clusters, where above 1, multiplies it.
    """
    size = 2 if with_shift else 1
    jacobian = np.stack([points.x, np.ones_like(points.x)], axis=1)[:, :size]
    weights = _robust_weights(residuals, spread)
    inverse = np.linalg.inv(jacobian.T @ (weights[:, None] * jacobian))
    scores = np.zeros((TILES**2, size))
    np.add.at(scores, points.tile, jacobian * (weights * residuals)[:, None])
    effect = float(np.trace(inverse @ scores.T @ scores)) / size
    covariance = np.zeros((2, 2))
    covariance[:size, :size] = inverse * max(1.0, effect)
    return covariance
