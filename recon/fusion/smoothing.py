"""Signed distances averaged over the voxels around, where the views disagree.

Sigma knows nothing of what a view's pixels or several views have in common, and where errors are larger than
voxels, surfaces are crumpled. But each voxel keeps the variance of its distances: where their standard
deviation is over `NOISE` voxels, averages over a Gaussian window take their place (normalised convolution,
Knutsson and Westin 1993); elsewhere nothing changes, nor where the normals that were seen differ from one
voxel to the next, as at edges and thin things. Each known voxel counts the same: weights are smaller behind
surfaces, and means by them would move these back.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Int32

from recon.fusion.blocks import BLOCK_VOXELS, SIDE, VOXEL_NUMBERS, BlockIndex
from recon.fusion.integration import GRADIENT, TSDF, VARIANCE, WEIGHT
from recon.fusion.marching_cubes import parts
from recon.fusion.on_device import DevicePages
from recon.fusion.packing import bits_of, unpack_direction, unpack_trust, unpack_variance
from recon.fusion.pages import Pages
from recon.jit import compiled, run_pieces

WIDE = 3 * SIDE  # a block and those around it
NOISE, FULL = 0.5, 0.75  # standard deviation, voxels, from which distances are averaged, and wholly so


def _window(sigma: float, reach: int) -> Float32[np.ndarray, "n"]:
    steps = np.arange(-reach, reach + 1)
    values = np.exp(-0.5 * (steps / sigma) ** 2)
    return (values / values.sum()).astype(np.float32)


ALIKE, SAME = 0.6, 0.8  # length of the mean of normals around, from which, and from which wholly so
NOISE_WINDOW, WINDOW = _window(1.0, 3), _window(1.5, 5)  # of what tells noise, and of distances


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Distances that take the place of a volume's own."""

    numbers: Int32[np.ndarray, "rows"]
    """Of each block in `values`, -1 where its distances stay."""

    values: Float32[np.ndarray, "n 512"]


def unsmoothed(rows: int) -> Smoothed:
    """Returns that all distances stay."""
    return Smoothed(np.full(rows, -1, np.int32), np.empty((0, BLOCK_VOXELS), np.float32))


def smooth_noise(
    index: BlockIndex, pages: Pages | DevicePages, reach: float, threads: int | None
) -> Smoothed:
    """Returns averaged distances of the blocks where, or next to which, views disagree.

    Args:
        index: The volume's blocks.
        pages: Their voxels.
        reach: Truncation distance, voxels.
        threads: None means one per processor.
    """
    order = np.argsort(index.keys)
    numbers, scale = np.full(len(order), -1, np.int32), np.float32(reach)
    for part, near in parts(order, index, pages, threads):
        volume = (near, pages.slot_map(), pages.words)
        run_pieces(_mark_noise, len(part), threads, part, volume, scale, numbers)
    chosen = numbers >= 0
    if not chosen.any():
        return unsmoothed(len(order))
    numbers[chosen] = np.arange(chosen.sum(), dtype=np.int32)
    values = np.empty((int(chosen.sum()), BLOCK_VOXELS), np.float32)
    for part, near in parts(order, index, pages, threads):
        volume = (near, pages.slot_map(), pages.words)
        run_pieces(_smooth_blocks, len(part), threads, part, volume, scale, (numbers, values))
    return Smoothed(numbers, values)


@compiled
@no_type_check
def _mark_noise(start: int, stop: int, part: Any, volume: Any, scale: Any, numbers: Any) -> None:
    """Marks with a zero the blocks in or beside which a standard deviation is over `NOISE` voxels."""
    near, slot_of_row, words = volume
    limit = np.float32(NOISE) / scale
    limit *= limit
    for k in range(start, stop):
        state = words[slot_of_row[part[k]]]
        for i in range(BLOCK_VOXELS):
            variance, _ = unpack_variance(bits_of(state[VARIANCE, i]))
            weight, _ = unpack_trust(bits_of(state[WEIGHT, i]))
            if weight > 0 and variance > limit:
                for b in range(27):
                    if near[k, b] >= 0:
                        numbers[near[k, b]] = 0
                break


@compiled
@no_type_check
def _smooth_blocks(start: int, stop: int, part: Any, volume: Any, scale: Any, out: Any) -> None:
    """Writes the averaged distances of the blocks that are marked."""
    near, slot_of_row, words = volume
    numbers, values = out
    wide = np.empty((7, WIDE, WIDE, WIDE), np.float32)
    lines, columns = np.empty((WIDE, WIDE, SIDE), np.float32), np.empty((WIDE, SIDE, SIDE), np.float32)
    weights, noise = np.empty((SIDE, SIDE, SIDE), np.float32), np.empty((SIDE, SIDE, SIDE), np.float32)
    known, means = np.empty((SIDE, SIDE, SIDE), np.float32), np.empty((SIDE, SIDE, SIDE), np.float32)
    normals = np.empty((3, SIDE, SIDE, SIDE), np.float32)
    one, zero = np.float32(1), np.float32(0)
    for k in range(start, stop):
        number = numbers[part[k]]
        if number < 0:
            continue
        own = words[slot_of_row[part[k]]]
        values[number] = own[TSDF]
        _gather(near[k], slot_of_row, words, wide)
        _average(wide[0], NOISE_WINDOW, lines, columns, weights)
        _average(wide[1], NOISE_WINDOW, lines, columns, noise)
        most = zero
        for z in range(SIDE):
            for y in range(SIDE):
                for x in range(SIDE):
                    if wide[0, SIDE + z, SIDE + y, SIDE + x] > 0:
                        noise[z, y, x] = scale * np.sqrt(noise[z, y, x] / weights[z, y, x])
                        most = max(most, noise[z, y, x])
        if most <= np.float32(NOISE):
            continue
        for axis in range(3):
            _average(wide[4 + axis], WINDOW, lines, columns, normals[axis])
        _average(wide[2], WINDOW, lines, columns, known)
        _average(wide[3], WINDOW, lines, columns, means)
        for z in range(SIDE):
            for y in range(SIDE):
                for x in range(SIDE):
                    if wide[0, SIDE + z, SIDE + y, SIDE + x] > 0:
                        voxel = VOXEL_NUMBERS[z, y, x]
                        share = (noise[z, y, x] - np.float32(NOISE)) / np.float32(FULL - NOISE)
                        nx, ny, nz = normals[0, z, y, x], normals[1, z, y, x], normals[2, z, y, x]
                        alike = np.sqrt(nx * nx + ny * ny + nz * nz) / known[z, y, x]
                        share = min(share, (alike - np.float32(ALIKE)) / np.float32(SAME - ALIKE))
                        change = means[z, y, x] / known[z, y, x] - own[TSDF, voxel]
                        values[number, voxel] += min(max(share, zero), one) * change


@compiled
@no_type_check
def _gather(near: Any, slot_of_row: Any, words: Any, wide: Any) -> None:
    """Writes weights of a block and those around, variances by them, 1 where known, distances, normals."""
    wide[:] = np.float32(0)
    for b in range(27):
        if near[b] < 0:
            continue
        state = words[slot_of_row[near[b]]]
        x0, y0, z0 = SIDE * (b % 3), SIDE * (b // 3 % 3), SIDE * (b // 9)
        for z in range(SIDE):
            for y in range(SIDE):
                for x in range(SIDE):
                    voxel = VOXEL_NUMBERS[z, y, x]
                    weight, _ = unpack_trust(bits_of(state[WEIGHT, voxel]))
                    if weight > 0:
                        variance, _ = unpack_variance(bits_of(state[VARIANCE, voxel]))
                        wide[0, z0 + z, y0 + y, x0 + x] = weight
                        wide[1, z0 + z, y0 + y, x0 + x] = weight * variance
                        wide[2, z0 + z, y0 + y, x0 + x] = np.float32(1)
                        wide[3, z0 + z, y0 + y, x0 + x] = state[TSDF, voxel]
                        normal = unpack_direction(bits_of(state[GRADIENT, voxel]))
                        wide[4, z0 + z, y0 + y, x0 + x] = normal[0]
                        wide[5, z0 + z, y0 + y, x0 + x] = normal[1]
                        wide[6, z0 + z, y0 + y, x0 + x] = normal[2]


@compiled
@no_type_check
def _average(wide: Any, window: Any, lines: Any, columns: Any, mean: Any) -> None:
    """Writes the sums over a window around each of the middle block's voxels, axis by axis."""
    first, last = SIDE - len(window) // 2, 2 * SIDE + len(window) // 2
    lines[:], columns[:], mean[:] = np.float32(0), np.float32(0), np.float32(0)
    for z in range(first, last):
        for y in range(first, last):
            for i in range(len(window)):
                for x in range(SIDE):
                    lines[z, y, x] += window[i] * wide[z, y, first + i + x]
    for z in range(first, last):
        for y in range(SIDE):
            for i in range(len(window)):
                for x in range(SIDE):
                    columns[z, y, x] += window[i] * lines[z, first + i + y, x]
    for z in range(SIDE):
        for i in range(len(window)):
            for y in range(SIDE):
                for x in range(SIDE):
                    mean[z, y, x] += window[i] * columns[first + i + z, y, x]
