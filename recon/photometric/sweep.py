"""The sweep: for each pixel, the plane at a few inverse depths around a centre, and the best of them.

With w the inverse depth, w0 and s the prior's value and standard deviation, C the cost of `cost.py` in the
better half of the views that see the plane, a plane scores

    S(w) = C(w) + p min(d^2, 3^2) / 2,   d = (w - w0) / s

so the prior chooses between minima, and beyond three standard deviations it only asks for a clearly better
match. The sweep takes argmin S over |w - w0| <= 3 s in steps of under a pixel, or over a pixel or two around
what a coarser level found.
"""

from typing import Any, no_type_check

import numpy as np

from recon.photometric.cost import INVALID, TAPS, take_patch, view_costs
from recon.photometric.jit import compiled

BAND_SIGMAS = 3.0  # half width of the band around the prior
PRIOR_WEIGHT = 0.02  # p above: what three standard deviations may cost is a tenth of an NCC
MAX_SIDE = 24  # samples to either side of the centre at most
STEP_PX = 0.8  # between samples, in the view that moves most
SECOND_AT_PX = 1.5  # another minimum must be so far away to be another one
UNIQUE, NO_OTHER = np.float32(1e3), -1


@compiled
@no_type_check
def motion_px(sources: Any, place: Any, w: Any) -> Any:
    """Returns the largest motion over the other views, px per unit of inverse depth; 0 if none sees it."""
    _, frames, pairs = sources
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
def prior_term(w: Any, prior: Any, sigma: Any) -> Any:
    """Returns what the prior adds to the cost of an inverse depth; `prior` is its plane, w first."""
    if not sigma > 0:
        return 0.0
    away = (w - prior[0]) / sigma
    return PRIOR_WEIGHT * 0.5 * min(away * away, BAND_SIGMAS**2)


@compiled
@no_type_check
def vertex(curve: Any, at: int, last: int) -> Any:
    """Returns where the parabola through a minimum and its neighbours has its vertex, from -1/2 to 1/2."""
    if at == 0 or at == last or curve[at - 1] >= INVALID or curve[at + 1] >= INVALID:
        return 0.0
    bend = curve[at - 1] + curve[at + 1] - 2 * curve[at]
    return 0.5 * (curve[at - 1] - curve[at + 1]) / bend if bend > 0 else 0.0


@compiled
@no_type_check
def sweep_rows(start: int, stop: int, photo: Any, prior: Any, centre: Any, sources: Any, state: Any) -> None:
    """Sweeps some rows.

    Args:
        start: First row.
        stop: One past the last.
        photo: The reference, smoothed; the least spread of grey levels that is texture.
        prior: Planes (w, wu, wv) per pixel, w = 0 for none; standard deviations of w.
        centre: Planes to sweep around and half widths of their bands, w.
        sources: Pixels, frames and pairs of the other views, as of `cost.pair_cost`.
        state: Changed in place: best planes, their scores (INVALID and more: none), the score of the second
            minimum over the best, motion in px per unit of w (0: unseen, -1: blank).
    """
    grey, least_spread = photo
    planes, scores, ratios, motions = state
    pixels, frames, pairs = sources
    patch, costs = np.empty((3, TAPS), np.float32), np.empty(len(frames), np.float32)
    curve = np.empty(2 * MAX_SIDE + 1, np.float64)
    plane, place = np.empty(3), np.empty(2)
    for row in range(start, stop):
        for column in range(grey.shape[1]):
            w0, half = np.float64(centre[0][row, column, 0]), np.float64(centre[1][row, column])
            scores[row, column], ratios[row, column] = INVALID, UNIQUE
            motions[row, column] = 0
            planes[row, column] = centre[0][row, column]
            if not (w0 > 0 and half > 0):
                continue
            place[0], place[1] = column + 0.5, row + 0.5
            motion = motion_px(sources, place, w0)
            if motion <= 0:
                continue
            patch[2, 0], patch[2, 1], _ = take_patch(grey, row, column, patch[0], patch[1])
            if patch[2, 1] < least_spread:
                motions[row, column] = -1
                continue
            motions[row, column] = motion
            plane[1], plane[2] = centre[0][row, column, 1], centre[0][row, column, 2]
            half = min(half, 0.95 * w0)
            side = min(max(np.int64(np.ceil(half * motion / STEP_PX)), 1), MAX_SIDE)
            step = half / side
            best, best_at = np.inf, 0
            for k in range(2 * side + 1):
                plane[0] = w0 + (k - side) * step
                curve[k] = view_costs(pixels, frames, pairs, place, plane, patch, costs)
                curve[k] += prior_term(plane[0], prior[0][row, column], prior[1][row, column])
                if curve[k] < best:
                    best, best_at = curve[k], k
            second, apart = np.inf, max(2, np.int64(np.ceil(SECOND_AT_PX / (step * motion))))
            for k in range(1, 2 * side):
                if abs(k - best_at) >= apart and curve[k] <= curve[k - 1] and curve[k] <= curve[k + 1]:
                    second = min(second, curve[k])
            planes[row, column, 0] = w0 + (best_at - side + vertex(curve, best_at, 2 * side)) * step
            scores[row, column] = best
            if second < INVALID:
                ratios[row, column] = second / max(best, 1e-6)
