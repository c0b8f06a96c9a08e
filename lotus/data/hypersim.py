"""Hypersim (Roberts et al. 2021): rendered rooms with exact depth and normals.

As published, below FOLDER/ai_001_001/images:

    scene_cam_00_final_preview/frame.0000.tonemap.jpg
    scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5, frame.0000.normal_cam.hdf5

with the authors' split in FOLDER/metadata_images_split_scene_v1.csv. Or as the reference of Lotus prepares
it: the same below FOLDER/train, the frames being those that are there.

`depth_meters` is a distance along the ray: z = distance * f / |(x, y, f)|, f = 886.81 at 1024 pixels (a few
scenes have a tilted lens, which the reference leaves out of account too). `normal_cam` has x right, y up, z
back.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from lotus.data.listing import Survey, read_list
from lotus.data.samples import TrainingSample, facing, ray_slopes, resized
from recon.errors import InputError, ViewError
from recon.io.images import read_photo

SPLIT_FILE = "metadata_images_split_scene_v1.csv"
FOCAL_PX, FOCAL_WIDTH_PX = 886.81, 1024
OURS_FROM_RUB = np.array([1, -1, -1], np.float32)  # right, up, toward the back, as OpenGL
FRAME = re.compile(r"(ai_\d+_\d+)/(cam_\d+)/(\d+)")
PHOTO = re.compile(r"(ai_\d+_\d+)/images/scene_(cam_\d+)_final_preview/frame\.(\d+)\.tonemap\.jpg")
INSTALL = "Hypersim's hdf5 files want h5py: pip install 'lotus-recon[train]'"


@dataclass(frozen=True)
class Hypersim:
    """The frames of a split that have photo, depth and normals, and no NaN in their depth."""

    folder: Path
    split: str = "train"
    """train, val or test."""

    size: tuple[int, int] = (576, 768)
    """(height, width) of the samples, px; the frames have 768 x 1024."""

    frames_list: Path | None = None
    """Names of the frames to take, one a line, as `lotus verify --list` writes them. None: all."""

    def __post_init__(self) -> None:
        try:
            import h5py  # noqa: F401
        except ImportError as error:
            raise InputError(INSTALL) from error

    @cached_property
    def survey(self) -> Survey:
        """What is there and what is missing.

        Raises:
            InputError: There is no such folder, it has neither layout, or the split file is not readable.
        """
        names = list(self._wanted())
        return Survey.of(
            f"Hypersim {self.split}", names, self._files, scene_of=lambda name: name.split("/")[0]
        )

    @cached_property
    def frames(self) -> tuple[str, ...]:
        """Names of the samples, such as ai_001_001/cam_00/0000.

        Raises:
            InputError: As `survey`, or no frame is whole.
        """
        return self.survey.usable(self.folder, read_list(self.frames_list))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> TrainingSample:
        """Returns a frame.

        Raises:
            ViewError: Its depth has NaN, or a file is damaged.
        """
        name = self.frames[index]
        photo, depth_file, normals_file = map(Path, self._files(name).values())
        image = read_photo(photo)
        height, width = image.shape[:2]
        distance = _read_hdf5(depth_file, (height, width))
        if np.isnan(distance).any():
            raise ViewError(f"{name}: NaN in its depth")
        K = intrinsics(width, height)
        known = np.isfinite(distance) & (distance > 0)
        depth = planar_depth(np.where(known, distance, 0).astype(np.float32), K)
        normals = facing(_read_hdf5(normals_file, (height, width, 3)) * OURS_FROM_RUB, K)
        sample = TrainingSample(name, image, depth, normals, np.zeros((height, width), bool))
        return resized(sample, *self.size)

    @cached_property
    def _root(self) -> Path:
        """The folder that holds the scenes."""
        prepared = self.folder / self.split
        return prepared if prepared.is_dir() else self.folder

    def _files(self, name: str) -> dict[str, str]:
        match = FRAME.fullmatch(name)
        if not match:
            raise InputError(f"{name}: no frame of Hypersim, wanted such as ai_001_001/cam_00/0000")
        scene, camera, frame = match.groups()
        start = f"{self._root}/{scene}/images/scene_{camera}"
        return {
            "photo": f"{start}_final_preview/frame.{frame}.tonemap.jpg",
            "depth": f"{start}_geometry_hdf5/frame.{frame}.depth_meters.hdf5",
            "normals": f"{start}_geometry_hdf5/frame.{frame}.normal_cam.hdf5",
        }

    def _wanted(self) -> Iterable[str]:
        """Returns the frames of the split: by the split file, else those whose photo is there."""
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder")
        split_file = self.folder / SPLIT_FILE
        if self._root == self.folder and split_file.is_file():
            return read_split(split_file, self.split)
        root = self._root
        photos = sorted(root.glob("ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg"))
        matches = (PHOTO.fullmatch(photo.relative_to(root).as_posix()) for photo in photos)
        names = ["/".join(match.groups()) for match in matches if match]
        if root == self.folder:
            if names:
                raise InputError(
                    f"{self.folder}: {len(names)} frames but no {SPLIT_FILE}, which says which are for what: "
                    "it is in github.com/apple/ml-hypersim, evermotion_dataset/analysis"
                )
            raise InputError(
                f"{self.folder}: no Hypersim, wanted {SPLIT_FILE} beside ai_001_001, ..., or those below "
                f"{self.split}/"
            )
        return names


def read_split(path: Path, split: str) -> list[str]:
    """Returns the published frames of a split of the authors' file.

    Raises:
        InputError: The file is damaged, or has no such split.
    """
    names = []
    try:
        with path.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if row["included_in_public_release"] == "True" and row["split_partition_name"] == split:
                    names.append(f"{row['scene_name']}/{row['camera_name']}/{int(row['frame_id']):04d}")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: not the authors' split file ({type(error).__name__}: {error})") from error
    if not names:
        raise InputError(f"{path}: no frame of split {split!r}, wanted train, val or test")
    return names


def intrinsics(width: int, height: int) -> Float64[np.ndarray, "3 3"]:
    """Returns K of a frame: one focal length for all scenes, the centre in the middle."""
    focal = FOCAL_PX * width / FOCAL_WIDTH_PX
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def planar_depth(
    distance: Float32[np.ndarray, "h w"], K: Float64[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "h w"]:
    """Returns z of points at a distance along the rays of their pixels."""
    height, width = distance.shape
    ray_x, ray_y = ray_slopes(K, width, height)
    return (distance / np.sqrt(ray_x**2 + ray_y**2 + 1)).astype(np.float32)


def _read_hdf5(path: Path, shape: tuple[int, ...]) -> Float32[np.ndarray, "h w *c"]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            values = file["dataset"][()].astype(np.float32)  # numpy widens halves faster than hdf5
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ViewError(f"{path}: no hdf5 file with a 'dataset', or a damaged one ({error})") from error
    if values.shape != shape:
        raise ViewError(f"{path}: shape {values.shape}, its photo wants {shape}")
    return values
