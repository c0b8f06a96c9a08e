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
    return World(*_build_tree(frames, eye), shapes, frames, forms, materials)


@compiled
@no_type_check
def _solid_boxes(frames: Any) -> Any:
    boxes = np.empty((len(frames), 6))
    for i in range(len(frames)):
        for axis in range(3):
            reach = 1e-6
            for k in range(3):
                reach += abs(frames[i, 3 * axis + k]) * frames[i, 12 + k]
            boxes[i, axis], boxes[i, axis + 3] = frames[i, 9 + axis] - reach, frames[i, 9 + axis] + reach
    return boxes


@compiled
@no_type_check
def _areas(boxes: Any, order: Any) -> Any:
    """Returns half the surface of the boxes around the first 1, 2, ... of the boxes in this order."""
    areas = np.empty(len(order))
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for k in range(len(order)):
        for axis in range(3):
            low[axis] = min(low[axis], boxes[order[k], axis])
            high[axis] = max(high[axis], boxes[order[k], axis + 3])
        x, y, z = high[0] - low[0], high[1] - low[1], high[2] - low[2]
        areas[k] = x * y + y * z + z * x
    return areas


@compiled
@no_type_check
def _split(boxes: Any, part: Any) -> Any:
    """Returns the boxes of a branch in the order of their best axis, and how many go into its first half."""
    best, order, first = np.inf, part, len(part) // 2
    for axis in range(3):
        sorted_part = part[np.argsort(boxes[part, axis] + boxes[part, axis + 3])]
        before, after = _areas(boxes, sorted_part), _areas(boxes, sorted_part[::-1])
        for k in range(1, len(part)):
            cost = before[k - 1] * k + after[len(part) - 1 - k] * (len(part) - k)
            if cost < best:
                best, order, first = cost, sorted_part, k
    return order, first


@compiled
@no_type_check
def _distance(boxes: Any, part: Any, eye: Any) -> Any:
    """Returns the square of the distance from the eye to the box around some boxes."""
    total = 0.0
    for axis in range(3):
        low, high = boxes[part, axis].min(), boxes[part, axis + 3].max()
        total += max(low - eye[axis], 0.0, eye[axis] - high) ** 2
    return total


@compiled
@no_type_check
def _build_tree(frames: Any, eye: Any) -> Any:
    """Returns (boxes, leaves, skips) of a `World`."""
    solid_boxes = _solid_boxes(frames)
    count = len(frames)
    size = 2 * count - 1
    boxes, leaves, skips = np.empty((size, 6)), np.full(size, -1), np.empty(size, np.int64)
    order = np.arange(count)
    stack = np.empty((count + 1, 2), np.int64)
    stack[0, 0], stack[0, 1] = 0, count
    depth, node = 1, 0
    while depth > 0:
        depth -= 1
        start, stop = stack[depth, 0], stack[depth, 1]
        for axis in range(3):
            boxes[node, axis] = solid_boxes[order[start:stop], axis].min()
            boxes[node, axis + 3] = solid_boxes[order[start:stop], axis + 3].max()
        skips[node] = node + 2 * (stop - start) - 1
        if stop - start == 1:
            leaves[node] = order[start]
        else:
            part, first = _split(solid_boxes, order[start:stop].copy())
            order[start:stop] = part
            middle = start + first
            near = _distance(solid_boxes, order[start:middle], eye) <= _distance(
                solid_boxes, order[middle:stop], eye
            )
            last, next_one = (depth, depth + 1) if near else (depth + 1, depth)
            stack[last, 0], stack[last, 1] = middle, stop
            stack[next_one, 0], stack[next_one, 1] = start, middle
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
    enter = max(max(min(ax, bx), min(ay, by)), max(min(az, bz), 0.0))
    leave = min(min(max(ax, bx), max(ay, by)), min(max(az, bz), limit))
    return enter > leave


@compiled
@no_type_check
def nearest(world: Any, o: Any, d: Any, limit: Any, guess: int) -> Any:
    """Returns t and the index of the first solid that the ray meets before `limit`; index -1 if none.

    `guess` is a solid that the ray may meet, or -1: a good one saves time and changes nothing.
    """
    inverse = (1.0 / d[0], 1.0 / d[1], 1.0 / d[2])
    best, found = limit, -1
    if guess >= 0:
        t = solid_hit(world, guess, o, d)
        if t < best:
            best, found = t, guess
    node, size = 0, world.leaves.size
    while node < size:
        if _misses(world.boxes, node, o, inverse, best):
            node = world.skips[node]
            continue
        i = world.leaves[node]
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
    inverse = (1.0 / d[0], 1.0 / d[1], 1.0 / d[2])
    node, size = 0, world.leaves.size
    while node < size:
        if _misses(world.boxes, node, o, inverse, limit):
            node = world.skips[node]
            continue
        i = world.leaves[node]
        if i >= 0 and world.materials[i, EMISSION] == 0.0 and solid_hit(world, i, o, d) < limit:
            return i
        node += 1
    return -1


@compiled
@no_type_check
def unit(v: Any) -> Any:
    """Returns the vector at unit length."""
    length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] / length, v[1] / length, v[2] / length
