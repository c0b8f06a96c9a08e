"""Depth of a whole picture from its fit, how sure it is, and the depth map that is left."""

import numpy as np
from jaxtyping import Float32, Float64

from recon.alignment.affine import Fit
from recon.alignment.field import Field
from recon.alignment.line import Line
from recon.alignment.spaces import slope_of, target_of
from recon.alignment.usable import Known, confidence_of, sharp_bends
from recon.errors import ViewError
from recon.geometry import depth_edges, normals_from_depth
from recon.scene import Camera, DepthMap

MAX_RELATIVE_SIGMA = 0.5  # a depth less certain than this says nothing
MIN_KEPT_SHARE = 0.05  # a fit that leaves less of the prediction is wrong
EDGE_REACH = 3  # px over which networks blur a step
ON_EDGE, BESIDE_EDGE = 0.8, 0.25  # sigma there, share of the step
SATURATED_SIGMA = 0.3  # relative; a clipped value says no more than nearer or farther than


def plain_sigma(
    fit: Fit, line: Line, known: Known, depth: Float64[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Returns the standard deviation of depth, from the fit and the prediction; anything where depth is 0."""
    z = np.where(depth > 0, depth, 1.0)
    slope = slope_of(fit.space, z)
    of_prediction = line.noise.variance(slope * z, confidence_of(known)) / slope**2
    return np.sqrt(line_variance(fit, fit.covariance, depth) * z**2 + of_prediction)


def corrected_depth(
    field: Field, fit: Fit, hidden: Float64[np.ndarray, "2 2"], known: Known
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
    """Returns the corrected depth and its sigma.

    What scale and shift leave uncertain matters as far as the correction does not make up for it (universal
    kriging): where anchors have left it a share of its variance, that share of such an error remains. A slope
    that they cannot show always does.
    """
    plain = fit.depth(known.values)
    log_depth = np.log(np.where(plain > 0, plain, 1.0))
    depth = plain * np.exp(field.at(log_depth))
    of_field = field.variance(log_depth)
    open_share = np.minimum(of_field / field.amplitude**2, 1)
    of_fit = line_variance(fit, fit.covariance - hidden, plain) * open_share**2
    of_fit += line_variance(fit, hidden, plain)
    of_prediction = field.noise.variance(np.ones_like(depth), confidence_of(known))
    return depth, depth * np.sqrt(of_field + of_fit + of_prediction)


def line_variance(
    fit: Fit, covariance: Float64[np.ndarray, "2 2"], depth: Float64[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Returns the variance of log depth that scale and shift bring; anything where depth is 0.

    Args:
        fit: The line.
        covariance: Of (scale, shift).
        depth: Of the fit.
    """
    z = np.where(depth > 0, depth, 1.0)
    x = (target_of(fit.space, z) - fit.shift) / fit.scale
    (scale_variance, both), (_, shift_variance) = covariance
    variance = np.maximum(scale_variance * x**2 + 2 * both * x + shift_variance, 0)
    return variance / (slope_of(fit.space, z) * z) ** 2


def _edge_sigma(known: Known, depth: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Returns the relative standard deviation of depth that networks mix over its edges; 0 elsewhere.

    How far inverse depth, linear over planes, bends within EDGE_REACH is the size of the step.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    surrounded = minimum_filter(depth, 2 * EDGE_REACH + 1) > 0
    edges = surrounded & depth_edges(depth) & maximum_filter(sharp_bends(known.values), 2 * EDGE_REACH + 1)
    inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), np.nan).astype(np.float64)
    bend = np.zeros(depth.shape)
    r = EDGE_REACH
    for along, into in ((inverse, bend), (inverse.T, bend.T)):
        twice = np.abs(along[2 * r :] - 2 * along[r:-r] + along[: -2 * r]) / 2 / along[r:-r]
        np.fmax(into[r:-r], twice, out=into[r:-r])
    step = maximum_filter(bend, 2 * r + 1)
    beside = maximum_filter(edges, 3)
    return step * np.where(edges, ON_EDGE, np.where(beside, BESIDE_EDGE, 0))


def to_depth_map(
    known: Known,
    depth: Float64[np.ndarray, "h w"],
    sigma: Float64[np.ndarray, "h w"],
    normals: Float32[np.ndarray, "h w 3"] | None,
    camera: Camera,
) -> DepthMap:
    """Returns what is certain enough of depth and its sigma; without normals, those of the depth.

    Raises:
        ViewError: That is next to nothing.
    """
    sigma = np.where(known.saturated, np.maximum(sigma, SATURATED_SIGMA * depth), sigma)
    keep = (depth > 0) & (sigma <= MAX_RELATIVE_SIGMA * depth)
    share = keep.sum() / np.isfinite(known.values).sum()
    if share < MIN_KEPT_SHARE:
        raise ViewError(
            f"view: the fit gives depth to {100 * share:.1f} % of the prediction, "
            f"at least {100 * MIN_KEPT_SHARE:g} % wanted"
        )
    kept_depth = np.where(keep, depth, 0).astype(np.float32)
    if normals is None:
        normals = normals_from_depth(camera.K, kept_depth)
    sigma = np.hypot(sigma, depth * _edge_sigma(known, kept_depth))
    certain = keep & np.isfinite(normals).all(axis=-1)
    return DepthMap(
        camera,
        kept_depth,
        np.where(certain[..., None], normals, np.float32(0)),
        np.where(keep, sigma, 0).astype(np.float32),
    )
