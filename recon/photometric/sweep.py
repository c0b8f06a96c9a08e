"""The narrow sweep: for each pixel, the plane at a few inverse depths around the prior, and the best of them.

With w the inverse depth, w0 and s the prior's value and standard deviation, C the cost of `cost.py` in the
better half of the views that see the plane:

    w1 = argmin C(w) + p (w - w0)^2 / (2 s^2)     over |w - w0| <= band * s, in steps of under a pixel
    w* = vertex of the parabola through C~ at w1 - h, w1, w1 + h

where C~ is the mean over the views that agree at w1, and h half a pixel. The prior only chooses between
minima; where they are, the photos alone say. The standard deviation is that of a least squares fit of two
normalised patches, whose residual is the cost (C = |r - s|^2 / 2 for unit patches r and s):

    Var(w*) = 2 C~(w*) / (N V C~''(w*))

with N the effective number of taps and V the views.
"""

from typing import Any, no_type_check

import numpy as np

from recon.photometric.cost import INVALID, TAPS, better_half, pair_cost, take_patch, view_costs
from recon.photometric.jit import compiled

MAX_SIDE = 24  # samples to either side of the prior at most
STEP_PX = 0.7  # between samples, in the view that moves most
FIT_PX = 0.6  # between the samples of the parabola
FIT_ROUNDS = 3
SECOND_AT_PX = 1.5  # another minimum must be so far away to be another one

# What became of a pixel.
ACCEPTED, NO_PRIOR, UNSEEN, BLANK, BORDER, POOR, AMBIGUOUS, FLAT = range(8)


@compiled
@no_type_check
def motion_px(pairs: Any, frames: Any, place: Any, w: Any) -> Any:
    """Returns the largest motion over the other views, px per unit of inverse depth; 0 if none sees it."""
    largest = 0.0
    for j in range(len(pairs)):
        pair = pairs[j]
        x = pair[0] * place[0] + pair[1] * place[1] + pair[2] + w * pair[9]
        y = pair[3] * place[0] + pair[4] * place[1] + pair[5] + w * pair[10]
        z = pair[6] * place[0] + pair[7] * place[1] + pair[8] + w * pair[11]
        if z <= 0:
            continue
        x, y = x / z, y / z
        if x < 0 or y < 0 or x > frames[j, 1] or y > frames[j, 2]:
            continue
        largest = max(largest, np.hypot(pair[9] - x * pair[11], pair[10] - y * pair[11]) / z)
    return largest


@compiled
@no_type_check
def agreeing_cost(sources: Any, place: Any, plane: Any, patch: Any, agrees: Any) -> Any:
    """Returns the mean cost over the views that agree; INVALID where one of them does not see the plane."""
    pixels, frames, pairs = sources
    total, count = np.float32(0), 0
    for j in range(len(frames)):
        if agrees[j]:
            cost = pair_cost(pixels, frames[j], pairs[j], place, plane, patch)
            if cost >= INVALID:
                return INVALID
            total += cost
            count += 1
    return total / np.float32(count)


@compiled
@no_type_check
def fit_parabola(sources: Any, place: Any, plane: Any, patch: Any, agrees: Any, step: Any) -> Any:
    """Moves plane[0] to the vertex of the cost; returns the cost there and its second derivative (0: none)."""
    middle = agreeing_cost(sources, place, plane, patch, agrees)
    curvature = 0.0
    for _ in range(FIT_ROUNDS):
        w = plane[0]
        plane[0] = w - step
        below = agreeing_cost(sources, place, plane, patch, agrees)
        plane[0] = w + step
        above = agreeing_cost(sources, place, plane, patch, agrees)
        plane[0] = w
        bend = below + above - 2 * middle
        if bend <= 0 or below >= INVALID or above >= INVALID:
            return middle, 0.0
        move = 0.5 * (below - above) / bend
        curvature = bend / (step * step)
        if abs(move) <= 1:
            plane[0] = w + move * step
            return middle - 0.25 * (below - above) * move, curvature
        plane[0] = w + np.sign(move) * step
        middle = above if move > 0 else below
    return middle, 0.0


@compiled
@no_type_check
def sweep_rows(
    start: int, stop: int, grey: Any, planes: Any, bands: Any, sources: Any, limits: Any, found: Any
) -> None:
    """Sweeps some rows.

    Args:
        start: First row.
        stop: One past the last.
        grey: The reference, smoothed.
        planes: w, wu, wv per pixel; w = 0 where there is no prior.
        bands: Standard deviation of w per pixel.
        sources: Pixels, frames and pairs of the other views, as of `cost.pair_cost`.
        limits: Half width of the band in standard deviations; weight of the prior; least spread of grey
            levels; largest cost; least ratio of the second minimum to the best.
        found: Changed in place: w, cost, variance of w, motion in px per unit of w; and what became of it.
    """
    band, weight, least_spread, largest_cost, least_ratio = limits
    numbers, outcome = found
    pixels, frames, pairs = sources
    patch = np.empty((3, TAPS), np.float32)
    costs = np.empty(len(frames), np.float32)
    agrees = np.empty(len(frames), np.bool_)
    curve = np.empty(2 * MAX_SIDE + 1, np.float64)
    plane, place = np.empty(3), np.empty(2)
    for row in range(start, stop):
        for column in range(grey.shape[1]):
            w0, sigma = np.float64(planes[row, column, 0]), np.float64(bands[row, column])
            if not (w0 > 0 and sigma > 0):
                outcome[row, column] = NO_PRIOR
                continue
            place[0], place[1] = column + 0.5, row + 0.5
            plane[1], plane[2] = planes[row, column, 1], planes[row, column, 2]
            motion = motion_px(pairs, frames, place, w0)
            numbers[row, column, 3] = motion
            if motion <= 0:
                outcome[row, column] = UNSEEN
                continue
            mean, spread, taps = take_patch(grey, row, column, patch[0], patch[1])
            patch[2, 0], patch[2, 1] = mean, spread
            if spread < least_spread:
                outcome[row, column] = BLANK
                continue
            half = min(band * sigma, 0.9 * w0)
            side = min(max(np.int64(np.ceil(half * motion / STEP_PX)), 2), MAX_SIDE)
            step = half / side
            best, best_at = np.inf, -1
            for k in range(2 * side + 1):
                plane[0] = w0 + (k - side) * step
                away = (plane[0] - w0) / sigma
                cost = view_costs(pixels, frames, pairs, place, plane, patch, costs)
                curve[k] = cost + (0.5 * weight * away * away if cost < INVALID else 0.0)
                if curve[k] < best:
                    best, best_at = curve[k], k
            if best >= INVALID:
                outcome[row, column] = UNSEEN
                continue
            if best_at in (0, 2 * side):
                outcome[row, column] = BORDER
                continue
            second, apart = np.inf, max(2, np.int64(np.ceil(SECOND_AT_PX / (step * motion))))
            for k in range(1, 2 * side):
                if abs(k - best_at) >= apart and curve[k] <= curve[k - 1] and curve[k] <= curve[k + 1]:
                    second = min(second, curve[k])
            plane[0] = w0 + (best_at - side) * step
            cost = view_costs(pixels, frames, pairs, place, plane, patch, costs)
            views = 0
            for j in range(len(frames)):
                agrees[j] = costs[j] <= min(2 * cost + 0.05, largest_cost)
                views += agrees[j]
            if views == 0:
                outcome[row, column] = POOR
                continue
            lowest, curvature = fit_parabola(sources, place, plane, patch, agrees, FIT_PX / motion)
            numbers[row, column, 1] = lowest
            if curvature <= 0:
                outcome[row, column] = FLAT
                continue
            if second < least_ratio * best:
                outcome[row, column] = AMBIGUOUS
                continue
            numbers[row, column, 0] = plane[0]
            numbers[row, column, 2] = 2 * max(lowest, 1e-4) / (taps * views * curvature)
            outcome[row, column] = ACCEPTED
