"""What the network is trained on: photos with depth and normals, resized, cut and mirrored."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from recon.errors import InputError, ReconError, ViewError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """A photo and what is known of its surfaces. It checks itself when made."""

    name: str
    """Which photo of its source, for messages."""

    image: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    """z in the camera frame, in any unit; 0 = not known."""

    normals: Float32[np.ndarray, "h w 3"]
    """Unit vectors toward the camera, OpenCV camera frame; (0, 0, 0) = not known."""

    sky: Bool[np.ndarray, "h w"]
    """True where nothing is seen, or something too far to matter: depth is 0 there but stands for the
    farthest value. All False where a source does not know."""

    def __post_init__(self) -> None:
        size = self.image.shape[:2]
        for field, wanted in (("depth", size), ("normals", (*size, 3)), ("sky", size)):
            found = getattr(self, field).shape
            if found != wanted:
                raise InputError(f"{self.name}: {field} of shape {found}, the photo wants {wanted}")
        if not (np.isfinite(self.depth).all() and np.isfinite(self.normals).all()):
            raise InputError(
                f"{self.name}: depth or normals are not finite, wanted 0 where they are not known"
            )
        if (self.depth < 0).any() or (self.depth[self.sky] > 0).any():
            raise InputError(f"{self.name}: depth is negative or in the sky, wanted 0 where it is not known")


@dataclass(frozen=True, eq=False)
class Told:
    """A photo of a scene that is learnt (`lotus.training.scene`), with what is known of it."""

    sample: TrainingSample
    """Depth, any scale, and normals, 0 where they are not known; sides multiples of 8 px; no sky."""

    held_out: Bool[np.ndarray, "h w"]
    """Pixels that are not trained on: those known judge."""


@runtime_checkable
class Source(Protocol):
    """A finite set of samples, read when they are asked for; all of one size if they are to share a batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> TrainingSample:
        """Returns a sample; the same for the same index.

        Raises:
            ReconError: This one cannot be used; training goes on with another.
        """


def with_depth(sample: TrainingSample) -> TrainingSample:
    """Returns the sample if some of its depth is known: without any, nothing says how to draw it.

    Raises:
        ViewError: None is.
    """
    if not sample.depth.any():
        nothing = "depth" if sample.normals.any() else "depth or normals"
        raise ViewError(f"{sample.name}: not a pixel has {nothing}")
    return sample


def usable(source: Source, indices: Iterable[int], *, only_photos: bool = False) -> list[TrainingSample]:
    """Returns the samples of some indices that can be used; the others are told and left out.

    Args:
        source: Where they are.
        indices: Which.
        only_photos: Takes those without known depth, too.

    Raises:
        InputError: None can be used.
    """
    found, reason = [], "it is empty"
    for index in indices:
        try:
            sample = source[index]
            found.append(sample if only_photos else with_depth(sample))
        except ReconError as error:
            logger.warning("left out: %s", error)
            reason = str(error)
    if not found:
        raise InputError(f"no sample can be used (see `lotus verify`); the last: {reason}")
    return found


def mirrored(sample: TrainingSample) -> TrainingSample:
    """Returns the sample as a mirror shows it: columns reversed, x of the normals negated."""
    normals = sample.normals[:, ::-1] * np.array([-1, 1, 1], np.float32)
    return replace(
        sample,
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        depth=np.ascontiguousarray(sample.depth[:, ::-1]),
        normals=np.ascontiguousarray(normals),
        sky=np.ascontiguousarray(sample.sky[:, ::-1]),
    )


def resized(sample: TrainingSample, height: int, width: int) -> TrainingSample:
    """Returns the sample at another size of the same shape.

    The photo is interpolated (over areas where it shrinks), depth, normals and sky are those of the pixel
    whose centre is nearest. The reference takes the pixel at floor(i * scale), up to one pixel up and left.
    """
    from PIL import Image

    if sample.depth.shape == (height, width):
        return sample
    picture = Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR)
    return replace(
        sample,
        image=np.array(picture),
        depth=_nearest(sample.depth, height, width),
        normals=_nearest(sample.normals, height, width),
        sky=_nearest(sample.sky, height, width),
    )


def cut(sample: TrainingSample, height: int, width: int, *, lowest: bool) -> TrainingSample:
    """Returns a window of the sample, which is enlarged first if it is smaller.

    Args:
        sample: Any.
        height: Of the window, px.
        width: Of the window, px; its columns are the middle ones.
        lowest: Takes the lowest rows, as KITTI's benchmark does; else the middle ones.
    """
    rows, columns = sample.depth.shape
    factor = max(height / rows, width / columns)
    if factor > 1:
        sample = resized(sample, max(height, int(rows * factor)), max(width, int(columns * factor)))
        rows, columns = sample.depth.shape
    top = rows - height if lowest else (rows - height) // 2
    left = (columns - width) // 2
    window = slice(top, top + height), slice(left, left + width)
    return replace(
        sample,
        image=np.ascontiguousarray(sample.image[window]),
        depth=np.ascontiguousarray(sample.depth[window]),
        normals=np.ascontiguousarray(sample.normals[window]),
        sky=np.ascontiguousarray(sample.sky[window]),
    )


def covered(sample: TrainingSample, height: int, width: int) -> TrainingSample:
    """Returns the largest middle window of the wanted shape, at the wanted size."""
    rows, columns = sample.depth.shape
    factor = max(height / rows, width / columns)
    scaled = resized(sample, max(height, round(rows * factor)), max(width, round(columns * factor)))
    return cut(scaled, height, width, lowest=False)


def facing(
    normals: Float32[np.ndarray, "h w 3"], K: Float64[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "h w 3"]:
    """Returns unit normals of which each points to the camera's side; (0, 0, 0) where there is none.

    Some normals of renderers point into the surface (ml-hypersim, issue 26); the true one has n . p < 0
    for the viewing ray p.
    """
    height, width = normals.shape[:2]
    ray_x, ray_y = ray_slopes(K, width, height)
    x, y, z = np.moveaxis(normals, -1, 0)
    length = np.sqrt(x * x + y * y + z * z)
    known = np.isfinite(length) & (length > 0)
    away = x * ray_x.astype(np.float32) + y * ray_y.astype(np.float32) + z > 0
    scale = np.where(away, np.float32(-1), np.float32(1)) / np.where(known, length, np.float32(1))
    return np.where(known[..., None], normals, np.float32(0)) * scale[..., None]


def ray_slopes(
    K: Float64[np.ndarray, "3 3"], width: int, height: int
) -> tuple[Float64[np.ndarray, "w"], Float64[np.ndarray, "h 1"]]:
    """Returns x / z of the columns' rays, and y / z of the rows'."""
    columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    return (columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]


def _nearest(values: Shaped[np.ndarray, "_h _w *c"], height: int, width: int) -> Shaped[np.ndarray, "h w *c"]:
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip((height, width), values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns]
