"""The commands of `recon`: options from flags and files, a pipeline from options, results to the disk."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np

import tyro

from lotus.predictor import LotusPredictor
from pipelines.console import Console
from pipelines.config import read_options, with_options
from pipelines.executors import local_executor
from pipelines.graph import build_graph, inputs_of, plan as plan_of
from pipelines.multi_view import MultiView, describe_predictor
from pipelines.outputs import open_out, write_mesh_files, write_outcome, write_run
from pipelines.predictors import FromFiles, Imported
from pipelines.runner import run
from pipelines.single_view import SingleView
from pipelines.sources import Photos, file_digest, find_photos
from pipelines.stages import GivenModel, InterpolatePoints, Predict
from pipelines.store import DiskStore
from pipelines.streaming import Streaming, stream as stream_frames
from recon.errors import InputError

C = TypeVar("C")
Prediction = InterpolatePoints | FromFiles | Predict
SNAPSHOT_FRAMES = 100  # a stream's mesh is written after so many frames, and at the end


@dataclass(frozen=True)
class PredictorFlags:
    """Where depth and normals come from; at most one of --predictions, --checkpoint, --predictor."""

    predictions: Path | None = None
    """Folder with NAME.npz for each photo NAME: values, kind, normals and optionally confidence."""

    checkpoint: str | None = None
    """Lotus checkpoint for depth or disparity: a folder, or the id of a published one (jingheya/lotus-...)."""

    normals_checkpoint: str | None = None
    """Lotus checkpoint for normals, beside --checkpoint."""

    predictor: str | None = None
    """Any other predictor class, as package.module:Class."""

    def choose(self, otherwise: Any) -> Any:
        """Returns the stage that predicts, or `otherwise` if no flag names one."""
        given = [name for name in ("predictions", "checkpoint", "predictor") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"--{given[0]} and --{given[1]} exclude each other")
        if self.normals_checkpoint and not self.checkpoint:
            raise InputError("--normals-checkpoint goes with --checkpoint, which is missing")
        if self.predictions:
            if not self.predictions.is_dir():
                raise InputError(f"{self.predictions}: no such folder of predictions")
            return FromFiles(self.predictions)
        if self.checkpoint:
            return Predict(LotusPredictor(depth=self.checkpoint, normals=self.normals_checkpoint))
        return Predict(Imported(self.predictor)) if self.predictor else otherwise


Unprefixed = Annotated[C, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Multi:
    """A folder of photos, or a video, to a mesh.

    OUT then holds mesh.glb, mesh.ply, sparse/ (cameras and points, COLMAP), depth/, report.html, report.json and
    run.json, which repeats the run when given back as --config. The same command again reuses whatever is unchanged.
    """

    photos: tyro.conf.Positional[Path]
    """Folder of photos (JPEG, PNG, TIFF, WebP) or a video file."""

    out: tyro.conf.Positional[Path]
    """Folder for the results; made if need be."""

    source: Unprefixed[PredictorFlags] = field(default_factory=PredictorFlags)

    sparse: Path | None = None
    """An existing COLMAP model of the photos; its poses are taken as they are."""

    masks: Path | None = None
    """Folder of masks, NAME.png for photo NAME; non-zero pixels are kept."""

    until: str | None = None
    """Stop after this artifact: see `recon plan`."""

    config: Path | None = None
    """Options from a TOML file or an earlier run's run.json; flags override them."""

    workers: int = 1
    """Processes that work on views side by side."""

    max_frames: int = 200
    """Most frames to take from a video."""

    options: Unprefixed[MultiView] = field(default_factory=MultiView)


def multi(words: Sequence[str]) -> None:
    """Runs `recon multi`."""
    early = _early_flags(words)
    pipeline = MultiView()
    if early.config:
        pipeline = with_options(pipeline, read_options(early.config), str(early.config))
    pipeline = replace(pipeline, predict=_flags_of(early).choose(pipeline.predict))
    if early.sparse:
        if not early.sparse.is_dir():
            raise InputError(f"{early.sparse}: no such folder with a COLMAP model")
        pipeline = replace(pipeline, cameras=GivenModel(early.sparse))
    command = tyro.cli(
        Multi,
        args=words,
        prog="recon multi",
        default=Multi(tyro.MISSING, tyro.MISSING, options=pipeline),
        config=(tyro.conf.AvoidSubcommands,),
    )
    out = open_out(command.out)
    photos = find_photos(command.photos, out / "cache", command.masks, command.max_frames)
    reconstruct(command.options, photos, out, until=command.until, workers=command.workers)


def reconstruct(
    pipeline: MultiView | SingleView, photos: Photos, out: Path, *, until: str | None = None, workers: int = 1
) -> None:
    """Runs a pipeline over photos with progress on the console, and writes its results.

    Args:
        pipeline: What to do.
        photos: What with.
        out: Folder for the results, there already.
        until: Last artifact wanted.
        workers: Processes.
    """
    note = f"depth and normals: {describe_predictor(pipeline.predict)}"
    with Console() as console, local_executor(workers) as executor:
        console.say(f"{len(photos.files)} photos")
        console.say(note)
        write_run(out, type(pipeline).__name__, pipeline, {"photos": len(photos.files), "until": until})
        store = DiskStore(out / "cache")
        outcome = run(pipeline, photos, store, until=until, executor=executor, progress=console.progress)
        title = f"{len(photos.files)} photos" if len(photos.files) > 1 else next(iter(photos.files))
        summary = write_outcome(out, outcome, title, [note], pipeline)
        for name, reason in outcome.dropped.items():
            console.say(f"left out: {name}: {reason}")
        console.say(
            f"{summary['views_used']} of {summary['photos']} photos used, {summary['faces']} faces, "
            f"{summary['seconds']:.0f} s; see {out / 'report.html'}"
        )


def _early_flags(words: Sequence[str]) -> argparse.Namespace:
    """The flags that decide which options there are, read before all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--config", "--sparse", "--predictions"):
        parser.add_argument(flag, type=Path)
    for flag in ("--checkpoint", "--normals-checkpoint", "--predictor"):
        parser.add_argument(flag)
    return parser.parse_known_args(list(words))[0]


def _flags_of(early: argparse.Namespace) -> PredictorFlags:
    return PredictorFlags(early.predictions, early.checkpoint, early.normals_checkpoint, early.predictor)


@dataclass(frozen=True)
class Single:
    """One photo to a mesh in the camera's frame: x right, y down, z forward.

    Depth is taken as predicted, so give --predictions or --checkpoint. OUT then holds mesh.glb (textured), mesh.ply,
    depth/, report.html, report.json and run.json.
    """

    photo: tyro.conf.Positional[Path]
    """JPEG, PNG, TIFF or WebP."""

    out: tyro.conf.Positional[Path]
    """Folder for the results; made if need be."""

    source: Unprefixed[PredictorFlags] = field(default_factory=PredictorFlags)

    fov: float | None = None
    """Horizontal field of view, degrees; from EXIF if not given, else found from the normals, else 60."""

    masks: Path | None = None
    """Folder of masks, NAME.png for photo NAME; non-zero pixels are kept."""

    config: Path | None = None
    """Options from a TOML file or an earlier run's run.json; flags override them."""

    options: Unprefixed[SingleView] = field(default_factory=lambda: SingleView(FromFiles(Path())))


def single(words: Sequence[str]) -> None:
    """Runs `recon single`."""
    early = _early_flags(words)
    wants_help = {"-h", "--help"} & set(words)
    predict = _flags_of(early).choose(FromFiles(Path()) if wants_help else None)
    options = read_options(early.config) if early.config else {}
    if predict is None and "predict" not in options:
        raise InputError(
            "a single photo needs a prediction: give --checkpoint DIR (Lotus) or --predictions DIR (NAME.npz)"
        )
    pipeline = with_options(SingleView(predict or FromFiles(Path())), options, str(early.config))
    pipeline = replace(pipeline, predict=predict or pipeline.predict)
    command = tyro.cli(
        Single,
        args=words,
        prog="recon single",
        default=Single(tyro.MISSING, tyro.MISSING, options=pipeline),
        config=(tyro.conf.AvoidSubcommands,),
    )
    if not command.photo.is_file():
        raise InputError(f"{command.photo}: no such file; wanted one photo")
    pipeline = command.options
    if command.fov is not None:
        pipeline = replace(pipeline, camera=replace(pipeline.camera, fov=command.fov))
    if pipeline.camera.fov is None and exif_focal_px(command.photo) is None:
        pipeline = replace(pipeline, depth=replace(pipeline.depth, search_fov=True))
    out = open_out(command.out)
    name = command.photo.name
    digests = {name: file_digest(command.photo)}
    photos = Photos({name: command.photo}, digests, command.masks, workspace=out / "cache")
    reconstruct(pipeline, photos, out)


@dataclass(frozen=True)
class Stream:
    """Posed RGB-D or RGB frames to a mesh, frame by frame.

    Reads TUM, 7-Scenes, Open3D / Redwood folders and transforms.json (nerfstudio, Polycam). Frames without depth get
    points triangulated from their poses, and predictions aligned with them. OUT then holds mesh.ply and mesh.glb
    (metres if the sequence is metric), renewed while it runs.
    """

    sequence: tyro.conf.Positional[Path]
    """Folder of the sequence."""

    out: tyro.conf.Positional[Path]
    """Folder for the results; made if need be."""

    source: Unprefixed[PredictorFlags] = field(default_factory=PredictorFlags)

    every: int = 1
    """Use every n-th frame."""

    config: Path | None = None
    """Options from a TOML file or an earlier run's run.json; flags override them."""

    options: Unprefixed[Streaming] = field(default_factory=Streaming)


def stream(words: Sequence[str]) -> None:
    """Runs `recon stream`."""
    early = _early_flags(words)
    pipeline = Streaming()
    if early.config:
        pipeline = with_options(pipeline, read_options(early.config), str(early.config))
    pipeline = replace(pipeline, predict=_flags_of(early).choose(pipeline.predict))
    command = tyro.cli(
        Stream,
        args=words,
        prog="recon stream",
        default=Stream(tyro.MISSING, tyro.MISSING, options=pipeline),
        config=(tyro.conf.AvoidSubcommands,),
    )
    if command.every < 1:
        raise InputError(f"--every {command.every}, at least 1 wanted")
    sequence = read_sequence(command.sequence)
    sequence = replace(sequence, frames=sequence.frames[:: command.every])
    out = open_out(command.out)
    pipeline = command.options
    write_run(out, "Streaming", pipeline, {"sequence": command.sequence, "every": command.every})
    with Console() as console:
        _stream_to_mesh(pipeline, sequence, out, console)


def _stream_to_mesh(pipeline: Streaming, sequence: FrameSequence, out: Path, console: Console) -> None:
    dropped = dict(sequence.dropped)
    volume = None
    for count, update in enumerate(stream_frames(pipeline, sequence, out / "cache", console.progress), 1):
        volume = update.volume
        if update.reason:
            dropped[update.name] = update.reason
        if volume is not None and count % SNAPSHOT_FRAMES == 0:
            write_mesh_files(out, pipeline.extract(volume=volume))
    mesh = pipeline.extract(volume=volume)
    write_mesh_files(out, mesh)
    for name, reason in dropped.items():
        console.say(f"left out: {name}: {reason}")
    used = len(sequence.frames) - sum(frame.name in dropped for frame in sequence.frames)
    console.say(f"{used} of {len(sequence.frames)} frames used, {len(mesh.faces)} faces; see {out / 'mesh.glb'}")


@dataclass(frozen=True)
class Evaluate:
    """Compares a mesh with a reference mesh or point cloud, as JSON on standard output.

    Accuracy: distance of the mesh's surface to the reference. Completeness: the reverse. Precision, recall and
    F-score: shares of both below a threshold.
    """

    mesh: tyro.conf.Positional[Path]
    """PLY, OBJ or GLB."""

    reference: tyro.conf.Positional[Path]
    """PLY, OBJ or GLB; a point cloud if it has no faces."""

    thresholds: tuple[float, ...] = ()
    """Distances, reference units; 0.5, 1, 2 and 5 % of the reference's extent if not given."""

    align: Literal["none", "icp", "similarity"] = "none"
    """Move the mesh onto the reference first: rigidly (icp), or with scale too (similarity)."""

    samples: int = 200_000
    """Points on each surface."""

    picture: Path | None = None
    """Write a picture of the mesh, coloured by its distance to the reference."""


def evaluate(words: Sequence[str]) -> None:
    """Runs `recon evaluate`."""
    command = tyro.cli(Evaluate, args=words, prog="recon evaluate")
    mesh, reference = read_mesh(command.mesh), read_mesh(command.reference)
    if command.align != "none":
        moved = evaluation.icp(mesh, reference, with_scale=command.align == "similarity")
        mesh = replace(mesh, vertices=transform(moved, mesh.vertices))
    thresholds = command.thresholds or None
    score = evaluation.evaluate_mesh(mesh, reference, thresholds=thresholds, samples=command.samples)
    sys.stdout.write(json.dumps(options_of(score), indent=2) + "\n")
    if command.picture is not None:
        write_image(command.picture, picture_of_error(mesh, reference))


@dataclass(frozen=True)
class Plan:
    """Shows the steps of a pipeline in order: what each reads and makes. `--until` of `recon multi` takes a step."""

    pipeline: tyro.conf.Positional[Literal["multi", "single"]] = "multi"

    until: str | None = None
    """Only what this artifact needs."""

    config: Path | None = None
    """Options that choose other stages."""


def plan(words: Sequence[str]) -> None:
    """Runs `recon plan`."""
    command = tyro.cli(Plan, args=words, prog="recon plan")
    pipeline: Any = MultiView() if command.pipeline == "multi" else SingleView(FromFiles(Path()))
    if command.config:
        pipeline = with_options(pipeline, read_options(command.config), str(command.config))
    graph = build_graph(pipeline.stages)
    for artifact in plan_of(graph, command.until):
        stage = graph.nodes[artifact]["stage"]
        reads = ", ".join(f"all {i.name}" if i.by_view else i.name for i in inputs_of(stage))
        once = "each view" if stage.per_view else "once"
        sys.stdout.write(f"{artifact:18s}{once:11s}{type(stage).__name__:19s}from {reads}\n")


@dataclass(frozen=True)
class View:
    """Opens a result in the browser: mesh, cameras and sparse points."""

    out: tyro.conf.Positional[Path]
    """OUT of a reconstruction."""

    port: int = 8080


def view(words: Sequence[str]) -> None:
    """Runs `recon view`."""
    command = tyro.cli(View, args=words, prog="recon view")
    show(command.out, command.port)


@dataclass(frozen=True)
class Demo:
    """Renders photos of a furnished room, reconstructs them, and compares the mesh with the true surface."""

    out: tyro.conf.Positional[Path]
    """Folder for photos and results; made if need be."""

    seed: int = 0
    """Another number, another room."""

    options: Unprefixed[MultiView] = field(default_factory=MultiView)


def demo(words: Sequence[str]) -> None:
    """Runs `recon demo`."""
    command = tyro.cli(Demo, args=words, prog="recon demo", config=(tyro.conf.AvoidSubcommands,))
    out = open_out(command.out)
    sys.stderr.write("rendering photos of a room\n")
    world = synthetic.room(command.seed)
    capture = synthetic.capture(world, synthetic.look_around(world), seed=command.seed)
    synthetic.write_photos(capture, out / "photos")
    photos = find_photos(out / "photos", out / "cache")
    outcome = reconstruct(command.options, photos, out)
    mesh_from_truth = similarity_of_cameras(capture.scene, outcome.scene)
    truth = replace(capture.mesh, vertices=transform(mesh_from_truth, capture.mesh.vertices))
    score = evaluation.evaluate_mesh(outcome.get("mesh"), truth)
    (out / "score.json").write_text(json.dumps(options_of(score), indent=2) + "\n")
    sys.stderr.write(f"against the true surface: {evaluation.describe(score)}; see {out / 'score.json'}\n")
