"""One view into the volume, or out of it again: which blocks it touches, and the kernels on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.fusion.allocation import touched_keys
from recon.fusion.blocks import SIDE
from recon.fusion.edges import begin_edge_distances, edge_distances
from recon.fusion.integration import carve_blocks, fuse_blocks
from recon.fusion.observations import Frame, Observations, observing
from recon.fusion.seen_views import SeenView, look_back
from recon.fusion.view import Projection, frame_of, projection_of, visible_space
from recon.jit import begin_rows
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
    projection: Projection
    space: Float64[np.ndarray, "6 4"]
    """Half spaces of `visible_space`."""

    arguments: tuple[Any, ...]
    """Of `touched_keys`."""


def add_view(
    volume: "TSDFVolume",
    depth_map: DepthMap,
    cam_from_world: Float64[np.ndarray, "4 4"],
    color: UInt8[np.ndarray, "h w 3"] | None,
) -> SeenView:
    """Makes the blocks that a view touches and updates their voxels; returns how.

    What one thread has to do alone, it does beside kernels on the others.

    Raises:
        ViewError: The map reaches too far for a grid of this voxel size.
    """
    distances, finish_distances = begin_edge_distances(depth_map, volume.truncation, volume.threads)
    deepest = float(depth_map.depth.max())
    volume.check_reach(depth_map.camera, deepest, cam_from_world)
    volume.prepare(colored=color is not None)
    view = look_back(volume, depth_map, cam_from_world, color)
    look = _look(volume, (depth_map, color, distances), view, deepest)
    finish_distances()
    touched = touched_keys(look.arguments, look.frame, look.block, volume.threads)
    before = len(volume.index)
    volume.reserve_votes(before + len(touched))  # the votes of old blocks stay where they are
    finish_votes = _begin_votes(volume, look, slice(before), ADD)
    rows = volume.index.rows(touched)
    volume.extend()
    finish_new = _begin_votes(volume, look, slice(before, None), ADD)
    _update(volume, look, rows, before, ADD)
    finish_votes()
    finish_new()
    return view


def remove_view(
    volume: "TSDFVolume", depth_map: DepthMap, color: UInt8[np.ndarray, "h w 3"] | None, view: SeenView
) -> None:
    """Takes a view out of the voxels that it touched."""
    distances = edge_distances(depth_map, volume.truncation, volume.threads)
    look = _look(volume, (depth_map, color, distances), view, float(depth_map.depth.max()))
    touched = touched_keys(look.arguments, look.frame, look.block, volume.threads)
    rows = np.unique(volume.index.find(touched))
    finish_votes = _begin_votes(volume, look, slice(None), REMOVE)
    _update(volume, look, rows[rows >= 0], len(volume.index), REMOVE)
    finish_votes()


def _look(
    volume: "TSDFVolume",
    picture: tuple[DepthMap, UInt8[np.ndarray, "h w 3"] | None, UInt8[np.ndarray, "h w"]],
    view: SeenView,
    deepest: float,
) -> _Look:
    height, width = picture[0].depth.shape
    frame, block = frame_of(picture[0], view.cam_from_world, volume)
    seen = volume.room(height, width)
    projection = projection_of(frame, width, height)
    space = visible_space(projection, deepest / volume.voxel_size)
    arguments = observing(seen, picture, frame, gains=view.gains, trust=view.trust)
    return _Look(frame, block, seen, projection, space, arguments)


def _begin_votes(volume: "TSDFVolume", look: _Look, rows: slice, sign: np.float32) -> Callable[[], None]:
    """Starts to count a view's votes for free space in some blocks; returns what ends it.

    Votes are apart from voxels.
    """
    blocks = (volume.index.coords[rows], look.block)
    space = (look.projection.camera, look.projection.votes, look.space, sign)
    fronts = look.seen.fronts.reshape(-1, 2)
    return begin_rows(
        carve_blocks, len(blocks[0]), volume.threads, blocks, space, fronts, volume.free_votes[rows]
    )


def _update(volume: "TSDFVolume", look: _Look, rows: np.ndarray, first_new: int, sign: np.float32) -> None:
    if not len(rows):
        return
    projection, records = look.projection, look.seen.records.reshape(-1, 4)
    camera = (projection.camera, projection.voxels, np.float32(volume.voxel_size / volume.truncation), sign)
    for part in volume.parts(rows):
        slots = volume.pages.slots(part, change=True)
        corners = (volume.index.coords[part] - look.block) * float(SIDE)
        blocks = (slots, corners, part >= first_new)
        begin_rows(fuse_blocks, len(part), volume.threads, blocks, camera, records, volume.pages.words)()
