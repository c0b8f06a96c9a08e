"""A posed camera stream to a mesh: each frame's depth goes into the volume as it comes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipelines.graph import digest
from pipelines.predictors import FromFiles
from pipelines.runner import Progress
from pipelines.sources import Photo, ReadImage
from pipelines.stages import (
    Align,
    ExtractMesh,
    Fuse,
    InterpolatePoints,
    Predict,
    Rectify,
    Refine,
    Select,
    SensorDepth,
)
from recon.errors import InputError, PipelineError, ReconError, ViewError
from recon.fusion import TSDFVolume
from recon.io import colmap
from recon.io.colmap import SfmOptions
from recon.io.sequences import Frame, Sequence
from recon.scene import DepthMap, Scene, View


@dataclass(frozen=True)
class Streaming:
    """Posed RGB-D or RGB frames to a mesh, frame by frame.

    Frames with sensor depth are taken as they are. Frames without get sparse points triangulated from the
    given poses, and predictions aligned with them.
    """

    sensor: SensorDepth = field(default_factory=SensorDepth)
    predict: InterpolatePoints | FromFiles | Predict = field(default_factory=InterpolatePoints)
    rectify: Rectify = field(default_factory=Rectify)
    select: Select = field(default_factory=Select)
    align: Align = field(default_factory=Align)
    refine: Refine = field(default_factory=Refine)
    fuse: Fuse = field(default_factory=Fuse)
    extract: ExtractMesh = field(default_factory=ExtractMesh)

    triangulation: SfmOptions = field(default_factory=SfmOptions)
    """Features and matches of frames without depth."""

    keep_poses: bool = False
    """Keep all poses exactly as given; else, where no frame has depth, those that the photos contradict by
    over half a pixel are refined."""

    max_dropped: float = 0.5
    """Largest share of the frames that may fail; if more do, the run stops."""


@dataclass(frozen=True, eq=False)
class Update:
    """The volume after one frame, or why the frame was left out."""

    name: str
    volume: TSDFVolume | None
    """The same object at every update, growing; None while no frame could be used."""

    view: View
    depth_map: DepthMap | None
    reason: str = ""
    """Why the frame was dropped; empty if it was used."""

    note: str = ""
    """A sentence for users on the poses of all frames, with the first one."""


def stream(pipeline: Streaming, sequence: Sequence, work: Path, progress: Progress) -> Iterator[Update]:
    """Yields an update per frame; the volume holds every frame up to it.

    Args:
        pipeline: Options.
        sequence: Posed frames, in order.
        work: Folder for features and matches where the frames have no depth.
        progress: Called with (step, done, total).

    Raises:
        PipelineError: No frame, or too few of them, could be used.
    """
    frames = sequence.frames
    if not frames:
        raise PipelineError("the sequence has no frame with a pose")
    scene, missing, note = _points(pipeline, sequence, work, progress)
    volume: TSDFVolume | None = None
    dropped: dict[str, str] = {}
    for done, frame in enumerate(frames, 1):
        depth_map, view, reason = None, frame.view, ""
        try:
            if scene is None and frame.depth_path is None:
                raise ViewError(missing)
            depth_map, view, image = _depth_of(pipeline, sequence, frame, scene)
            volume = volume or pipeline.fuse.start([depth_map])
            pipeline.fuse.add(volume, view, depth_map, image)
        except (ViewError, InputError) as error:
            dropped[frame.name] = reason = str(error)
        yield Update(frame.name, volume, view, depth_map, reason, note if done == 1 else "")
        progress("frames", done, len(frames))
    if len(dropped) > pipeline.max_dropped * len(frames) or len(dropped) == len(frames):
        name, reason = next(iter(dropped.items()))
        raise PipelineError(
            f"{len(dropped)} of {len(frames)} frames cannot be used; the first: {name}: {reason}"
        )


def _depth_of(
    pipeline: Streaming, sequence: Sequence, frame: Frame, scene: Scene | None
) -> tuple[DepthMap, View, UInt8[np.ndarray, "h w 3"] | None]:
    if frame.depth_path is not None:
        return pipeline.sensor(sequence=sequence, frame=frame), frame.view, _picture(frame.view)
    assert scene is not None
    view = scene.view(frame.name)
    image = _picture(view)
    points = scene.anchors(view)
    kept = np.ones((view.camera.height, view.camera.width), bool)
    if image is not None:
        kept = pipeline.select(image=image, mask=kept, points=points)
    if isinstance(pipeline.predict, InterpolatePoints):
        return pipeline.predict(view=view, points=points, kept=kept).depth_map, view, image
    assert view.image is not None
    photo_prediction = pipeline.predict(photo=Photo(view.name, view.image))
    prediction = pipeline.rectify(view=view, photo_prediction=photo_prediction)
    aligned = pipeline.align(view=view, scene=scene, points=points, prediction=prediction, kept=kept)
    return pipeline.refine.alone(view, aligned, points).depth_map, view, image


def _picture(view: View) -> UInt8[np.ndarray, "h w 3"] | None:
    return None if view.image is None else ReadImage(Photo(view.name, view.image))(view=view)


def _points(
    pipeline: Streaming, sequence: Sequence, work: Path, progress: Progress
) -> tuple[Scene | None, str, str]:
    """Returns triangulated points for the frames without depth, or why those have none, and a note on poses.

    Raises:
        ReconError: There are none, and no frame has depth either.
    """
    sensed = [frame.depth_path is not None for frame in sequence.frames]
    if all(sensed):
        return None, "", ""
    keep_poses = pipeline.keep_poses or any(sensed)  # depth of others lies at the given poses
    try:
        scene, note = _triangulate(pipeline, sequence, keep_poses, work, progress)
        return scene, "", note
    except ReconError as error:
        if not any(sensed):
            raise
        return None, f"it has no measured depth, and points were not found either ({error})", ""


def _triangulate(
    pipeline: Streaming, sequence: Sequence, keep_poses: bool, work: Path, progress: Progress
) -> tuple[Scene, str]:
    views = [frame.view for frame in sequence.frames]
    files = {view.name: view.image for view in views if view.image is not None}
    if len(files) < len(views):
        raise ReconError("frames without depth need pictures; some have neither")
    options = pipeline.triangulation
    folder = work / f"triangulate-{digest(sorted(files), options)}"
    model = colmap.triangulate(files, views, folder, options, keep_poses=keep_poses, on_progress=progress)
    return colmap.scene_from_model(model, files), model.note
