"""From photos to cameras and sparse points."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from pipelines.graph import digest
from pipelines.runner import Progress
from pipelines.sources import Photos, folder_digest
from pipelines.stages.maps import check_size
from recon.io import colmap
from recon.io.colmap import ColmapModel, SfmOptions
from recon.scene import Scene


@dataclass(frozen=True)
class Sfm:
    """Finds cameras and sparse points of the photos with COLMAP."""

    options: SfmOptions = field(default_factory=SfmOptions)

    makes: ClassVar[str] = "sparse"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, photos: Photos, progress: Progress) -> ColmapModel:
        """Returns the largest model; photos that are not in it are named with the reason."""
        work = photos.workspace / f"sfm-{digest(photos.key, self.options)}"
        return colmap.reconstruct(
            photos.files,
            work,
            self.options,
            masks=photos.masks,
            ordered=photos.ordered,
            on_progress=progress,
        )


@dataclass(frozen=True)
class GivenModel:
    """Takes cameras and sparse points from an existing COLMAP model."""

    folder: Path
    """Folder of the model: cameras, images and points3D, binary or text."""

    options: SfmOptions = field(default_factory=SfmOptions)
    """Used only where points are triangulated."""

    retriangulate: bool = False
    """Find points anew in the photos, as if the model had none. For models whose poses were not found from
    the photos, but come from a tracker or a depth camera."""

    keep_poses: bool = False
    """Keep poses that came without points exactly as they are; else those that the photos contradict by over
    half a pixel are refined. Poses that came with points stay, too, unless these are found anew."""

    makes: ClassVar[str] = "sparse"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 2

    def content(self, view: str | None) -> str:
        """Returns the digest of the model's files."""
        return folder_digest(self.folder)

    def __call__(self, *, photos: Photos, progress: Progress) -> ColmapModel:
        """Returns the model, with points triangulated if it had none, or on request."""
        model = colmap.read_model(self.folder)
        if model.summary["points"] and not self.retriangulate:
            return replace(model, note=colmap.doubts_about(model))
        views = colmap.scene_from_model(model, photos.files).views
        work = photos.workspace / f"triangulate-{digest(photos.key, self.options, self.content(None))}"
        return colmap.triangulate(
            photos.files, views, work, self.options, keep_poses=self.keep_poses, on_progress=progress
        )


@dataclass(frozen=True)
class Undistort:
    """Turns a COLMAP model into views with pinhole cameras, sparse points moved along."""

    max_size: int = 1600
    """Longer side of the undistorted pictures, px; larger photos are shrunk."""

    makes: ClassVar[str] = "scene"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_size("undistort.max_size", self.max_size)

    def __call__(self, *, sparse: ColmapModel, photos: Photos) -> Scene:
        """Returns the scene."""
        return colmap.scene_from_model(sparse, photos.files, max_size=self.max_size)
