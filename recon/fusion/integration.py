"""Fast kernels that bring one view into the voxels; `recon/fusion/reference.py` says the same plainly."""

from typing import Any, no_type_check

import numpy as np

from recon.fusion.blocks import BLOCK_VOXELS, SIDE
from recon.fusion.observations import COLOR, DIRECTION, FRONT, OFFSET, TAPER_LENGTH, TRUST, VOTE
from recon.fusion.packing import (
    bits_of,
    chances,
    float_of,
    pack_three,
    unpack_direction,
    unpack_three,
    unpack_trust,
)
from recon.jit import compiled, prefetch

# Words of a voxel; a block keeps 512 of each kind together.
TSDF, WEIGHT, VARIANCE, GRADIENT, RGB = range(5)
CELL = 2  # voxels along the side of the cells that count votes for free space
CELLS = SIDE // CELL
BLOCK_CELLS = CELLS**3
DISTANCES, WEIGHTS, SHARES = 0, BLOCK_VOXELS, 2 * BLOCK_VOXELS  # in the scratch space of a block
GROUP = 64  # voxels that are left alone together if none of them is near the surface
OTHER_CHANCES = np.uint32(0x5BD1E995)  # so that colours are rounded independently of gradients
# Behind a surface sure pixels stop at two voxels, or both sides of a thin part would push each other away;
# unsure ones must weigh alike on both sides, or the mean of their noise would move the surface.
LESS_1, LESS_2 = np.float32(0.25), np.float32(1.5)
LEAST_BEHIND, LEAST_VOXELS_BEHIND = np.float32(0.5), np.float32(2)
TAPER_BEHIND = np.float32(0.25)  # all but voxels in units of the truncation distance
TINY = np.float32(1e-30)
LEAST_SHARE = np.float32(1e-4)  # what is left of a weight after taking it away may be rounding
# Robust update: a voxel that is surer than the pixel gives little weight to what disagrees with it.
SURER = np.float32(2.0)  # times the pixel's weight
OUTLIER_SIGMAS2 = np.float32(9.0)  # beyond three sigma (Huber)
MIN_VARIANCE = np.float32(
    0.75**2 / 9
)  # of distances / truncation; planes differ from curved surfaces by less


def _lattice(step: int) -> np.ndarray:
    """Returns the centres of the cells of a block with `step` voxels a side, voxels from its corner."""
    along = np.arange(0, SIDE, step, dtype=np.float32) + np.float32(step / 2)
    z, y, x = np.meshgrid(along, along, along, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), z.ravel()])


VOXELS = _lattice(1)
VOTES = _lattice(CELL)


@compiled
@no_type_check
def _project(corner: Any, view: Any, lattice: Any, pixels: Any, depths: Any) -> None:
    """Writes the numbers of the pixels of a block's lattice, in a padded picture, 0 outside, and depths.

    Args:
        corner: Of the block, frame of the view, voxels.
        view: (3, 4) from the frame to pixels times depth; width and height.
        lattice: (3, n) the same for steps from the corner.
        pixels: (n,) written.
        depths: (n,) written.
    """
    P, width, height = view
    u0 = np.float32(P[0, 0] * corner[0] + P[0, 1] * corner[1] + P[0, 2] * corner[2] + P[0, 3])
    v0 = np.float32(P[1, 0] * corner[0] + P[1, 1] * corner[1] + P[1, 2] * corner[2] + P[1, 3])
    z0 = np.float32(P[2, 0] * corner[0] + P[2, 1] * corner[1] + P[2, 2] * corner[2] + P[2, 3])
    U, V, Z = lattice[0], lattice[1], lattice[2]
    zero, one, row = np.float32(0), np.float32(1), np.int32(np.int32(width) + np.int32(2))
    for i in range(len(pixels)):  # without branches, so that it is vectorised
        z = z0 + Z[i]
        inverse = one / z
        u, v = (u0 + U[i]) * inverse, (v0 + V[i]) * inverse
        inside = (z > zero) & (u >= zero) & (u < width) & (v >= zero) & (v < height)
        pixel = np.int32(np.int32(np.int32(v) + np.int32(1)) * row)
        pixels[i] = np.int32(np.int32(pixel + np.int32(u)) + np.int32(1)) if inside else np.int32(0)
        depths[i] = z


@compiled
@no_type_check
def _gather(records: Any, pixels: Any, near: Any) -> None:
    """Copies the records of pixels, each of their words together, so that loops over them are vectorised."""
    for i in range(BLOCK_VOXELS):
        pixel = np.uint32(pixels[i])
        a, b, c, d = records[pixel, 0], records[pixel, 1], records[pixel, 2], records[pixel, 3]
        near[i], near[i + BLOCK_VOXELS] = a, b
        near[i + 2 * BLOCK_VOXELS], near[i + 3 * BLOCK_VOXELS] = c, d


@compiled
@no_type_check
def _weigh(corner: Any, per_truncation: Any, lattice: Any, near: Any, scratch: Any) -> None:
    """Writes distances / truncation of a block's voxels to their planes, and weights."""
    zero, one, per_taper = np.float32(0), np.float32(1), np.float32(1) / TAPER_LENGTH
    per_taper_behind = one / TAPER_BEHIND
    least = max(LEAST_BEHIND, LEAST_VOXELS_BEHIND * per_truncation)
    first_x, first_y, first_z = np.float32(corner[0]), np.float32(corner[1]), np.float32(corner[2])
    for i in range(BLOCK_VOXELS):
        nx, ny, nz = unpack_direction(near[i + DIRECTION * BLOCK_VOXELS])
        weight, support = unpack_trust(near[i + TRUST * BLOCK_VOXELS])
        x, y, z = first_x + lattice[0, i], first_y + lattice[1, i], first_z + lattice[2, i]
        distance = nx * x + ny * y + nz * z - float_of(near[i + OFFSET * BLOCK_VOXELS])
        distance *= per_truncation
        scratch[i + DISTANCES] = distance
        behind = max(min(support + support - LESS_2, support - LESS_1), min(support, least))
        taper = min((support - distance) * per_taper, (behind + distance) * per_taper_behind)
        scratch[i + WEIGHTS] = weight * min(max(taper, zero), one)


@compiled
@no_type_check
def _any_weight(scratch: Any) -> Any:
    """Returns whether a voxel of a group has weight; by bits, as a loop for a maximum is not vectorised."""
    some = np.uint32(0)
    for i in range(GROUP):
        some |= bits_of(scratch[i + WEIGHTS])
    return some != np.uint32(0)


@compiled
@no_type_check
def _fuse(sign: Any, near: Any, scratch: Any, state: Any) -> None:
    """Updates means, variances and gradients of a group of voxels, whose numbers start the arrays given."""
    zero, one = np.float32(0), np.float32(1)
    for i in range(GROUP):
        weight = scratch[i + WEIGHTS]
        mean, old, variance = state[i], state[i + 512], state[i + 1024]
        change = min(max(scratch[i + DISTANCES], -one), one) - mean
        squared = change * change
        limit = OUTLIER_SIGMAS2 * max(variance, MIN_VARIANCE)
        robust = weight * np.sqrt(
            limit / max(squared, limit)
        )  # before the choice: branches are not vectorised
        weight = robust if old > SURER * weight else weight
        total = old + sign * weight
        total = total if total > LEAST_SHARE * weight else zero
        share = sign * weight / max(total, TINY)
        share = share if total > zero else zero
        scratch[i + SHARES] = share
        state[i] = mean + share * change
        state[i + 512] = total
        state[i + 1024] = max((one - share) * (variance + share * squared), zero)
    for i in range(GROUP):
        share = scratch[i + SHARES]
        nx, ny, nz = unpack_three(near[i + DIRECTION * BLOCK_VOXELS])
        x, y, z = unpack_three(bits_of(state[i + 1536]))
        a, b, c = chances(bits_of(state[i + 512]))
        x, y, z = x + share * (nx - x) + a, y + share * (ny - y) + b, z + share * (nz - z) + c
        state[i + 1536] = float_of(pack_three(x, y, z))


@compiled
@no_type_check
def _paint(near: Any, scratch: Any, state: Any) -> None:
    """Updates the colours of a group of voxels."""
    for i in range(GROUP):
        share = scratch[i + SHARES]
        red, green, blue = unpack_three(near[i + COLOR * BLOCK_VOXELS])
        x, y, z = unpack_three(bits_of(state[i + 2048]))
        a, b, c = chances(np.uint32(bits_of(state[i + 512]) ^ OTHER_CHANCES))
        x, y, z = x + share * (red - x) + a, y + share * (green - y) + b, z + share * (blue - z) + c
        state[i + 2048] = float_of(pack_three(x, y, z))


@compiled
@no_type_check
def fuse_blocks(start: int, stop: int, blocks: Any, view: Any, records: Any, words: Any) -> None:
    """Updates the voxels of some blocks with the planes of one view.

    Args:
        start: First block of `blocks` to do.
        stop: One past the last.
        blocks: Rows of `words`; corners in the frame of the view, voxels, float64.
        view: Of `_project`; its lattice; 1 / truncation, voxels; 1 to add the view, -1 to take it away.
        records: Of `observations.Observations`, flat.
        words: (n, 4 or 5, 512) the voxels; changed in place.
    """
    rows, corners = blocks
    camera, lattice, per_truncation, sign = view
    pixels, depths = np.empty(BLOCK_VOXELS, np.int32), np.empty(BLOCK_VOXELS, np.float32)
    near, scratch = np.empty(4 * BLOCK_VOXELS, np.uint32), np.empty(3 * BLOCK_VOXELS, np.float32)
    steps = VOXELS.copy()
    some = np.empty(BLOCK_VOXELS // GROUP, np.bool_)
    colored = words.shape[1] > RGB
    for k in range(start, stop):
        _project(corners[k], camera, lattice, pixels, depths)
        _gather(records, pixels, near)
        _weigh(corners[k], per_truncation, steps, near, scratch)
        state = words[rows[k]].reshape(-1)
        for first in range(0, BLOCK_VOXELS, GROUP):
            some[first // GROUP] = _any_weight(scratch[first:])
            if some[first // GROUP]:
                for word in range(first, len(state), BLOCK_VOXELS):
                    for i in range(word, word + GROUP, 16):
                        prefetch(state, i)
        for first in range(0, BLOCK_VOXELS, GROUP):
            if some[first // GROUP]:
                _fuse(sign, near[first:], scratch[first:], state[first:])
                if colored:
                    _paint(near[first:], scratch[first:], state[first:])


@compiled
@no_type_check
def _may_see(x: Any, y: Any, z: Any, planes: Any) -> Any:
    """True where a ball around a point may be in the view and before what it sees."""
    for k in range(len(planes)):
        if planes[k, 0] * x + planes[k, 1] * y + planes[k, 2] * z + planes[k, 3] < 0:
            return False
    return True


@compiled
@no_type_check
def carve_blocks(start: int, stop: int, blocks: Any, view: Any, fronts: Any, free: Any) -> None:
    """Adds the votes for free space of one view: cells that its rays cross well before they meet a surface.

    Args:
        start: First block to do.
        stop: One past the last.
        blocks: Coordinates of all blocks; block at the origin of the view's frame.
        view: Of `_project`; its lattice; half spaces that a block's corner lies in if the view may see it;
            1 to add the votes, -1 to take them away.
        fronts: Of `observations.Observations`, flat.
        free: (n, 64) sums of votes per cell; changed in place.
    """
    coords, origin = blocks
    camera, lattice, planes, sign = view
    pixels, depths = np.empty(BLOCK_CELLS, np.int32), np.empty(BLOCK_CELLS, np.float32)
    corner, zero = np.empty(3), np.float32(0)
    near = np.empty(2 * BLOCK_CELLS, np.float32)
    for row in range(start, stop):
        for a in range(3):
            corner[a] = SIDE * (coords[row, a] - origin[a])
        if not _may_see(corner[0], corner[1], corner[2], planes):
            continue
        _project(corner, camera, lattice, pixels, depths)
        for i in range(BLOCK_CELLS):
            pixel, j = np.uint32(pixels[i]), np.uint32(i) * np.uint32(2)
            a, b = fronts[pixel, FRONT], fronts[pixel, VOTE]
            near[j], near[j + np.uint32(1)] = a, b
        votes = free[row]
        for i in range(BLOCK_CELLS):
            vote = near[2 * i + 1] if depths[i] < near[2 * i] else zero
            votes[i] = max(votes[i] + sign * vote, zero)
