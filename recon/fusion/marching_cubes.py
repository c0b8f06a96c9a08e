"""Triangles where the signed distance of a sparse volume changes sign, watertight over the blocks' borders.

Marching cubes (Lorensen and Cline, 1987). Each vertex belongs to one edge of the voxel grid and that edge to
one voxel, so that blocks share vertices and not copies.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.fusion.blocks import BLOCK_VOXELS, SIDE, BlockIndex, unpack
from recon.fusion.cube_cases import EDGE_AXIS, EDGE_CORNER, case_table
from recon.fusion.integration import CELL, CELLS, COLOR_STEPS
from recon.fusion.jit import compiled, run_pieces

HALO = SIDE + 3  # a block with one voxel before it and two behind it
HALO_VOXELS = HALO**3
MIDDLE = 13  # the block itself among the 27 around it
NO_VERTEX = -1
END_MARGIN = np.float32(1e-3)  # of an edge: a vertex right on a corner would give triangles without area


@dataclass(frozen=True, eq=False)
class Triangles:
    """A mesh in units of voxels, in the grid's frame."""

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int64[np.ndarray, "m 3"]
    normals: Float64[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    """Black where the volume has no colours."""


def extract_triangles(
    index: BlockIndex, channels: tuple[np.ndarray, ...], min_weight: float, threads: int | None
) -> Triangles:
    """Returns the zero set of a volume's blocks as triangles, ordered by block and not by history.

    Args:
        index: The blocks.
        channels: tsdf, weights, free votes and colours by row; no rows of colours where there are none.
        min_weight: Voxels with less are unknown.
        threads: None means all.
    """
    order = np.argsort(index.keys)
    numbers = np.empty((len(order), 3 * BLOCK_VOXELS), np.int16)
    volume = (order, channels, index.neighbors(order, threads), np.float32(min_weight), case_table(), numbers)
    counts = np.empty((len(order), 2), np.int64)
    run_pieces(count_blocks, len(order), threads, volume, counts)
    n, m = counts.sum(axis=0)
    firsts = np.empty((len(order), 2), np.int64)
    firsts[order] = np.cumsum(counts, axis=0) - counts
    vertices, normals = np.empty((n, 3)), np.empty((n, 3))
    colors, faces = np.zeros((n, 3), np.uint8), np.empty((m, 3), np.int64)
    mesh = (vertices, normals, colors, faces)
    run_pieces(fill_blocks, len(order), threads, volume, firsts, unpack(index.keys), mesh)
    used = np.zeros(n, bool)  # an edge beside unknown voxels has a vertex that no triangle needs
    used[faces] = True
    renumbered = np.cumsum(used) - 1
    return Triangles(
        vertices=vertices[used], faces=renumbered[faces], normals=normals[used], colors=colors[used]
    )


@compiled
@no_type_check
def _fill_halo(channels: Any, near: Any, min_weight: Any, halo: Any) -> None:
    """Writes the signed distances of a block and of the voxels around it; NaN where nothing is known.

    A solid voxel that more votes call free than support it is not known either: it makes no surface.
    """
    tsdf, weights, free, _ = channels
    i = 0
    for z in range(-1, SIDE + 2):
        for y in range(-1, SIDE + 2):
            for x in range(-1, SIDE + 2):
                row = near[MIDDLE + x // SIDE + 3 * (y // SIDE) + 9 * (z // SIDE)]
                halo[i] = np.nan
                if row >= 0:
                    x8, y8, z8 = x % SIDE, y % SIDE, z % SIDE
                    voxel = x8 + SIDE * (y8 + SIDE * z8)
                    weight = weights[row, voxel]
                    if weight > 0 and weight >= min_weight:
                        distance = tsdf[row, voxel]
                        cell = x8 // CELL + CELLS * (y8 // CELL + CELLS * (z8 // CELL))
                        if distance >= 0 or free[row, cell] <= weight:
                            halo[i] = distance
                i += 1


@compiled
@no_type_check
def _case(halo: Any, i: int) -> Any:
    """Returns the solid corners of the cube at voxel i of the halo, as bits; 0 if unknown."""
    solid = 0
    for corner in range(8):
        distance = halo[i + (corner & 1) + HALO * (corner >> 1 & 1) + HALO * HALO * (corner >> 2)]
        if np.isnan(distance):
            return 0
        if distance < 0:
            solid |= 1 << corner
    return solid


@compiled
@no_type_check
def _halo_number(voxel: int) -> Any:
    return (voxel % SIDE + 1) + HALO * ((voxel // SIDE % SIDE + 1) + HALO * (voxel // SIDE**2 + 1))


@compiled
@no_type_check
def count_blocks(start: int, stop: int, volume: Any, counts: Any) -> None:
    """Numbers the vertices of each block and counts its vertices and triangles.

    Args:
        start: First block to do, in the order of the mesh.
        stop: One past the last.
        volume: Rows of the blocks in the order of the mesh; tsdf, weights, free votes and colours by row;
            (n, 27) rows around each block, in the order of the mesh; weight below which a voxel is unknown;
            table of cases; numbers of the vertices on each block's edges, by row, which are written.
        counts: (n, 2) vertices and triangles of each block, in the order of the mesh; written.
    """
    order, channels, neighbors, min_weight, table, numbers = volume
    halo = np.empty(HALO_VOXELS, np.float32)
    strides = (1, HALO, HALO * HALO)
    for k in range(start, stop):
        _fill_halo(channels, neighbors[k], min_weight, halo)
        vertices, triangles = 0, 0
        for voxel in range(BLOCK_VOXELS):
            i = _halo_number(voxel)
            here = halo[i]
            for axis in range(3):
                there = halo[i + strides[axis]]
                crossing = (here < 0 and there >= 0) or (here >= 0 and there < 0)  # False for NaN
                numbers[order[k], 3 * voxel + axis] = vertices if crossing else NO_VERTEX
                vertices += crossing
            case = table[_case(halo, i)]
            edges = 0
            while case[edges] >= 0:
                edges += 1
            triangles += edges // 3
        counts[k, 0], counts[k, 1] = vertices, triangles


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
def _fill_vertices(first: Any, numbers: Any, halo: Any, corner: Any, mesh: Any) -> None:
    """Writes positions, voxels, and normals of one block's vertices."""
    vertices, normals = mesh[0], mesh[1]
    strides = (1, HALO, HALO * HALO)
    for voxel in range(BLOCK_VOXELS):
        i = _halo_number(voxel)
        place = (voxel % SIDE, voxel // SIDE % SIDE, voxel // SIDE**2)
        for axis in range(3):
            if numbers[3 * voxel + axis] == NO_VERTEX:
                continue
            vertex = first + numbers[3 * voxel + axis]
            other = i + strides[axis]
            part = halo[i] / (halo[i] - halo[other])
            part = min(max(part, END_MARGIN), np.float32(1) - END_MARGIN)
            squared = np.float32(0)
            for a in range(3):
                vertices[vertex, a] = SIDE * corner[a] + place[a] + 0.5 + (part if a == axis else 0.0)
                slope = _slope(halo, i, strides[a])
                slope += part * (_slope(halo, other, strides[a]) - slope)
                normals[vertex, a] = slope
                squared += slope * slope
            if squared < 1e-12:  # the mean of opposite slopes: only the edge itself is left to tell
                normals[vertex, axis] = halo[other] - halo[i]
                squared = normals[vertex, axis] ** 2
            for a in range(3):
                normals[vertex, a] /= np.sqrt(squared)


@compiled
@no_type_check
def _fill_colors(first: Any, numbers: Any, halo: Any, near: Any, colors: Any, vertex_colors: Any) -> None:
    """Writes the colours of one block's vertices, mixed from both ends of their edges."""
    strides = (1, HALO, HALO * HALO)
    row = near[MIDDLE]
    for edge in range(3 * BLOCK_VOXELS):
        if numbers[edge] == NO_VERTEX:
            continue
        voxel, axis = edge // 3, edge % 3
        i = _halo_number(voxel)
        part = halo[i] / (halo[i] - halo[i + strides[axis]])
        x = voxel % SIDE + (axis == 0)
        y = voxel // SIDE % SIDE + (axis == 1)
        z = voxel // SIDE**2 + (axis == 2)
        there = near[MIDDLE + x // SIDE + 3 * (y // SIDE) + 9 * (z // SIDE)]
        voxel2 = x % SIDE + SIDE * (y % SIDE + SIDE * (z % SIDE))
        for channel in range(3):
            one, two = np.float32(colors[row, voxel, channel]), np.float32(colors[there, voxel2, channel])
            level = (one + part * (two - one)) / COLOR_STEPS
            vertex_colors[first + numbers[edge], channel] = np.uint8(level + np.float32(0.5))


@compiled
@no_type_check
def fill_blocks(start: int, stop: int, volume: Any, firsts: Any, coords: Any, mesh: Any) -> None:
    """Writes the vertices and triangles of each block to their places in the mesh.

    Args:
        start: First block to do, in the order of the mesh.
        stop: One past the last.
        volume: As for `count_blocks`, which numbered the vertices.
        firsts: First vertex and first triangle of each block, by row.
        coords: Coordinates of the blocks, by row.
        mesh: Vertices in voxels, normals, colours, faces; written.
    """
    order, channels, neighbors, min_weight, table, numbers = volume
    faces = mesh[3]
    halo = np.empty(HALO_VOXELS, np.float32)
    for k in range(start, stop):
        row, near = order[k], neighbors[k]
        _fill_halo(channels, near, min_weight, halo)
        _fill_vertices(firsts[row, 0], numbers[row], halo, coords[row], mesh)
        if len(channels[3]):
            _fill_colors(firsts[row, 0], numbers[row], halo, near, channels[3], mesh[2])
        corner = 3 * firsts[row, 1]
        for voxel in range(BLOCK_VOXELS):
            case = table[_case(halo, _halo_number(voxel))]
            j = 0
            while case[j] >= 0:
                first, axis = EDGE_CORNER[case[j]], EDGE_AXIS[case[j]]
                x = voxel % SIDE + (first & 1)
                y = voxel // SIDE % SIDE + (first >> 1 & 1)
                z = voxel // SIDE**2 + (first >> 2)
                owner = near[MIDDLE + x // SIDE + 3 * (y // SIDE) + 9 * (z // SIDE)]
                owned = x % SIDE + SIDE * (y % SIDE + SIDE * (z % SIDE))
                faces[corner // 3, corner % 3] = firsts[owner, 0] + numbers[owner, 3 * owned + axis]
                corner += 1
                j += 1
