"""What a volume knows at given points."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from recon.fusion.blocks import MAX_COORDINATE, SIDE, VOXEL_NUMBERS, pack
from recon.fusion.integration import CELL, CELLS, TSDF, VARIANCE, WEIGHT
from recon.fusion.packing import LOWER, VOTE_STEPS

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume


def look_up(volume: "TSDFVolume", points: Float64[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Returns signed distance / truncation, weight and votes for free space at world points."""
    found = np.zeros((len(points), 3), np.float32)
    if volume.origin is None or not len(volume.index):
        return found
    voxels = np.floor(points / volume.voxel_size).astype(np.int64)
    blocks = voxels // SIDE - volume.origin
    reachable = (np.abs(blocks) < MAX_COORDINATE).all(axis=1)
    rows = np.full(len(points), -1, np.int32)
    rows[reachable] = volume.index.find(pack(blocks[reachable].astype(np.int32)))
    place = voxels % SIDE
    voxel = VOXEL_NUMBERS[tuple(place.T[::-1])]
    cell = (place // CELL) @ [1, CELLS, CELLS * CELLS]
    known = np.flatnonzero(rows >= 0)
    found[known, 2] = volume.free_votes[rows[known], cell[known]]
    for part in volume.parts(np.unique(rows[known]).astype(np.int64)):
        slots = np.full(len(volume.index), -1, np.int32)
        slots[part] = volume.pages.slots(part, change=False)
        here = known[slots[rows[known]] >= 0]
        words = volume.pages.words[slots[rows[here]], :, voxel[here]]
        found[here, 0], found[here, 1] = words[:, TSDF], words[:, WEIGHT]
        found[here, 2] += words[:, VARIANCE].view(np.uint32) & LOWER
    found[:, 2] /= VOTE_STEPS
    return found
