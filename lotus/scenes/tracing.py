"""Rays through a table of solids, sped up by a tree of bounding boxes.

The tree is stored depth first, each node with the place to go on when the ray misses its box, so that a walk
needs no stack (Smits 1998).
"""

import math
from typing import NamedTuple

import numpy as np

from lotus.scenes.intersection import NONE, first_hit
from recon.jit import compiled


class Tree(NamedTuple):
    """Bounding boxes in depth-first order."""

    boxes: np.ndarray
    """(n, 6): lower and upper corner."""
    solids: np.ndarray
    """(n,): index of the solid of a leaf, -1 for a branch."""
    skips: np.ndarray
    """(n,): where to go on when the box is missed."""


@compiled
def _solid_boxes(count, centres, rotations, halves):
    boxes = np.empty((count, 6))
    for i in range(count):
        for axis in range(3):
            reach = 0.0
            for k in range(3):
                reach += abs(rotations[i, axis, k]) * halves[i, k]
            boxes[i, axis] = centres[i, axis] - reach - 1e-6
            boxes[i, axis + 3] = centres[i, axis] + reach + 1e-6
    return boxes


@compiled
def build_tree(count, centres, rotations, halves):
    """Returns (boxes, solids, skips) of a `Tree`: halves at the median of the longest axis."""
    leaves = _solid_boxes(count, centres, rotations, halves)
    size = 2 * count - 1
    boxes, solids, skips = np.empty((size, 6)), np.full(size, -1), np.empty(size, np.int64)
    order = np.arange(count)
    stack = np.empty((64, 2), np.int64)
    stack[0, 0], stack[0, 1] = 0, count
    depth, node = 1, 0
    while depth > 0:
        depth -= 1
        start, stop = stack[depth, 0], stack[depth, 1]
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        spread_low, spread_high = np.full(3, np.inf), np.full(3, -np.inf)
        for k in range(start, stop):
            for axis in range(3):
                a, b = leaves[order[k], axis], leaves[order[k], axis + 3]
                low[axis], high[axis] = min(low[axis], a), max(high[axis], b)
                spread_low[axis] = min(spread_low[axis], a + b)
                spread_high[axis] = max(spread_high[axis], a + b)
        boxes[node, :3], boxes[node, 3:] = low, high
        skips[node] = node + 2 * (stop - start) - 1
        if stop - start == 1:
            solids[node] = order[start]
        else:
            axis = np.argmax(spread_high - spread_low)
            part = order[start:stop]
            keys = leaves[part, axis] + leaves[part, axis + 3]
            order[start:stop] = part[np.argsort(keys)]
            middle = (start + stop) // 2
            stack[depth, 0], stack[depth, 1] = middle, stop
            stack[depth + 1, 0], stack[depth + 1, 1] = start, middle
            depth += 2
        node += 1
    return boxes, solids, skips


@compiled
def _solid_hit(solids, i, ox, oy, oz, dx, dy, dz):
    r, c = solids.rotations[i], solids.centres[i]
    x, y, z = ox - c[0], oy - c[1], oz - c[2]
    return first_hit(
        solids.shapes[i],
        solids.halves[i],
        solids.forms[i],
        r[0, 0] * x + r[1, 0] * y + r[2, 0] * z,
        r[0, 1] * x + r[1, 1] * y + r[2, 1] * z,
        r[0, 2] * x + r[1, 2] * y + r[2, 2] * z,
        r[0, 0] * dx + r[1, 0] * dy + r[2, 0] * dz,
        r[0, 1] * dx + r[1, 1] * dy + r[2, 1] * dz,
        r[0, 2] * dx + r[1, 2] * dy + r[2, 2] * dz,
    )


@compiled
def nearest(solids, tree, ox, oy, oz, dx, dy, dz, limit):
    """Returns t and the index of the first solid that o + t d meets before `limit`; index -1 if none."""
    ix, iy, iz = 1.0 / dx, 1.0 / dy, 1.0 / dz
    best, found = limit, -1
    node, size = 0, tree.solids.size
    while node < size:
        b = tree.boxes[node]
        ax, bx = (b[0] - ox) * ix, (b[3] - ox) * ix
        ay, by = (b[1] - oy) * iy, (b[4] - oy) * iy
        az, bz = (b[2] - oz) * iz, (b[5] - oz) * iz
        enter = max(min(ax, bx), min(ay, by), min(az, bz), 0.0)
        leave = min(max(ax, bx), max(ay, by), max(az, bz), best)
        if enter > leave:
            node = tree.skips[node]
            continue
        i = tree.solids[node]
        if i >= 0:
            t = _solid_hit(solids, i, ox, oy, oz, dx, dy, dz)
            if t < best:
                best, found = t, i
        node += 1
    return best, found


@compiled
def blocked(solids, tree, ox, oy, oz, dx, dy, dz, limit):
    """Says whether o + t d meets a solid for 0 < t < limit; lamps (emission in the material) let light through."""
    ix, iy, iz = 1.0 / dx, 1.0 / dy, 1.0 / dz
    node, size = 0, tree.solids.size
    while node < size:
        b = tree.boxes[node]
        ax, bx = (b[0] - ox) * ix, (b[3] - ox) * ix
        ay, by = (b[1] - oy) * iy, (b[4] - oy) * iy
        az, bz = (b[2] - oz) * iz, (b[5] - oz) * iz
        enter = max(min(ax, bx), min(ay, by), min(az, bz), 0.0)
        leave = min(max(ax, bx), max(ay, by), max(az, bz), limit)
        if enter > leave:
            node = tree.skips[node]
            continue
        i = tree.solids[node]
        if i >= 0 and solids.materials[i, 14] == 0.0:
            t = _solid_hit(solids, i, ox, oy, oz, dx, dy, dz)
            if t < limit:
                return True
        node += 1
    return False


@compiled
def unit(x, y, z):
    """Returns the vector at unit length."""
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


__all__ = ["NONE", "Tree", "blocked", "build_tree", "nearest", "unit"]
