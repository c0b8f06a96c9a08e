"""Triangles where the signed distance of a sparse volume changes sign, watertight over the blocks' borders.

Marching cubes (Lorensen and Cline, 1987). Each vertex belongs to one edge of the voxel grid and that edge to
one voxel, so that blocks share vertices and not copies. A block's used edges are bits; the number of a vertex
is the number of bits before it. So the triangles of a part of the volume need no other part's vertices, and
parts that are in memory one after the other give the mesh of the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8, UInt16

from recon.fusion.blocks import BLOCK_VOXELS, SIDE, BlockIndex
from recon.fusion.cube_cases import EDGE_AXIS, EDGE_CORNER, case_table
from recon.fusion.halo import FREE, HALO, HALO_VOXELS, MIDDLE, SOLID, fill_halo, mark_corners, mix_cubes
from recon.fusion.on_device import DevicePages
from recon.fusion.pages import Pages
from recon.fusion.vertices import fill_vertices
from recon.jit import compiled, run_pieces

if TYPE_CHECKING:
    from recon.fusion.smoothing import Smoothed

EDGES = 3 * BLOCK_VOXELS  # of a block: three from each voxel
EDGE_WORDS = EDGES // 64
PART_SHARE = 4  # parts have a quarter of the blocks that fit into memory, with those around them more
TABLE = case_table()
TABLE_LENGTHS = (TABLE >= 0).sum(axis=1)


@dataclass(frozen=True, eq=False)
class Triangles:
    """A mesh in units of voxels, in the grid's frame."""

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int64[np.ndarray, "m 3"]
    normals: Float64[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    """Black where the volume has no colours."""

    weights: Float32[np.ndarray, "n"]
    """The smaller one of the two voxels on the vertex's edge."""


def extract_triangles(
    index: BlockIndex,
    pages: Pages | DevicePages,
    free: UInt16[np.ndarray, "n 64"],
    smoothed: "Smoothed",
    limits: tuple[float, float],
    threads: int | None,
) -> Triangles:
    """Returns the zero set of a volume's blocks as triangles, ordered by block and not by history.

    Args:
        index: The blocks.
        pages: Their voxels.
        free: Their votes for free space.
        smoothed: What takes the place of their distances.
        limits: Weight and distance / truncation, far behind a surface, below which voxels are unknown.
        threads: None means one per processor.
    """
    order = np.argsort(index.keys)
    edges = np.zeros((len(order), EDGE_WORDS), np.uint64)
    counts = np.zeros((len(order), 2), np.int64)
    others = (free, smoothed.numbers, smoothed.values, np.float32(limits[0]), np.float32(limits[1]))
    for part, near in parts(order, index, pages, threads):
        volume = (near, pages.slot_map(), pages.words, others)
        run_pieces(count_blocks, len(part), threads, part, volume, edges, counts)
    totals = counts[order].sum(axis=0)
    firsts = np.empty_like(counts)
    firsts[order] = np.cumsum(counts[order], axis=0) - counts[order]
    ranks = _ranks(edges)
    mesh = Triangles(
        vertices=np.empty((totals[0], 3)),
        faces=np.empty((totals[1], 3), np.int64),
        normals=np.empty((totals[0], 3)),
        colors=np.zeros((totals[0], 3), np.uint8),
        weights=np.empty(totals[0], np.float32),
    )
    out = (mesh.vertices, mesh.normals, mesh.colors, mesh.weights, mesh.faces)
    for part, near in parts(order, index, pages, threads):
        volume = (near, pages.slot_map(), pages.words, others)
        numbers = (edges, ranks, firsts, counts)
        run_pieces(fill_blocks, len(part), threads, (part, index.coords), volume, numbers, out)
    return mesh


def parts(
    order: Int64[np.ndarray, "n"], index: BlockIndex, pages: Pages | DevicePages, threads: int | None
) -> Iterator[tuple[Int64[np.ndarray, "m"], Int32[np.ndarray, "m 27"]]]:
    """Yields rows in order and the rows around them, in parts that fit into memory and then are there."""
    start, size = 0, len(order)
    if pages.paged:
        assert pages.most is not None
        size = max(pages.most // PART_SHARE, 1)
    while start < len(order):
        part = order[start : start + size]
        near = index.neighbors(part, threads)
        if pages.paged:
            needed = np.unique(near[near >= 0]).astype(np.int64)
            if len(needed) > (pages.most or 0) and size > 1:
                size = max(size // 2, 1)
                continue
            pages.slots(needed, change=False)
        yield part, near
        start += len(part)


def _ranks(edges: np.ndarray) -> np.ndarray:
    """Returns how many bits are set before each word."""
    ranks = np.zeros(edges.shape, np.uint16)
    np.cumsum(np.bitwise_count(edges[:, :-1]), axis=1, out=ranks[:, 1:], dtype=np.uint16)
    return ranks


@compiled
@no_type_check
def _cube_number(x: int, y: int, z: int) -> int:
    return (x + 1) + HALO * ((y + 1) + HALO * (z + 1))


@compiled
@no_type_check
def _case(corners: Any, i: int) -> int:
    """Returns the solid corners of the cube at voxel i of the halo, as bits."""
    solid = 0
    for corner in range(8):
        mark = corners[i + (corner & 1) + HALO * (corner >> 1 & 1) + HALO * HALO * (corner >> 2)]
        solid |= (mark == SOLID) << corner
    return solid


@compiled
@no_type_check
def _bits_before(word: Any, bit: int) -> int:
    """Returns how many of the lower bits of a word are set."""
    lower = np.uint64(word) & ((np.uint64(1) << np.uint64(bit)) - np.uint64(1))
    lower -= (lower >> np.uint64(1)) & np.uint64(0x5555555555555555)
    pairs = np.uint64(0x3333333333333333)
    lower = (lower & pairs) + ((lower >> np.uint64(2)) & pairs)
    lower = (lower + (lower >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((lower * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
@no_type_check
def count_blocks(start: int, stop: int, part: Any, volume: Any, edges: Any, counts: Any) -> None:
    """Marks the edges of each block that have a vertex and counts its vertices and triangles.

    Args:
        start: First block of `part` to do.
        stop: One past the last.
        part: Rows of blocks.
        volume: (m, 27) rows around each of them; slots by row; words by slot; and free votes by row, numbers
            of smoothed blocks by row, their distances, weight and distance / truncation below which a voxel
            is unknown.
        edges: (n, 24) bits by row; written.
        counts: (n, 2) vertices and triangles by row; written.
    """
    near = volume[0]
    halo, corners = np.empty(HALO_VOXELS, np.float32), np.empty(HALO_VOXELS, np.uint8)
    cubes, slots = np.empty(HALO_VOXELS, np.uint8), np.empty(27, np.int64)
    mixed = np.uint8(FREE | SOLID)
    for k in range(start, stop):
        row, vertices, triangles = part[k], 0, 0
        fill_halo(near[k], volume, slots, halo)
        if mark_corners(halo, corners):
            mix_cubes(corners, cubes)
            for z in range(-1, SIDE):
                for y in range(-1, SIDE):
                    first = _cube_number(-1, y, z)
                    for x in range(-1, SIDE):
                        if cubes[first + x + 1] != mixed:
                            continue
                        case = _case(corners, first + x + 1)
                        if x >= 0 and y >= 0 and z >= 0:
                            triangles += TABLE_LENGTHS[case] // 3
                        for j in range(TABLE_LENGTHS[case]):
                            corner, axis = EDGE_CORNER[TABLE[case, j]], EDGE_AXIS[TABLE[case, j]]
                            x2, y2, z2 = x + (corner & 1), y + (corner >> 1 & 1), z + (corner >> 2)
                            if 0 <= x2 < SIDE and 0 <= y2 < SIDE and 0 <= z2 < SIDE:
                                edge = 3 * (x2 + SIDE * (y2 + SIDE * z2)) + axis
                                edges[row, edge >> 6] |= np.uint64(1) << np.uint64(edge & 63)
            for word in range(EDGE_WORDS):
                bits = edges[row, word]
                vertices += _bits_before(bits, 63) + np.int64(bits >> np.uint64(63))
        counts[row, 0], counts[row, 1] = vertices, triangles


@compiled
@no_type_check
def _vertex(x: int, y: int, z: int, axis: int, near: Any, numbers: Any) -> int:
    """Returns the number of the vertex on the edge from a voxel, which may be in the next block."""
    edges, ranks, firsts, _ = numbers
    owner = near[MIDDLE + x // SIDE + 3 * (y // SIDE) + 9 * (z // SIDE)]
    edge = 3 * (x % SIDE + SIDE * (y % SIDE + SIDE * (z % SIDE))) + axis
    word = edge >> 6
    return firsts[owner, 0] + ranks[owner, word] + _bits_before(edges[owner, word], edge & 63)


@compiled
@no_type_check
def fill_blocks(start: int, stop: int, blocks: Any, volume: Any, numbers: Any, mesh: Any) -> None:
    """Writes the vertices and triangles of each block to their places in the mesh.

    Args:
        start: First block to do.
        stop: One past the last.
        blocks: Rows of blocks; coordinates by row.
        volume: As for `count_blocks`.
        numbers: Bits of edges, bits before each word of them, first vertex and triangle; counts; by row.
        mesh: Vertices in voxels, normals, colours, weights, faces; written.
    """
    part, coords = blocks
    near, edges, firsts, counts = volume[0], numbers[0], numbers[2], numbers[3]
    faces = mesh[4]
    halo, corners = np.empty(HALO_VOXELS, np.float32), np.empty(HALO_VOXELS, np.uint8)
    cubes, slots = np.empty(HALO_VOXELS, np.uint8), np.empty(27, np.int64)
    mixed = np.uint8(FREE | SOLID)
    for k in range(start, stop):
        row = part[k]
        if counts[row, 0] == 0 and counts[row, 1] == 0:
            continue
        fill_halo(near[k], volume, slots, halo)
        fill_vertices(firsts[row, 0], edges[row], halo, (coords[row], slots, volume[2]), mesh)
        mark_corners(halo, corners)
        mix_cubes(corners, cubes)
        face = firsts[row, 1]
        for z in range(SIDE if counts[row, 1] else 0):
            for y in range(SIDE):
                first = _cube_number(0, y, z)
                for x in range(SIDE):
                    if cubes[first + x] != mixed:
                        continue
                    case = _case(corners, first + x)
                    for j in range(TABLE_LENGTHS[case]):
                        corner, axis = EDGE_CORNER[TABLE[case, j]], EDGE_AXIS[TABLE[case, j]]
                        x2, y2, z2 = x + (corner & 1), y + (corner >> 1 & 1), z + (corner >> 2)
                        faces[face + j // 3, j % 3] = _vertex(x2, y2, z2, axis, near[k], numbers)
                    face += TABLE_LENGTHS[case] // 3
