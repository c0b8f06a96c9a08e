"""Normals of what was measured, and whether predicted ones are better.

On a plane, inverse depth w is linear over the picture, so a plane is fitted to the measured inverse depth
around each pixel, reweighted so that what lies beyond an edge does not count. Its slopes' standard deviation
gives that of the normal's angle: (wu, wv) / w times the focal length is the tangent of the slant.

Predicted normals are judged by these: the median angle between both, less what is the measured ones' own.
Averages of both by precision were tried: no better in a room, and worse on small things with round sides,
whose normals turn within a window.
"""

from dataclasses import replace
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32

from recon.jit import compiled, run_pieces
from recon.photometric.planes import normals_of, planes_of
from recon.scene import DepthMap

RADIUS, STEP = 6, 2  # px, of the window: measured over patches of 9, so those between say nothing more
WIDTHS = (20.0, 6.0, 3.0)  # standard deviations beyond which a pixel is on another surface, round by round
LEAST_WEIGHT = 10.0  # of a window's 49 pixels
LEAST_SPREAD = 4.0  # determinant of the pixels' covariance, px^4: less is a line
CORRELATED = 6.0  # pixels of a window that err as one
MEDIAN_ANGLE = 1.177  # median length of two normal deviates
LEAST_PIXELS = 500  # that judge predicted normals
MOST_OFF = np.radians(6.0)  # standard deviation of predicted normals that are the better ones


def better_normals(
    depth_map: DepthMap, measured: DepthMap, *, use_predicted: bool = True, threads: int | None = None
) -> DepthMap:
    """Returns a depth map with its predicted normals, or with those of its measured part if they are better.

    Args:
        depth_map: With predicted normals.
        measured: Depth, sigma and normals of the same size where the photos told them, zeros elsewhere.
        use_predicted: False takes the measured normals unasked.
        threads: None takes one per processor. The result does not depend on it.
    """
    own, angle = fit_normals(measured, threads=threads)
    predicted = depth_map.normals
    both = own.any(axis=-1) & predicted.any(axis=-1)
    if use_predicted and both.sum() < LEAST_PIXELS:
        return depth_map
    if use_predicted:
        cosines = np.einsum("nc,nc->n", own[both], predicted[both])
        between = np.median(np.arccos(np.clip(cosines, -1, 1))) / MEDIAN_ANGLE
        if between**2 - np.median(angle[both]) ** 2 <= MOST_OFF**2:
            return depth_map
    return replace(depth_map, normals=own)


def fit_normals(
    measured: DepthMap, *, threads: int | None = None
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Returns unit normals of the planes through measured depth, and their standard deviation in radians.

    Zeros where no plane can be fitted.

    Args:
        measured: Depth and sigma, zeros where there is none; normals to start from.
        threads: None takes one per processor.
    """
    known = measured.depth > 0
    w = np.where(known, 1 / np.where(known, measured.depth, 1), 0).astype(np.float32)
    sigma = np.where(known, measured.sigma * w * w, 0).astype(np.float32)
    planes = planes_of(measured.depth, measured.normals, measured.camera)
    spread = np.zeros(w.shape, np.float32)
    run_pieces(_fit_rows, len(w), threads, w, sigma, planes, spread)
    fitted = spread > 0
    normals = normals_of(planes, measured.camera)
    focal = np.float32(np.sqrt(measured.camera.K[0, 0] * measured.camera.K[1, 1]))
    angle = np.where(fitted, focal * spread / np.where(fitted, w, 1), 0)
    return np.where(fitted[..., None], normals, 0).astype(np.float32), angle.astype(np.float32)


@compiled
@no_type_check
def _fit_rows(start: int, stop: int, w: Any, sigma: Any, planes: Any, spread: Any) -> None:
    """Fits some rows: writes slopes into `planes` and their standard deviation into `spread`."""
    height, width = w.shape
    for row in range(start, stop):
        for column in range(width):
            w0, sigma0 = np.float64(w[row, column]), np.float64(sigma[row, column])
            if not (w0 > 0 and sigma0 > 0):
                continue
            above, gu, gv = 0.0, np.float64(planes[row, column, 1]), np.float64(planes[row, column, 2])
            for widths in WIDTHS:
                s, su, sv, suu, suv, svv = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                sw, suw, svw, squares = 0.0, 0.0, 0.0, 0.0
                for v in range(-RADIUS, RADIUS + 1, STEP):
                    for u in range(-RADIUS, RADIUS + 1, STEP):
                        r, c = row + v, column + u
                        if r < 0 or c < 0 or r >= height or c >= width or w[r, c] <= 0:
                            continue
                        away = np.float64(w[r, c]) - w0
                        off = away - above - gu * u - gv * v
                        wide = max(np.float64(sigma[r, c]), sigma0)
                        ratio = off / (widths * wide)
                        weight = (sigma0 / wide) ** 2 / (1 + ratio * ratio) ** 2
                        s, su, sv, sw = s + weight, su + weight * u, sv + weight * v, sw + weight * away
                        suu, suv, svv = suu + weight * u * u, suv + weight * u * v, svv + weight * v * v
                        suw, svw = suw + weight * u * away, svw + weight * v * away
                        squares += weight * off * off
                if s < LEAST_WEIGHT:
                    break
                su, sv, sw = su / s, sv / s, sw / s
                suu, suv, svv = suu / s - su * su, suv / s - su * sv, svv / s - sv * sv
                suw, svw = suw / s - su * sw, svw / s - sv * sw
                determinant = suu * svv - suv * suv
                if determinant < LEAST_SPREAD:
                    s = 0.0
                    break
                gu, gv = (svv * suw - suv * svw) / determinant, (suu * svw - suv * suw) / determinant
                above = sw - gu * su - gv * sv
            if s >= LEAST_WEIGHT:
                planes[row, column, 1], planes[row, column, 2] = gu, gv
                variance = CORRELATED * squares / s / s * (suu + svv) / (2 * determinant)
                spread[row, column] = np.sqrt(max(variance, (sigma0 / RADIUS) ** 2 * 0.01))
