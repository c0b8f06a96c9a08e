"""One view into the volume, or out of it again: which blocks it touches, and the kernels on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.fusion import on_device
from recon.fusion.allocation import touched_keys
from recon.fusion.blocks import SIDE
from recon.fusion.edges import begin_edge_distances, edge_distances
from recon.fusion.integration import carve_blocks, fuse_blocks
from recon.fusion.observations import Frame, Observations, observing
from recon.fusion.on_device import DevicePages
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

    def voxels(self, sign: np.float32) -> tuple[Any, ...]:
        """Returns the view as `fuse_blocks` needs it."""
        per_truncation = np.float32(self.frame.voxel_size / self.frame.truncation)
        return self.projection.camera, self.projection.voxels, per_truncation, sign

    def cells(self, sign: np.float32) -> tuple[Any, ...]:
        """Returns the view as `carve_blocks` needs it."""
        per_truncation = np.float32(self.frame.voxel_size / self.frame.truncation)
        return self.projection.camera, self.projection.votes, per_truncation, self.space, sign


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
    before, pages = len(volume.index), volume.pages
    if isinstance(pages, DevicePages):
        rows = volume.index.rows(touched)
        pages.extend(len(volume.index))
        _update_on_device(volume, pages, look, rows, ADD)
        return view
    rows = volume.index.rows(touched)
    pages.extend(len(volume.index))
    finish_votes = _begin_votes(volume, look, rows, ADD)
    _update(volume, look, rows, before, ADD)
    finish_votes()
    return view


def remove_view(
    volume: "TSDFVolume", depth_map: DepthMap, color: UInt8[np.ndarray, "h w 3"] | None, view: SeenView
) -> None:
    """Takes a view out of the voxels that it touched."""
    distances = edge_distances(depth_map, volume.truncation, volume.threads)
    look = _look(volume, (depth_map, color, distances), view, float(depth_map.depth.max()))
    touched = touched_keys(look.arguments, look.frame, look.block, volume.threads)
    rows = np.unique(volume.index.find(touched))
    rows = rows[rows >= 0]
    if isinstance(volume.pages, DevicePages):
        _update_on_device(volume, volume.pages, look, rows, REMOVE)
        return
    finish_votes = _begin_votes(volume, look, rows, REMOVE)
    _update(volume, look, rows, len(volume.index), REMOVE)
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


def _begin_votes(volume: "TSDFVolume", look: _Look, rows: np.ndarray, sign: np.float32) -> Callable[[], None]:
    """Starts to count a view's votes for free space in all blocks but some rows; returns what ends it.

    Cells are apart from voxels.
    """
    blocks, free = _others(volume, look, rows), volume.free_votes
    records = look.seen.records.reshape(-1, 4)
    return begin_rows(carve_blocks, len(free), volume.threads, blocks, look.cells(sign), records, free)


def _others(volume: "TSDFVolume", look: _Look, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the blocks as `carve_blocks` needs them, to leave out some rows."""
    has_surface = np.zeros(len(volume.index), np.bool_)
    has_surface[rows] = True
    return volume.index.coords, look.block, has_surface


def _update(volume: "TSDFVolume", look: _Look, rows: np.ndarray, first_new: int, sign: np.float32) -> None:
    if not len(rows):
        return
    camera, records = look.voxels(sign), look.seen.records.reshape(-1, 4)
    for part in volume.parts(rows):
        slots = volume.pages.slots(part, change=True)
        corners = (volume.index.coords[part] - look.block) * float(SIDE)
        blocks = (slots, corners, part >= first_new)
        begin_rows(fuse_blocks, len(part), volume.threads, blocks, camera, records, volume.pages.words)()


def _update_on_device(
    volume: "TSDFVolume", pages: DevicePages, look: _Look, rows: np.ndarray, sign: np.float32
) -> None:
    corners = (volume.index.coords[rows] - look.block) * float(SIDE)
    seen = pages.put(look.seen.records.reshape(-1, 4).view(np.int32))
    on_device.fuse_blocks(pages, (rows, corners), look.voxels(sign), seen)
    on_device.carve_blocks(pages, _others(volume, look, rows), look.cells(sign), seen)
