"""Where exactly the best match is, how sure that is, and whether it is one.

Through the cost C~ of the views that agree at the best plane goes a parabola, at steps h of half a pixel:

    w* = w - h (C+ - C-) / (2 C''h^2),   C'' h^2 = C+ + C- - 2 C

Its standard deviation is that of a least squares fit of two normalised patches, whose residual is the cost
(C = |r - s|^2 / 2 for unit vectors r and s): Var(w*) = 2 C~(w*) / (N V C~''), with N the effective number of
taps and V the views.
"""

from typing import Any, no_type_check

import numpy as np

from recon.photometric.cost import INVALID, TAPS, pair_cost, take_patch, view_costs
from recon.photometric.jit import compiled
from recon.photometric.sweep import BAND_SIGMAS

STEP_PX = 0.6  # between the samples of the parabola
ROUNDS = 4
MAX_COST = 0.4  # of a match: an NCC of 0.6
MIN_RATIO = 1.1  # of the second minimum to the best
LEAST_COST = 1e-4  # no match is better: rounding to grey levels

# What became of a pixel.
ACCEPTED, NO_PRIOR, UNSEEN, BLANK, BORDER, POOR, AMBIGUOUS, FLAT = range(8)


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
    for _ in range(ROUNDS):
        w = plane[0]
        plane[0] = w - step
        below = agreeing_cost(sources, place, plane, patch, agrees)
        plane[0] = w + step
        above = agreeing_cost(sources, place, plane, patch, agrees)
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
def measure_rows(
    start: int, stop: int, photo: Any, prior: Any, sources: Any, state: Any, found: Any
) -> None:
    """Fits and judges some rows; arguments as of `sweep.sweep_rows`.

    `found` is changed in place: w, cost, variance of w per pixel, and what became of it.
    """
    grey, _ = photo
    planes, scores, ratios, motions = state
    pixels, frames, pairs = sources
    numbers, outcome = found
    patch, costs = np.empty((3, TAPS), np.float32), np.empty(len(frames), np.float32)
    agrees = np.empty(len(frames), np.bool_)
    plane, place = np.empty(3), np.empty(2)
    for row in range(start, stop):
        for column in range(grey.shape[1]):
            motion = motions[row, column]
            if motion <= 0 or scores[row, column] >= INVALID:
                outcome[row, column] = BLANK if motion < 0 else UNSEEN
                continue
            place[0], place[1] = column + 0.5, row + 0.5
            plane[0], plane[1], plane[2] = planes[row, column]
            patch[2, 0], patch[2, 1], taps = take_patch(grey, row, column, patch[0], patch[1])
            cost = view_costs(pixels, frames, pairs, place, plane, patch, costs)
            views = 0
            for j in range(len(frames)):
                agrees[j] = costs[j] <= min(2 * cost + 0.05, MAX_COST)
                views += agrees[j]
            if views == 0:
                outcome[row, column] = POOR
                continue
            lowest, curvature = fit_parabola(sources, place, plane, patch, agrees, STEP_PX / motion)
            planes[row, column, 0] = plane[0]
            numbers[row, column, 0], numbers[row, column, 1] = plane[0], lowest
            if curvature <= 0:
                outcome[row, column] = FLAT
            elif ratios[row, column] < MIN_RATIO:
                outcome[row, column] = AMBIGUOUS
            else:
                numbers[row, column, 2] = 2 * max(lowest, LEAST_COST) / (taps * views * curvature)
                outcome[row, column] = ACCEPTED
