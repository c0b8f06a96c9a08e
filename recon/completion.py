"""Depth completion: a dense prediction drawn through what was measured of it.

A prediction knows shapes, and a measurement knows depth where there is one. The log ratio r of both is spread
from the measured pixels over a bilateral grid (Chen, Paris and Durand 2007): cells of the picture and of the
predicted log depth, so that it does not leak from a thing to what is behind it. In each cell it is the mean
of what lies around, by Gaussians of growing width,

    r = sum_k w_k (G_k * m r) / sum_k w_k (G_k * m),    w_k = 1 / s_k^4

with m the measured pixels of a cell and G_k a Gaussian of s_k cells: the nearest measurements say it, and
farther ones where there are none near. Those far off it count less (Cauchy's weights), and it is done again.
"""

import numpy as np
from jaxtyping import Float32, Float64

GRID = 80  # cells along the longer side
STEP = 0.05  # of log depth
WIDTHS = (1, 2, 4, 8, 16, 32)  # cells, standard deviations of the Gaussians
REWEIGHTINGS = 2
OFF = 0.07  # of log depth, at which a measurement counts by half
ANY_WIDTH = 16  # cells, of the mean at any depth, where nothing was measured at this one
ANY_WEIGHT = 1e-8
REACH = 3.0  # standard deviations, to which a Gaussian goes


def complete(
    predicted: Float32[np.ndarray, "h w"], measured: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """Returns predicted depth times its smooth ratio to what was measured, which it does not quite meet.

    Args:
        predicted: Dense, right up to a factor that hardly changes along a surface; 0 stays 0.
        measured: The same unit; 0 where nothing was measured. Less than half around a place may be wrong.
    """
    from scipy.ndimage import map_coordinates

    known = predicted > 0
    both = known & (measured > 0)
    if not both.any():
        return predicted
    log = np.log(np.where(known, predicted, 1)).astype(np.float64)
    place = np.stack([*np.indices(log.shape) * (GRID / max(log.shape)), (log - log[known].min()) / STEP])
    shape = tuple(int(np.ceil(axis[known].max())) + 2 for axis in place)
    cells = tuple(np.rint(place[:, both]).astype(np.int64))
    ratios = np.log(measured[both]) - log[both]
    weights = np.ones(len(ratios))
    for _ in range(REWEIGHTINGS):
        ratio = _spread(cells, weights, ratios, shape)
        off = ratios - map_coordinates(ratio, place[:, both], order=1, mode="nearest")
        weights = 1 / (1 + np.square(off / OFF))
    ratio = _spread(cells, weights, ratios, shape)
    depth = np.zeros_like(predicted)
    found = map_coordinates(ratio, place[:, known], order=1, mode="nearest")
    depth[known] = predicted[known] * np.exp(found)
    return depth


def _spread(
    cells: tuple[np.ndarray, ...],
    weights: Float64[np.ndarray, "n"],
    values: Float64[np.ndarray, "n"],
    shape: tuple[int, ...],
) -> Float64[np.ndarray, "r c d"]:
    """Returns the mean of weighted values around each cell of a grid."""
    from scipy.ndimage import gaussian_filter

    sums = []
    for each in (weights * values, weights):
        grid = np.zeros(shape)
        np.add.at(grid, cells, each)
        at_any = gaussian_filter(grid.sum(axis=2), ANY_WIDTH, mode="constant", truncate=8)
        grid = gaussian_filter(grid, (0, 0, 1), mode="constant", truncate=REACH)
        around = [
            gaussian_filter(grid, (width, width, 0), mode="constant", truncate=REACH) / width**4
            for width in WIDTHS
        ]
        sums.append(sum(around) + ANY_WEIGHT * at_any[..., None])
    mean: Float64[np.ndarray, "r c d"] = sums[0] / np.maximum(sums[1], 1e-300)
    return mean
