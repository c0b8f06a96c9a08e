"""A block's signed distances with those around it, laid out for marching cubes."""

from typing import Any, no_type_check

import numpy as np

from recon.fusion.blocks import SIDE, VOXEL_NUMBERS
from recon.fusion.integration import CELL, CELLS, TSDF, WEIGHT
from recon.jit import compiled

HALO = SIDE + 3  # a block with one voxel before it and two behind it
HALO_VOXELS = HALO**3
MIDDLE = 13  # the block itself among the 27 around it
FREE, SOLID, UNKNOWN = 1, 2, 4  # marks of corners


@compiled
@no_type_check
def fill_halo(near: Any, volume: Any, slots: Any, halo: Any) -> None:
    """Writes the signed distances of a block and of the voxels around it; NaN where nothing is known.

    A voxel that more votes call free than have it solid, or of which nothing else is known, is free: votes
    count as distances of 1. What was seen through makes no surface, and objects are closed at their outlines.

    Args:
        near: Rows of the 27 blocks, -1 where there is none.
        volume: As for `marching_cubes.count_blocks`.
        slots: (27,) their slots; written.
        halo: (HALO_VOXELS,) written.
    """
    slot_of_row, words, free, min_weight = volume[1], volume[2], volume[3], volume[4]
    for b in range(27):
        slots[b] = slot_of_row[near[b]] if near[b] >= 0 else -1
    halo[:] = np.nan
    for b in range(27):
        if slots[b] < 0:
            continue
        bx, by, bz = b % 3 - 1, b // 3 % 3 - 1, b // 9 - 1
        state, votes = words[slots[b]], free[near[b]]
        x0, x1 = max(0, -1 - SIDE * bx), min(SIDE, SIDE + 2 - SIDE * bx)
        y0, y1 = max(0, -1 - SIDE * by), min(SIDE, SIDE + 2 - SIDE * by)
        z0, z1 = max(0, -1 - SIDE * bz), min(SIDE, SIDE + 2 - SIDE * bz)
        for z in range(z0, z1):
            for y in range(y0, y1):
                numbers = VOXEL_NUMBERS[z, y]
                cell = CELLS * (y // CELL + CELLS * (z // CELL))
                i = SIDE * bx + 1 + HALO * ((SIDE * by + y + 1) + HALO * (SIDE * bz + z + 1))
                for x in range(x0, x1):
                    weight, distance = state[WEIGHT, numbers[x]], state[TSDF, numbers[x]]
                    known = (weight > 0) & (weight >= min_weight)
                    vote = votes[cell + x // CELL]
                    if (vote > weight) & ((distance < 0) | (not known)):
                        known, distance = vote >= min_weight, (weight * distance + vote) / (weight + vote)
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
