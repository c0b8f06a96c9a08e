"""What a patch of the reference costs on a plane in another view: 1 - zero-mean NCC with bilateral weights.

    c = 1 - sum_i g_i (r_i - r) (s_i - s) / (sigma_r sigma_s)

over the taps i of the patch, with weights g_i of sum 1 that fall with the distance from the middle and with
the difference of colours to it (Yoon and Kweon 2006), so that a patch across a depth edge follows the
side its middle is on. Means, spreads and sums are weighted alike. Gain and offset of the exposure cancel.

The kernels pass few whole arrays and indices: a slice or a tuple of arrays is counted by all threads at once,
which costs as much as the patch.
"""

from typing import Any, no_type_check

import numpy as np

from recon.jit import compiled, reordered

RADIUS, STEP = 4, 2  # taps at every second pixel of 9x9: photos are smoothed, those between say little more
SPATIAL_PX = 4.0  # standard deviation of the weights over distance
COLOR_LEVELS = 32.0  # standard deviation of the weights over the distance of colours, of 255 per channel
INVALID = np.float32(2.0)  # cost of what cannot be seen; NCC is -1 there

_ALONG = np.arange(-RADIUS, RADIUS + 1, STEP)
TAPS_V, TAPS_U = (
    offsets.ravel().astype(np.float32) for offsets in np.meshgrid(_ALONG, _ALONG, indexing="ij")
)
TAPS = len(TAPS_U)
ROWS, COLUMNS = TAPS_V.astype(np.int64), TAPS_U.astype(np.int64)
NEARNESS = np.exp(-(np.square(TAPS_U) + np.square(TAPS_V)) / np.float32(2 * SPATIAL_PX**2))
FALL = np.float32(1 / (256 * 2 * COLOR_LEVELS**2))  # (1 - x / 256)^256 for exp(-x): vectorised
CORNERS = (0, len(_ALONG) - 1, TAPS - len(_ALONG), TAPS - 1)
VALUES, WEIGHTS, AT_U, AT_V, PATCH, COSTS = range(6)  # rows of the working memory
MEAN, SPREAD, ROUGH = range(3)  # of row PATCH
LEAST_SHAPE = np.float32(1e-3)  # px^4, of the taps: on a line no plane of grey levels is fitted


@compiled
@no_type_check
def make_work(views: int) -> Any:
    """Returns working memory for one pixel: its patch, places of its taps, costs of the views."""
    return np.empty((6, max(TAPS, views)), np.float32)


@reordered
@no_type_check
def take_patch(grey: Any, colors: Any, row: int, column: int, work: Any) -> Any:
    """Writes the patch's weights, its grey levels less their mean times the weights, mean and spread.

    And ROUGH, the spread about the plane of grey levels through the patch: a ramp matches any ramp.

    Returns:
        The effective number of taps.
    """
    height, width = grey.shape
    red, green, blue = colors[row, column, 0], colors[row, column, 1], colors[row, column, 2]
    for i in range(TAPS):
        v = np.uint64(min(max(row + ROWS[i], 0), height - 1))
        u = np.uint64(min(max(column + COLUMNS[i], 0), width - 1))
        r, g, b = colors[v, u, 0] - red, colors[v, u, 1] - green, colors[v, u, 2] - blue
        work[VALUES, i], work[WEIGHTS, i] = grey[v, u], r * r + g * g + b * b
    total, mean, squares = np.float32(0), np.float32(0), np.float32(0)
    for i in range(TAPS):
        fall = max(np.float32(1) - work[WEIGHTS, i] * FALL, np.float32(0))
        for _ in range(8):
            fall *= fall
        weight = NEARNESS[i] * fall
        work[WEIGHTS, i] = weight
        total += weight
        squares += weight * weight
        mean += weight * work[VALUES, i]
    mean /= total
    variance, gu, gv = np.float32(0), np.float32(0), np.float32(0)
    su, sv, uu, uv, vv = np.float32(0), np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for i in range(TAPS):
        weight, value, u, v = work[WEIGHTS, i] / total, work[VALUES, i] - mean, TAPS_U[i], TAPS_V[i]
        weighted = weight * value
        work[WEIGHTS, i], work[VALUES, i] = weight, weighted
        variance += weighted * value
        gu, gv, su, sv = gu + weighted * u, gv + weighted * v, su + weight * u, sv + weight * v
        uu, uv, vv = uu + weight * u * u, uv + weight * u * v, vv + weight * v * v
    uu, uv, vv = uu - su * su, uv - su * sv, vv - sv * sv
    ramp = (vv * gu * gu - np.float32(2) * uv * gu * gv + uu * gv * gv) / max(uu * vv - uv * uv, LEAST_SHAPE)
    work[PATCH, MEAN], work[PATCH, SPREAD] = mean, np.sqrt(variance)
    work[PATCH, ROUGH] = np.sqrt(max(variance - ramp, np.float32(0)))
    return total * total / squares


@reordered
@no_type_check
def pair_cost(pixels: Any, views: Any, j: int, plane: Any, work: Any) -> Any:
    """Returns the cost of a plane in view j; INVALID where it does not see the patch.

    Args:
        pixels: All other views' smoothed grey levels, one behind the other.
        views: Per view: A row by row and b of `planes.pair_geometry`; start in `pixels`, width, height.
        j: Row of `views`.
        plane: w, wu, wv, and the pixel's u, v.
        work: With the patch taken.
    """
    w, wu, wv, u, v = plane[0], plane[1], plane[2], plane[3], plane[4]
    start, width = np.uint64(views[j, 12]), np.uint64(views[j, 13])  # unsigned: none counts from the end
    half, one, step = np.float32(0.5), np.float32(1), np.uint64(1)
    x0 = np.float32(views[j, 0] * u + views[j, 1] * v + views[j, 2] + w * views[j, 9])
    y0 = np.float32(views[j, 3] * u + views[j, 4] * v + views[j, 5] + w * views[j, 10])
    z0 = np.float32(views[j, 6] * u + views[j, 7] * v + views[j, 8] + w * views[j, 11])
    xu, xv = np.float32(views[j, 0] + wu * views[j, 9]), np.float32(views[j, 1] + wv * views[j, 9])
    yu, yv = np.float32(views[j, 3] + wu * views[j, 10]), np.float32(views[j, 4] + wv * views[j, 10])
    zu, zv = np.float32(views[j, 6] + wu * views[j, 11]), np.float32(views[j, 7] + wv * views[j, 11])
    if not z0 - np.float32(RADIUS) * (abs(zu) + abs(zv)) > 0:
        return INVALID
    for i in range(TAPS):  # apart from the samples, so that it is vectorised
        inverse = one / (z0 + TAPS_U[i] * zu + TAPS_V[i] * zv)
        work[AT_U, i] = (x0 + TAPS_U[i] * xu + TAPS_V[i] * xv) * inverse - half
        work[AT_V, i] = (y0 + TAPS_U[i] * yu + TAPS_V[i] * yv) * inverse - half
    right, bottom = np.float32(views[j, 13] - 1), np.float32(views[j, 14] - 1)
    for corner in CORNERS:  # the patch is convex, so its corners tell
        x, y = work[AT_U, corner], work[AT_V, corner]
        if not (x >= 0 and y >= 0 and x < right and y < bottom):
            return INVALID
    middle = work[PATCH, MEAN]
    for i in range(TAPS):
        x, y = work[AT_U, i], work[AT_V, i]
        column, row = np.int32(x), np.int32(y)
        x, y = x - np.float32(column), y - np.float32(row)
        at = start + np.uint64(row) * width + np.uint64(column)
        below = at + width
        top = pixels[at] + x * (pixels[at + step] - pixels[at])
        low = pixels[below] + x * (pixels[below + step] - pixels[below])
        work[AT_U, i] = top + y * (low - top) - middle  # near 0, so that the squares keep their digits
    mean, square, product = np.float32(0), np.float32(0), np.float32(0)
    for i in range(TAPS):
        value = work[AT_U, i]
        weighted = work[WEIGHTS, i] * value
        mean += weighted
        square += weighted * value
        product += work[VALUES, i] * value
    variance = square - mean * mean
    if not variance > np.float32(0.01):
        return INVALID
    return one - product / (work[PATCH, SPREAD] * np.sqrt(variance))


@compiled
@no_type_check
def view_costs(pixels: Any, views: Any, plane: Any, work: Any) -> Any:
    """Writes the costs of a plane in each other view; returns the mean of the better half of them.

    The half, rounded up, is of those that see it; INVALID where none does.
    """
    seen, count = 0, len(views)
    for j in range(count):
        work[COSTS, j] = pair_cost(pixels, views, j, plane, work)
        seen += work[COSTS, j] < INVALID
    if seen == 0:
        return INVALID
    wanted = (seen + 1) // 2
    total, last, taken = np.float32(0), np.float32(-1), 0
    while taken < wanted:  # a few views: each round takes the next smallest value
        smallest, times = INVALID, 0
        for j in range(count):
            cost = work[COSTS, j]
            if cost > last and cost < smallest:
                smallest, times = cost, 1
            elif cost == smallest:
                times += 1
        times = min(times, wanted - taken)
        total += smallest * np.float32(times)
        taken, last = taken + times, smallest
    return total / np.float32(wanted)
