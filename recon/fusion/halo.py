"""A block's signed distances with those around it, laid out for marching cubes."""

from typing import Any, no_type_check

import numpy as np

from recon.fusion.blocks import SIDE, VOXEL_NUMBERS
from recon.fusion.integration import CELL, CELLS, TSDF, VARIANCE, WEIGHT
from recon.fusion.packing import VOTE_STEPS, bits_of, unpack_variance
from recon.jit import compiled

HALO = SIDE + 3  # a block with one voxel before it and two behind it
HALO_VOXELS = HALO**3
VOTE_CELLS = CELLS + 3  # along a block with one cell before it and two behind it
MIDDLE = 13  # the block itself among the 27 around it
FREE, SOLID, UNKNOWN = 1, 2, 4  # marks of corners


@compiled
@no_type_check
def _fill_cells(near: Any, free: Any, cells: Any) -> bool:
    """Writes the votes of a block's cells and of those around it, steps; returns whether there are any.

    None where there is no block: whichever block asks, a voxel has to get the same distance.
    """
    most = np.float32(0)
    for k in range(VOTE_CELLS):
        for j in range(VOTE_CELLS):
            for i in range(VOTE_CELLS):
                x, y, z = i - 1, j - 1, k - 1
                row = near[MIDDLE + x // CELLS + 3 * (y // CELLS) + 9 * (z // CELLS)]
                cell = x % CELLS + CELLS * (y % CELLS + CELLS * (z % CELLS))
                cells[k, j, i] = np.float32(free[row, cell]) if row >= 0 else np.float32(0)
                most = max(most, cells[k, j, i])
    return most > 0


@compiled
@no_type_check
def _vote(x: int, y: int, z: int, cells: Any) -> Any:
    """Returns the votes of the cells at a voxel, interpolated between their middles.

    As they are in its own cell, a gap as wide as a cell would be open or closed by where the grid lies.
    """
    i, j, k = (x + 1) // CELL, (y + 1) // CELL, (z + 1) // CELL
    near, far = np.float32(0.75), np.float32(0.25)  # of the middle of a voxel's own cell, of the next one's
    a, b, c = far if x & 1 else near, far if y & 1 else near, far if z & 1 else near
    total = np.float32(0)
    for corner in range(8):
        share = a if corner & 1 else np.float32(1) - a
        share *= b if corner & 2 else np.float32(1) - b
        share *= c if corner & 4 else np.float32(1) - c
        total += share * cells[k + (corner >> 2), j + (corner >> 1 & 1), i + (corner & 1)]
    return total


@compiled
@no_type_check
def fill_halo(near: Any, volume: Any, slots: Any, halo: Any) -> None:
    """Writes the signed distances of a block and of the voxels around it; NaN where nothing is known.

    Far behind a surface nothing is known, or outlines would be closed by skirts as long as the truncation
    distance. A voxel that more votes call free than have it solid, or of which nothing else is known, is
    free: with votes v and weight w its distance is at least (v - w) / (v + w), the mean of v distances of 1
    and w of -1, unless it is before a surface anyway. So what was seen through makes no surface, objects are
    closed at their outlines, and these lie where votes and weight are equal, between the voxels.

    Args:
        near: Rows of the 27 blocks, -1 where there is none.
        volume: As for `marching_cubes.count_blocks`.
        slots: (27,) their slots; written.
        halo: (HALO_VOXELS,) written.
    """
    slot_of_row, words, (free, smooth_numbers, smooth, min_weight, deepest) = volume[1], volume[2], volume[3]
    for b in range(27):
        slots[b] = slot_of_row[near[b]] if near[b] >= 0 else -1
    halo[:] = np.nan
    cells = np.empty((VOTE_CELLS, VOTE_CELLS, VOTE_CELLS), np.float32)
    voted, one, step = _fill_cells(near, free, cells), np.float32(1), np.float32(1 / VOTE_STEPS)
    for b in range(27):
        if slots[b] < 0:
            continue
        bx, by, bz = b % 3 - 1, b // 3 % 3 - 1, b // 9 - 1
        state, votes, number = words[slots[b]], free[near[b]], smooth_numbers[near[b]]
        x0, x1 = max(0, -1 - SIDE * bx), min(SIDE, SIDE + 2 - SIDE * bx)
        y0, y1 = max(0, -1 - SIDE * by), min(SIDE, SIDE + 2 - SIDE * by)
        z0, z1 = max(0, -1 - SIDE * bz), min(SIDE, SIDE + 2 - SIDE * bz)
        for z in range(z0, z1):
            for y in range(y0, y1):
                numbers = VOXEL_NUMBERS[z, y]
                cell = CELLS * (y // CELL + CELLS * (z // CELL))
                i = SIDE * bx + 1 + HALO * ((SIDE * by + y + 1) + HALO * (SIDE * bz + z + 1))
                for x in range(x0, x1):
                    weight = state[WEIGHT, numbers[x]]
                    distance = smooth[number, numbers[x]] if number >= 0 else state[TSDF, numbers[x]]
                    known = (weight > 0) & (weight >= min_weight) & (distance >= deepest)
                    if distance < 0 or not known:
                        _, through = unpack_variance(bits_of(state[VARIANCE, numbers[x]]))
                        vote = through
                        if voted:
                            vote += _vote(SIDE * bx + x, SIDE * by + y, SIDE * bz + z, cells)
                        vote *= step
                        lead = (vote - weight) / (vote + weight) if vote > 0 else -one
                        if known:
                            distance = max(distance, lead)
                        elif vote > weight:  # nothing is known of it but by votes for itself
                            own = step * (np.float32(votes[cell + x // CELL]) + through)
                            known, distance = own >= min_weight, lead
                    if known:
                        halo[i + x] = distance


@compiled
@no_type_check
def mark_corners(halo: Any, corners: Any) -> Any:
    """Writes whether voxels are free, solid or unknown. Returns False if no surface can be between them."""
    seen = np.uint8(0)
    zero = np.float32(0)
    for i in range(HALO_VOXELS):
        distance = halo[i]
        mark = (
            np.uint8(FREE)
            if distance >= zero
            else (np.uint8(SOLID) if distance < zero else np.uint8(UNKNOWN))
        )
        corners[i] = mark
        seen = np.uint8(seen | mark)
    return (seen & FREE) != 0 and (seen & SOLID) != 0


@compiled
@no_type_check
def mix_cubes(corners: Any, cubes: Any) -> None:
    """Writes the union of the marks of each cube's eight corners; cubes at the far end are left out."""
    for i in range(HALO_VOXELS - 1):
        cubes[i] = np.uint8(corners[i] | corners[i + 1])
    for i in range(HALO_VOXELS - 1 - HALO):
        cubes[i] = np.uint8(cubes[i] | cubes[i + HALO])
    for i in range(HALO_VOXELS - 1 - HALO - HALO * HALO):
        cubes[i] = np.uint8(cubes[i] | cubes[i + HALO * HALO])
