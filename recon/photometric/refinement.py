"""Measures depth in the photos, in a band around a prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from recon.errors import InputError
from recon.photometric.jit import run_rows
from recon.photometric.pictures import Photo, halved, halved_camera, noise_of, smoothed, to_grey
from recon.photometric.planes import PAIR_NUMBERS, pair_geometry, planes_of
from recon.photometric.sweep import ACCEPTED, sweep_rows
from recon.scene import DepthMap

BAND_SIGMAS = 3.0  # half width of the band around the prior
PRIOR_WEIGHT = 0.02  # of the prior's squared distance against the cost, to choose between minima
MAX_COST = 0.4  # of an accepted match: an NCC of 0.6
MIN_RATIO = 1.1  # of the second minimum to the best
TEXTURE_TO_NOISE = 2.0  # least spread of grey levels, in standard deviations of the noise
SIGMA_FACTOR = 1.0  # measured: errors over what the curvature says
FLOOR_PX = 0.1  # standard deviation of any match, px of the view that moves most


@dataclass(frozen=True, eq=False)
class Measurement:
    """What the photos say about the depth of one view."""

    depth: Float32[np.ndarray, "h w"]
    """0 where they say nothing."""

    sigma: Float32[np.ndarray, "h w"]
    """Standard deviation of depth, scene units; 0 where there is none. Errors of neighbours within a patch
    (9 pixels) are correlated."""

    ncc: Float32[np.ndarray, "h w"]
    """Correlation of the match, 0 where there is none."""

    outcome: UInt8[np.ndarray, "h w"]
    """What became of each pixel: the names in `sweep`."""


def refine(
    reference: Photo, prior: DepthMap, neighbours: Sequence[Photo], *, threads: int | None = None
) -> Measurement:
    """Returns depth measured in the photos within 3 sigma of a prior."""
    _check_size(reference, prior)
    grey = smoothed(to_grey(reference.image))
    planes = planes_of(prior.depth, prior.normals, prior.camera)
    bands = np.where(prior.depth > 0, prior.sigma * np.square(planes[..., 0]), 0).astype(np.float32)
    numbers = np.zeros((*grey.shape, 4), np.float32)
    outcome = np.zeros(grey.shape, np.uint8)
    limits = np.array([BAND_SIGMAS, PRIOR_WEIGHT, TEXTURE_TO_NOISE * noise_of(grey), MAX_COST, MIN_RATIO])
    sources = _sources(reference, neighbours)
    run_rows(sweep_rows, len(grey), threads, grey, planes, bands, sources, limits, (numbers, outcome))
    return _measurement(numbers, outcome)


def _check_size(reference: Photo, prior: DepthMap) -> None:
    if (prior.camera.width, prior.camera.height) != (reference.camera.width, reference.camera.height):
        raise InputError(
            f"refine: prior of {prior.camera.width}x{prior.camera.height}, "
            f"photo of {reference.camera.width}x{reference.camera.height}"
        )


def _sources(
    reference: Photo, neighbours: Sequence[Photo]
) -> tuple[Float32[np.ndarray, "n"], Int64[np.ndarray, "k 3"], Float64[np.ndarray, "k 12"]]:
    greys = [smoothed(to_grey(photo.image)) for photo in neighbours]
    starts = np.cumsum([0, *(grey.size for grey in greys)])[:-1]
    frames = [(start, grey.shape[1], grey.shape[0]) for start, grey in zip(starts, greys, strict=True)]
    pairs = [
        pair_geometry(reference.camera.K, reference.cam_from_world, photo.camera.K, photo.cam_from_world)
        for photo in neighbours
    ]
    return (
        np.concatenate([np.zeros(0, np.float32), *(grey.ravel() for grey in greys)]),
        np.array(frames, np.int64).reshape(-1, 3),
        np.array(pairs, np.float64).reshape(-1, PAIR_NUMBERS),
    )


def _measurement(numbers: Float32[np.ndarray, "h w 4"], outcome: UInt8[np.ndarray, "h w"]) -> Measurement:
    w, cost, variance, motion = np.moveaxis(numbers.astype(np.float64), -1, 0)
    accepted = outcome == ACCEPTED
    safe_w = np.where(accepted, w, 1)
    depth = 1 / safe_w
    floor = FLOOR_PX / np.where(motion > 0, motion, 1)
    sigma = np.sqrt(SIGMA_FACTOR**2 * variance + floor**2) * depth**2
    return Measurement(
        depth=np.where(accepted, depth, 0).astype(np.float32),
        sigma=np.where(accepted, sigma, 0).astype(np.float32),
        ncc=np.where(accepted, 1 - cost, 0).astype(np.float32),
        outcome=outcome,
    )
