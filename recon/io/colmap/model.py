"""COLMAP models as bytes: read from text or binary, checked, written."""

import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from recon.errors import InputError
from recon.io.colmap.options import load_pycolmap
from recon.io.files import replaced

NEEDED = ("cameras", "images", "points3D")
OPTIONAL = ("rigs", "frames")  # since COLMAP 3.12; older models have none
OBSERVATION = np.dtype([("xy", "<f8", 2), ("point_id", "<i8")])
PYCOLMAP_ERRORS = (ValueError, IndexError, RuntimeError, KeyError, MemoryError, OverflowError)


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """A COLMAP model as the bytes of its binary files: it fits into a store and can be written anywhere."""

    files: Mapping[str, UInt8[np.ndarray, "n"]]
    """File name (cameras.bin, images.bin, points3D.bin, rigs.bin, frames.bin) -> content."""

    dropped: Mapping[str, str] = field(default_factory=dict)
    """Photos without a pose, with the reason."""

    note: str = ""
    """A sentence for users on how the cameras came about, if there is one."""

    def __post_init__(self) -> None:
        missing = [name for name in NEEDED if f"{name}.bin" not in self.files]
        if missing:
            raise InputError(f"ColmapModel: has no {missing[0]}.bin")

    @property
    def summary(self) -> dict[str, int | float]:
        """Number of images and points, mean track length, mean reprojection error in pixels."""
        reconstruction = load_reconstruction(self)
        return {
            "images": reconstruction.num_reg_images(),
            "points": reconstruction.num_points3D(),
            "mean_track_length": reconstruction.compute_mean_track_length(),
            "mean_reprojection_error_px": reconstruction.compute_mean_reprojection_error(),
        }


def read_model(folder: Path) -> ColmapModel:
    """Reads a COLMAP model, binary or text, with or without rigs.

    Args:
        folder: Has cameras, images and points3D as .bin or as .txt; .bin is taken if both are there.

    Raises:
        InputError: A file is absent, cut off or malformed, or the files do not belong together.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, wanted one with a COLMAP model")
    present = _kinds(folder)
    if not present:
        below = sorted(each.name for each in folder.iterdir() if each.is_dir() and _kinds(each))
        hint = f" (there is one in {', '.join(below)})" if below else ""
        raise InputError(f"{folder}: no COLMAP model, wanted cameras.bin or cameras.txt in it{hint}")
    kind = present[0]
    rigged = [name for name in OPTIONAL if (folder / f"{name}.{kind}").is_file()]
    for name in NEEDED + (OPTIONAL if rigged else ()):
        _check_file(folder / f"{name}.{kind}", _BINARY[name] if kind == "bin" else _TEXT.get(name))
    reconstruction = _read_checked(folder)
    return model_from_reconstruction(reconstruction, {})


def _kinds(folder: Path) -> list[str]:
    return [kind for kind in ("bin", "txt") if (folder / f"cameras.{kind}").is_file()]


def write_model(model: ColmapModel, folder: Path, text: bool = False) -> None:
    """Writes a model where COLMAP can read it, as .bin or as .txt files; each appears whole or not at all.

    Raises:
        InputError: The file system refuses.
    """
    if not text:
        for name, content in model.files.items():
            with replaced(folder / name) as temporary:
                temporary.write_bytes(content.tobytes())
        return
    with tempfile.TemporaryDirectory() as scratch:
        load_reconstruction(model).write_text(scratch)
        for written in sorted(Path(scratch).iterdir()):
            with replaced(folder / written.name) as temporary:
                temporary.write_bytes(written.read_bytes())


def load_reconstruction(model: ColmapModel) -> Any:
    """Returns the model as a pycolmap.Reconstruction."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in model.files.items():
            (Path(scratch) / name).write_bytes(content.tobytes())
        return load_pycolmap().Reconstruction(scratch)


def model_from_reconstruction(reconstruction: Any, dropped: Mapping[str, str]) -> ColmapModel:
    """Returns a pycolmap.Reconstruction as bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        reconstruction.write_binary(scratch)
        files = {path.name: np.fromfile(path, np.uint8) for path in sorted(Path(scratch).iterdir())}
    return ColmapModel(files=files, dropped=dict(dropped))


def observations(model: ColmapModel) -> dict[str, np.ndarray]:
    """Returns the keypoints of each image by its name, as records (`xy` px, `point_id`, -1 = none)."""
    return dict(_images(model.files["images.bin"].tobytes()))


def _read_checked(folder: Path) -> Any:
    try:
        reconstruction = load_pycolmap().Reconstruction(folder)
    except PYCOLMAP_ERRORS as error:
        reason = str(error).splitlines()[0].split("Check failed: ")[-1].strip()
        raise InputError(f"{folder}: its files do not form one COLMAP model ({reason})") from error
    in_tracks = sum(point.track.length() for point in reconstruction.points3D.values())
    if in_tracks != reconstruction.compute_num_observations():
        raise InputError(
            f"{folder}: images has {reconstruction.compute_num_observations()} observations of points, "
            f"points3D has {in_tracks}; one of the files is cut off or from another model"
        )
    return reconstruction


def _check_file(path: Path, check: Callable[[bytes], None] | None) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), the COLMAP model needs it") from error
    try:
        if check is not None:
            check(content)
    except (struct.error, ValueError) as error:
        raise InputError(f"{path}: broken, {error}") from error


class _Cursor:
    """Takes packed values off a byte string. struct.error says where it ends too early."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.content, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def skip(self, size: int) -> int:
        start = self.at
        if size > len(self.content) - start:
            raise struct.error(f"it ends after {len(self.content)} bytes, {start + size} wanted")
        self.at += size
        return start

    def text(self) -> str:
        end = self.content.find(b"\0", self.at)
        if end < 0:
            raise struct.error("it ends in the middle of a name")
        start, self.at = self.at, end + 1
        return self.content[start:end].decode("utf-8", "surrogateescape")

    def finish(self) -> None:
        if self.at != len(self.content):
            raise ValueError(f"{len(self.content) - self.at} bytes follow its end")


def _check_cameras(content: bytes) -> None:
    pycolmap = load_pycolmap()
    models = {int(model) for model in pycolmap.CameraModelId.__members__.values() if int(model) >= 0}
    cursor = _Cursor(content)
    for _ in range(*cursor.take("Q")):
        camera_id, model, width, height = cursor.take("iiQQ")
        if model not in models:
            raise ValueError(f"camera {camera_id} has the unknown model number {model}")
        if not (0 < width < 1 << 20 and 0 < height < 1 << 20):
            raise ValueError(f"camera {camera_id} has {width}x{height} pixels")
        kind = pycolmap.CameraModelId(model)
        cursor.skip(8 * len(pycolmap.Camera.create_from_model_id(1, kind, 1.0, 2, 2).params))
    cursor.finish()


def _images(content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    cursor = _Cursor(content)
    for _ in range(*cursor.take("Q")):
        cursor.take("I7dI")
        name = cursor.text()
        (count,) = cursor.take("Q")
        yield name, np.frombuffer(content, OBSERVATION, count, cursor.skip(count * OBSERVATION.itemsize))
    cursor.finish()


def _check_images(content: bytes) -> None:
    for _ in _images(content):
        pass


def _check_points(content: bytes) -> None:
    cursor = _Cursor(content)
    for _ in range(*cursor.take("Q")):
        (length,) = cursor.take("Q3d3BdQ")[-1:]
        cursor.skip(8 * length)
    cursor.finish()


def _check_rigs(content: bytes) -> None:
    cursor = _Cursor(content)
    for _ in range(*cursor.take("Q")):
        _, sensors = cursor.take("II")
        if sensors:
            cursor.take("iI")
        for _ in range(sensors - 1):
            *_, has_pose = cursor.take("iIB")
            cursor.skip(56 * bool(has_pose))
    cursor.finish()


def _check_frames(content: bytes) -> None:
    cursor = _Cursor(content)
    for _ in range(*cursor.take("Q")):
        (count,) = cursor.take("II7dI")[-1:]
        cursor.skip(16 * count)
    cursor.finish()


def _lines(content: bytes) -> list[tuple[int, list[bytes]]]:
    """Line numbers and words of a text file without its comments."""
    lines = enumerate(content.splitlines(), start=1)
    return [(number, line.split()) for number, line in lines if not line.lstrip().startswith(b"#")]


def _check_text_cameras(content: bytes) -> None:
    for number, words in _lines(content):
        if words and len(words) < 5:
            raise ValueError(f"line {number} has {len(words)} words, a camera at least 5")


def _check_text_images(content: bytes) -> None:
    lines = iter(_lines(content))
    for number, words in lines:
        if not words:
            continue
        if len(words) < 10:
            raise ValueError(f"line {number} has {len(words)} words, an image at least 10")
        below, keypoints = next(lines, (number, []))
        if len(keypoints) % 3:
            raise ValueError(f"line {below} has {len(keypoints)} numbers, wanted three per keypoint")


def _check_text_points(content: bytes) -> None:
    for number, words in _lines(content):
        if words and (len(words) < 8 or len(words) % 2):
            raise ValueError(f"line {number} has {len(words)} words, a point 8 and two per observation")


_BINARY: dict[str, Callable[[bytes], None]] = {
    "cameras": _check_cameras,
    "images": _check_images,
    "points3D": _check_points,
    "rigs": _check_rigs,
    "frames": _check_frames,
}
_TEXT: dict[str, Callable[[bytes], None]] = {
    "cameras": _check_text_cameras,
    "images": _check_text_images,
    "points3D": _check_text_points,
}
