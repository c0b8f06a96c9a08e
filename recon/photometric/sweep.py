"""The sweep: for each pixel, the plane at a few inverse depths around a centre, and the best of them.

With w the inverse depth, w0 and s the prior's value and standard deviation, C the cost of `cost.py` in the
better half of the views that see the plane, a plane scores

    S(w) = C(w) + p min(d^2, 3^2) / 2,   d = (w - w0) / s

so the prior chooses between minima, and beyond three standard deviations it only asks for a clearly better
match. The sweep takes argmin S over |w - w0| <= 3 s in steps of under a pixel, or descends from what a
coarser level found, by a pixel or two at most.
"""

from typing import Any, no_type_check

import numpy as np

from recon.jit import compiled
from recon.photometric.cost import INVALID, PATCH, ROUGH, make_work, take_patch, view_costs

BAND_SIGMAS = 3.0  # half width of the band around the prior
PRIOR_WEIGHT = 0.02  # p above: what three standard deviations may cost is a tenth of an NCC
MAX_SIDE = 24  # samples to either side of the centre at most
MAX_SHARE = 0.95  # of the centre that the band reaches down: inverse depth stays positive
STEP_PX = 0.8  # between samples, in the view that moves most
UNTRIED = np.float32(3.0)  # above all costs
SECOND_AT_PX = 1.5  # another minimum must be so far away to be another one
LEAST_COST = 1e-3  # of a best match against a second
UNIQUE = np.float32(1e3)  # ratio where there is no second minimum


@compiled
@no_type_check
def motion_px(views: Any, u: Any, v: Any, w: Any) -> Any:
    """Returns the largest motion over the other views, px per unit of inverse depth; 0 if none sees it."""
    largest = 0.0
    for j in range(len(views)):
        x = views[j, 0] * u + views[j, 1] * v + views[j, 2] + w * views[j, 9]
        y = views[j, 3] * u + views[j, 4] * v + views[j, 5] + w * views[j, 10]
        z = views[j, 6] * u + views[j, 7] * v + views[j, 8] + w * views[j, 11]
        if z <= 0:
            continue
        x, y = x / z, y / z
        if x < 0 or y < 0 or x > views[j, 13] or y > views[j, 14]:
            continue
        largest = max(largest, np.hypot(views[j, 9] - x * views[j, 11], views[j, 10] - y * views[j, 11]) / z)
    return largest


@compiled
@no_type_check
def samples_of(w0: Any, half: Any, motion: Any) -> Any:
    """Returns how many samples a band has to either side of its centre, and the step between them."""
    half = min(half, MAX_SHARE * w0)
    side = min(max(np.int64(np.ceil(half * motion / STEP_PX)), 1), MAX_SIDE)
    return side, half / side


@compiled
@no_type_check
def prior_term(w: Any, prior_w: Any, sigma: Any) -> Any:
    """Returns what the prior adds to the cost of an inverse depth."""
    if not sigma > 0:
        return 0.0
    away = (w - prior_w) / sigma
    return PRIOR_WEIGHT * 0.5 * min(away * away, BAND_SIGMAS**2)


@compiled
@no_type_check
def vertex(curve: Any, at: int, last: int) -> Any:
    """Returns where the parabola through a minimum and its neighbours has its vertex, from -1/2 to 1/2."""
    if at in (0, last) or curve[at - 1] >= INVALID or curve[at + 1] >= INVALID:
        return 0.0
    bend = curve[at - 1] + curve[at + 1] - 2 * curve[at]
    return 0.5 * (curve[at - 1] - curve[at + 1]) / bend if bend > 0 else 0.0


@compiled
@no_type_check
def bottom(curve: Any, at: int, last: int) -> Any:
    """Returns the value at the vertex of a minimum: a sample tells how near it happens to be as well."""
    move = vertex(curve, at, last)
    return curve[at] - 0.25 * (curve[at - 1] - curve[at + 1]) * move if move != 0 else curve[at]


@compiled
@no_type_check
def best_minimum(curve: Any, last: int) -> int:
    """Returns the index of the minimum with the lowest bottom; an end of the curve counts as it is."""
    best, best_at = np.inf, 0
    for k in range(last + 1):
        if (k == 0 or curve[k] <= curve[k - 1]) and (k == last or curve[k] <= curve[k + 1]):
            value = bottom(curve, k, last)
            if value < best:
                best, best_at = value, k
    return best_at


@compiled
@no_type_check
def second_ratio(curve: Any, last: int, best_at: int, apart: int) -> Any:
    """Returns the lowest other bottom, at least so many samples from the best, over the best."""
    second, best = np.inf, max(bottom(curve, best_at, last), LEAST_COST)
    for k in range(1, last):
        if abs(k - best_at) >= apart and curve[k] <= curve[k - 1] and curve[k] <= curve[k + 1]:
            second = min(second, bottom(curve, k, last))
    return second / best if second < INVALID else UNIQUE


@compiled
@no_type_check
def onward(curve: Any, first: int, last: int, end: int) -> Any:
    """Returns the samples around the best of these, to be tried next; -1 where all have been."""
    best = first
    for k in range(first, last + 1):
        if curve[k] < curve[best]:
            best = k
    first, last = max(best - 1, 0), min(best + 1, end)
    return (first, last) if curve[first] >= UNTRIED or curve[last] >= UNTRIED else (-1, -1)


@compiled
@no_type_check
def sweep_rows(start: int, stop: int, reference: Any, others: Any, centre: Any, state: Any) -> None:
    """Sweeps some rows.

    Args:
        start: First row.
        stop: One past the last.
        reference: Grey levels and colours, smoothed; the least spread of grey levels that is texture; the
            prior's planes (w, wu, wv) per pixel, w = 0 for none, and standard deviations of w.
        others: `pixels` and `views` as of `cost.pair_cost`.
        centre: Planes to sweep around, half widths of their bands, w, and whether these hold but one minimum,
            to which a descent leads.
        state: Changed in place: best planes, their scores (INVALID and more: none), the score of the second
            minimum over the best, motion in px per unit of w (0: unseen, -1: blank).
    """
    grey, colors, least_spread, prior_planes, prior_bands = reference
    centres, bands, alone = centre
    planes, scores, ratios, motions = state
    pixels, views = others
    work, curve, plane = make_work(len(views)), np.empty(2 * MAX_SIDE + 1), np.empty(5)
    for row in range(start, stop):
        for column in range(grey.shape[1]):
            w0, half = np.float64(centres[row, column, 0]), np.float64(bands[row, column])
            scores[row, column], ratios[row, column], motions[row, column] = INVALID, UNIQUE, 0
            for i in range(3):
                planes[row, column, i] = plane[i] = centres[row, column, i]
            plane[3], plane[4] = column + 0.5, row + 0.5
            motion = motion_px(views, plane[3], plane[4], w0) if w0 > 0 and half > 0 else 0.0
            if motion <= 0:
                continue
            take_patch(grey, colors, row, column, work)
            if work[PATCH, ROUGH] < least_spread:
                motions[row, column] = -1
                continue
            motions[row, column] = motion
            side, step = samples_of(w0, half, motion)
            curve[: 2 * side + 1] = UNTRIED
            first, last = (0, 2 * side) if not alone[row, column] else (side - 1, side + 1)
            while first >= 0:
                for k in range(first, last + 1):
                    if curve[k] >= UNTRIED:
                        plane[0] = w0 + (k - side) * step
                        prior = prior_term(plane[0], prior_planes[row, column, 0], prior_bands[row, column])
                        curve[k] = view_costs(pixels, views, plane, work) + prior
                first, last = onward(curve, first, last, 2 * side)
            best_at = best_minimum(curve, 2 * side)
            apart = max(2, np.int64(np.ceil(SECOND_AT_PX / (step * motion))))
            planes[row, column, 0] = w0 + (best_at - side + vertex(curve, best_at, 2 * side)) * step
            scores[row, column] = curve[best_at]
            ratios[row, column] = second_ratio(curve, 2 * side, best_at, apart)
