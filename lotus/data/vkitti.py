"""Virtual KITTI 2 (Cabon et al. 2020): rendered streets with exact depth, in ten kinds of weather and view.

As published, below FOLDER/Scene02/clone/frames: rgb/Camera_0/rgb_00000.jpg and depth/Camera_0/depth_00000.png
(cm). The folders vkitti_2.0.3_rgb and vkitti_2.0.3_depth that the archives may be unpacked to are found below
FOLDER too. The data set has no normals: they are made here by `planes`.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lotus.data.listing import Survey, read_list
from lotus.data.planes import fit_normals
from lotus.data.samples import TrainingSample, cut
from lotus.files import Files, read_grey
from recon.errors import InputError, ViewError
from recon.io.images import read_photo

TRAINING_SCENES = ("02", "06", "18", "20")  # 01 is held out, as by Lotus
FRAMES = {"01": 447, "02": 233, "06": 270, "18": 339, "20": 837}  # per condition and camera, numbered from 0
CONDITIONS = (
    *("15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right", "clone"),
    *("fog", "morning", "overcast", "rain", "sunset"),
)
CAMERAS = ("Camera_0", "Camera_1")
CM_PER_M = 100
SKY_DEPTH = 80.0  # m; from here on it counts as sky (KITTI's lidar ends there)
FOCAL_PX, WIDTH_PX = 725.0087, 1242  # of every camera; the principal point is the middle
FRAME = re.compile(r"Scene(\d+)/([^/]+)/(Camera_\d)/(\d+)")


@dataclass(frozen=True)
class VirtualKitti:
    """The frames of some scenes, all conditions and both cameras, cut as KITTI's benchmark cuts."""

    folder: Path
    scenes: tuple[str, ...] = TRAINING_SCENES
    size: tuple[int, int] = (352, 1216)
    """(height, width) of the samples, px: lowest rows, middle columns; smaller frames are enlarged."""

    frames_list: Path | None = None
    """Names of the frames to take, one a line, as `lotus verify --list` writes them. None: all."""

    @cached_property
    def survey(self) -> Survey:
        """What is there and what is missing.

        Raises:
            InputError: There is no such folder, or a scene that the data set does not have is asked for.
        """
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder")
        unknown = [scene for scene in self.scenes if scene not in FRAMES]
        if unknown:
            raise InputError(f"Virtual KITTI 2 has no scene {unknown[0]!r}; it has {', '.join(FRAMES)}")
        names = [
            f"Scene{scene}/{condition}/{camera}/{index:05d}"
            for scene in self.scenes
            for condition in CONDITIONS
            for camera in CAMERAS
            for index in range(FRAMES[scene])
        ]
        title = f"Virtual KITTI 2, scenes {' '.join(self.scenes)}"
        return Survey.of(title, names, self._files, scene_of=lambda name: "/".join(name.split("/")[:2]))

    @cached_property
    def frames(self) -> tuple[str, ...]:
        """Names of the samples, such as Scene02/clone/Camera_0/00000.

        Raises:
            InputError: As `survey`, or no frame is whole.
        """
        return self.survey.usable(self.folder, read_list(self.frames_list))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> TrainingSample:
        """Returns a frame.

        Raises:
            InputError: The depth cannot be decoded.
            ViewError: The photo cannot be decoded, or is of another size.
        """
        name = self.frames[index]
        photo, depth_file = map(Path, self._files(name).values())
        image = read_photo(photo)
        depth = read_grey(Files(depth_file.parent), depth_file.name) / np.float32(CM_PER_M)
        if depth.shape != image.shape[:2]:
            raise ViewError(f"{name}: depth of shape {depth.shape}, its photo {image.shape[:2]}")
        sky = depth >= SKY_DEPTH
        near = np.where(sky, np.float32(0), depth)
        normals = fit_normals(intrinsics(*image.shape[1::-1]), near)
        return cut(TrainingSample(name, image, near, normals, sky), *self.size, lowest=True)

    def _files(self, name: str) -> dict[str, str]:
        match = FRAME.fullmatch(name)
        if not match:
            raise InputError(
                f"{name}: no frame of Virtual KITTI 2, wanted such as Scene02/clone/Camera_0/00000"
            )
        scene, condition, camera, index = match.groups()
        below = f"Scene{scene}/{condition}/frames"
        return {
            "photo": f"{self._roots['rgb']}/{below}/rgb/{camera}/rgb_{index}.jpg",
            "depth": f"{self._roots['depth']}/{below}/depth/{camera}/depth_{index}.png",
        }

    @cached_property
    def _roots(self) -> dict[str, Path]:
        unpacked = {kind: self.folder / f"vkitti_2.0.3_{kind}" for kind in ("rgb", "depth")}
        return {kind: home if home.is_dir() else self.folder for kind, home in unpacked.items()}


def intrinsics(width: int, height: int) -> Float64[np.ndarray, "3 3"]:
    """Returns K of a frame."""
    focal = FOCAL_PX * width / WIDTH_PX
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
