"""Pictures and maps at other sizes and on other grids.

Pixels follow `recon/__init__.py`: the centre of the first one is (0.5, 0.5), so the middle of a picture stays
its middle at any size.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from recon.errors import InputError
from recon.scene import Prediction


def resize_image(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Returns a picture resampled to another size: areas averaged where it shrinks, cubic where it grows."""
    import cv2

    return _resample(image, width, height, cv2.INTER_CUBIC)


def resize_map(
    values: Float32[np.ndarray, "h w"], width: int, height: int, *, missing: float = np.nan
) -> Float32[np.ndarray, "h2 w2"]:
    """Returns a map resampled to another size; pixels without a value never mix into those with one.

    Args:
        values: Any map; infinite values count as missing.
        width: Of the result, pixels.
        height: Of the result, pixels.
        missing: What stands for no value: NaN (predictions) or 0 (depth, sigma). A pixel of the result is
            missing where over half of its weight is.
    """
    known = np.isfinite(values) & (values != missing)
    filled, share = _resample_known(np.where(known, values, 0)[..., None], known, width, height)
    return np.where(share >= 0.5, filled[..., 0], np.float32(missing))


def resize_normals(
    normals: Float32[np.ndarray, "h w 3"], width: int, height: int
) -> Float32[np.ndarray, "h2 w2 3"]:
    """Returns unit normals resampled to another size; (0, 0, 0) where over half of the weight has none."""
    known = np.isfinite(normals).all(axis=-1) & (normals != 0).any(axis=-1)
    filled, share = _resample_known(np.where(known[..., None], normals, 0), known, width, height)
    length = np.linalg.norm(filled, axis=-1, keepdims=True)
    good = (share[..., None] >= 0.5) & (length > 1e-6)
    return np.where(good, filled / np.where(good, length, 1), 0).astype(np.float32)


def remap(
    image: Shaped[np.ndarray, "h w *c"], pixels: Float64[np.ndarray, "h2 w2 2"]
) -> Shaped[np.ndarray, "h2 w2 *c"]:
    """Returns a picture or a map sampled bilinearly at positions of another grid.

    Args:
        image: uint8 or float32.
        pixels: (u, v) for each pixel of the result. Between the picture's border and its outermost pixel
            centres the border's value is taken; outside the picture, and at NaN, uint8 gives 0, float32 NaN.
    """
    import cv2

    height, width = image.shape[:2]
    inside = np.all((pixels >= 0) & (pixels <= np.array([width, height])), axis=-1)
    positions = np.where(inside[..., None], pixels - 0.5, 0).astype(np.float32)  # OpenCV's first centre is 0
    sampled = cv2.remap(
        image, positions[..., 0], positions[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    sampled = sampled.reshape(*pixels.shape[:2], *image.shape[2:])  # OpenCV drops a single channel
    sampled[~inside] = 0 if image.dtype == np.uint8 else np.nan
    return sampled


def remap_prediction(prediction: Prediction, pixels: Float64[np.ndarray, "h2 w2 2"]) -> Prediction:
    """Returns a prediction sampled at positions of another grid: NaN outside, normals of unit length again.

    Args:
        prediction: Of the photo as taken.
        pixels: As for `remap`.
    """
    seen = np.isfinite(pixels).all(axis=-1)
    values = remap(prediction.values, pixels)
    values[~seen] = np.nan
    normals, confidence = prediction.normals, prediction.confidence
    if normals is not None:
        normals = np.nan_to_num(remap(normals, pixels))
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.where(length > 0.5, normals / np.maximum(length, 0.5), 0).astype(np.float32)
    if confidence is not None:
        confidence = np.where(seen, np.nan_to_num(remap(confidence, pixels)), 0).astype(np.float32)
    return Prediction(values, prediction.kind, normals, confidence)


def _resample(image: np.ndarray, width: int, height: int, growing: int) -> np.ndarray:
    import cv2

    if width < 1 or height < 1:
        raise InputError(f"resize: {width}x{height} pixels wanted, at least 1x1 needed")
    smaller = min(width, image.shape[1]), min(height, image.shape[0])
    image = np.ascontiguousarray(image)
    if smaller != image.shape[1::-1]:
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if (width, height) != smaller:
        image = cv2.resize(image, (width, height), interpolation=growing)
    return image


def _resample_known(
    values: Float32[np.ndarray, "h w c"], known: Bool[np.ndarray, "h w"], width: int, height: int
) -> tuple[Float32[np.ndarray, "h2 w2 c"], Float32[np.ndarray, "h2 w2"]]:
    """Resampled mean of the known values and the known share of each pixel's weight."""
    import cv2

    stacked = np.concatenate([values, known[..., None]], axis=-1).astype(np.float32)
    resampled = _resample(stacked, width, height, cv2.INTER_LINEAR)
    share = resampled[..., -1]
    return resampled[..., :-1] / np.where(share > 0, share, 1)[..., None], share
