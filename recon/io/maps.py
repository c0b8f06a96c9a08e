"""Depth, normals, sigma and confidence in files, and as colour pictures.

Predictions and depth maps are npz files without pickles; sensor depth is 16-bit PNG.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from recon.errors import InputError, ViewError
from recon.io.files import replaced
from recon.io.images import open_picture
from recon.scene import PREDICTION_KINDS, Camera, DepthMap, Prediction

UNIT_LENGTH_RANGE = (0.5, 1.5)  # compressed or resampled unit normals lie within; anything else is no normal
ROBUST_PERCENTILES = (2.0, 98.0)
SIGMA_SHARE_RANGE = (1e-3, 1e-1)  # of depth: a good multi-view fit, a guess

# Dark blue (low) over green to dark red (high), sRGB; lightness rises to the middle and falls, as in Turbo.
COLOR_STOPS = np.array(
    [
        [48, 24, 80],
        [62, 70, 190],
        [55, 130, 245],
        [30, 190, 215],
        [60, 225, 145],
        [155, 245, 70],
        [225, 220, 50],
        [250, 160, 45],
        [230, 85, 20],
        [175, 30, 10],
        [110, 10, 10],
    ],
    np.float64,
)


def write_prediction(path: Path, prediction: Prediction) -> None:
    """Writes a prediction as npz: `values`, `kind`, and `normals` and `confidence` where it has them.

    Raises:
        InputError: The file cannot be written.
    """
    arrays = {"values": prediction.values, "kind": np.array(prediction.kind)}
    if prediction.normals is not None:
        arrays["normals"] = prediction.normals
    if prediction.confidence is not None:
        arrays["confidence"] = prediction.confidence
    _write_arrays(path, arrays)


def read_prediction(path: Path) -> Prediction:
    """Returns a prediction from an npz file, ours or another program's.

    Floats of any width are taken. Values that say nothing (NaN, infinite; for depth also 0 and below) become
    NaN, normals that are NaN become (0, 0, 0), nearly unit ones become unit.

    Raises:
        ViewError: The file is missing or damaged, or a field is missing or is not what it has to be.
    """
    arrays = _read_arrays(path)
    kind = _text(path, arrays, "kind")
    if kind not in PREDICTION_KINDS:
        raise ViewError(f"{path.name}: kind: {kind!r}, wanted one of {', '.join(PREDICTION_KINDS)}")
    values = _floats(path, arrays, "values", (None, None))
    known = np.isfinite(values)
    if kind in ("metric", "scale"):
        known &= values > 0
    if not known.any():
        wanted = "depth above 0" if kind in ("metric", "scale") else "finite values"
        raise ViewError(f"{path.name}: values: 0 of {values.size} pixels are known, wanted {wanted}")
    normals = confidence = None
    if "normals" in arrays:
        normals = _unit_normals(path, _floats(path, arrays, "normals", (*values.shape, 3)))
    if "confidence" in arrays:
        confidence = np.nan_to_num(_floats(path, arrays, "confidence", values.shape), nan=0.0)
        if confidence.min() < 0 or confidence.max() > 1:
            raise ViewError(
                f"{path.name}: confidence: {confidence.min():g} to {confidence.max():g}, wanted 0 to 1"
            )
    return Prediction(np.where(known, values, np.float32(np.nan)), kind, normals, confidence)


def write_depth_map(path: Path, depth_map: DepthMap) -> None:
    """Writes a depth map as npz: `depth`, `normals`, `sigma`, `K`, `width`, `height`.

    Raises:
        InputError: The file cannot be written.
    """
    camera = depth_map.camera
    arrays = {"depth": depth_map.depth, "normals": depth_map.normals, "sigma": depth_map.sigma}
    _write_arrays(
        path, arrays | {"K": camera.K, "width": np.array(camera.width), "height": np.array(camera.height)}
    )


def read_depth_map(path: Path) -> DepthMap:
    """Returns a depth map that `write_depth_map` wrote.

    Raises:
        ViewError: The file is missing or damaged, or a field is missing or is not what it has to be.
    """
    arrays = _read_arrays(path)
    K = _floats(path, arrays, "K", (3, 3), np.float64)
    depth = _floats(path, arrays, "depth", (None, None))
    height, width = (_whole_number(path, arrays, name) for name in ("height", "width"))
    if depth.shape != (height, width):
        raise ViewError(f"{path.name}: depth: shape {depth.shape}, camera says {(height, width)}")
    normals = _floats(path, arrays, "normals", (height, width, 3))
    sigma = _floats(path, arrays, "sigma", (height, width))
    try:
        return DepthMap(Camera(K, width, height), depth, normals, sigma)
    except InputError as error:
        raise ViewError(f"{path.name}: {error}") from error


def write_depth_png(path: Path, depth: Float32[np.ndarray, "h w"], *, scale: float) -> None:
    """Writes depth as 16-bit PNG: value = depth * scale, rounded; 0 = none.

    Raises:
        InputError: Depth is too large for 16 bits at that scale, or the file cannot be written.
    """
    from PIL import Image

    values = np.rint(np.where(np.isfinite(depth), depth, 0).astype(np.float64) * scale)
    if values.size and (values.max() > 65534 or values.min() < 0):
        raise InputError(
            f"{path.name}: depth {depth.min():g} to {depth.max():g} at {scale:g} per unit, "
            f"16 bits hold 0 to {65534 / scale:g}"
        )
    with replaced(path) as temporary:
        Image.fromarray(values.astype(np.uint16)).save(temporary, format="PNG")


def read_depth_png(path: Path, *, scale: float) -> Float32[np.ndarray, "h w"]:
    """Returns depth = value / scale of a 16-bit grey picture; 0 where the value is 0 or 65535 (none).

    Raises:
        ViewError: The file is no picture, is damaged, or is not 16-bit grey.
    """
    with open_picture(path) as picture:
        picture.load()
        mode, values = picture.mode, np.asarray(picture)
    if not mode.startswith("I"):
        raise ViewError(f"{path.name}: a picture of mode {mode}, wanted depth as 16-bit grey")
    known = (values > 0) & (values < 65535)
    return np.where(known, values / scale, 0).astype(np.float32)


def colorize(values: Float32[np.ndarray, "h w"], low: float, high: float) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture of a map: cold colours at `low`, warm ones at `high`, black where not finite."""
    known = np.isfinite(values)
    span = max(float(high - low), float(np.finfo(np.float32).tiny))
    share = np.clip((np.where(known, values, low) - low) / span, 0, 1)
    stops = np.linspace(0, 1, len(COLOR_STOPS))
    shades = np.linspace(0, 1, 256)
    table = np.stack([np.interp(shades, stops, channel) for channel in COLOR_STOPS.T], axis=-1)
    picture = np.rint(table).astype(np.uint8)[np.rint(share * 255).astype(np.uint8)]
    picture[~known] = 0
    return picture


def colorize_depth(depth: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture of depth, near = warm, even in 1 / depth between robust limits; black = none."""
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    disparity = np.where(known, 1 / np.where(known, depth, 1), np.nan).astype(np.float32)
    low, high = np.percentile(disparity[known], ROBUST_PERCENTILES)
    return colorize(disparity, float(low), float(high))


def colorize_normals(normals: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the usual picture of normals: red right, green up, blue toward the viewer; black = none."""
    known = np.isfinite(normals).all(axis=-1) & (normals != 0).any(axis=-1)
    shown = np.where(known[..., None], normals, 0) * np.array([1, -1, -1], np.float32)
    picture = np.rint((np.clip(shown, -1, 1) + 1) * 127.5).astype(np.uint8)
    picture[~known] = 0
    return picture


def colorize_sigma(
    sigma: Float32[np.ndarray, "h w"], depth: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture of sigma / depth on a logarithmic scale from 0.1 % (cold) to 10 % (warm)."""
    known = (depth > 0) & (sigma > 0)
    share = np.where(known, sigma, 1) / np.where(known, depth, 1)
    low, high = np.log(SIGMA_SHARE_RANGE)
    return colorize(np.where(known, np.log(share), np.nan).astype(np.float32), low, high)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replaced(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ViewError(f"{path.name}: a single array, wanted an npz file with named arrays")
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise ViewError(f"{path.name}: no such file in {path.parent}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ViewError(f"{path.name}: no npz file, or a damaged one ({error})") from error


def _field(path: Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise ViewError(f"{path.name}: no field {name!r}, it has {', '.join(sorted(arrays)) or 'none'}")
    return arrays[name]


def _text(path: Path, arrays: dict[str, np.ndarray], name: str) -> str:
    value = _field(path, arrays, name)
    if value.size != 1 or value.dtype.kind not in "US":
        raise ViewError(f"{path.name}: {name}: {value.dtype} of shape {value.shape}, wanted one text")
    text = value.reshape(-1)[0]
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _whole_number(path: Path, arrays: dict[str, np.ndarray], name: str) -> int:
    value = _field(path, arrays, name)
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ViewError(f"{path.name}: {name}: {value.dtype} of shape {value.shape}, wanted one whole number")
    return int(value.reshape(-1)[0])


def _floats(
    path: Path,
    arrays: dict[str, np.ndarray],
    name: str,
    shape: tuple[int | None, ...],
    dtype: type[np.floating] = np.float32,
) -> np.ndarray:
    value = _field(path, arrays, name)
    if value.dtype.kind != "f":
        raise ViewError(f"{path.name}: {name}: {value.dtype}, wanted {np.dtype(dtype)}")
    fits = value.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, value.shape, strict=True)
    )
    if not fits or value.size == 0:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ViewError(f"{path.name}: {name}: shape {value.shape}, wanted ({wanted})")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which the callers look for
        return np.ascontiguousarray(value, dtype)


def _unit_normals(path: Path, normals: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    length = np.linalg.norm(np.nan_to_num(normals, nan=0.0, posinf=np.inf), axis=-1)
    known = np.isfinite(normals).all(axis=-1) & (length > 0)
    low, high = UNIT_LENGTH_RANGE
    odd = known & ((length < low) | (length > high))
    if odd.any():
        raise ViewError(
            f"{path.name}: normals: {odd.sum()} of {odd.size} have a length outside {low:g} to {high:g} "
            f"(the first {length[odd][0]:g}), wanted unit vectors or 0 0 0"
        )
    away = int((known & (normals[..., 2] > 0)).sum())
    if 2 * away > known.sum():
        raise ViewError(
            f"{path.name}: normals: {away} of {known.sum()} point away from the camera (z > 0), "
            "wanted the camera's frame with a facing wall at 0 0 -1"
        )
    unit = normals / np.where(known, length, 1)[..., None]
    return np.where(known[..., None], unit, 0).astype(np.float32)
