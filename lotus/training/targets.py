"""Depth and normals drawn as pictures in [-1, 1], whose latents Lotus learns (He et al. 2024, section 4).

Normals take Lotus's axes: x left, y up, z toward the camera, the negative of ours. Depth or disparity takes
one of the reference's `norm_type`s, sample by sample, clipped to [-1, 1] and equal in the three channels. Far
is -1 in the disparity types, near is -1 in the depth types; sky is as far as can be drawn.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32

from lotus.sizes import LATENT_FACTOR
from recon.errors import InputError

RANGE_EPS = 1e-5  # added to a range before it divides, as in the reference
LOW, HIGH = 0.02, 0.98  # quantiles of the truncated types
SCENE_DEPTH = 65.0  # m, what `perscene` divides by; the reference takes 80 for Virtual KITTI

Range = tuple[float, float]


def draw_depth(
    depth: Float32[np.ndarray, "h w"], norm_type: str, *, scene_depth: float = SCENE_DEPTH
) -> Float32[np.ndarray, "h w"]:
    """Returns depth (0 = sky) drawn in [-1, 1] by one of `NORM_TYPES`.

    Raises:
        InputError: The type is unknown, or there is no depth at all.
    """
    values, known = space_of(depth, norm_type), depth > 0
    low, high = value_range(values, known, norm_type, scene_depth=scene_depth)
    return draw_values(values, known, (low, high), is_disparity=is_disparity(norm_type))


def space_of(depth: Float[np.ndarray, "h w"], norm_type: str) -> Float32[np.ndarray, "h w"]:
    """Returns depth, or 1 / depth for the disparity types; 0 where there is none."""
    if norm_type not in NORM_TYPES:
        raise InputError(f"norm_type {norm_type!r}, wanted one of {', '.join(NORM_TYPES)}")
    if not is_disparity(norm_type):
        return depth.astype(np.float32)
    return np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0).astype(np.float32)


def value_range(
    values: Float[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
    norm_type: str,
    *,
    scene_depth: float = SCENE_DEPTH,
) -> Range:
    """Returns the values drawn as -1 and 1; statistics use known pixels only.

    Raises:
        InputError: Nothing is known.
    """
    if not known.any():
        raise InputError("a sample without any depth")
    return NORM_TYPES[norm_type](values[known].astype(np.float32), scene_depth)


def draw_values(
    values: Float[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"], limits: Range, *, is_disparity: bool
) -> Float32[np.ndarray, "h w"]:
    """Returns values drawn between their limits, clipped; what is not known is as far as can be."""
    low, high = limits
    drawn = ((values - low) / (high - low + RANGE_EPS) - 0.5) * 2
    return np.where(known, drawn.clip(-1, 1), -1 if is_disparity else 1).astype(np.float32)


def draw_normals(normals: Float[np.ndarray, "*b h w 3"]) -> Float32[np.ndarray, "*b h w 3"]:
    """Returns OpenCV normals as Lotus draws them; 0, grey, where there are none."""
    return -normals.astype(np.float32)


def is_disparity(norm_type: str) -> bool:
    """Returns True for the types that draw 1 / depth."""
    return "disparity" in norm_type


def whole_cells(valid: Bool[np.ndarray, "*b h w"]) -> Bool[np.ndarray, "*b h8 w8"]:
    """Returns which latent cells have all of their 8 x 8 pixels valid."""
    *batch, height, width = valid.shape
    rows, columns = height // LATENT_FACTOR, width // LATENT_FACTOR
    inside = valid[..., : rows * LATENT_FACTOR, : columns * LATENT_FACTOR]
    blocks = inside.reshape(*batch, rows, LATENT_FACTOR, columns, LATENT_FACTOR)
    return np.asarray(blocks.all(axis=(-3, -1)))


def _extremes(values: Float32[np.ndarray, "n"], _: float) -> Range:
    return float(values.min()), float(values.max())


def _truncated(values: Float32[np.ndarray, "n"], _: float) -> Range:
    low, high = np.quantile(values, (LOW, HIGH))
    return float(low), float(high)


def _scene(_: Float32[np.ndarray, "n"], scene_depth: float) -> Range:
    return 0.0, scene_depth - RANGE_EPS


NORM_TYPES: dict[str, Callable[[Float32[np.ndarray, "n"], float], Range]] = {
    "instnorm": _extremes,
    "truncnorm": _truncated,
    "perscene_norm": _scene,
    "disparity": _extremes,
    "trunc_disparity": _truncated,
}
