"""One photo or one sensor frame: its camera, its depth, its mesh."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from pipelines.graph import ByView
from pipelines.sources import Photos
from pipelines.stages.maps import masked, resized_mask
from recon import (
    calibration,
    meshing,
)
from recon.errors import InputError, PipelineError, ViewError
from recon.geometry import normals_from_depth
from recon.io import images
from recon.io.sequences import Frame, Sequence
from recon.scene import Camera, DepthMap, Mesh, Prediction, Scene, View


@dataclass(frozen=True)
class OneCamera:
    """Places the camera of a single photo at the origin."""

    fov: float | None = None
    """Horizontal field of view, degrees; from the photo's EXIF if not given."""

    max_size: int = 1600
    """Longer side of the picture, px; a larger photo is shrunk."""

    makes: ClassVar[str] = "scene"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 2

    default_fov_deg: ClassVar[float] = 60.0  # along the longer side: a phone's main camera
    fov_range_deg: ClassVar[tuple[float, float]] = (1.0, 170.0)  # beyond, a pinhole camera shows nothing

    def __post_init__(self) -> None:
        low, high = self.fov_range_deg
        if self.fov is not None and not low <= self.fov <= high:
            raise InputError(f"camera.fov: {self.fov:g} degrees, wanted {low:g} to {high:g}")

    def __call__(self, *, photos: Photos) -> Scene:
        """Returns a scene of one view."""
        ((name, path),) = photos.files.items()
        width, height = images.photo_size(path)
        camera = Camera.from_fov(width, height, self.field_of_view(path))
        return Scene((View(name, camera.fitted(self.max_size), np.eye(4), path),))

    def field_of_view(self, path: Path) -> float:
        """Returns the horizontal field of view used, degrees."""
        if self.fov is not None:
            return self.fov
        width, height = images.photo_size(path)
        usual = max(width, height) / (2 * np.tan(np.radians(self.default_fov_deg) / 2))
        focal = images.exif_focal_px(path) or usual
        return float(np.degrees(2 * np.arctan(width / (2 * focal))))


@dataclass(frozen=True)
class Calibrate:
    """Makes a single prediction depth: its shift is the one that fits its normals, its scale stays open."""

    far_over_near: float = 8.0
    """Ratio of far to near depth assumed where shift and normals are both unknown."""

    search_fov: bool = False
    """Find the field of view with the shift, for a photo whose focal length is unknown."""

    makes: ClassVar[str] = "depth"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 3

    def __call__(self, *, view: View, prediction: Prediction, kept: Bool[np.ndarray, "h w"]) -> DepthMap:
        """Returns depth in metres for a metric prediction, else in units of the nearest depth.

        Raises:
            ViewError: No pixel is kept, or the prediction has no depth.
        """
        height, width = prediction.values.shape
        camera = view.camera.resized(width, height)
        shown = resized_mask(kept, camera)
        if not shown.any():
            raise ViewError("its mask and sky leave no pixel")
        found = calibration.calibrate(
            prediction, camera, fov_known=not self.search_fov, far_over_near=self.far_over_near
        )
        return masked(found.depth_map, shown)


@dataclass(frozen=True)
class MeshDepth:
    """Makes a mesh of a single depth map, cut where the surface is not continuous."""

    relative_jump: float = 0.04
    """Neighbours whose depths differ by more than this share, and more than their slope explains, are cut."""

    makes: ClassVar[str] = "mesh"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, depth: ByView[DepthMap], image: ByView[np.ndarray]) -> Mesh:
        """Returns the mesh in the camera's frame, textured with the photo."""
        ((name, depth_map),) = depth.items()
        camera = depth_map.camera
        picture = images.resize_image(image[name], camera.width, camera.height)
        mesh = meshing.grid_mesh(depth_map, picture, relative_jump=self.relative_jump)
        if not len(mesh.faces):
            raise PipelineError(f"{name}: no two neighbouring pixels have depth, there is no surface")
        return mesh


@dataclass(frozen=True)
class SensorDepth:
    """Reads the depth that a sensor measured for a frame."""

    max_depth: float = 5.0
    """Measurements beyond this many metres are dropped; structured light is useless there."""

    noise: float = 0.0019
    """Standard deviation grows as this times (z - 0.4)^2, metres (Nguyen et al. 2012, Kinect)."""

    relative_noise: float = 0.01
    """Standard deviation over depth for a sequence whose unit is not known to be the metre."""

    makes: ClassVar[str] = "depth"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    floor_m: ClassVar[float] = 0.0012  # same source: noise at the shortest distance
    normal_step: ClassVar[int] = 3  # pixels; single-pixel differences of sensor depth are mostly noise

    def __call__(self, *, sequence: Sequence, frame: Frame) -> DepthMap:
        """Returns depth, metres where the sequence is metric, with the sensor's noise model."""
        depth = sequence.read_depth(frame)
        sigma = self.relative_noise * depth
        if sequence.is_metric:
            depth = np.where(depth <= self.max_depth, depth, 0).astype(np.float32)
            sigma = np.where(depth > 0, self.floor_m + self.noise * (depth - 0.4) ** 2, 0)
        if not depth.any():
            raise ViewError(f"{frame.name}: nothing measured nearer than {self.max_depth:g} m")
        height, width = depth.shape
        camera = frame.view.camera.resized(width, height)
        normals = normals_from_depth(camera.K, depth, step=self.normal_step)
        return DepthMap(camera, depth, normals, sigma.astype(np.float32))
