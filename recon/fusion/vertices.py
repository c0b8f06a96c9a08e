"""Places, normals, colours and weights of the vertices on a block's edges."""

from typing import Any, no_type_check

import numpy as np

from recon.fusion.blocks import BLOCK_VOXELS, SIDE, VOXEL_NUMBERS
from recon.fusion.halo import HALO, MIDDLE
from recon.fusion.integration import GRADIENT, RGB, VARIANCE, WEIGHT
from recon.fusion.packing import HIGH_XY, HIGH_Z, bits_of, unpack_three, unpack_variance
from recon.jit import compiled

END_MARGIN = np.float32(1e-3)  # of an edge: a vertex right on a corner would give triangles without area
NOISY = np.float32(0.025**2)  # variance of distances / truncation from which the mean of normals counts more


@compiled
@no_type_check
def _slope(halo: Any, i: int, stride: int) -> Any:
    """Difference per voxel along one axis: central, one-sided beside the unknown."""
    before, here, after = halo[i - stride], halo[i], halo[i + stride]
    if np.isnan(before):
        return np.float32(0) if np.isnan(after) else after - here
    return here - before if np.isnan(after) else np.float32(0.5) * (after - before)


@compiled
@no_type_check
def _slopes(halo: Any, i: int, axis: int, part: Any) -> Any:
    """Returns the unit gradient of the signed distance on an edge of the grid."""
    stride = 1 if axis == 0 else (HALO if axis == 1 else HALO * HALO)
    other = i + stride
    x, y, z = _slope(halo, i, 1), _slope(halo, i, HALO), _slope(halo, i, HALO * HALO)
    x += part * (_slope(halo, other, 1) - x)
    y += part * (_slope(halo, other, HALO) - y)
    z += part * (_slope(halo, other, HALO * HALO) - z)
    if x * x + y * y + z * z < 1e-12:  # the mean of opposite slopes: only the edge itself is left to tell
        along = halo[other] - halo[i]
        x, y, z = along * (axis == 0), along * (axis == 1), along * (axis == 2)
    scale = 1 / np.sqrt(np.float64(x * x + y * y + z * z))
    return x * scale, y * scale, z * scale


@compiled
@no_type_check
def _mean_normal(state: Any, voxel: int) -> Any:
    """Returns the mean of the normals that views saw at a voxel."""
    x, y, z = unpack_three(bits_of(state[GRADIENT, voxel]))
    return x / HIGH_XY * 2 - 1, y / HIGH_XY * 2 - 1, z / HIGH_Z * 2 - 1


@compiled
@no_type_check
def _normal(slopes: Any, one: Any, two: Any, part: Any) -> Any:
    """Returns the gradient of the distance, mixed with the mean of normals seen where it is noisy.

    `one`, `two`: words and number of the voxel at either end of the edge.
    """
    first, _ = unpack_variance(bits_of(one[0][VARIANCE, one[1]]))
    second, _ = unpack_variance(bits_of(two[0][VARIANCE, two[1]]))
    variance = (1 - part) * first + part * second
    share = variance / (variance + NOISY)
    a, b = _mean_normal(one[0], one[1]), _mean_normal(two[0], two[1])
    x = a[0] + part * (b[0] - a[0])
    y = a[1] + part * (b[1] - a[1])
    z = a[2] + part * (b[2] - a[2])
    x = slopes[0] + share * (x - slopes[0])
    y = slopes[1] + share * (y - slopes[1])
    z = slopes[2] + share * (z - slopes[2])
    length = np.sqrt(x * x + y * y + z * z)
    if length < 1e-3:
        return slopes
    return x / length, y / length, z / length


@compiled
@no_type_check
def _level(low: Any, high: Any, part: Any, scale: Any) -> Any:
    return np.uint8((low + part * (high - low)) * scale + np.float32(0.5))


@compiled
@no_type_check
def fill_vertices(vertex: int, edges: Any, halo: Any, block: Any, mesh: Any) -> None:
    """Writes the vertices of one block.

    Args:
        vertex: Number of the first.
        edges: (24,) bits of the edges that have one.
        halo: Of `halo.fill_halo`.
        block: Coordinates of the block; slots of the blocks around it; words by slot.
        mesh: As for `marching_cubes.fill_blocks`.
    """
    vertices, normals, colors, weights, _ = mesh
    corner, slots, words = block
    for edge in range(3 * BLOCK_VOXELS):
        if not (edges[edge >> 6] >> np.uint64(edge & 63)) & np.uint64(1):
            continue
        x, y, z, axis = edge // 3 % SIDE, edge // 3 // SIDE % SIDE, edge // 3 // SIDE**2, edge % 3
        voxel = VOXEL_NUMBERS[z, y, x]
        i = (x + 1) + HALO * ((y + 1) + HALO * (z + 1))
        stride = 1 if axis == 0 else (HALO if axis == 1 else HALO * HALO)
        part = halo[i] / (halo[i] - halo[i + stride])
        part = min(max(part, END_MARGIN), np.float32(1) - END_MARGIN)
        x2, y2, z2 = x + (axis == 0), y + (axis == 1), z + (axis == 2)
        voxel2 = VOXEL_NUMBERS[z2 % SIDE, y2 % SIDE, x2 % SIDE]
        there = words[slots[MIDDLE + x2 // SIDE + 3 * (y2 // SIDE) + 9 * (z2 // SIDE)]]
        here = words[slots[MIDDLE]]
        if here[WEIGHT, voxel] == 0:  # only seen through: what it would look like is known at the other end
            here, voxel = there, voxel2
        elif there[WEIGHT, voxel2] == 0:
            there, voxel2 = here, voxel
        vertices[vertex, 0] = SIDE * np.int64(corner[0]) + x + 0.5 + (part if axis == 0 else 0.0)
        vertices[vertex, 1] = SIDE * np.int64(corner[1]) + y + 0.5 + (part if axis == 1 else 0.0)
        vertices[vertex, 2] = SIDE * np.int64(corner[2]) + z + 0.5 + (part if axis == 2 else 0.0)
        normal = _normal(_slopes(halo, i, axis, part), (here, voxel), (there, voxel2), part)
        normals[vertex, 0], normals[vertex, 1], normals[vertex, 2] = normal
        weights[vertex] = min(here[WEIGHT, voxel], there[WEIGHT, voxel2])
        if words.shape[1] > RGB:
            a, b = unpack_three(bits_of(here[RGB, voxel])), unpack_three(bits_of(there[RGB, voxel2]))
            colors[vertex, 0] = _level(a[0], b[0], part, np.float32(255) / HIGH_XY)
            colors[vertex, 1] = _level(a[1], b[1], part, np.float32(255) / HIGH_XY)
            colors[vertex, 2] = _level(a[2], b[2], part, np.float32(255) / HIGH_Z)
        vertex += 1
