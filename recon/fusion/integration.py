"""Fast kernels that bring one view into the voxels; `recon/fusion/reference.py` says the same plainly."""

from typing import Any, no_type_check

import numpy as np

from recon.fusion.blocks import BLOCK_VOXELS, GROUP, SIDE, VOXEL_NUMBERS
from recon.fusion.observations import COLOR, DIRECTION, OFFSET, TAPER_LENGTH, TRUST
from recon.fusion.packing import (
    UPPER,
    bits_of,
    chances,
    float_of,
    pack_three,
    pack_variance,
    sum_of_votes,
    unpack_direction,
    unpack_three,
    unpack_trust,
    unpack_variance,
    unpack_vote,
)
from recon.jit import compiled, inlined, prefetch, reordered

# Words of a voxel; a block keeps 512 of each kind together. VARIANCE shares its word with the votes for free
# space of the views that see a surface in the block; those of the others are counted in cells.
TSDF, WEIGHT, VARIANCE, GRADIENT, RGB = range(5)
CELL = 2  # voxels along the side of these cells
CELLS = SIDE // CELL
BLOCK_CELLS = CELLS**3
# In the scratch space. A voxel has a weight or a vote; the vote is there as a negative weight.
DISTANCES, WEIGHTS, NORMALS, PAINTS = (BLOCK_VOXELS * kind for kind in range(4))
NEITHER, WEIGHS, SEEN_THROUGH = np.uint8(0), np.uint8(1), np.uint8(2)  # marks of voxels
SOME_WEIGH = np.uint64(0x0101010101010101)  # in the marks of eight
CELL_MARGIN = np.float32(1)  # voxels: half the side of a cell
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


VOXELS = np.ascontiguousarray(_lattice(1)[:, np.argsort(VOXEL_NUMBERS.ravel())])
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
    """Copies the records of pixels; each of the copies is one load and one store."""
    for i in range(len(pixels)):
        pixel = np.uint32(pixels[i])
        a, b, c, d = records[pixel, 0], records[pixel, 1], records[pixel, 2], records[pixel, 3]
        near[4 * i], near[4 * i + 1], near[4 * i + 2], near[4 * i + 3] = a, b, c, d


@compiled
@no_type_check
def _weigh(corner: Any, per_truncation: Any, near: Any, scratch: Any, marks: Any) -> None:
    """Writes distances / truncation of a block's voxels to their planes, weights, votes, and marks of both.

    A voxel is seen through where it is farther before the plane than the weight reaches. And the words that
    are needed later are written, each kind together. All four of a record are read, as the compiler wants it
    for vectors.
    """
    zero, one, per_taper = np.float32(0), np.float32(1), np.float32(1) / TAPER_LENGTH
    per_taper_behind = one / TAPER_BEHIND
    least = max(LEAST_BEHIND, LEAST_VOXELS_BEHIND * per_truncation)
    first_x, first_y, first_z = np.float32(corner[0]), np.float32(corner[1]), np.float32(corner[2])
    for i in range(BLOCK_VOXELS):
        nx, ny, nz = unpack_direction(near[4 * i + DIRECTION])
        weight, support = unpack_trust(near[4 * i + TRUST])
        vote = unpack_vote(near[4 * i + TRUST])
        x, y, z = first_x + VOXELS[0, i], first_y + VOXELS[1, i], first_z + VOXELS[2, i]
        distance = nx * x + ny * y + nz * z - float_of(near[4 * i + OFFSET])
        distance *= per_truncation
        scratch[i + DISTANCES] = distance
        behind = max(min(support + support - LESS_2, support - LESS_1), min(support, least))
        taper = min((support - distance) * per_taper, (behind + distance) * per_taper_behind)
        weight *= min(max(taper, zero), one)
        scratch[i + NORMALS] = float_of(near[4 * i + DIRECTION])
        scratch[i + PAINTS] = float_of(near[4 * i + COLOR])
        vote = vote if distance > support else zero
        scratch[i + WEIGHTS] = weight - vote
        marks[i] = WEIGHS if weight > zero else (SEEN_THROUGH if vote > zero else NEITHER)


@inlined
@no_type_check
def mixed(old: Any, new: Any, share: Any, by_chance: Any) -> Any:
    """Returns the word of three means after a share of them has been replaced."""
    nx, ny, nz = unpack_three(bits_of(new))
    x, y, z = unpack_three(bits_of(old))
    a, b, c = by_chance
    return float_of(pack_three(x + share * (nx - x) + a, y + share * (ny - y) + b, z + share * (nz - z) + c))


@inlined
@no_type_check
def _updated(sign: Any, weight: Any, distance: Any, mean: Any, old: Any, variance: Any) -> Any:
    """Returns mean, weight and variance of a voxel after a distance with a weight, and its share in them.

    Scalars only: for arrays numba would count references, in every turn of a loop.
    """
    zero, one = np.float32(0), np.float32(1)
    change = min(max(distance, -one), one) - mean
    squared = change * change
    limit = OUTLIER_SIGMAS2 * max(variance, MIN_VARIANCE)
    robust = weight * np.sqrt(limit / max(squared, limit))  # before the choice: no branches in vectors
    weight = robust if old > SURER * weight else weight
    total = old + sign * weight
    total = total if total > LEAST_SHARE * weight else zero
    share = sign * weight / max(total, TINY)
    share = share if total > zero else zero
    return mean + share * change, total, max((one - share) * (variance + share * squared), zero), share


@inlined
@no_type_check
def _voted(old: Any, votes: Any) -> Any:
    """Returns the word of variance and votes with more votes."""
    word = bits_of(old)
    votes = np.int32(sum_of_votes(unpack_variance(word)[1], votes))
    return float_of(np.uint32(np.uint32(word & UPPER) | np.uint32(votes)))


@reordered
@no_type_check
def _fuse(sign: Any, scratch: Any, marks: Any, state: Any) -> None:
    """Updates the groups of a block's voxels of which some have weight, and counts votes in the others."""
    zero = np.float32(0)
    for group in range(BLOCK_VOXELS // GROUP):
        marked = marks[2 * group] | marks[2 * group + 1]
        if (marked & SOME_WEIGH) != 0:
            for voxel in range(GROUP):  # over i itself it would not be vectorised
                i = GROUP * group + voxel
                weight, vote = max(scratch[i + WEIGHTS], zero), max(-scratch[i + WEIGHTS], zero)
                distance, old = scratch[i + DISTANCES], state[i + 512]
                variance, votes = unpack_variance(bits_of(state[i + 1024]))
                mean, total, variance, share = _updated(sign, weight, distance, state[i], old, variance)
                by_chance = chances(bits_of(total))
                votes = sum_of_votes(votes, sign * vote)
                state[i], state[i + 512] = mean, total
                state[i + 1024] = float_of(pack_variance(variance, by_chance[2], votes))
                state[i + 1536] = mixed(state[i + 1536], scratch[i + NORMALS], share, by_chance)
        elif marked != 0:
            for voxel in range(GROUP):
                i = GROUP * group + voxel
                state[i + 1024] = _voted(state[i + 1024], -sign * scratch[i + WEIGHTS])


@reordered
@no_type_check
def _fuse_colored(sign: Any, scratch: Any, marks: Any, state: Any) -> None:
    """Updates the same, and the colours."""
    zero = np.float32(0)
    for group in range(BLOCK_VOXELS // GROUP):
        marked = marks[2 * group] | marks[2 * group + 1]
        if (marked & SOME_WEIGH) != 0:
            for voxel in range(GROUP):
                i = GROUP * group + voxel
                weight, vote = max(scratch[i + WEIGHTS], zero), max(-scratch[i + WEIGHTS], zero)
                distance, old = scratch[i + DISTANCES], state[i + 512]
                variance, votes = unpack_variance(bits_of(state[i + 1024]))
                mean, total, variance, share = _updated(sign, weight, distance, state[i], old, variance)
                by_chance = chances(bits_of(total))
                votes = sum_of_votes(votes, sign * vote)
                state[i], state[i + 512] = mean, total
                state[i + 1024] = float_of(pack_variance(variance, by_chance[2], votes))
                state[i + 1536] = mixed(state[i + 1536], scratch[i + NORMALS], share, by_chance)
                state[i + 2048] = mixed(state[i + 2048], scratch[i + PAINTS], share, by_chance)
        elif marked != 0:
            for voxel in range(GROUP):
                i = GROUP * group + voxel
                state[i + 1024] = _voted(state[i + 1024], -sign * scratch[i + WEIGHTS])


@compiled
@no_type_check
def fuse_blocks(start: int, stop: int, blocks: Any, view: Any, records: Any, words: Any) -> None:
    """Updates the voxels of some blocks with the planes of one view.

    While a block is updated, the words of the next one are on their way from memory.

    Args:
        start: First block of `blocks` to do.
        stop: One past the last.
        blocks: Rows of `words`; corners in the frame of the view, voxels, float64; which blocks are new: they
            are written to before they are read, or memory would be taken for them twice.
        view: Of `_project`; its lattice; 1 / truncation, voxels; 1 to add the view, -1 to take it away.
        records: Of `observations.Observations`, flat.
        words: (n, 4 or 5, 512) the voxels; changed in place.
    """
    rows, corners, new = blocks
    camera, lattice, per_truncation, sign = view
    pixels, depths = np.empty(BLOCK_VOXELS, np.int32), np.empty(BLOCK_VOXELS, np.float32)
    near, scratch = np.empty(4 * BLOCK_VOXELS, np.uint32), np.empty((2, 4 * BLOCK_VOXELS), np.float32)
    marks = np.empty((2, BLOCK_VOXELS), np.uint8)
    eights = marks.view(np.uint64)
    states, colored = words.reshape(len(words), -1), words.shape[1] > RGB
    for k in range(start, stop + 1):
        this, last = k & 1, (k + 1) & 1
        if k < stop:
            _project(corners[k], camera, lattice, pixels, depths)
            _gather(records, pixels, near)
            _weigh(corners[k], per_truncation, near, scratch[this], marks[this])
            if new[k]:
                states[rows[k]][:] = 0
            _fetch(eights[this], states[rows[k]])
        if k > start and colored:
            _fuse_colored(sign, scratch[last], eights[last], states[rows[k - 1]])
        elif k > start:
            _fuse(sign, scratch[last], eights[last], states[rows[k - 1]])


@compiled
@no_type_check
def _fetch(marks: Any, state: Any) -> None:
    """Asks for the words of the groups that will be updated."""
    for group in range(BLOCK_VOXELS // GROUP):
        marked = marks[2 * group] | marks[2 * group + 1]
        if (marked & SOME_WEIGH) != 0:
            for word in range(GROUP * group, len(state), BLOCK_VOXELS):
                prefetch(state, word)
        elif marked != 0:
            prefetch(state, BLOCK_VOXELS * VARIANCE + GROUP * group)


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
def carve_blocks(start: int, stop: int, blocks: Any, view: Any, records: Any, free: Any) -> None:
    """Adds the votes for free space of one view to blocks that it sees no surface in.

    For cells that its rays cross well before they meet a surface.

    Args:
        start: First block to do.
        stop: One past the last.
        blocks: Coordinates of all blocks; block at the origin of the view's frame; which blocks have surfaces
            that the view sees.
        view: Of `_project`; its lattice; 1 / truncation, voxels; half spaces that a block's corner lies in if
            the view may see it; 1 to add the votes, -1 to take them away.
        records: Of `observations.Observations`, flat.
        free: (n, 64) sums of votes per cell; changed in place.
    """
    coords, origin, has_surface = blocks
    camera, lattice, per_truncation, planes, sign = view
    pixels, depths = np.empty(BLOCK_CELLS, np.int32), np.empty(BLOCK_CELLS, np.float32)
    corner, margin, zero = np.empty(3), CELL_MARGIN * per_truncation, np.float32(0)
    near = np.empty(4 * BLOCK_CELLS, np.uint32)
    for row in range(start, stop):
        for a in range(3):
            corner[a] = SIDE * (coords[row, a] - origin[a])
        if has_surface[row] or not _may_see(corner[0], corner[1], corner[2], planes):
            continue
        _project(corner, camera, lattice, pixels, depths)
        _gather(records, pixels, near)
        first_x, first_y, first_z = np.float32(corner[0]), np.float32(corner[1]), np.float32(corner[2])
        votes = free[row]
        for i in range(BLOCK_CELLS):
            nx, ny, nz = unpack_direction(near[4 * i + DIRECTION])
            _, support = unpack_trust(near[4 * i + TRUST])
            x, y, z = first_x + VOTES[0, i], first_y + VOTES[1, i], first_z + VOTES[2, i]
            distance = nx * x + ny * y + nz * z - float_of(near[4 * i + OFFSET])
            cast = unpack_vote(near[4 * i + TRUST])
            cast = cast if distance * per_truncation > support + margin else zero
            votes[i] = np.uint16(np.int32(sum_of_votes(np.float32(votes[i]), sign * cast)))
