"""Kernels of `lotus.norms` in Triton, which torch brings along on Linux; maps are (b, h * w, c) in memory.

A program takes `TILES` tiles of `PIXELS` pixels and `CHANNELS` channels, one after the other. Kernels are not
checked for types at run time: what checks wraps them, and Triton would compile in the wrapper's place.
"""

from typing import no_type_check

import triton
import triton.language as tl

PIXELS, CHANNELS, TILES = tl.constexpr(32), tl.constexpr(64), tl.constexpr(16)
PARTS = tl.constexpr(64)  # sums put together at once


@triton.jit
@no_type_check
def sum_up(maps, sums, pixels, channels):
    """Sums the values and squares of each channel over the program's pixels: `sums` is (b, parts, 2, c)."""
    part, block, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = block * CHANNELS + tl.arange(0, CHANNELS)
    row = part * PIXELS * TILES + tl.arange(0, PIXELS)
    base = maps + picture.to(tl.int64) * pixels * channels
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    squares = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for tile in range(TILES):
        rows = row + tile * PIXELS
        inside = (rows < pixels)[:, None] & (column < channels)[None]
        value = tl.load(base + rows[:, None] * channels + column[None], inside, 0.0).to(tl.float32)
        total += value
        squares += value * value
    place = sums + (picture * tl.num_programs(0) + part).to(tl.int64) * 2 * channels + column
    tl.store(place, tl.sum(total, 0), column < channels)
    tl.store(place + channels, tl.sum(squares, 0), column < channels)


@triton.jit
@no_type_check
def put_together(  # noqa: PLR0913, PLR0917 - no structures in kernels
    sums,
    weights,
    biases,
    added,
    line,
    parts,
    pixels,
    channels,
    each,
    eps,
    EACH: tl.constexpr,
    ADDS: tl.constexpr,
):
    """Writes what the norm of a group multiplies each of its channels with and adds: `line` is (b, 2, c).

    `added` is what stands before the norm: it norms the map plus that.
    """
    group, picture = tl.program_id(0), tl.program_id(1)
    within = tl.arange(0, EACH)
    column = group * each + within
    total = tl.zeros((EACH,), tl.float32)
    squares = tl.zeros((EACH,), tl.float32)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        inside = (part < parts)[:, None] & (within < each)[None]
        place = sums + (picture * parts + part).to(tl.int64)[:, None] * 2 * channels + column[None]
        total += tl.sum(tl.load(place, inside, 0.0), 0)
        squares += tl.sum(tl.load(place + channels, inside, 0.0), 0)
    before = tl.zeros((EACH,), tl.float32)
    if ADDS:
        before = tl.load(added + column, within < each, 0.0).to(tl.float32)
        squares += before * (2 * total + pixels * before)
        total += pixels * before
    count = pixels * each
    mean = tl.sum(total, 0) / count
    variance = tl.maximum(tl.sum(squares, 0) / count - mean * mean, 0.0)
    slope = tl.load(weights + column, within < each, 0.0).to(tl.float32) / tl.sqrt(variance + eps)
    shift = tl.load(biases + column, within < each, 0.0).to(tl.float32) + slope * (before - mean)
    place = line + picture * 2 * channels + column
    tl.store(place, slope, within < each)
    tl.store(place + channels, shift, within < each)


@triton.jit
@no_type_check
def apply(maps, line, out, pixels, channels, ACTIVATED: tl.constexpr):
    """Writes slope * map + shift, through SiLU if wanted."""
    part, block, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = block * CHANNELS + tl.arange(0, CHANNELS)
    row = part * PIXELS * TILES + tl.arange(0, PIXELS)
    slope = tl.load(line + picture * 2 * channels + column, column < channels, 0.0)[None]
    shift = tl.load(line + (picture * 2 + 1) * channels + column, column < channels, 0.0)[None]
    first = picture.to(tl.int64) * pixels * channels
    for tile in range(TILES):
        rows = row + tile * PIXELS
        inside = (rows < pixels)[:, None] & (column < channels)[None]
        place = first + rows[:, None] * channels + column[None]
        value = tl.load(maps + place, inside, 0.0).to(tl.float32) * slope + shift
        if ACTIVATED:
            value = value * tl.sigmoid(value)
        tl.store(out + place, value.to(out.dtype.element_ty), inside)


@triton.jit
@no_type_check
def join(update, added, hidden, pixels, channels):
    """Adds to the update a number per channel and another map."""
    part, block, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = block * CHANNELS + tl.arange(0, CHANNELS)
    row = part * PIXELS * TILES + tl.arange(0, PIXELS)
    before = tl.load(added + column, column < channels, 0.0).to(tl.float32)[None]
    first = picture.to(tl.int64) * pixels * channels
    for tile in range(TILES):
        rows = row + tile * PIXELS
        inside = (rows < pixels)[:, None] & (column < channels)[None]
        place = first + rows[:, None] * channels + column[None]
        value = tl.load(update + place, inside, 0.0).to(tl.float32) + before
        value += tl.load(hidden + place, inside, 0.0).to(tl.float32)
        tl.store(update + place, value.to(update.dtype.element_ty), inside)
