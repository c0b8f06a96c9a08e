"""Two volumes of one grid into one."""

from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np

from recon.errors import InputError
from recon.fusion.blocks import BLOCK_VOXELS, pack
from recon.fusion.integration import GRADIENT, RGB, TINY, TSDF, VARIANCE, WEIGHT, mixed
from recon.fusion.packing import bits_of, chances, float_of, pack_variance, sum_of_votes, unpack_variance
from recon.jit import compiled, run_pieces

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume


def merge_into(volume: "TSDFVolume", other: "TSDFVolume") -> None:
    """Adds the voxels of another volume.

    Means by their weights; variances with the distance of the means, sum_k w_k (v_k + (m_k - m)^2) / sum w.

    Raises:
        InputError: The volumes' grids differ, or only one of them has colours.
    """
    if (volume.voxel_size, volume.truncation) != (other.voxel_size, other.truncation):
        raise InputError(
            f"volumes with voxels of {volume.voxel_size:g} and {other.voxel_size:g}, truncation distances of "
            f"{volume.truncation:g} and {other.truncation:g} cannot be merged"
        )
    if other.origin is None or other.colored is None:
        return
    if volume.colored not in (None, other.colored):
        raise InputError("one volume has colours and one has none, wanted both or neither")
    volume.prepare(colored=other.colored)
    volume.origin = other.origin.copy() if volume.origin is None else volume.origin
    coords = (other.index.coords + (other.origin - volume.origin)).astype(np.int32)
    rows = volume.index.rows(pack(coords))
    volume.pages.extend(len(volume.index))
    volume.pages.add_votes(rows, other.free_votes)
    size = min(volume.pages.most or len(rows), other.pages.most or len(rows), max(len(rows), 1))
    for start in range(0, len(rows), size):
        ours = volume.pages.slots(rows[start : start + size], change=True)
        theirs = other.pages.slots(np.arange(start, start + len(ours)), change=False)
        words = (volume.pages.words, other.pages.words)
        run_pieces(merge_blocks, len(ours), volume.threads, ours, theirs, *words)
    volume.views.extend(other.views)


@compiled
@no_type_check
def merge_blocks(start: int, stop: int, ours: Any, theirs: Any, words: Any, others: Any) -> None:
    """Adds the voxels of blocks in `others`, whose slots are `theirs`, to those in `words`, slots `ours`."""
    one = np.float32(1)
    for k in range(start, stop):
        state, other = words[ours[k]], others[theirs[k]]
        for i in range(BLOCK_VOXELS):
            variance, votes = unpack_variance(bits_of(state[VARIANCE, i]))
            more_variance, more_votes = unpack_variance(bits_of(other[VARIANCE, i]))
            weight = other[WEIGHT, i]
            if weight <= 0 and more_votes == 0:
                continue
            total = state[WEIGHT, i] + weight
            share = weight / max(total, TINY)
            change = other[TSDF, i] - state[TSDF, i]
            variance += share * (more_variance - variance + (one - share) * change * change)
            by_chance, votes = chances(bits_of(total)), sum_of_votes(votes, more_votes)
            state[VARIANCE, i] = float_of(pack_variance(variance, by_chance[2], votes))
            state[TSDF, i] += share * change
            state[WEIGHT, i] = total
            state[GRADIENT, i] = mixed(state[GRADIENT, i], other[GRADIENT, i], share, by_chance)
            if words.shape[1] > RGB:
                by_chance = chances(bits_of(change))
                state[RGB, i] = mixed(state[RGB, i], other[RGB, i], share, by_chance)
