"""The pictures and the prior at each size, coarse to fine, and what one size hands to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from recon.geometry import invert
from recon.photometric.pictures import Photo, halved, halved_camera, noise_of, smoothed, to_grey
from recon.photometric.planes import pair_geometry, planes_of
from recon.photometric.sweep import BAND_SIGMAS, motion_px
from recon.scene import Camera, DepthMap

TEXTURE_TO_NOISE = 2.0  # least spread of grey levels about their plane, in standard deviations of the noise
COARSE_BAND_PX = 6.0  # half width of the prior's band, for most pixels, that the coarsest level sweeps
LEAST_LEVELS = 3  # weak texture shows at coarser ones only
MIN_SIZE = 24  # shorter side of the coarsest level, px
MAX_SCALE_UP = 1.5  # pixels of another view may be so much finer on the surface; beyond it is halved
PROBES = 500  # pixels that tell how wide the band is

Pose = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, eq=False)
class Level:
    """The reference, the other views and the prior at one size."""

    camera: Camera
    grey: Float32[np.ndarray, "h w"]
    colors: Float32[np.ndarray, "h w 3"]
    planes: Float32[np.ndarray, "h w 3"]
    """Of the prior: inverse depth w and its slopes per pixel; zeros where there is none."""

    bands: Float32[np.ndarray, "h w"]
    """Standard deviation of w."""

    others: tuple[tuple[Float32[np.ndarray, "_ _"], Camera, Pose], ...]
    """Grey levels, camera and `other_from_reference` of the other views."""

    def reference(self) -> tuple[Any, ...]:
        """Returns the reference and its prior as the kernels want them: see `sweep.sweep_rows`."""
        grey = smoothed(self.grey)
        least_spread = np.float32(TEXTURE_TO_NOISE * noise_of(self.grey, grey))
        return grey, smoothed(self.colors), least_spread, self.planes, self.bands

    def sources(self) -> tuple[Float32[np.ndarray, "n"], Float64[np.ndarray, "k 15"]]:
        """Returns the other views as the kernels want them: all pixels, and a row of numbers each."""
        pixels = [np.zeros(0, np.float32), *(smoothed(grey).ravel() for grey, _, _ in self.others)]
        return np.concatenate(pixels), self.geometry()

    def geometry(self) -> Float64[np.ndarray, "k 15"]:
        """Returns per other view A and b of `pair_geometry`, and where its pixels are among all."""
        starts = np.cumsum([0, *(grey.size for grey, _, _ in self.others)])
        rows = [
            [*pair_geometry(self.camera.K, camera.K, pose), start, camera.width, camera.height]
            for (_, camera, pose), start in zip(self.others, starts, strict=False)
        ]
        return np.array(rows, np.float64).reshape(-1, 15)


def make_levels(reference: Photo, prior: DepthMap, others: Sequence[Photo]) -> list[Level]:
    """Returns the levels, finest first: so many that the coarsest sweeps a narrow band and sees weak texture.

    Other views that see the surface much finer than the reference are halved before.
    """
    planes = planes_of(prior.depth, prior.normals, prior.camera)
    bands = np.where(prior.depth > 0, prior.sigma * np.square(planes[..., 0]), 0).astype(np.float32)
    matched = tuple(_at_scale(reference, photo, prior) for photo in others)
    colors = reference.image.astype(np.float32)
    levels = [Level(reference.camera, to_grey(reference.image), colors, planes, bands, matched)]
    band_px = _typical_band_px(levels[0])
    while len(levels) < LEAST_LEVELS or band_px > COARSE_BAND_PX:
        sizes = [levels[-1].grey.shape, *(grey.shape for grey, _, _ in levels[-1].others)]
        if min(min(size) for size in sizes) < 2 * MIN_SIZE:
            break
        levels.append(_coarser(levels[-1]))
        band_px /= 2
    return levels


def _at_scale(
    reference: Photo, photo: Photo, prior: DepthMap
) -> tuple[Float32[np.ndarray, "_ _"], Camera, Pose]:
    """Returns another view, halved until its pixels are about as large on the surface as the reference's."""
    other_from_reference = photo.cam_from_world @ invert(reference.cam_from_world)
    grey, camera = to_grey(photo.image), photo.camera
    known = prior.depth > 0
    depth = float(np.median(prior.depth[known])) if known.any() else 1.0
    middle = np.linalg.inv(reference.camera.K) @ [reference.camera.width / 2, reference.camera.height / 2, 1]
    other_depth = float((other_from_reference[:3, :3] @ (middle * depth) + other_from_reference[:3, 3])[2])
    finer = camera.K[0, 0] / max(other_depth, 1e-12) / (reference.camera.K[0, 0] / depth)
    while finer > MAX_SCALE_UP and other_depth > 0 and min(grey.shape) >= 2 * MIN_SIZE:
        grey, camera, finer = halved(grey), halved_camera(camera), finer / 2
    return grey, camera, other_from_reference


def _coarser(level: Level) -> Level:
    rows, columns = (size // 2 * 2 for size in level.grey.shape)
    known = (level.planes[:rows, :columns, :1] > 0).astype(np.float32)
    count = halved(known)
    share = np.where(count > 0, 1 / np.maximum(count, 0.25), 0).astype(np.float32)
    slopes = np.array([1, 2, 2], np.float32)  # per pixel, which is twice as wide
    return Level(
        camera=halved_camera(level.camera),
        grey=halved(level.grey),
        colors=halved(level.colors),
        planes=halved(level.planes[:rows, :columns] * known) * share * slopes,
        bands=halved(level.bands[:rows, :columns] * known[..., 0]) * share[..., 0],
        others=tuple((halved(grey), halved_camera(camera), pose) for grey, camera, pose in level.others),
    )


def _typical_band_px(level: Level) -> float:
    """Returns the half width of the prior's band, px of the view that moves most, for most pixels."""
    geometry = level.geometry()
    rows, columns = np.nonzero(level.planes[..., 0] > 0)
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), PROBES)).astype(np.int64)
    widths = [
        BAND_SIGMAS * level.bands[r, c] * motion_px(geometry, c + 0.5, r + 0.5, level.planes[r, c, 0])
        for r, c in zip(rows[chosen], columns[chosen], strict=True)
    ]
    return float(np.percentile(widths, 80)) if widths else 0.0


def parents(
    shape: tuple[int, ...], coarse_shape: tuple[int, ...]
) -> tuple[Int64[np.ndarray, "h 1"], Int64[np.ndarray, "1 w"]]:
    """Returns rows and columns of the coarser level's pixels that hold those of a level."""
    rows = np.minimum(np.arange(shape[0]) // 2, coarse_shape[0] - 1)[:, None]
    columns = np.minimum(np.arange(shape[1]) // 2, coarse_shape[1] - 1)[None]
    return rows, columns


def enlarged(planes: Float[np.ndarray, "h2 w2 3"], shape: tuple[int, ...]) -> Float32[np.ndarray, "h w 3"]:
    """Returns the planes of a coarser level at the pixels of a level."""
    rows, columns = parents(shape, planes.shape)
    found = planes[rows, columns] * np.array([1, 0.5, 0.5], np.float32)
    du = (np.arange(shape[1]) + 0.5)[None] - (columns + 0.5) * 2
    dv = (np.arange(shape[0]) + 0.5)[:, None] - (rows + 0.5) * 2
    found[..., 0] += found[..., 1] * du + found[..., 2] * dv
    return found.astype(np.float32)
