"""Options of structure from motion, and pycolmap itself, loaded when first needed."""

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from recon.errors import InputError

MAX_SEED = 2**31 - 1
GLOG_FATAL = 3  # what COLMAP logs below that, our own errors say in one line
MIN_PAIR_INLIERS = 15  # COLMAP's: fewer matches that fit one geometry happen by chance

CameraModel = Literal[
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_FISHEYE",
    "FISHEYE",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "OPENCV_FISHEYE",
    "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE",
    "SIMPLE_DIVISION",
    "DIVISION",
    "EUCM",
]


@dataclass(frozen=True)
class SfmOptions:
    """Structure from motion with COLMAP: SIFT, matching, mapping."""

    camera_model: CameraModel = "SIMPLE_RADIAL"
    """Lens model, COLMAP's name; OPENCV for strong distortion, OPENCV_FISHEYE for wide angles."""

    single_camera: Literal["auto", "one", "each"] = "auto"
    """Photos that share one lens: auto = same size, EXIF camera and focal length; one = same size."""

    focal_px: float | None = None
    """Focal length if known, pixels of the photos as taken; a first guess unless the lens is fixed."""

    camera_params: tuple[float, ...] = ()
    """All parameters of the lens if known, in COLMAP's order, pixels of the photos as taken."""

    fix_lens: bool = False
    """Keep the focal length and distortion as given instead of refining them."""

    max_image_size: int = 1600
    """Longest side for finding features, pixels; larger finds more points and takes longer."""

    max_features: int = 8192
    """Most points per photo that get features; each has one or two."""

    matcher: Literal["auto", "exhaustive", "sequential", "spatial", "retrieval"] = "auto"
    """Which pairs are compared; auto: all up to 80 photos, then neighbours (video), near GPS, look-alikes."""

    neighbors: int = 24
    """Photos that each photo is compared with, except in exhaustive matching."""

    mapper: Literal["incremental", "global"] = "incremental"
    """incremental adds photo by photo; global places all at once, faster for hundreds of photos."""

    seed: int = 0
    """Start of all random choices."""

    def __post_init__(self) -> None:
        for name, least in (("max_image_size", 64), ("max_features", 64), ("neighbors", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"SfmOptions.{name}: {getattr(self, name)}, wanted at least {least}")
        if self.seed > MAX_SEED:
            raise InputError(f"SfmOptions.seed: {self.seed}, wanted at most {MAX_SEED}")
        if self.focal_px is not None and not self.focal_px > 0:
            raise InputError(f"SfmOptions.focal_px: {self.focal_px}, wanted a positive number of pixels")
        if self.fix_lens and self.focal_px is None and not self.camera_params:
            raise InputError("SfmOptions.fix_lens: wanted the lens too, as focal_px or camera_params")
        if self.camera_params:
            lens = load_pycolmap().Camera.create_from_model_name(1, self.camera_model, 1, 1, 1)
            if len(self.camera_params) != len(lens.params):
                raise InputError(
                    f"SfmOptions.camera_params: {len(self.camera_params)} numbers, {self.camera_model} has "
                    f"{len(lens.params)} ({lens.params_info})"
                )


def load_pycolmap() -> ModuleType:
    """Imports pycolmap and silences its log."""
    import pycolmap

    pycolmap.logging.minloglevel = max(GLOG_FATAL, pycolmap.logging.minloglevel)
    return pycolmap


def thread_count() -> int:
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
