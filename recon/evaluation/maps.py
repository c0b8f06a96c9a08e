"""Depth, normals and uncertainty of single views against the truth.

Definitions follow the evaluation of Marigold (Ke et al., 2024) for depth and of DSINE (Bae and Davison,
2024) for normals, which Lotus uses too. Metrics are of one map; a data set's figure is the mean over its
maps for depth, and over all pixels together for normals.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from recon.errors import InputError

DISPARITY_FLOOR = 1e-3  # of aligned disparity before its inverse is taken, as published; 1000 units are far


@dataclass(frozen=True)
class DepthScore:
    """Errors of depth p against truth g over the pixels that count."""

    pixels: int
    abs_rel: float
    """Mean of |p - g| / g."""

    sq_rel: float
    """Mean of (p - g)^2 / g, scene units."""

    rmse: float
    """Scene units."""

    rmse_log: float
    """Of natural logarithms."""

    log10: float
    """Mean |log10 p - log10 g|."""

    delta1: float
    """Share with max(p / g, g / p) < 1.25."""

    delta2: float
    """The same for 1.25^2."""

    delta3: float
    """The same for 1.25^3."""

    i_rmse: float
    """Rmse of 1 / depth, 1 / scene units."""

    silog: float
    """100 times the standard deviation of log p - log g: the error that no scale explains."""


@dataclass(frozen=True)
class NormalScore:
    """Angles between normals and the truth over the pixels that count, degrees; shares in percent."""

    pixels: int
    mean: float
    median: float
    rmse: float
    below_5: float
    below_7_5: float
    below_11_25: float
    below_22_5: float
    below_30: float


@dataclass(frozen=True)
class CalibrationScore:
    """Whether a standard deviation tells the truth about errors."""

    pixels: int
    within_1_sigma: float
    """Share of |error| <= sigma; 0.683 for Gaussian errors."""

    within_2_sigma: float
    """Share of |error| <= 2 sigma; 0.954 for Gaussian errors."""

    rms_z: float
    """Rms of error / sigma; 1 if sigma is right on average, above 1 if it is too small."""


def align_depth(
    values: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Returns scale * values + shift, closest to the true depth over the mask in least squares."""
    scale, shift = _least_squares(values[mask], truth[mask])
    return scale * values.astype(np.float64) + shift


def align_disparity(
    values: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Returns depth 1 / (scale * values + shift), with the sum closest to 1 / true depth in least squares.

    Pixels count where the mask is set and truth and values are positive, as in the published protocol.
    """
    used = mask & (truth > 0) & (values > 0)
    scale, shift = _least_squares(values[used], 1 / truth[used].astype(np.float64))
    return 1 / np.maximum(scale * values.astype(np.float64) + shift, DISPARITY_FLOOR)


def depth_metrics(
    depth: Float[np.ndarray, "h w"],
    truth: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> DepthScore:
    """Scores depth in scene units, after whatever alignment it needs, where both maps have depth.

    Raises:
        InputError: No pixel counts.
    """
    p, g = _counted(depth, truth, (depth > 0) & (truth > 0), mask)
    log_ratio, ratio = np.log(p) - np.log(g), np.maximum(p / g, g / p)
    return DepthScore(
        pixels=len(p),
        abs_rel=float(np.mean(np.abs(p - g) / g)),
        sq_rel=float(np.mean((p - g) ** 2 / g)),
        rmse=_rms(p - g),
        rmse_log=_rms(log_ratio),
        log10=float(np.mean(np.abs(log_ratio))) / np.log(10),
        delta1=float((ratio < 1.25).mean()),
        delta2=float((ratio < 1.25**2).mean()),
        delta3=float((ratio < 1.25**3).mean()),
        i_rmse=_rms(1 / p - 1 / g),
        silog=100 * float(log_ratio.std()),
    )


def normal_metrics(
    normals: Float[np.ndarray, "h w 3"],
    truth: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> NormalScore:
    """Scores normals where both maps have one; their lengths do not matter.

    Raises:
        InputError: No pixel counts.
    """
    angles = normal_angles(normals, truth, mask)
    return NormalScore(
        len(angles),
        float(angles.mean()),
        float(np.median(angles)),
        _rms(angles),
        *(100 * float((angles < limit).mean()) for limit in (5, 7.5, 11.25, 22.5, 30)),
    )


def normal_angles(
    normals: Float[np.ndarray, "h w 3"],
    truth: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> Float64[np.ndarray, "n"]:
    """Returns the angles between normals and the truth where both maps have one, degrees.

    Raises:
        InputError: No pixel counts.
    """
    lengths = np.linalg.norm(normals, axis=-1) * np.linalg.norm(truth, axis=-1)
    products = np.einsum("hwc,hwc->hw", normals.astype(np.float64), truth.astype(np.float64))
    products, lengths = _counted(products, lengths, lengths > 0, mask)
    return np.degrees(np.arccos(np.clip(products / lengths, -1, 1)))


def calibration_metrics(
    error: Float[np.ndarray, "h w"],
    sigma: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> CalibrationScore:
    """Scores standard deviations against the errors they are meant to foretell, where sigma is positive.

    Raises:
        InputError: No pixel counts.
    """
    errors, sigmas = _counted(error, sigma, sigma > 0, mask)
    z = np.abs(errors) / sigmas
    return CalibrationScore(len(z), float((z <= 1).mean()), float((z <= 2).mean()), _rms(z))


def _least_squares(values: Float[np.ndarray, "n"], targets: Float[np.ndarray, "n"]) -> tuple[float, float]:
    if len(values) < 2 or np.ptp(values) == 0:
        raise InputError(f"alignment: {len(values)} pixels, wanted at least 2 with different values")
    rows = np.stack([values.astype(np.float64), np.ones(len(values))], axis=1)
    scale, shift = np.linalg.lstsq(rows, targets.astype(np.float64), rcond=None)[0]
    return float(scale), float(shift)


def _counted(
    first: Float[np.ndarray, "h w"],
    second: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"] | None,
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Returns both maps' values where they are finite, valid and not masked."""
    counted = valid & np.isfinite(first) & np.isfinite(second)
    counted = counted if mask is None else counted & mask
    if not counted.any():
        raise InputError(f"none of {counted.size} pixels can be compared")
    return first[counted].astype(np.float64), second[counted].astype(np.float64)


def _rms(values: Float64[np.ndarray, "n"]) -> float:
    return float(np.sqrt(np.mean(values**2)))
