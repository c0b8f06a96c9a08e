"""Normals of what was measured, brought together with predicted ones.

On a plane, inverse depth w is linear over the picture, so a plane is fitted to the measured inverse depth
around each pixel, reweighted so that what lies beyond an edge does not count. Its slopes' standard deviation
gives that of the normal's angle: (wu, wv) / w times the focal length is the tangent of the slant. Where a
window does not tell it to 5 degrees, as on blank walls, larger ones are tried, in which depth may deviate
from the plane by as much as it says of itself: what deviates more is relief.

Predicted normals are judged by these, around each pixel: the mean squared angle between both, less what is
the measured ones' own. A network may be right about a table and wrong about what stands on it. Each pixel has
the mean of both, weighed by precision.
"""

from dataclasses import replace
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64

from recon.jit import compiled, run_pieces
from recon.photometric.planes import normals_of, planes_of
from recon.scene import DepthMap

RADIUS, STEP = 6, 2  # px, of the window: measured over patches of 9, so those between say nothing more
SCALES = (1, 2, 4, 8)  # of windows, the smallest that tells the normal clearly
FLAT = 1.0  # of the variance of depth: how far from a plane a larger window may be
SHARED = 0.5  # of a pixel's sigma, times 1 / radius: slopes of errors that a window's pixels have in common
CLEAR = np.radians(5.0)  # standard deviation of a normal's angle
WIDTHS = (20.0, 6.0, 3.0)  # standard deviations beyond which a pixel is on another surface, round by round
LEAST_WEIGHT = 10.0  # of a window's 49 pixels
LEAST_SPREAD = 4.0  # determinant of the pixels' covariance, px^4: less is a line
CORRELATED = 6.0  # pixels of a window that err as one
LEAST_PIXELS = 500  # that judge predicted normals
WINDOW = 31  # px, odd: in which they are judged
TYPICAL_SHARE = 0.01  # of a window's pixels: weight of the whole picture's error in a window's
MOST_ANGLE = np.radians(60.0)  # larger ones count as this
MOST_OFF = np.radians(6.0)  # standard deviation of predicted normals that are used where nothing was measured
LEAST_OFF = np.radians(0.5)  # no better are they taken to be
SUREST = 1e-4  # rad: nor measured ones


def merge_normals(
    depth_map: DepthMap, measured: DepthMap, *, use_predicted: bool = True, threads: int | None = None
) -> tuple[DepthMap, Float32[np.ndarray, "h w"]]:
    """Returns a depth map with the mean of its normals and the measured ones, and the angles' deviation.

    Where nothing was measured the normals are the predicted ones if those around are right, else zeros. The
    standard deviation of the angle is in radians, of either direction; infinite where there is no normal.

    Args:
        depth_map: With predicted normals.
        measured: Depth, sigma and normals of the same size where the photos told them, zeros elsewhere.
        use_predicted: False takes the measured normals alone.
        threads: None takes one per processor. The result does not depend on it.
    """
    own, angle = fit_normals(measured, threads=threads)
    told = own.any(axis=-1)
    of_own = np.where(told, 1 / np.square(np.maximum(angle, SUREST).astype(np.float64)), 0)
    of_predicted = np.zeros(told.shape)
    if use_predicted:
        variance = _predicted_variance(depth_map.normals, own, angle)
        is_used = depth_map.normals.any(axis=-1) & (told | (variance < MOST_OFF**2))
        of_predicted = np.where(is_used, 1 / np.maximum(variance, LEAST_OFF**2), 0)
    mean = of_own[..., None] * own + of_predicted[..., None] * depth_map.normals
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    normals = np.divide(mean, length, out=np.zeros_like(mean), where=length > 0).astype(np.float32)
    total = np.where(length[..., 0] > 0, of_own + of_predicted, 0)
    deviation = np.divide(1, np.sqrt(total), out=np.full(told.shape, np.inf), where=total > 0)
    return replace(depth_map, normals=normals), deviation.astype(np.float32)


def _predicted_variance(
    predicted: Float32[np.ndarray, "h w 3"],
    own: Float32[np.ndarray, "h w 3"],
    angle: Float32[np.ndarray, "h w"],
) -> Float64[np.ndarray, "h w"]:
    """Returns the variance of predicted normals, rad^2 of either direction, as measured ones around tell it.

    Where few are, it tends to that of the whole picture; zeros where too few are in all.
    """
    from scipy.ndimage import uniform_filter

    both = own.any(axis=-1) & predicted.any(axis=-1)
    if both.sum() < LEAST_PIXELS:
        return np.zeros(both.shape)
    cosines = np.einsum("nc,nc->n", own[both], predicted[both], dtype=np.float64)
    between, noise = (
        np.minimum(each, MOST_ANGLE) for each in (np.arccos(np.clip(cosines, -1, 1)), angle[both])
    )
    weights, moments = np.zeros(both.shape), np.zeros(both.shape)
    weights[both] = (1 + np.square(angle[both] / MOST_OFF)) ** -2.0
    moments[both] = weights[both] * (np.square(between) / 2 - np.square(noise))
    typical = moments.sum() / weights.sum()
    near = uniform_filter(weights, WINDOW) + TYPICAL_SHARE
    return np.maximum((uniform_filter(moments, WINDOW) + TYPICAL_SHARE * typical) / near, 0)


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
    focal = np.float32(np.sqrt(measured.camera.K[0, 0] * measured.camera.K[1, 1]))
    limit = (CLEAR / focal * w).astype(np.float32)
    for scale in SCALES:
        run_pieces(_fit_rows, len(w), threads, scale, (w, sigma, limit), planes, spread)
    fitted = spread > 0
    normals = normals_of(planes, measured.camera)
    angle = np.where(fitted, focal * spread / np.where(fitted, w, 1), 0)
    return np.where(fitted[..., None], normals, 0).astype(np.float32), angle.astype(np.float32)


@compiled
@no_type_check
def _fit_rows(start: int, stop: int, scale: int, measured: Any, planes: Any, spread: Any) -> None:
    """Fits some rows: writes slopes into `planes` and their standard deviation into `spread`.

    In windows larger by a factor, only where a smaller one did not tell the slope clearly, and if all in the
    larger one may lie on one plane.

    `measured`: inverse depth, its standard deviation, and that of a slope that is clear.
    """
    w, sigma, limit = measured
    radius = scale * RADIUS
    for row in range(start, stop):
        for column in range(w.shape[1]):
            sigma0 = np.float64(sigma[row, column])
            if not (w[row, column] > 0 and sigma0 > 0):
                continue
            told = np.float64(spread[row, column])  # by smaller windows
            told = max(told, SHARED * sigma0 / (radius / 2)) if told > 0 else np.inf
            if scale > 1 and told <= limit[row, column]:
                continue
            slopes = np.float64(planes[row, column, 1]), np.float64(planes[row, column, 2])
            off2, gu, gv, variance = _fit((row, column), scale, slopes, w, sigma)
            if off2 < 0 or (scale > 1 and off2 > FLAT * sigma0 * sigma0):
                continue
            found = np.sqrt(max(variance, (sigma0 / radius) ** 2 * 0.01))
            if max(found, SHARED * sigma0 / radius) < told:
                planes[row, column, 1], planes[row, column, 2] = gu, gv
                spread[row, column] = found


@compiled
@no_type_check
def _fit(pixel: Any, scale: int, slopes: Any, w: Any, sigma: Any) -> Any:
    """Returns mean squared distance from the plane through a window, its slopes and their variance.

    The distance is negative where too little was measured. `slopes` are those to start from.
    """
    row, column = pixel
    height, width = w.shape
    radius, step = scale * RADIUS, scale * STEP
    w0, sigma0 = np.float64(w[row, column]), np.float64(sigma[row, column])
    above, gu, gv, off2, variance = 0.0, slopes[0], slopes[1], -1.0, 0.0
    for widths in WIDTHS:
        s, su, sv, suu, suv, svv = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        sw, suw, svw, squares = 0.0, 0.0, 0.0, 0.0
        for v in range(-radius, radius + 1, step):
            for u in range(-radius, radius + 1, step):
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
            return -1.0, gu, gv, 0.0
        su, sv, sw = su / s, sv / s, sw / s
        suu, suv, svv = suu / s - su * su, suv / s - su * sv, svv / s - sv * sv
        suw, svw = suw / s - su * sw, svw / s - sv * sw
        determinant = suu * svv - suv * suv
        if determinant < LEAST_SPREAD:
            return -1.0, gu, gv, 0.0
        gu, gv = (svv * suw - suv * svw) / determinant, (suu * svw - suv * suw) / determinant
        above, off2 = sw - gu * su - gv * sv, squares / s
        variance = CORRELATED * off2 / s * (suu + svv) / (2 * determinant)
    return off2, gu, gv, variance
