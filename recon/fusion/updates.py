"""One view into the volume, or out of it again: which blocks it touches, and the kernels on them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from recon.fusion.allocation import touched_keys
from recon.fusion.blocks import SIDE
from recon.fusion.integration import carve_blocks, fuse_blocks
from recon.fusion.jit import Workers
from recon.fusion.observations import Frame, Observations, observe
from recon.fusion.seen_views import SeenView
from recon.fusion.view import frame_of, projection_of, visible_space
from recon.scene import DepthMap

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume

ADD, REMOVE = np.float32(1), np.float32(-1)


def add_view(
    volume: "TSDFVolume", depth_map: DepthMap, color: UInt8[np.ndarray, "h w 3"] | None, view: SeenView
) -> None:
    """Makes the blocks that a view touches and updates their voxels."""
    with volume.workers() as workers:
        frame, block, seen = _see(volume, depth_map, color, view, workers)
        keys = touched_keys(seen, depth_map, frame, block, workers)
        rows = volume.index.rows(keys)
        volume.extend()
        _update(volume, (frame, block, seen), rows, ADD, workers)


def remove_view(
    volume: "TSDFVolume", depth_map: DepthMap, color: UInt8[np.ndarray, "h w 3"] | None, view: SeenView
) -> None:
    """Takes a view out of the voxels that it touched."""
    with volume.workers() as workers:
        frame, block, seen = _see(volume, depth_map, color, view, workers)
        keys = touched_keys(seen, depth_map, frame, block, workers)
        rows = np.unique(volume.index.find(keys))
        _update(volume, (frame, block, seen), rows[rows >= 0], REMOVE, workers)


def _see(
    volume: "TSDFVolume",
    depth_map: DepthMap,
    color: UInt8[np.ndarray, "h w 3"] | None,
    view: SeenView,
    workers: Workers,
) -> tuple[Frame, np.ndarray, Observations]:
    frame, block = frame_of(depth_map, view.cam_from_world, volume)
    seen = observe(depth_map, color, frame, gains=view.gains, trust=view.trust, workers=workers)
    return frame, block, seen


def _update(
    volume: "TSDFVolume",
    view: tuple[Frame, np.ndarray, Observations],
    rows: np.ndarray,
    sign: np.float32,
    workers: Workers,
) -> None:
    if not len(volume.index):
        return
    frame, block, seen = view
    height, width = seen.fronts.shape[0] - 2, seen.fronts.shape[1] - 2
    projection = projection_of(frame, width, height)
    records, fronts = seen.records.reshape(-1, 4), seen.fronts.reshape(-1, 2)
    per_truncation = np.float32(frame.voxel_size / frame.truncation)
    for part in volume.parts(rows):
        slots = volume.pages.slots(part, change=True)
        corners = (volume.index.coords[part] - block) * float(SIDE)
        camera = (projection.camera, projection.voxels, per_truncation, sign)
        workers.run(fuse_blocks, len(part), (slots, corners), camera, records, volume.pages.words)
    space = (projection.camera, projection.votes, visible_space(projection, seen), sign)
    workers.run(
        carve_blocks, len(volume.index), (volume.index.coords, block), space, fronts, volume.free_votes
    )
