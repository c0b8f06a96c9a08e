"""Steep planes where none as the prior slants matches: the ground before a building, a wall along the view.

A patch of a surface at a flat angle to the ray looks sheared in another view, so that a plane that faces the
camera matches at no depth. At the coarsest size the pixels whose best plane matches badly are swept again
with planes of a few slants; what finds one hands it on by propagation and to the finer sizes, which turn it.
"""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64

from recon.jit import compiled
from recon.photometric.cost import make_work, take_patch, view_costs
from recon.photometric.sweep import (
    MAX_SIDE,
    SECOND_AT_PX,
    best_minimum,
    prior_term,
    samples_of,
    second_ratio,
    vertex,
)
from recon.scene import Camera

STEEPNESS = (1.2, 3.5)  # tangents of the slants: 50 and 74 degrees from facing the camera
VAGUE = 0.1  # half width of a band, in shares of inverse depth, from which the prior's slant is not relied on
POOR_SCORE = 0.35  # from which a pixel tries them; finer levels do not start from such a plane


def slants_of(camera: Camera) -> Float64[np.ndarray, "s 2"]:
    """Returns slopes of inverse depth per pixel, in shares of it: up, down, left and right for each slant."""
    around = [(u * t, v * t) for t in STEEPNESS for u, v in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    return np.array(around, np.float64) / [camera.K[0, 0], camera.K[1, 1]]


@compiled
@no_type_check
def tilt_rows(start: int, stop: int, reference: Any, others: Any, centre: Any, state: Any) -> None:
    """Sweeps the pixels of some rows that match badly with planes of other slants; takes what scores better.

    Args:
        start: First row.
        stop: One past the last.
        reference: As of `sweep.sweep_rows`, which has been there before.
        others: As there.
        centre: Planes and half widths of bands as there; slopes of inverse depth per pixel, in shares of it
            (s, 2).
        state: As there; changed in place.
    """
    (grey, colors, _, prior_planes, prior_bands), (pixels, views) = reference, others
    centres, bands, slants = centre
    planes, scores, ratios, motions = state
    work, curve, plane = make_work(len(views)), np.empty(2 * MAX_SIDE + 1), np.empty(5)
    for row in range(start, stop):
        for column in range(grey.shape[1]):
            motion, w0 = np.float64(motions[row, column]), np.float64(centres[row, column, 0])
            half = np.float64(bands[row, column])
            if motion <= 0 or scores[row, column] <= POOR_SCORE or half < VAGUE * w0:
                continue
            side, step = samples_of(w0, half, motion)
            apart = max(2, np.int64(np.ceil(SECOND_AT_PX / (step * motion))))
            plane[3], plane[4] = column + 0.5, row + 0.5
            take_patch(grey, colors, row, column, work)
            for s in range(len(slants)):
                for k in range(2 * side + 1):
                    plane[0] = w0 + (k - side) * step
                    plane[1], plane[2] = slants[s, 0] * plane[0], slants[s, 1] * plane[0]
                    prior = prior_term(plane[0], prior_planes[row, column, 0], prior_bands[row, column])
                    curve[k] = view_costs(pixels, views, plane, work) + prior
                at = best_minimum(curve, 2 * side)
                if curve[at] >= scores[row, column]:
                    continue
                w = w0 + (at - side + vertex(curve, at, 2 * side)) * step
                planes[row, column, 0] = w
                planes[row, column, 1], planes[row, column, 2] = slants[s, 0] * w, slants[s, 1] * w
                scores[row, column] = curve[at]
                ratios[row, column] = second_ratio(curve, 2 * side, at, apart)
