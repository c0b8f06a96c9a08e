"""What a patch of the reference costs on a plane in another view: 1 - zero-mean NCC with bilateral weights.

    c = 1 - sum_i g_i (r_i - r) (s_i - s) / (sigma_r sigma_s)

over the taps i of the patch, with weights g_i of sum 1 that fall with the distance from the middle and with
the difference of grey levels to it (Yoon and Kweon 2006), so that a patch across a depth edge follows the
side its middle is on. Means, spreads and sums are weighted alike. Gain and offset of the exposure cancel.
"""

from typing import Any, no_type_check

import numpy as np

from recon.photometric.jit import compiled

RADIUS, STEP = 4, 2  # taps at every second pixel of 9x9: photos are smoothed, those between say little more
SPATIAL_PX = 4.0  # standard deviation of the weights over distance
GREY_LEVELS = 24.0  # standard deviation of the weights over grey levels
INVALID = np.float32(2.0)  # cost of what cannot be seen; NCC is -1 there

_ALONG = np.arange(-RADIUS, RADIUS + 1, STEP)
TAPS_V, TAPS_U = (offsets.ravel().astype(np.float32) for offsets in np.meshgrid(_ALONG, _ALONG, indexing="ij"))
TAPS = len(TAPS_U)
DISTANCE = (np.square(TAPS_U) + np.square(TAPS_V)) / np.float32(2 * SPATIAL_PX**2)
CORNERS = (0, len(_ALONG) - 1, TAPS - len(_ALONG), TAPS - 1)


@compiled
@no_type_check
def take_patch(grey: Any, row: int, column: int, values: Any, weights: Any) -> Any:
    """Writes the patch's grey levels less their mean, times their weights, and the weights.

    Returns:
        The weighted mean and standard deviation of the grey levels, and the effective number of taps.
    """
    height, width = grey.shape
    middle = grey[row, column]
    total, mean, squares = np.float32(0), np.float32(0), np.float32(0)
    scale = np.float32(1 / (2 * GREY_LEVELS**2))
    for i in range(TAPS):
        v = min(max(row + np.int32(TAPS_V[i]), 0), height - 1)
        u = min(max(column + np.int32(TAPS_U[i]), 0), width - 1)
        value = grey[v, u]
        weight = np.exp(-DISTANCE[i] - (value - middle) * (value - middle) * scale)
        values[i], weights[i] = value, weight
        total += weight
        squares += weight * weight
        mean += weight * value
    mean /= total
    variance = np.float32(0)
    for i in range(TAPS):
        weights[i] /= total
        values[i] -= mean
        variance += weights[i] * values[i] * values[i]
        values[i] *= weights[i]
    return mean, np.sqrt(variance), total * total / squares


@compiled
@no_type_check
def pair_cost(pixels: Any, frame: Any, pair: Any, place: Any, plane: Any, patch: Any) -> Any:
    """Returns the cost of the plane (w, wu, wv) at pixel (u, v) in one other view; INVALID where unseen.

    Args:
        pixels: All other views' smoothed grey levels, one behind the other.
        frame: Start in `pixels`, width and height of this one.
        pair: A and b of `planes.pair_geometry`.
        place: u, v of the pixel's centre.
        plane: w, wu, wv there.
        patch: Rows: values and weights of `take_patch`; its mean and standard deviation.
    """
    start, width, height = frame[0], frame[1], frame[2]
    u, v, w, wu, wv = place[0], place[1], plane[0], plane[1], plane[2]
    half, one = np.float32(0.5), np.float32(1)
    x0 = np.float32(pair[0] * u + pair[1] * v + pair[2] + w * pair[9])
    y0 = np.float32(pair[3] * u + pair[4] * v + pair[5] + w * pair[10])
    z0 = np.float32(pair[6] * u + pair[7] * v + pair[8] + w * pair[11])
    xu, xv = np.float32(pair[0] + wu * pair[9]), np.float32(pair[1] + wv * pair[9])
    yu, yv = np.float32(pair[3] + wu * pair[10]), np.float32(pair[4] + wv * pair[10])
    zu, zv = np.float32(pair[6] + wu * pair[11]), np.float32(pair[7] + wv * pair[11])
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    for corner in CORNERS:  # the patch is convex, so its corners tell
        du, dv = TAPS_U[corner], TAPS_V[corner]
        z = z0 + du * zu + dv * zv
        if not z > 0:
            return INVALID
        x, y = (x0 + du * xu + dv * xv) / z - half, (y0 + du * yu + dv * yv) / z - half
        if not (x >= 0 and y >= 0 and x < right and y < bottom):
            return INVALID
    values, weights, middle, spread = patch[0], patch[1], patch[2, 0], patch[2, 1]
    mean, square, product = np.float32(0), np.float32(0), np.float32(0)
    for i in range(TAPS):
        du, dv = TAPS_U[i], TAPS_V[i]
        inverse = one / (z0 + du * zu + dv * zv)
        x = (x0 + du * xu + dv * xv) * inverse - half
        y = (y0 + du * yu + dv * yv) * inverse - half
        column, row = np.int32(x), np.int32(y)
        x, y = x - np.float32(column), y - np.float32(row)
        at = start + row * width + column
        top = pixels[at] + x * (pixels[at + 1] - pixels[at])
        low = pixels[at + width] + x * (pixels[at + width + 1] - pixels[at + width])
        value = top + y * (low - top) - middle  # near 0, so that the squares keep their digits
        weighted = weights[i] * value
        mean += weighted
        square += weighted * value
        product += values[i] * value
    variance = square - mean * mean
    if not variance > np.float32(0.01):
        return INVALID
    return one - product / (spread * np.sqrt(variance))


@compiled
@no_type_check
def view_costs(pixels: Any, frames: Any, pairs: Any, place: Any, plane: Any, patch: Any, costs: Any) -> Any:
    """Writes the costs of a plane in each other view; returns the mean of the better half of those that see it.

    Half of all views, rounded up, at most: those that see nothing do not count.
    """
    count = len(frames)
    seen = 0
    for j in range(count):
        costs[j] = pair_cost(pixels, frames[j], pairs[j], place, plane, patch)
        seen += costs[j] < INVALID
    if seen == 0:
        return INVALID
    return better_half(costs, (seen + 1) // 2)


@compiled
@no_type_check
def better_half(costs: Any, wanted: int) -> Any:
    """Returns the mean of the `wanted` smallest costs."""
    total, last, taken = np.float32(0), np.float32(-1), 0
    while taken < wanted:  # a few views: each round finds the next smallest value
        smallest, times = np.float32(np.inf), 0
        for cost in costs:
            if cost > last:
                if cost < smallest:
                    smallest, times = cost, 1
                elif cost == smallest:
                    times += 1
        times = min(times, wanted - taken)
        total += smallest * times
        taken += times
        last = smallest
    return total / np.float32(wanted)
