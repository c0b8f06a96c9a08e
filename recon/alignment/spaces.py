"""The spaces in which predictions are affine: depth z, disparity 1 / z, and log z.

g is the space's function of depth: g(z) = scale * x + shift, with x the `regressor` of a prediction.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64


def regressor(space: str, values: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Returns x of predicted values: these, or their log."""
    values = np.asarray(values, np.float64)
    return np.log(np.where(values > 0, values, np.nan)) if space == "log" else values


def target_of(space: str, depth: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Returns g(z)."""
    return {"depth": depth, "disparity": 1 / depth, "log": np.log(depth)}[space]


def slope_of(space: str, depth: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Returns |dg/dz|."""
    return {"depth": np.ones_like(depth), "disparity": depth**-2.0, "log": 1 / depth}[space]


def depth_of(space: str, target: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Returns z where g(z) = target; 0 where there is no positive and finite one."""
    with np.errstate(all="ignore"):
        depth = {"depth": target, "disparity": 1 / target, "log": np.exp(target)}[space]
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)


def log_ratio(
    fitted: Float64[np.ndarray, "*shape"],
    depth: Float64[np.ndarray, "*shape"],
    known: Bool[np.ndarray, "*shape"],
) -> Float64[np.ndarray, "*shape"]:
    """Returns log z - log z_fit within -1 to 1; 1 where there is no z_fit, NaN where not known."""
    has_depth = fitted > 0
    ratio = np.where(has_depth, np.log(depth / np.where(has_depth, fitted, 1)), 1.0)
    return np.where(known, np.clip(ratio, -1, 1), np.nan)
