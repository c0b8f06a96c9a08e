"""Shift, and focal length where unknown, of a single prediction from its own normals.

An affine-invariant prediction leaves scale and shift open, and the shift decides the shape: with a wrong
one, floors bend and boxes lean. But the slopes of the surface it implies have to agree with the predicted
normals. So the shift (and the field of view) are those under which they agree best. Normals that are right
tell the field of view to the degree, noisy ones hardly at all: so a guess counts as far as they are wrong.
The scale stays open: the nearest depth becomes 1.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from recon.errors import ViewError
from recon.geometry import normals_from_depth
from recon.scene import Camera, DepthMap, Prediction

NEAR_PERCENTILE, FAR_PERCENTILE = 1, 99  # a few pixels beyond them are outliers
SEARCH_SIZE = 160  # longer side of the map on which candidates are judged, px
RATIOS = np.geomspace(1.3, 60, 24)  # far over near, from a relief to a street
FIELDS_OF_VIEW_DEG = np.linspace(30, 100, 15)
FOCAL_DOUBT = 2.0  # a focal length e times the guess has to bring the angle down by a fifth
RELATIVE_SIGMA = 0.05  # what a good monocular prediction is worth without anchors


@dataclass(frozen=True, eq=False)
class Calibration:
    """A single prediction made depth."""

    depth_map: DepthMap
    """Metres for a metric prediction, else in units of the nearest depth."""

    fov_deg: float
    """Horizontal field of view used."""

    far_over_near: float | None
    """Ratio of far to near depth that the shift amounts to; None where the prediction has no open shift."""

    normal_error_deg: float | None
    """Mean angle between predicted normals and those of the depth; None without predicted normals."""


def calibrate(
    prediction: Prediction, camera: Camera, *, fov_known: bool = True, far_over_near: float = 8.0
) -> Calibration:
    """Returns depth of a prediction that has no sparse points.

    Minimises the mean angle between predicted normals and the normals of the depth over the shift, and over
    the field of view if that is unknown: on a grid first, by Nelder-Mead from its best point. There the angle
    counts 1 + (log(f / f_guess) / FOCAL_DOUBT)^2 times, which moves no minimum at 0.

    Args:
        prediction: Of the camera's size.
        camera: Its focal length is kept if `fov_known`, else the guess.
        fov_known: False searches the field of view too, square pixels and a centred axis assumed.
        far_over_near: Taken for the shift where there are no normals to tell it.

    Raises:
        ViewError: The prediction is flat or has no values.
    """
    has_shift, has_normals = _has_shift(prediction), prediction.normals is not None
    ratio = far_over_near
    if has_normals and (has_shift or not fov_known):
        camera, ratio = _search(prediction, camera, fov_known, RATIOS if has_shift else np.array([ratio]))
    depth = _depth(prediction, ratio)
    valid = depth > 0
    normals = prediction.normals if prediction.normals is not None else normals_from_depth(camera.K, depth)
    depth_map = DepthMap(
        camera=camera,
        depth=depth,
        normals=np.where(valid[..., None], normals, 0).astype(np.float32),
        sigma=(RELATIVE_SIGMA * depth).astype(np.float32),
    )
    return Calibration(
        depth_map=depth_map,
        fov_deg=camera.fov_deg,
        far_over_near=ratio if has_shift else None,
        normal_error_deg=_disagreement(prediction, camera, ratio) if has_normals else None,
    )


def _search(
    prediction: Prediction, camera: Camera, fov_known: bool, ratios: Float64[np.ndarray, "n"]
) -> tuple[Camera, float]:
    from scipy.optimize import minimize

    def camera_of(tangent: float) -> Camera:
        if fov_known:
            return camera
        fov_deg = float(np.clip(np.degrees(2 * np.arctan(np.exp(tangent))), *FIELDS_OF_VIEW_DEG[[0, -1]]))
        return Camera.from_fov(camera.width, camera.height, fov_deg)

    def ratio_of(opening: float) -> float:
        if len(ratios) == 1:
            return float(ratios[0])
        return 1 + float(np.exp(np.clip(opening, *np.log(RATIOS[[0, -1]] - 1))))

    def cost(parameters: Float64[np.ndarray, "2"]) -> float:
        tried = camera_of(parameters[0])
        doubt = float(np.log(tried.K[0, 0] / camera.K[0, 0])) / FOCAL_DOUBT
        return _disagreement(prediction, tried, ratio_of(parameters[1])) * (1 + doubt**2)

    tangents = [0.0] if fov_known else np.log(np.tan(np.radians(FIELDS_OF_VIEW_DEG) / 2))
    grid = [np.array([tangent, np.log(ratio - 1)]) for tangent in tangents for ratio in ratios]
    start = min(grid, key=cost)
    simplex = start + np.array([[0, 0], [0.15, 0], [0, 0.2]])  # about half a step of the grid
    found = minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 0.003})
    return camera_of(found.x[0]), ratio_of(found.x[1])


def _has_shift(prediction: Prediction) -> bool:
    return prediction.kind in ("affine", "affine_disparity")


def _depth(prediction: Prediction, far_over_near: float) -> Float32[np.ndarray, "h w"]:
    """Depth whose far and near percentiles have the given ratio; 0 where nothing is predicted."""
    values = prediction.values.astype(np.float64)
    known = np.isfinite(values)
    if prediction.confidence is not None:
        known &= prediction.confidence > 0
    if not _has_shift(prediction):
        known &= values > 0
    if not known.any():
        raise ViewError("the prediction has no usable value")
    if not _has_shift(prediction):
        return np.where(known, values, 0).astype(np.float32)
    low, high = np.percentile(values[known], [NEAR_PERCENTILE, FAR_PERCENTILE])
    if high - low <= 1e-6 * max(abs(high), abs(low)):
        raise ViewError(f"the prediction is flat: all values near {low:.4g}")
    offset = 1 / (far_over_near - 1)
    floor = offset / 4  # pixels beyond the percentiles stay in front of the camera
    shifted = np.maximum(np.where(known, (values - low) / (high - low), 1) + offset, floor)
    depth = (1 + offset) / shifted if prediction.kind == "affine_disparity" else shifted / offset
    return np.where(known, depth, 0).astype(np.float32)


def _disagreement(prediction: Prediction, camera: Camera, far_over_near: float) -> float:
    """Mean angle between predicted normals and those of the depth, degrees."""
    if prediction.normals is None:
        return 0.0
    stride = max(1, max(prediction.values.shape) // SEARCH_SIZE)
    depth = _depth(prediction, far_over_near)[::stride, ::stride]
    shrunk: Float64[np.ndarray, "3 3"] = camera.K / np.array([[stride], [stride], [1]])
    # pixel centres of the strided map lie half a stride before those of a resized one
    shrunk[:2, 2] += 0.5 - 0.5 / stride
    implied = normals_from_depth(shrunk, np.ascontiguousarray(depth), relative_jump=0.2)
    predicted = prediction.normals[::stride, ::stride]
    known = (np.abs(implied).sum(axis=-1) > 0) & (np.abs(predicted).sum(axis=-1) > 0)
    if not known.any():
        return 180.0
    cosine = np.einsum("nc,nc->n", implied[known], predicted[known])
    return float(np.degrees(np.mean(np.arccos(np.clip(cosine, -1, 1)))))
