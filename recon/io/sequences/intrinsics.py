"""Cameras of sequences: from the files that folders keep them in, or the published ones of a data set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from recon.errors import InputError
from recon.io.images import same_ratio
from recon.scene import Camera, Lens

TEXT_NAMES = ("camera-intrinsics.txt", "intrinsics.txt", "intrinsic.txt", "camera.txt", "calibration.txt")
JSON_NAMES = ("camera_intrinsic.json", "intrinsic.json", "camera.json", "meta.json")
HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # OpenCV's first pixel centre is (0, 0)


@dataclass(frozen=True, eq=False)
class Optics:
    """The camera of all photos of a sequence."""

    camera: Camera
    lens: Lens | None = None


def optics_from_opencv(
    K: Float64[np.ndarray, "3 3"], width: int, height: int, distortion: tuple[float, ...] = ()
) -> Optics:
    """Returns a camera and its lens from OpenCV's K and distortion k1 k2 p1 p2 [k3]."""
    camera = Camera(np.asarray(K, np.float64) + HALF_PIXEL, width, height)
    if not any(distortion):
        return Optics(camera)
    (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
    model, padded = "OPENCV", distortion[:4]
    if len(distortion) > 4:
        model, padded = "FULL_OPENCV", (*distortion[:5], 0.0, 0.0, 0.0)
    return Optics(camera, Lens(model, np.array([fx, fy, cx, cy, *padded]), width, height))


def read_intrinsics(folder: Path, width: int, height: int) -> Optics | None:
    """Returns the camera that a file of the folder tells, for photos of the given size; None without a file.

    Text: a 3x3 or 4x4 K, or fx fy cx cy [k1 k2 p1 p2 [k3]], for the photos' size. JSON: `K` row by row, or
    Open3D's `intrinsic_matrix` column by column, with `width` and `height`. All in OpenCV's pixels.

    Raises:
        InputError: The file is not what it has to be.
    """
    for name in TEXT_NAMES:
        if (folder / name).is_file():
            return _from_text(folder / name, width, height)
    for name in JSON_NAMES:
        if (folder / name).is_file():
            return _from_json(folder / name, width, height)
    return None


def _from_text(path: Path, width: int, height: int) -> Optics:
    try:
        lines = path.read_text(errors="replace").splitlines()
        words = " ".join(line.split("#")[0] for line in lines).replace(",", " ").split()
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(f"{path.name}: wanted numbers only ({error})") from error
    if numbers.size == 16 or (numbers.size == 9 and numbers[6:].tolist() == [0, 0, 1]):
        size = int(np.sqrt(numbers.size))
        return optics_from_opencv(_checked(path, numbers.reshape(size, size)[:3, :3]), width, height)
    if numbers.size in (4, 8, 9):
        fx, fy, cx, cy, *distortion = numbers.tolist()
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return optics_from_opencv(_checked(path, K), width, height, tuple(distortion))
    raise InputError(
        f"{path.name}: {numbers.size} numbers, wanted a 3x3 or 4x4 K, or fx fy cx cy and distortion"
    )


def _from_json(path: Path, width: int, height: int) -> Optics:
    document = load_json(path)
    if "K" in document:
        K = np.array(document["K"], np.float64)
    elif "intrinsic_matrix" in document:
        K = np.array(document["intrinsic_matrix"], np.float64).reshape(3, 3).T
    else:
        raise InputError(f"{path.name}: no field 'K' or 'intrinsic_matrix'")
    size = int(document.get("width", width)), int(document.get("height", height))
    if not same_ratio((width, height), size):
        raise InputError(
            f"{path.name}: says {size[0]}x{size[1]} pixels, the photos have {width}x{height}: "
            "their sides' ratios differ"
        )
    distortion = tuple(float(value) for value in document.get("distortion", ()))
    optics = optics_from_opencv(_checked(path, K), *size, distortion)
    return Optics(optics.camera.resized(width, height), optics.lens)


def _checked(path: Path, K: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "3 3"]:
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError(f"{path.name}: K is {K.tolist()}, wanted 3x3 with positive focal lengths")
    return K


def load_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        InputError: It is missing, damaged or holds something else.
    """
    try:
        document = json.loads(path.read_text(errors="replace"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no JSON that can be read ({error})") from error
    if not isinstance(document, dict):
        raise InputError(f"{path.name}: a {type(document).__name__}, wanted an object with fields")
    return document
