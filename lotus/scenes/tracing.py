"""Rays through a table of solids, sped up by a tree of bounding boxes.

The tree is stored depth first, each node with the place to go on when the ray misses its box, so that a walk
needs no stack (Smits 1998). Branches are split where the surface area heuristic (MacDonald and Booth 1990) is
least.
"""

import math
from typing import Any, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float64

from lotus.scenes.description import Solids
from lotus.scenes.intersection import first_hit
from recon.jit import compiled

EMISSION = 14  # column of a material


class World(NamedTuple):
    """What a ray needs: the tree and the solids."""

    boxes: np.ndarray
    """(nodes, 6): lower and upper corner."""
    leaves: np.ndarray
    """(nodes,): index of the solid of a leaf, -1 for a branch."""
    skips: np.ndarray
    """(nodes,): where to go on when the box is missed."""
    shapes: np.ndarray
    frames: np.ndarray
    """(n, 15): world_from_solid row by row, centre, half sizes."""
    forms: np.ndarray
    materials: np.ndarray


def build_world(solids: Solids, count: int, eye: Float64[np.ndarray, "3"]) -> World:
    """Returns the first `count` solids with their tree; of two branches the nearer to the eye comes first."""
    shapes, centres, rotations, halves, forms, materials = (column[:count] for column in solids)
    frames = np.concatenate([rotations.reshape(count, 9), centres, halves], axis=1)
    reach = np.einsum("nij,nj->ni", np.abs(rotations), halves) + 1e-6
    boxes, leaves, skips = _build_tree(np.concatenate([centres - reach, centres + reach], axis=1), eye)
    return World(boxes, leaves, skips, shapes, frames, forms, materials)


@compiled
@no_type_check
def _in_order(boxes: Any, part: Any, axis: int) -> Any:
    """Returns a part's boxes in the order of their middles along an axis (by insertion: there are few)."""
    order, middles = part.copy(), np.empty(len(part))
    for k in range(len(order)):
        one, j = order[k], k
        middle = boxes[one, axis] + boxes[one, axis + 3]
        while j > 0 and middles[j - 1] > middle:
            order[j], middles[j] = order[j - 1], middles[j - 1]
            j -= 1
        order[j], middles[j] = one, middle
    return order


@compiled
@no_type_check
def _grow(bounds: Any, boxes: Any, i: int) -> Any:
    """Makes the bounds hold box i too; returns half their surface."""
    for axis in range(3):
        bounds[axis] = min(bounds[axis], boxes[i, axis])
        bounds[axis + 3] = max(bounds[axis + 3], boxes[i, axis + 3])
    x, y, z = bounds[3] - bounds[0], bounds[4] - bounds[1], bounds[5] - bounds[2]
    return x * y + y * z + z * x


@compiled
@no_type_check
def _bounds(boxes: Any, part: Any) -> Any:
    """Returns the box around a part's boxes."""
    bounds = boxes[part[0]].copy()
    for k in range(1, len(part)):
        _grow(bounds, boxes, part[k])
    return bounds


@compiled
@no_type_check
def _split(boxes: Any, part: Any) -> Any:
    """Returns the boxes of a branch in the order of their best axis, and how many go into its first half."""
    best, order, first, count = np.inf, part, 1, len(part)
    before = np.empty(count)
    for axis in range(3):
        ordered = _in_order(boxes, part, axis)
        bounds = boxes[ordered[0]].copy()
        for k in range(count):
            before[k] = _grow(bounds, boxes, ordered[k])
        bounds[:] = boxes[ordered[count - 1]]
        for k in range(count - 1, 0, -1):
            cost = before[k - 1] * k + _grow(bounds, boxes, ordered[k]) * (count - k)
            if cost < best:
                best, order, first = cost, ordered, k
    return order, first


@compiled
@no_type_check
def _distance(bounds: Any, eye: Any) -> Any:
    """Returns the square of the distance from the eye to a box."""
    total = 0.0
    for axis in range(3):
        total += max(bounds[axis] - eye[axis], 0.0, eye[axis] - bounds[axis + 3]) ** 2
    return total


@compiled
@no_type_check
def _build_tree(solid_boxes: Any, eye: Any) -> Any:
    """Returns (boxes, leaves, skips) of a `World`."""
    count = len(solid_boxes)
    size = 2 * count - 1
    boxes, leaves, skips = np.empty((size, 6)), np.full(size, -1), np.empty(size, np.int64)
    order = np.arange(count)
    stack = np.empty((count + 1, 2), np.int64)
    stack[0, 0], stack[0, 1] = 0, count
    depth, node = 1, 0
    while depth > 0:
        depth -= 1
        start, stop = stack[depth, 0], stack[depth, 1]
        boxes[node] = _bounds(solid_boxes, order[start:stop])
        skips[node] = node + 2 * (stop - start) - 1
        if stop - start == 1:
            leaves[node] = order[start]
        else:
            part, first = _split(solid_boxes, order[start:stop].copy())
            order[start:stop] = part
            middle = start + first
            one, other = _bounds(solid_boxes, part[:first]), _bounds(solid_boxes, part[first:])
            later = depth if _distance(one, eye) <= _distance(other, eye) else depth + 1
            sooner = 2 * depth + 1 - later
            stack[later, 0], stack[later, 1] = middle, stop
            stack[sooner, 0], stack[sooner, 1] = start, middle
            depth += 2
        node += 1
    return boxes, leaves, skips


@compiled
@no_type_check
def into_solid(frames: Any, i: int, v: Any) -> Any:
    """Returns a vector in the frame of solid i."""
    x, y, z = v
    return (
        frames[i, 0] * x + frames[i, 3] * y + frames[i, 6] * z,
        frames[i, 1] * x + frames[i, 4] * y + frames[i, 7] * z,
        frames[i, 2] * x + frames[i, 5] * y + frames[i, 8] * z,
    )


@compiled
@no_type_check
def solid_hit(world: Any, i: int, o: Any, d: Any) -> Any:
    """Returns the smallest t > 0 where the ray enters solid i, infinity if nowhere."""
    f = world.frames
    origin = into_solid(f, i, (o[0] - f[i, 9], o[1] - f[i, 10], o[2] - f[i, 11]))
    h = (f[i, 12], f[i, 13], f[i, 14])
    return first_hit(world.shapes[i], h, world.forms, i, (origin, into_solid(f, i, d)))


@compiled
@no_type_check
def _misses(boxes: Any, node: int, o: Any, inverse: Any, limit: Any) -> Any:
    ax, bx = (boxes[node, 0] - o[0]) * inverse[0], (boxes[node, 3] - o[0]) * inverse[0]
    ay, by = (boxes[node, 1] - o[1]) * inverse[1], (boxes[node, 4] - o[1]) * inverse[1]
    az, bz = (boxes[node, 2] - o[2]) * inverse[2], (boxes[node, 5] - o[2]) * inverse[2]
    enter = max(min(ax, bx), min(ay, by), min(az, bz), 0.0)
    leave = min(max(ax, bx), max(ay, by), max(az, bz), limit)
    return enter > leave


@compiled
@no_type_check
def nearest(world: Any, o: Any, d: Any, limit: Any, guess: int) -> Any:
    """Returns t and the index of the first solid that the ray meets before `limit`; index -1 if none.

    `guess` is a solid that the ray may meet, or -1: a good one saves time and changes nothing. A literal -1
    would be compiled apart.
    """
    boxes, leaves, skips = world.boxes, world.leaves, world.skips
    inverse = (1.0 / d[0], 1.0 / d[1], 1.0 / d[2])
    best, found = limit, np.int64(-1)
    if guess >= 0:
        t = solid_hit(world, guess, o, d)
        if t < best:
            best, found = t, guess
    node, size = 0, leaves.size
    while node < size:
        if _misses(boxes, node, o, inverse, best):
            node = skips[node]
            continue
        i = leaves[node]
        if i >= 0 and i != guess:
            t = solid_hit(world, i, o, d)
            if t < best:
                best, found = t, i
        node += 1
    return best, found


@compiled
@no_type_check
def blocker(world: Any, o: Any, d: Any, limit: Any, guess: int) -> Any:
    """Returns a solid that the ray meets for 0 < t < limit, -1 if none; what glows lets light through."""
    if guess >= 0 and solid_hit(world, guess, o, d) < limit:
        return guess
    boxes, leaves, skips = world.boxes, world.leaves, world.skips
    inverse = (1.0 / d[0], 1.0 / d[1], 1.0 / d[2])
    node, size = 0, leaves.size
    while node < size:
        if _misses(boxes, node, o, inverse, limit):
            node = skips[node]
            continue
        i = leaves[node]
        if i >= 0 and world.materials[i, EMISSION] == 0.0 and solid_hit(world, i, o, d) < limit:
            return i
        node += 1
    return np.int64(-1)


@compiled
@no_type_check
def unit(v: Any) -> Any:
    """Returns the vector at unit length."""
    length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] / length, v[1] / length, v[2] / length
