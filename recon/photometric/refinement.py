"""Measures depth in the photos, around a prior: coarse to fine, a sweep and a propagation at each level."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from recon.errors import InputError
from recon.photometric.cost import INVALID
from recon.photometric.fitting import ACCEPTED, BLANK, NO_PRIOR, measure_rows
from recon.photometric.jit import run_rows
from recon.photometric.pictures import Photo, halved, halved_camera, noise_of, smoothed, to_grey
from recon.photometric.planes import PAIR_NUMBERS, normals_of, pair_geometry, planes_of
from recon.photometric.propagation import fit_rows, propagate_rows
from recon.photometric.sweep import BAND_SIGMAS, STEP_PX, motion_px, sweep_rows
from recon.scene import Camera, DepthMap

TEXTURE_TO_NOISE = 2.0  # least spread of grey levels, in standard deviations of the noise
SIGMA_FACTOR = 1.0  # measured: errors over what the curvature says
FLOOR_PX = 0.1  # standard deviation of any match, px of the view that moves most
COARSE_BAND_PX = 6.0  # half width of the bands of most pixels at the coarsest level
MIN_SIZE = 48  # shorter side of the coarsest level, px
FINER_BAND_PX = 1.6  # half width of the band around what a coarser level found
GOOD_SCORE = 0.35  # of a coarser level's plane that the next one starts from
LEAST_LEVELS = 3  # weak texture shows at coarser ones
ROUNDS = 2  # of propagation per level


@dataclass(frozen=True, eq=False)
class Measurement:
    """What the photos say about the depth of one view."""

    depth: Float32[np.ndarray, "h w"]
    """0 where they say nothing."""

    sigma: Float32[np.ndarray, "h w"]
    """Standard deviation of depth, scene units; 0 where there is none. Errors of neighbours within a patch
    (9 pixels) are correlated."""

    normals: Float32[np.ndarray, "h w 3"]
    """Of the planes that match: the prior's, or what neighbours agree on."""

    ncc: Float32[np.ndarray, "h w"]
    """Correlation of the match, 0 where there is none."""

    outcome: UInt8[np.ndarray, "h w"]
    """What became of each pixel: the names in `fitting`."""


@dataclass(frozen=True, eq=False)
class _Level:
    """The reference and the other views at one size, and the prior there."""

    grey: Float32[np.ndarray, "h w"]
    camera: Camera
    planes: Float32[np.ndarray, "h w 3"]
    bands: Float32[np.ndarray, "h w"]
    others: tuple[tuple[Float32[np.ndarray, "_ _"], Camera], ...]


def refine(
    reference: Photo, prior: DepthMap, neighbours: Sequence[Photo], *, threads: int | None = None
) -> Measurement:
    """Returns depth measured in the photos within 3 sigma of a prior."""
    _check_size(reference, prior)
    poses = [reference.cam_from_world, *(photo.cam_from_world for photo in neighbours)]
    levels = _levels(reference, prior, neighbours)
    state: Any = None
    found: Any = None
    for level in reversed(levels):
        state, sources, photo = _matched(level, poses, state, threads)
        found = _measured(level, photo, sources, state, found, threads)
    return _measurement(found, level.camera)


def _measured(level: _Level, photo: Any, sources: Any, state: Any, coarser: Any, threads: int | None) -> Any:
    numbers = np.zeros((*level.grey.shape, 3), np.float32)
    outcome = np.zeros(level.grey.shape, np.uint8)
    run_rows(measure_rows, len(outcome), threads, photo, sources, state, (numbers, outcome))
    outcome[level.planes[..., 0] <= 0] = NO_PRIOR
    motion = np.maximum(state[3], 1e-12)
    planes = state[0].copy()
    w, cost, variance = np.moveaxis(numbers, -1, 0)
    variance = SIGMA_FACTOR**2 * variance + (FLOOR_PX / motion) ** 2
    found = [planes, cost, variance, outcome]
    if coarser is None:
        return found
    upper = _enlarged_planes(coarser[0], outcome.shape)
    row, column = _parents(outcome.shape, coarser[3].shape)
    use = (outcome == BLANK) & (coarser[3][row, column] == ACCEPTED)
    found[0] = np.where(use[..., None], upper, planes)
    found[1] = np.where(use, coarser[1][row, column], cost)
    found[2] = np.where(use, coarser[2][row, column], variance)
    found[3] = np.where(use, ACCEPTED, outcome).astype(np.uint8)
    return found


def _parents(shape: Any, coarse_shape: Any) -> Any:
    row = np.minimum(np.arange(shape[0]) // 2, coarse_shape[0] - 1)[:, None]
    column = np.minimum(np.arange(shape[1]) // 2, coarse_shape[1] - 1)[None]
    return row, column


def _enlarged_planes(planes: Any, shape: Any) -> Any:
    row, column = _parents(shape, planes.shape[:2])
    found = planes[row, column] * np.array([1, 0.5, 0.5], np.float32)
    du = (np.arange(shape[1]) + 0.5)[None] - (column + 0.5) * 2
    dv = (np.arange(shape[0]) + 0.5)[:, None] - (row + 0.5) * 2
    found[..., 0] += found[..., 1] * du + found[..., 2] * dv
    return found


def _matched(level: _Level, poses: list, coarser: Any, threads: int | None) -> Any:
    grey = smoothed(level.grey)
    photo = (grey, np.float32(TEXTURE_TO_NOISE * noise_of(grey)))
    sources = _sources(level, poses)
    prior = (level.planes, level.bands)
    rows, columns = grey.shape
    state = (
        np.zeros((rows, columns, 3), np.float32),
        np.full((rows, columns), INVALID, np.float32),
        np.zeros((rows, columns), np.float32),
        np.zeros((rows, columns), np.float32),
    )
    run_rows(sweep_rows, rows, threads, photo, prior, _centres(level, coarser), sources, state)
    for _ in range(ROUNDS):
        for color in (0, 1):
            run_rows(propagate_rows_of(color), rows, threads, photo, prior, sources, state)
    old = (state[0].copy(), state[1].copy())
    run_rows(fit_rows, rows, threads, photo, prior, sources, old, state)
    return state, sources, photo


def propagate_rows_of(color: int) -> Any:
    return lambda start, stop, *arguments: propagate_rows(start, stop, color, *arguments)


def _centres(level: _Level, coarser: Any) -> Any:
    """Returns the planes to sweep around and half the widths of their bands."""
    planes, half = level.planes, (np.float32(BAND_SIGMAS) * level.bands)
    if coarser is None:
        return planes, half
    rows, columns = level.grey.shape
    coarse_planes, scores, _, motions = coarser
    row, column = _parents((rows, columns), scores.shape)
    good = (scores[row, column] < GOOD_SCORE) & (motions[row, column] > 0)
    found = _enlarged_planes(coarse_planes, (rows, columns))
    narrow = FINER_BAND_PX / np.maximum(2 * motions[row, column], 1e-12)
    good &= (found[..., 0] > 0) & (narrow < half)
    return (
        np.where(good[..., None], found, planes).astype(np.float32),
        np.where(good, narrow, half).astype(np.float32),
    )


def _levels(reference: Photo, prior: DepthMap, neighbours: Sequence[Photo]) -> list[_Level]:
    planes = planes_of(prior.depth, prior.normals, prior.camera)
    bands = np.where(prior.depth > 0, prior.sigma * np.square(planes[..., 0]), 0).astype(np.float32)
    others = tuple((to_grey(photo.image), photo.camera) for photo in neighbours)
    levels = [_Level(to_grey(reference.image), reference.camera, planes, bands, others)]
    poses = [reference.cam_from_world, *(photo.cam_from_world for photo in neighbours)]
    band_px = _typical_band_px(levels[0], poses)
    while (band_px > COARSE_BAND_PX or len(levels) < LEAST_LEVELS) and min(levels[-1].grey.shape) >= 2 * MIN_SIZE:
        levels.append(_coarser(levels[-1]))
        band_px /= 2
    return levels


def _coarser(level: _Level) -> _Level:
    rows, columns = (size // 2 * 2 for size in level.grey.shape)
    known = (level.planes[:rows, :columns, 0] > 0).astype(np.float32)
    count = _block_sum(known)
    share = np.where(count > 0, 1 / np.maximum(count, 1), 0).astype(np.float32)
    planes = np.stack(
        [_block_sum(level.planes[:rows, :columns, i] * known) * share * (1 if i == 0 else 2) for i in range(3)],
        axis=-1,
    )
    return _Level(
        halved(level.grey),
        halved_camera(level.camera),
        planes.astype(np.float32),
        (_block_sum(level.bands[:rows, :columns] * known) * share).astype(np.float32),
        tuple((halved(grey), halved_camera(camera)) for grey, camera in level.others),
    )


def _block_sum(values: np.ndarray) -> np.ndarray:
    return values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]


def _typical_band_px(level: _Level, poses: list) -> float:
    """Returns the half width of the prior's band in pixels of the view that moves most, for most pixels."""
    sources = _sources(level, poses, empty=True)
    rows, columns = np.nonzero(level.planes[..., 0] > 0)
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), 500)).astype(np.int64)
    widths = [
        BAND_SIGMAS * level.bands[r, c] * motion_px(sources[1], c + 0.5, r + 0.5, level.planes[r, c, 0])
        for r, c in zip(rows[chosen], columns[chosen], strict=True)
    ]
    return float(np.percentile(widths, 80)) if widths else 0.0


def _check_size(reference: Photo, prior: DepthMap) -> None:
    if (prior.camera.width, prior.camera.height) != (reference.camera.width, reference.camera.height):
        raise InputError(
            f"refine: prior of {prior.camera.width}x{prior.camera.height}, "
            f"photo of {reference.camera.width}x{reference.camera.height}"
        )


def _sources(
    level: _Level, poses: list, *, empty: bool = False
) -> tuple[Float32[np.ndarray, "n"], Float64[np.ndarray, "k 15"]]:
    greys = [grey if empty else smoothed(grey) for grey, _ in level.others]
    starts = np.cumsum([0, *(grey.size for grey in greys)])[:-1]
    rows = [
        [*pair_geometry(level.camera.K, poses[0], camera.K, pose), start, camera.width, camera.height]
        for (_, camera), pose, start in zip(level.others, poses[1:], starts, strict=True)
    ]
    return (
        np.concatenate([np.zeros(0, np.float32), *(grey.ravel() for grey in greys)]),
        np.array(rows, np.float64).reshape(-1, PAIR_NUMBERS + 3),
    )


def _measurement(found: Any, camera: Camera) -> Measurement:
    planes, cost, variance, outcome = found
    accepted = outcome == ACCEPTED
    depth = 1 / np.where(accepted, planes[..., 0], 1).astype(np.float64)
    sigma = np.sqrt(variance) * depth**2
    normals = normals_of(planes, camera)
    return Measurement(
        depth=np.where(accepted, depth, 0).astype(np.float32),
        sigma=np.where(accepted, sigma, 0).astype(np.float32),
        normals=np.where(accepted[..., None], normals, 0).astype(np.float32),
        ncc=np.where(accepted, 1 - cost, 0).astype(np.float32),
        outcome=outcome,
    )
