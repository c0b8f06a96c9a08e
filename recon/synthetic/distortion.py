"""Turns exact depth into what a network such as Lotus would predict, with errors of known kind and size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from recon.errors import InputError
from recon.geometry import depth_edges
from recon.scene import PREDICTION_KINDS, DepthMap, Prediction

BEND_WAVES = 6  # plane waves in a bend field
BEND_CYCLES = 1.5  # most cycles of such a wave over the picture's longer side: low frequency
NOISE_BLUR_PX = 1.0  # networks' noise is not white; neighbours agree
SCALE_RANGE = (0.1, 10.0)  # of the unknown factor of kind `scale`
MARGIN_RANGE = (0.05, 0.3)  # unused share of [0, 1] at either end of an unclipped affine prediction


@dataclass(frozen=True)
class FineErrors:
    """The smaller errors of a prediction."""

    noise: float = 0.003
    """Relative depth noise, rms, correlated over about two pixels."""

    normal_tilt_deg: float = 3.0
    """Smooth tilt of the normals, rms."""

    normal_noise_deg: float = 3.0
    """Noise of the normals, rms, correlated over about two pixels."""

    clip_percent: float = 2.0
    """Affine kinds saturate at these percentiles of nearest and farthest pixels, as Lotus does by training; 0
    leaves a margin instead, so that nothing saturates."""


LOTUS_LIKE = FineErrors()

EXACT = FineErrors(noise=0.0, normal_tilt_deg=0.0, normal_noise_deg=0.0, clip_percent=0.0)
"""No small errors at all."""


def distort(
    depth_map: DepthMap,
    *,
    seed: int | Sequence[int],
    kind: str = "affine_disparity",
    bend: float = 0.06,
    edge_blur_px: float = 1.5,
    fine: FineErrors = LOTUS_LIKE,
) -> Prediction:
    """Returns a prediction of depth * exp(bend * smooth field + noise), mixed over occlusion edges.

    Args:
        depth_map: Exact depth and normals.
        seed: Draws everything; give each view its own, for example (seed, index of the view).
        kind: As of `Prediction`. metric: the errors only. scale: times an unknown factor. affine and
            affine_disparity: depth or 1 / depth, mapped to [0, 1] by its percentiles, so scale and shift
            differ per view. In disparity a pixel without depth is infinitely far, as sky is; else it is NaN.
        bend: Rms of the smooth relative error, which has a mean of 0 over the map.
        edge_blur_px: Standard deviation of the Gaussian that mixes disparity over occlusion edges, px; nearby
            surfaces beyond 3 of them stay as they are.
        fine: Noise, normals, saturation.

    Raises:
        InputError: An unknown kind, or no depth at all.
    """
    if kind not in PREDICTION_KINDS:
        raise InputError(f"distort: kind {kind!r}, wanted one of {', '.join(PREDICTION_KINDS)}")
    valid = depth_map.depth > 0
    if not valid.any():
        raise InputError("distort: the depth map is empty")
    rng = np.random.default_rng(seed)
    log_error = bend * smooth_field(valid, rng) + fine.noise * _grain(valid.shape, rng)
    safe = np.where(valid, depth_map.depth, 1).astype(np.float64)
    disparity = np.where(valid, np.exp(-log_error) / safe, 0)
    near = near_edges(depth_edges(depth_map.depth), edge_blur_px)
    disparity += near * (_blurred(disparity, edge_blur_px) - disparity)
    values = _as_kind(disparity, valid, kind, fine.clip_percent / 100, rng)
    normals = _tilted(depth_map.normals, valid, fine, rng)
    normals += near[..., None] * (_blurred(normals, edge_blur_px) - normals)
    return Prediction(values.astype(np.float32), kind, _unit(normals, valid))


def smooth_field(
    valid: Bool[np.ndarray, "h w"], rng: np.random.Generator, cycles: float = BEND_CYCLES
) -> Float64[np.ndarray, "h w"]:
    """Returns a random smooth field with mean 0 and rms 1 over the valid pixels.

    A sum of a few plane waves of at most `cycles` over the longer side.
    """
    height, width = valid.shape
    v, u = np.mgrid[:height, :width] / max(height, width)
    field = np.zeros(valid.shape)
    for _ in range(BEND_WAVES):
        angle, length, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1), rng.uniform(0, 2 * np.pi)
        field += np.sin(2 * np.pi * cycles * length * (u * np.cos(angle) + v * np.sin(angle)) + phase)
    field -= field[valid].mean()
    rms = np.sqrt(np.mean(field[valid] ** 2))
    return field / rms if rms > 0 else field


def _grain(shape: tuple[int, int], rng: np.random.Generator) -> Float64[np.ndarray, "h w"]:
    """Noise of unit rms that is smooth over NOISE_BLUR_PX."""
    from scipy.ndimage import gaussian_filter

    white = gaussian_filter(rng.normal(size=shape), NOISE_BLUR_PX, mode="wrap")
    return white / white.std() if white.std() > 0 else white


def near_edges(edges: Bool[np.ndarray, "h w"], blur_px: float) -> Float64[np.ndarray, "h w"]:
    """Returns 1 within two blur widths of an edge, falling to 0 at three; 0 everywhere without blur."""
    from scipy.ndimage import distance_transform_edt

    if blur_px <= 0 or not edges.any():
        return np.zeros(edges.shape)
    return np.clip(3 - distance_transform_edt(~edges) / blur_px, 0, 1)


def _blurred(values: Float64[np.ndarray, "h w *c"], blur_px: float) -> Float64[np.ndarray, "h w *c"]:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, blur_px, axes=(0, 1), mode="nearest") if blur_px > 0 else values


def _as_kind(
    disparity: Float64[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    kind: str,
    clip: float,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "h w"]:
    if kind == "affine_disparity":
        return _unit_range(disparity, valid, clip, rng)
    depth = np.where(valid, 1 / np.where(valid, disparity, 1), np.nan)
    if kind == "affine":
        return _unit_range(depth, valid, clip, rng)
    return depth * np.exp(rng.uniform(*np.log(SCALE_RANGE))) if kind == "scale" else depth


def _unit_range(
    values: Float64[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], clip: float, rng: np.random.Generator
) -> Float64[np.ndarray, "h w"]:
    """Maps values to [0, 1]: percentiles to the ends, or all values inside with random margins."""
    low, high = np.quantile(values[valid], [clip, 1 - clip])
    margins = rng.uniform(*MARGIN_RANGE, 2) * (high - low) if clip == 0 else np.zeros(2)
    low, high = low - margins[0], high + margins[1]
    return np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1)


def _tilted(
    exact: Float32[np.ndarray, "h w 3"],
    valid: Bool[np.ndarray, "h w"],
    fine: FineErrors,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "h w 3"]:
    """Turns normals by a smooth and a noisy angle about each of two axes across them."""
    normals = exact.astype(np.float64)
    helper = np.where(np.abs(normals[..., :1]) < 0.7, [1.0, 0, 0], [0, 1.0, 0])
    across = _unit(np.cross(normals, helper), valid)
    smooth, noisy = np.radians([fine.normal_tilt_deg, fine.normal_noise_deg]) / np.sqrt(2)  # per axis
    tilted = normals.copy()
    for axis in (across, np.cross(normals, across)):
        angle = smooth * smooth_field(valid, rng) + noisy * _grain(valid.shape, rng)
        tilted += np.tan(angle)[..., None] * axis
    return _unit(tilted, valid).astype(np.float64)


def _unit(
    vectors: Float64[np.ndarray, "h w 3"], valid: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """Unit vectors where valid, zeros elsewhere."""
    length = np.maximum(np.linalg.norm(vectors, axis=-1), np.finfo(np.float64).tiny)
    return (vectors * (valid / length)[..., None]).astype(np.float32)
