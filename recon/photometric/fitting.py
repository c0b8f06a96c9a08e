"""Where exactly the best match is, how sure that is, and whether it is one.

Through the cost C~ of the views that agree at the best plane goes a parabola, at steps h of half a pixel:

    w* = w - h (C+ - C-) / (2 C''h^2),   C'' h^2 = C+ + C- - 2 C

Its standard deviation is that of a least squares fit of two normalised patches, whose residual is the cost
(C = |r - s|^2 / 2 for unit vectors r and s): Var(w*) = 2 C~(w*) / (N V C~''), with N the effective number of
taps and V the views.
"""

from typing import Any, no_type_check

import numpy as np

from recon.jit import compiled
from recon.photometric.cost import (
    COSTS,
    INVALID,
    TAPS,
    TAPS_U,
    TAPS_V,
    WEIGHTS,
    make_work,
    pair_cost,
    take_patch,
    view_costs,
)

STEP_PX = 0.6  # between the samples of the parabola
ROUNDS = 4
MAX_COST = 0.4  # of a match: an NCC of 0.6
MIN_RATIO = 1.1  # of the second minimum to the best
MAX_OFF_CENTRE_PX = 2.0  # where the texture may lie: farther off, it is something else's
VAGUE = 0.2  # relative sigma of a prior that does not know what it sees: clipped, hidden
SURER = 3.0  # times: so much smaller is it on a thing that stands before
LEAST_COST = 1e-4  # no match is better: rounding to grey levels

# What became of a pixel.
ACCEPTED, NO_PRIOR, UNSEEN, BLANK, BORDER, POOR, AMBIGUOUS, FLAT, BESIDE = range(9)


@compiled
@no_type_check
def texture_centre(energy: Any, row: int, column: int, work: Any) -> Any:
    """Returns how far from the patch's middle its texture lies, px: the centre of the squared gradients."""
    total, sum_u, sum_v = np.float32(1e-6), np.float32(0), np.float32(0)
    for i in range(TAPS):
        v = min(max(row + np.int32(TAPS_V[i]), 0), energy.shape[0] - 1)
        u = min(max(column + np.int32(TAPS_U[i]), 0), energy.shape[1] - 1)
        weight = work[WEIGHTS, i] * energy[v, u]
        total += weight
        sum_u, sum_v = sum_u + weight * TAPS_U[i], sum_v + weight * TAPS_V[i]
    return sum_u / total, sum_v / total


@compiled
@no_type_check
def is_of_what_is_known(planes: Any, bands: Any, row: int, column: int, centre: Any) -> bool:
    """Returns whether the prior knows the depth around the texture, and next to nothing of the pixel's.

    Beside a silhouette, a patch of a blank background holds the silhouette alone, and matches where that is.
    """
    height, width = bands.shape
    r, c = row + np.int64(np.rint(centre[1])), column + np.int64(np.rint(centre[0]))
    least = np.inf
    for v in range(max(r - 1, 0), min(r + 2, height)):
        for u in range(max(c - 1, 0), min(c + 2, width)):
            if planes[v, u, 0] > 0:
                least = min(least, bands[v, u] / planes[v, u, 0])
    w = planes[row, column, 0]
    return w > 0 and bands[row, column] > max(VAGUE, SURER * least) * w


@compiled
@no_type_check
def agreeing_cost(pixels: Any, views: Any, agrees: Any, plane: Any, work: Any) -> Any:
    """Returns the mean cost over the views that agree; INVALID where one of them does not see the plane."""
    total, count = np.float32(0), 0
    for j in range(len(views)):
        if agrees[j]:
            cost = pair_cost(pixels, views, j, plane, work)
            if cost >= INVALID:
                return INVALID
            total += cost
            count += 1
    return total / np.float32(count)


@compiled
@no_type_check
def fit_parabola(pixels: Any, views: Any, agrees: Any, plane: Any, step: Any, work: Any) -> Any:
    """Moves plane[0] to the vertex of the cost; returns cost and second derivative there (0: no vertex)."""
    middle = agreeing_cost(pixels, views, agrees, plane, work)
    for _ in range(ROUNDS):
        w = plane[0]
        plane[0] = w - step
        below = agreeing_cost(pixels, views, agrees, plane, work)
        plane[0] = w + step
        above = agreeing_cost(pixels, views, agrees, plane, work)
        plane[0] = w
        bend = below + above - 2 * middle
        if below >= INVALID or above >= INVALID:
            return middle, 0.0
        if bend > 0:
            move = 0.5 * (below - above) / bend
            if abs(move) <= 1:
                plane[0] = w + move * step
                return middle - 0.25 * (below - above) * move, bend / (step * step)
        plane[0] = w + step if above < below else w - step
        middle = min(above, below)
    return middle, 0.0


@compiled
@no_type_check
def measure_rows(start: int, stop: int, photo: Any, others: Any, state: Any, found: Any) -> None:
    """Fits and judges some rows; `others` and `state` as of `sweep.sweep_rows`.

    Args:
        start: First row.
        stop: One past the last.
        photo: Grey levels and colours, smoothed; squared gradients; how far off centre the texture may be;
            the prior as of `sweep.sweep_rows`.
        others: Other views.
        state: Best planes; changed in place.
        found: w, cost and variance of w per pixel, and what became of it; changed in place.
    """
    (grey, colors, energy, max_off_centre, prior_planes, prior_bands), (pixels, views) = photo, others
    planes, scores, ratios, motions = state
    numbers, outcome = found
    work, plane, agrees = make_work(len(views)), np.empty(5), np.empty(len(views), np.bool_)
    for row in range(start, stop):
        for column in range(grey.shape[1]):
            motion = motions[row, column]
            if motion <= 0 or scores[row, column] >= INVALID:
                outcome[row, column] = BLANK if motion < 0 else UNSEEN
                continue
            plane[3], plane[4] = column + 0.5, row + 0.5
            for i in range(3):
                plane[i] = planes[row, column, i]
            taps = take_patch(grey, colors, row, column, work)
            cost = view_costs(pixels, views, plane, work)
            agreeing = 0
            for j in range(len(views)):
                agrees[j] = work[COSTS, j] <= min(2 * cost + 0.05, MAX_COST)
                agreeing += agrees[j]
            if agreeing == 0:
                outcome[row, column] = POOR
                continue
            lowest, curvature = fit_parabola(pixels, views, agrees, plane, STEP_PX / motion, work)
            planes[row, column, 0] = plane[0]
            numbers[row, column, 0], numbers[row, column, 1] = plane[0], lowest
            centre = texture_centre(energy, row, column, work)
            if np.hypot(centre[0], centre[1]) > max_off_centre or is_of_what_is_known(
                prior_planes, prior_bands, row, column, centre
            ):
                outcome[row, column] = BESIDE
            elif curvature <= 0:
                outcome[row, column] = FLAT
            elif ratios[row, column] < MIN_RATIO:
                outcome[row, column] = AMBIGUOUS
            else:
                numbers[row, column, 2] = 2 * max(lowest, LEAST_COST) / (taps * agreeing * curvature)
                outcome[row, column] = ACCEPTED
