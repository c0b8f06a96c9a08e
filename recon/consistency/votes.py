"""The votes of one view on the depth of another, pixel by pixel."""

from typing import Any, no_type_check

import numpy as np

from recon.jit import compiled

CONFIRMS = 2.0  # standard deviations
CONTRADICTS = 3.0
MIN_RELATIVE = 0.004  # standard deviation that every comparison has: resampling between pixels
MAX_RELATIVE = 0.03  # of the difference, beyond which agreement means nothing
SAME_SURFACE = 0.05  # relative depth within which the four taps of a sample lie on one surface


@compiled
@no_type_check
def count_votes(
    start: int, stop: int, reference: Any, other: Any, other_from_reference: Any, votes: Any
) -> None:
    """Adds one neighbour's votes on some rows to those of others.

    Args:
        start: First row.
        stop: Row after the last.
        reference: Depth (h, w) and relative sigma (h, w) that are voted on.
        other: The neighbour's (h2, w2).
        other_from_reference: Matrix (3, 3) and offset (3,) that take (u, v, 1) * depth to the neighbour's.
        votes: Confirming, contradicting and missing ones (h, w) uint8, which grow.
    """
    depth, sigma = reference
    other_depth, other_sigma = other
    matrix, offset = other_from_reference
    confirming, contradicting, missing = votes
    width = depth.shape[1]
    other_height, other_width = other_depth.shape
    for row in range(start, stop):
        v = row + 0.5
        for column in range(width):
            z = depth[row, column]
            if z <= 0:
                continue
            u = column + 0.5
            there = z * (matrix[2, 0] * u + matrix[2, 1] * v + matrix[2, 2]) + offset[2]
            if there <= 0:
                continue
            x = (z * (matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2]) + offset[0]) / there - 0.5
            y = (z * (matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2]) + offset[1]) / there - 0.5
            if x < 0 or y < 0 or x > other_width - 1 or y > other_height - 1:
                continue
            left, top = min(int(x), other_width - 2), min(int(y), other_height - 2)
            nearest, farthest, disparity = 1e30, 0.0, 0.0
            for down in range(2):
                for right in range(2):
                    tap = other_depth[top + down, left + right]
                    nearest, farthest = min(nearest, tap), max(farthest, tap)
                    weight = abs(1 - right - (x - left)) * abs(1 - down - (y - top))
                    disparity += weight / max(tap, 1e-30)
            if farthest <= 0:
                missing[row, column] += 1
            if nearest <= 0 or farthest - nearest > SAME_SURFACE * nearest:
                continue  # no depth, or an edge: it cannot tell
            spread = sigma[row, column] ** 2
            spread += other_sigma[int(y + 0.5), int(x + 0.5)] ** 2 + MIN_RELATIVE**2
            spread = np.sqrt(spread)
            gap = np.log(there * disparity)
            if abs(gap) <= CONFIRMS * min(spread, MAX_RELATIVE):
                confirming[row, column] += 1
            elif gap < -CONTRADICTS * spread:
                contradicting[row, column] += 1
