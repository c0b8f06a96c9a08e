"""One view into the volume, or out of it again: which blocks it touches, and the kernels on them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.fusion.allocation import touched_keys
from recon.fusion.blocks import SIDE
from recon.fusion.edges import begin_edge_distances, edge_distances
from recon.fusion.integration import carve_blocks, fuse_blocks
from recon.fusion.observations import Frame, Observations, observing
from recon.fusion.seen_views import SeenView, look_back
from recon.fusion.view import frame_of, projection_of, visible_space
from recon.jit import begin_pieces, run_pieces
from recon.scene import DepthMap

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume

ADD, REMOVE = np.float32(1), np.float32(-1)


@dataclass(frozen=True, eq=False)
class _Look:
    """One view, ready for the kernels."""

    frame: Frame
    block: Int64[np.ndarray, "3"]
    """At the frame's origin."""

    seen: Observations
    touched: Int64[np.ndarray, "n"]
    """Keys of blocks, some repeated."""

    farthest: float
    """Largest depth, voxels."""


def add_view(
    volume: "TSDFVolume",
    depth_map: DepthMap,
    cam_from_world: Float64[np.ndarray, "4 4"],
    color: UInt8[np.ndarray, "h w 3"] | None,
) -> SeenView:
    """Makes the blocks that a view touches and updates their voxels; returns how."""
    finish_distances = begin_edge_distances(depth_map, volume.truncation, volume.threads)
    view = look_back(volume, depth_map, cam_from_world, color)  # on this thread alone, so beside the others
    look = _look(volume, (depth_map, color, finish_distances()), view)
    before = len(volume.index)
    rows = volume.index.rows(look.touched)
    volume.extend()
    _update(volume, look, rows, before, ADD)
    return view


def remove_view(
    volume: "TSDFVolume", depth_map: DepthMap, color: UInt8[np.ndarray, "h w 3"] | None, view: SeenView
) -> None:
    """Takes a view out of the voxels that it touched."""
    distances = edge_distances(depth_map, volume.truncation, volume.threads)
    look = _look(volume, (depth_map, color, distances), view)
    rows = np.unique(volume.index.find(look.touched))
    _update(volume, look, rows[rows >= 0], len(volume.index), REMOVE)


def _look(
    volume: "TSDFVolume",
    picture: tuple[DepthMap, UInt8[np.ndarray, "h w 3"] | None, UInt8[np.ndarray, "h w"]],
    view: SeenView,
) -> _Look:
    depth_map = picture[0]
    frame, block = frame_of(depth_map, view.cam_from_world, volume)
    seen = volume.room(*depth_map.depth.shape)
    arguments = observing(seen, picture, frame, gains=view.gains, trust=view.trust)
    touched = touched_keys(arguments, frame, block, volume.threads)
    return _Look(frame, block, seen, touched, float(depth_map.depth.max()) / volume.voxel_size)


def _update(volume: "TSDFVolume", look: _Look, rows: np.ndarray, first_new: int, sign: np.float32) -> None:
    if not len(volume.index):
        return
    height, width = look.seen.fronts.shape[0] - 2, look.seen.fronts.shape[1] - 2
    projection = projection_of(look.frame, width, height)
    records, fronts = look.seen.records.reshape(-1, 4), look.seen.fronts.reshape(-1, 2)
    camera = (projection.camera, projection.voxels, np.float32(volume.voxel_size / volume.truncation), sign)
    threads = volume.threads
    space = (projection.camera, projection.votes, visible_space(projection, look.farthest), sign)
    carve = ((volume.index.coords, look.block), space, fronts, volume.free_votes)
    finish_votes = begin_pieces(
        carve_blocks, len(volume.index), threads, *carve
    )  # votes are apart from voxels
    for part in volume.parts(rows):
        slots = volume.pages.slots(part, change=True)
        corners = (volume.index.coords[part] - look.block) * float(SIDE)
        blocks = (slots, corners, part >= first_new)
        run_pieces(fuse_blocks, len(part), threads, blocks, camera, records, volume.pages.words)
    finish_votes()
