"""A posed sequence as a value, and its frames checked one by one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from recon.errors import InputError, ViewError
from recon.geometry import invert
from recon.io import colmap
from recon.io.maps import read_depth_png
from recon.io.sequences.intrinsics import Optics
from recon.scene import Camera, Lens, View

MAX_RIGID_ERROR = 1e-2  # of a rotation's entries: poses printed with few digits pass, scaled ones do not


@dataclass(frozen=True, eq=False)
class Frame:
    """One posed photo with the depth that was measured for it."""

    view: View
    depth_path: Path | None = None
    timestamp: float | None = None
    """Seconds, of the photo."""

    @property
    def name(self) -> str:
        """The view's name."""
        return self.view.name


@dataclass(frozen=True, eq=False)
class Sequence:
    """Posed frames in the order they were taken."""

    frames: tuple[Frame, ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Frames of the folder that cannot be used, with the reason."""

    depth_scale: float = 1000.0
    """Depth in scene units = value in the file / depth_scale."""

    is_metric: bool = True
    """Poses and depth are in metres."""

    def read_depth(self, frame: Frame) -> Float32[np.ndarray, "h w"]:
        """Returns a frame's depth for `frame.view.camera` resized to the depth map; 0 = none.

        Raises:
            ViewError: The frame has no depth, or its file is damaged.
        """
        if frame.depth_path is None:
            raise ViewError(f"{frame.name}: the frame has no measured depth")
        depth = read_depth_png(frame.depth_path, scale=self.depth_scale)
        if frame.view.lens is None:
            return depth
        rows, columns = _source_pixels(frame.view.camera, frame.view.lens, *depth.shape)
        return np.where(rows >= 0, depth[rows, columns], np.float32(0))


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame as a folder describes it, not checked yet."""

    name: str
    image: Path
    optics: Optics | None
    """None where the photo is missing."""

    world_from_cam: Float64[np.ndarray, "4 4"] | None
    """None where the folder has no pose for it."""

    depth_path: Path | None = None
    timestamp: float | None = None
    fault: str = ""
    """Why it cannot be used, if the layout already knows."""


def gather(
    folder: Path, shots: Iterable[Shot], *, depth_scale: float = 1000.0, is_metric: bool = True
) -> Sequence:
    """Returns the sequence of the usable shots; the others are dropped with the reason.

    Raises:
        InputError: None can be used.
    """
    frames, dropped = [], {}
    for shot in shots:
        try:
            frames.append(_frame(shot))
        except ViewError as error:
            dropped[shot.name] = str(error)
    if not frames:
        name, reason = next(iter(dropped.items()), ("", "it lists none"))
        raise InputError(f"{folder}: 0 of {len(dropped)} frames can be used; the first: {name}: {reason}")
    return Sequence(tuple(frames), dropped, depth_scale, is_metric)


def _frame(shot: Shot) -> Frame:
    for path in (shot.image, shot.depth_path):
        if path is not None and not path.is_file():
            raise ViewError(f"file {path.name} is missing")
    if shot.fault:
        raise ViewError(shot.fault)
    if shot.world_from_cam is None:
        raise ViewError("it has no pose")
    assert shot.optics is not None  # the photo is there
    cam_from_world = invert(_rigid(shot.world_from_cam))
    view = View(shot.name, shot.optics.camera, cam_from_world, shot.image, shot.optics.lens)
    return Frame(view, shot.depth_path, shot.timestamp)


def _rigid(target_from_source: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """The rigid transform nearest to a printed one, for its digits are few."""
    if not np.isfinite(target_from_source).all():
        raise ViewError("its pose is not finite (tracking was lost)")
    U, singular, Vt = np.linalg.svd(target_from_source[:3, :3])
    if np.abs(singular - 1).max() > MAX_RIGID_ERROR or np.linalg.det(U @ Vt) < 0:
        raise ViewError("its pose is no rotation and translation")
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = U @ Vt, target_from_source[:3, 3]
    return rigid


@lru_cache(maxsize=4)  # all frames of a sequence share their camera and lens objects
def _source_pixels(
    camera: Camera, lens: Lens, height: int, width: int
) -> tuple[Int64[np.ndarray, "h w"], Int64[np.ndarray, "h w"]]:
    """Row and column of the raw depth map nearest to each undistorted pixel; rows are -1 outside of it.

    Nearest, because a mean over an edge would be depth where nothing is.
    """
    view = View("", camera, np.eye(4), lens=lens)
    pixels = colmap.photo_pixels(view, width, height, camera.resized(width, height))
    column, row = np.moveaxis(np.floor(np.nan_to_num(pixels, nan=-1.0)).astype(np.int64), -1, 0)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.where(inside, row, -1), np.where(inside, column, 0)
