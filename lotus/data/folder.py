"""Any photos with depth, and normals where there are some.

    FOLDER/rgb/NAME.jpg       photo; any ending of a photo, also in folders below
    FOLDER/depth/NAME.npy     z; or .npz, or .png of 16 bits (value / depth_scale)
    FOLDER/normals/NAME.npy   optional; or .png of 8 bits, n = value / 127.5 - 1, black = none
    FOLDER/intrinsics.txt     optional: K (3 x 3) or fx fy cx cy of the photos, OpenCV's pixels

Depth that is 0, negative or NaN (65535 in a png) is not known, infinite depth is sky. An npz holds `depth`,
and `normals` (right-down-forward) and `K` if it likes, or is a prediction of this project (`values`, `kind`
metric or scale, `normals`). Where a sample has no normals but K is known, they are made from depth
(`planes`). The photo is brought to the size of its depth.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from lotus.data.listing import Survey, read_list
from lotus.data.planes import fit_normals
from lotus.data.samples import TrainingSample, covered
from recon.errors import InputError, ViewError
from recon.io.images import find_photos, read_photo, resize_image
from recon.io.maps import read_depth_png, read_prediction

DEPTH_ENDINGS = (".npz", ".npy", ".png")
NORMALS_ENDINGS = (".npy", ".png")
SHAPE_TOLERANCE = 0.02  # of width / height between photo and depth: rounding of a reduced map
MIN_LENGTH = 0.5  # of a normal; shorter ones are the mean of opposite ones, or none
MAX_AWAY_SHARE = 0.5  # more normals that point away from the camera mean that the axes are others

Axes = Literal["right-down-forward", "right-up-back", "left-up-back"]
OURS_FROM: dict[str, tuple[int, int, int]] = {
    "right-down-forward": (1, 1, 1),  # OpenCV
    "right-up-back": (1, -1, -1),  # OpenGL; the pictures of `lotus predict`
    "left-up-back": (-1, -1, -1),  # Lotus, DSINE
}


@dataclass(frozen=True)
class Folder:
    """The photos of a folder that have depth."""

    folder: Path
    size: tuple[int, int] | None = None
    """(height, width) of the samples, px: the photo is scaled to cover it and cut. None: as stored."""

    depth_scale: float = 1000.0
    """Value of a depth png that stands for one unit."""

    normal_axes: Axes | None = None
    """Of the files in normals/. None: right-down-forward in npy, right-up-back in png."""

    frames_list: Path | None = None
    """Names of the photos to take, one a line, as `lotus verify --list` writes them. None: all."""

    @cached_property
    def survey(self) -> Survey:
        """What is there and what is missing.

        Raises:
            InputError: There is no folder rgb, no photo in it, or two photos share a name.
        """
        names = list(self._photos)
        title = f"photos with depth in {self.folder.name}"
        return Survey.of(title, names, self._files, scene_of=lambda name: name)

    @cached_property
    def frames(self) -> tuple[str, ...]:
        """Names of the samples: those of the photos without their endings.

        Raises:
            InputError: As `survey`, or no photo has depth.
        """
        return self.survey.usable(self.folder, read_list(self.frames_list))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> TrainingSample:
        """Returns a photo with its maps.

        Raises:
            ViewError: A file is damaged or is not what it has to be.
        """
        name = self.frames[index]
        path = self._depths[name]
        maps = _read_maps(path, self.depth_scale)
        sky = np.isposinf(maps.depth)
        depth = np.where(np.isfinite(maps.depth) & (maps.depth > 0), maps.depth, np.float32(0))
        photo = read_photo(self._photos[name])
        normals = self._normals(name, maps, depth, photo.shape[1])
        height, width = depth.shape
        skew = photo.shape[1] * height / (photo.shape[0] * width)
        if abs(skew - 1) > SHAPE_TOLERANCE:
            raise ViewError(f"{path}: {width} x {height}, its photo {photo.shape[1]} x {photo.shape[0]}")
        sample = TrainingSample(name, resize_image(photo, width, height), depth, normals, sky)
        return covered(sample, *self.size) if self.size else sample

    def has_normals(self) -> bool:
        """Returns whether some sample has normals, or K to make them from its depth."""
        if self._photo_K is not None or not self._normal_files.keys().isdisjoint(self.frames):
            return True
        depths = (self._depths[name] for name in self.frames)
        return any(path.suffix.lower() == ".npz" and _tells_normals(path) for path in depths)

    def _normals(
        self, name: str, maps: "_Maps", depth: Float32[np.ndarray, "h w"], photo_width: int
    ) -> Float32[np.ndarray, "h w 3"]:
        """Returns the normals of a file, else those beside the depth, else those that depth has."""
        if name in self._normal_files:
            path = self._normal_files[name]
            return _checked_normals(path, _read_normals(path, self.normal_axes), depth.shape)
        if maps.normals is not None:
            return _checked_normals(self._depths[name], maps.normals, depth.shape)
        K = maps.K
        if K is None and self._photo_K is not None:
            scale = depth.shape[1] / photo_width
            K = self._photo_K * np.array([[scale], [scale], [1]])
        if K is None:
            return np.zeros((*depth.shape, 3), np.float32)
        return fit_normals(K, depth)

    @cached_property
    def _photos(self) -> dict[str, Path]:
        home = self.folder / "rgb"
        if not home.is_dir():
            raise InputError(f"{self.folder}: no folder rgb in it, wanted rgb/NAME.jpg and depth/NAME.npy")
        return _by_name(home, find_photos(home))

    @cached_property
    def _depths(self) -> dict[str, Path]:
        return _by_name(self.folder / "depth", _maps_below(self.folder / "depth", DEPTH_ENDINGS))

    @cached_property
    def _normal_files(self) -> dict[str, Path]:
        return _by_name(self.folder / "normals", _maps_below(self.folder / "normals", NORMALS_ENDINGS))

    @cached_property
    def _photo_K(self) -> Float64[np.ndarray, "3 3"] | None:
        path = self.folder / "intrinsics.txt"
        return _read_intrinsics(path) if path.is_file() else None

    def _files(self, name: str) -> dict[str, str]:
        wanted = self.folder / "depth" / f"{name}.npy"
        return {"photo": str(self._photos[name]), "depth": str(self._depths.get(name, wanted))}


@dataclass(frozen=True, eq=False)
class _Maps:
    depth: Float32[np.ndarray, "h w"]
    normals: Float32[np.ndarray, "h2 w2 3"] | None = None
    K: Float64[np.ndarray, "3 3"] | None = None


def _by_name(home: Path, paths: Sequence[Path]) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(home).with_suffix("").as_posix()
        if name in names:
            raise InputError(f"{path} and {names[name].name} share the name {name}; wanted one of them")
        names[name] = path
    return names


def _maps_below(home: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.suffix.lower() in endings and path.is_file())


def _read_maps(path: Path, depth_scale: float) -> _Maps:
    if path.suffix.lower() == ".png":
        return _Maps(read_depth_png(path, scale=depth_scale))
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        return _Maps(_numbers(path, "depth", loaded, 2))
    if "values" in loaded:
        prediction = read_prediction(path)
        if prediction.kind not in ("metric", "scale"):
            raise ViewError(f"{path}: kind {prediction.kind}, of unknown shift; wanted metric or scale")
        return _Maps(prediction.values, prediction.normals)
    if "depth" not in loaded:
        raise ViewError(f"{path}: no field 'depth' or 'values', it has {', '.join(loaded) or 'none'}")
    normals = _numbers(path, "normals", loaded["normals"], 3) if "normals" in loaded else None
    K = _checked_K(path, loaded["K"]) if "K" in loaded else None
    return _Maps(_numbers(path, "depth", loaded["depth"], 2), normals, K)


def _tells_normals(path: Path) -> bool:
    try:
        maps = _read_maps(path, 1.0)
    except ViewError:  # training leaves it out
        return False
    return maps.normals is not None or maps.K is not None


def _read_normals(path: Path, axes: Axes | None) -> Float32[np.ndarray, "h w 3"]:
    if path.suffix.lower() == ".png":
        colours = read_photo(path)
        normals = np.where(colours.any(axis=-1, keepdims=True), colours / np.float32(127.5) - 1, 0)
        return (normals * np.array(OURS_FROM[axes or "right-up-back"])).astype(np.float32)
    loaded = _load(path)
    if not isinstance(loaded, np.ndarray):
        raise ViewError(f"{path}: several arrays, wanted one of normals")
    return _numbers(path, "normals", loaded, 3) * np.array(
        OURS_FROM[axes or "right-down-forward"], np.float32
    )


def _checked_normals(
    path: Path, normals: Float32[np.ndarray, "_h _w 3"], size: tuple[int, ...]
) -> Float32[np.ndarray, "h w 3"]:
    """Returns unit normals, (0, 0, 0) where they say nothing."""
    if normals.shape != (*size, 3):
        raise ViewError(f"{path}: normals of shape {normals.shape}, its depth wants {(*size, 3)}")
    finite = np.where(np.isfinite(normals).all(axis=-1, keepdims=True), normals, np.float32(0))
    length = np.linalg.norm(finite, axis=-1, keepdims=True)
    known = length > MIN_LENGTH
    away = (finite[..., 2:] > 0) & known
    if away.sum() > MAX_AWAY_SHARE * known.sum():
        raise ViewError(
            f"{path}: {away.sum()} of {known.sum()} normals point away from the camera; "
            f"their axes are others, one of {', '.join(OURS_FROM)}"
        )
    return np.where(known, finite / np.where(known, length, 1), 0).astype(np.float32)


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ViewError(f"{path}: not an array, or a damaged file ({error})") from error


def _numbers(path: Path, what: str, values: np.ndarray, axes: int) -> np.ndarray:
    if values.dtype.kind not in "fiu" or values.ndim != axes or (axes == 3 and values.shape[2] != 3):
        wanted = "(height, width)" if axes == 2 else "(height, width, 3)"
        raise ViewError(f"{path}: {what} of {values.dtype}, shape {values.shape}; wanted numbers, {wanted}")
    with np.errstate(over="ignore"):  # beyond float32 is infinite: sky
        return values.astype(np.float32)


def _read_intrinsics(path: Path) -> Float64[np.ndarray, "3 3"]:
    """Returns K in our pixels: those of OpenCV moved by half a pixel."""
    try:
        numbers = np.array(path.read_text().replace(",", " ").split(), np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: wanted K or fx fy cx cy ({error})") from error
    if numbers.size == 4:
        fx, fy, cx, cy = numbers
        numbers = np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1])
    if numbers.size != 9:
        raise InputError(f"{path}: {numbers.size} numbers, wanted the 9 of K or fx fy cx cy")
    K = numbers.reshape(3, 3)
    K[:2, 2] += 0.5
    return _checked_K(path, K)


def _checked_K(path: Path, K: np.ndarray) -> Float64[np.ndarray, "3 3"]:
    if K.shape != (3, 3) or K.dtype.kind != "f" or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError(f"{path}: K is {K.tolist()}, wanted 3 x 3 with positive focal lengths")
    return K.astype(np.float64)
