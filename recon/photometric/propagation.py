"""Good planes spread to pixels that have none: checkerboard propagation, and planes fitted to neighbours.

Each pixel tries the planes of pixels of the other colour of a checkerboard: per direction the best of the
near ones and the best of the far ones (the adaptive checkerboard of ACMM, Xu and Tao 2019, with fewer
pixels). Planes that would put it where it already is are not tried, so smooth surfaces cost nothing. It keeps
what scores better. A plane fitted to what the neighbours of the same colour of grey have found is tried as
well: it brings slants where the prior has none.
"""

from typing import Any, no_type_check

import numpy as np

from recon.jit import compiled
from recon.photometric.cost import INVALID, make_work, take_patch, view_costs
from recon.photometric.sweep import prior_term

NEAR, FAR = (1, 3), (7, 15)  # distances of tried pixels; all odd: the other colour
SAME_PX = 0.3  # a plane that moves the match by less is not tried
CONTENT = 0.05  # score of a pixel that tries nothing
GAIN = 0.005  # by which a plane must score better, so that noise does not wander
FIT_RADIUS = 3  # of the window that a plane is fitted to, px
FIT_GREY = 12.0  # standard deviation of its weights over grey levels
FIT_PX = 1.0  # neighbours count by how near they are to the pixel's own plane, px
FIT_LEAST = 6.0  # sum of weights from which a plane is tried


@compiled
@no_type_check
def best_along(scores: Any, row: int, column: int, direction: Any, distances: Any) -> Any:
    """Returns row and column of the best pixel at some distances along a direction; row -1 for none."""
    best, found = INVALID, (-1, -1)
    for distance in distances:
        r, c = row + direction[0] * distance, column + direction[1] * distance
        if 0 <= r < scores.shape[0] and 0 <= c < scores.shape[1] and scores[r, c] < best:
            best, found = scores[r, c], (r, c)
    return found


@compiled
@no_type_check
def propagate_rows(start: int, stop: int, color: int, reference: Any, others: Any, state: Any) -> None:
    """Tries the neighbours' planes at the pixels of one colour, in some rows; the rest as of `sweep_rows`."""
    (grey, colors, _, prior_planes, prior_bands), (pixels, views) = reference, others
    planes, scores, _, motions = state
    work, plane = make_work(len(views)), np.empty(5)
    for row in range(start, stop):
        for column in range((row + color) % 2, grey.shape[1], 2):
            motion, taken = motions[row, column], False
            if motion <= 0 or scores[row, column] < CONTENT:
                continue
            plane[3], plane[4] = column + 0.5, row + 0.5
            for direction in ((0, -1), (0, 1), (-1, 0), (1, 0)):
                for distances in (NEAR, FAR):
                    r, c = best_along(scores, row, column, direction, distances)
                    if r < 0 or scores[r, c] > scores[row, column]:
                        continue
                    plane[1], plane[2] = planes[r, c, 1], planes[r, c, 2]
                    plane[0] = planes[r, c, 0] + plane[1] * (column - c) + plane[2] * (row - r)
                    same = abs(plane[0] - planes[row, column, 0]) * motion < SAME_PX
                    if not plane[0] > 0 or (same and scores[row, column] < 1):
                        continue
                    if not taken:
                        take_patch(grey, colors, row, column, work)
                        taken = True
                    score = view_costs(pixels, views, plane, work)
                    score += prior_term(plane[0], prior_planes[row, column, 0], prior_bands[row, column])
                    if score < scores[row, column] - GAIN:
                        scores[row, column] = score
                        for i in range(3):
                            planes[row, column, i] = plane[i]


@compiled
@no_type_check
def fit_plane(grey: Any, planes: Any, scores: Any, motion: Any, plane: Any) -> bool:
    """Writes the plane fitted to what the pixels around have found; False where they are too few."""
    column, row = np.int64(plane[3]), np.int64(plane[4])
    own0, own1, own2, middle = (
        planes[row, column, 0],
        planes[row, column, 1],
        planes[row, column, 2],
        grey[row, column],
    )
    height, width = scores.shape
    s, su, sv, suu, suv, svv, sw, suw, svw = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for r in range(max(row - FIT_RADIUS, 0), min(row + FIT_RADIUS + 1, height)):
        for c in range(max(column - FIT_RADIUS, 0), min(column + FIT_RADIUS + 1, width)):
            if scores[r, c] > 0.5:
                continue
            u, v = np.float64(c - column), np.float64(r - row)
            off = planes[r, c, 0] - own0 - own1 * u - own2 * v
            away, step = off * motion / FIT_PX, (grey[r, c] - middle) / FIT_GREY
            weight = np.exp(-0.5 * step * step) / (1 + away * away) ** 2
            s += weight
            su, sv, sw = su + weight * u, sv + weight * v, sw + weight * off
            suu, suv, svv = suu + weight * u * u, suv + weight * u * v, svv + weight * v * v
            suw, svw = suw + weight * u * off, svw + weight * v * off
    if s < FIT_LEAST:
        return False
    su, sv, sw = su / s, sv / s, sw / s
    suu, suv, svv = suu / s - su * su, suv / s - su * sv, svv / s - sv * sv
    suw, svw = suw / s - su * sw, svw / s - sv * sw
    determinant = suu * svv - suv * suv
    if determinant < 0.25:
        return False
    gu, gv = (svv * suw - suv * svw) / determinant, (suu * svw - suv * suw) / determinant
    plane[0] = own0 + sw - gu * su - gv * sv
    plane[1], plane[2] = own1 + gu, own2 + gv
    return True


@compiled
@no_type_check
def fit_rows(start: int, stop: int, reference: Any, others: Any, old: Any, state: Any) -> None:
    """Tries fitted planes in some rows; `old` is a copy of `state`, so that the order does not matter."""
    (grey, colors, _, prior_planes, prior_bands), (pixels, views) = reference, others
    planes, scores, _, motions = state
    old_planes, old_scores = old
    work, plane = make_work(len(views)), np.empty(5)
    for row in range(start, stop):
        for column in range(grey.shape[1]):
            motion = motions[row, column]
            plane[3], plane[4] = column + 0.5, row + 0.5
            if motion <= 0 or not fit_plane(grey, old_planes, old_scores, motion, plane) or not plane[0] > 0:
                continue
            take_patch(grey, colors, row, column, work)
            score = view_costs(pixels, views, plane, work)
            score += prior_term(plane[0], prior_planes[row, column, 0], prior_bands[row, column])
            if score < scores[row, column] - GAIN:
                scores[row, column] = score
                for i in range(3):
                    planes[row, column, i] = plane[i]
