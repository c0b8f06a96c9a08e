"""`recon multi` and `recon single`: photos to a mesh."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.commands.flags import (
    PredictorFlags,
    Unprefixed,
    check_devices,
    check_predictor,
    configured,
    early_flags,
    parse,
    repeated,
)
from pipelines.console import MAX_LEFT_OUT, Console
from pipelines.executors import Executor, local_executor, one_blas_thread, ray_executor, worker_count
from pipelines.graph import build_graph, plan
from pipelines.multi_view import MultiView, describe_predictor
from pipelines.outputs import only_run, open_out, write_outcome, write_run
from pipelines.predictors import FromFiles
from pipelines.runner import Outcome, run
from pipelines.single_view import SingleView
from pipelines.sources import Photos, file_digest, find_photos, stand_before_black
from pipelines.stages import GivenModel, InterpolatePoints, Sfm
from pipelines.store import DiskStore
from recon.errors import InputError
from recon.io.images import exif_focal_px, find_mask, photo_size, verify_photo

SINGLE_INPUTS = ("masks", "keep_backdrop")  # fields that run.json repeats, beside the options
MULTI_INPUTS = (*SINGLE_INPUTS, "max_frames")
LEARNING_NOTE = "the network learns the scene from what the photos tell (quicker: --no-learn-scene)"
UNTEXTURED_NOTE = (
    "texture: what is seen does not fit into one, so mesh.glb has the colours of its vertices; larger "
    "ones by --texture.max-size, smaller meshes by --fuse.voxel-size"
)
BACKDROP_NOTE = (
    "backdrop: the photos stand before black, which is left out (--keep-backdrop gives it depth, too)"
)


@dataclass(frozen=True)
class Multi:
    """A folder of photos, or a video, to a mesh.

    OUT then holds mesh.glb, mesh.ply, sparse/ (cameras and points, COLMAP), depth/, report.html, report.json,
    and run.json, which repeats the run when given back as --config. The same command again reuses whatever is
    unchanged.
    """

    photos: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PHOTOS")]
    """Folder of photos (JPEG, PNG, TIFF, WebP) or a video file."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder for the results; made if need be."""

    source: Unprefixed[PredictorFlags] = field(default_factory=PredictorFlags)

    sparse: Path | None = None
    """An existing COLMAP model of the photos. If it has no points they are triangulated, and poses that the
    photos contradict are refined (--cameras.keep-poses: not); else its poses are taken as they are
    (--cameras.retriangulate: not)."""

    masks: Path | None = None
    """Folder of masks, NAME.png for photo NAME; non-zero pixels are kept."""

    keep_backdrop: bool = False
    """Give depth to a black backdrop, too. Otherwise what is black, or dim beside it and without sparse
    points, is left out, as if by masks, where most photos have at least a quarter of black that touches their
    border."""

    until: str | None = None
    """Stop after this artifact: see `recon plan`."""

    config: Path | None = None
    """Options from a TOML file or an earlier run's run.json; flags override them."""

    workers: int | None = None
    """Processes that work on views side by side; by default one per core, as memory and the number of photos
    allow. The result is the same with any number."""

    ray: str | None = None
    """Work on a Ray cluster at this address, or `local` for one started here; all its nodes must see OUT."""

    max_frames: int = 200
    """Most frames to take from a video."""

    options: Unprefixed[MultiView] = field(default_factory=MultiView)


def multi(words: Sequence[str]) -> None:
    """Runs `recon multi`."""
    early = early_flags(words)
    pipeline = configured(MultiView(), early)
    if early.sparse:
        if not early.sparse.is_dir():
            raise InputError(f"{early.sparse}: no such folder with a COLMAP model")
        pipeline = replace(pipeline, cameras=GivenModel(early.sparse.absolute()))
    default = Multi(tyro.MISSING, tyro.MISSING, options=pipeline)
    command = parse(repeated(default, early, MULTI_INPUTS), "recon multi", words)
    plan(build_graph(command.options.stages), command.until)  # a wrong --until is told before any work
    check_predictor(command.options.predict)
    if command.ray is None:  # the machines of a cluster may have what this one lacks
        check_devices(command.options)
    out = open_out(command.out)
    with Console() as console:
        photos = find_photos(
            command.photos,
            out / "cache",
            masks=command.masks,
            keep_backdrop=command.keep_backdrop,
            max_frames=command.max_frames,
            progress=lambda done, total: console.progress("frames of the video", done, total),
        )
        _check_photos(command.photos, command.options, photos)
        with _executor(command, photos) as executor:
            reconstruct(command.options, photos, out, console, until=command.until, executor=executor)


def _check_photos(source: Path, pipeline: MultiView, photos: Photos) -> None:
    """Raises before any work what would stop it later.

    Raises:
        InputError: There are too few photos, or no predictions of them.
    """
    if isinstance(pipeline.cameras, Sfm) and len(photos.files) < 2:
        unread = "".join(
            f"; {name}: {reason}" for name, reason in list(photos.dropped.items())[:MAX_LEFT_OUT]
        )
        raise InputError(f"{source}: 1 of at least 2 photos found (recon single takes one){unread}")
    if isinstance(pipeline.predict, FromFiles):
        pipeline.predict.check(photos.files)


def _executor(command: Multi, photos: Photos) -> AbstractContextManager[Executor]:
    if command.ray is not None:
        return ray_executor(command.ray)
    if command.workers is not None:
        return local_executor(command.workers)
    width, height = photo_size(next(iter(photos.files.values())))
    shrunk = min(1.0, command.options.match.max_size / max(width, height))
    return local_executor(worker_count(len(photos.files), width * height * shrunk**2))


def reconstruct(
    pipeline: MultiView | SingleView,
    photos: Photos,
    out: Path,
    console: Console,
    *,
    until: str | None = None,
    executor: Executor = map,
) -> Outcome:
    """Returns what a pipeline makes of photos, its results written, progress on the console.

    Args:
        pipeline: What to do.
        photos: What with.
        out: Folder for the results, there already.
        console: Where progress goes.
        until: Last artifact wanted.
        executor: Where the stages that run once per view run.
    """
    notes = [f"depth and normals: {describe_predictor(pipeline.predict)}"]
    if isinstance(pipeline, MultiView) and pipeline.learner is not None:
        notes.append(LEARNING_NOTE)
    if photos.masks is not None:
        masked = sum(find_mask(photos.masks, name) is not None for name in photos.files)
        notes.append(f"masks: of {masked} of {len(photos.files)} photos, in {photos.masks}")
    if photos.before_black:
        notes.append(BACKDROP_NOTE)
    if photos.unread:
        endings = ", ".join(list(photos.unread)[:MAX_LEFT_OUT])
        notes.append(f"pictures of other kinds: {sum(photos.unread.values())} are not read ({endings})")
    title = f"{len(photos.files)} photos" if len(photos.files) > 1 else next(iter(photos.files))
    console.say(title)
    for note in notes:
        console.say(note)
    said = len(notes)
    console.left_out(photos.dropped)
    store = DiskStore(out / "cache")
    with only_run(out), one_blas_thread():
        outcome = run(pipeline, photos, store, until=until, executor=executor, progress=console.progress)
        if photos.masks is None and not photos.before_black:
            notes += _sky_notes(outcome)
        notes += _camera_notes(outcome) + _learnt_notes(outcome) + _texture_notes(outcome)
        for note in notes[said:]:
            console.say(note)
        console.say("writing mesh, depth maps and report")
        summary = write_outcome(out, outcome, title, notes, pipeline)
        write_run(out, type(pipeline).__name__, pipeline, photos.given)
    console.left_out({name: why for name, why in outcome.dropped.items() if name not in photos.dropped})
    if until is not None:
        console.say(f"stopped after {until}, as asked; see {out / 'report.html'}")
        return outcome
    console.say(
        f"{summary['views_used']} of {summary['photos']} photos used, {summary['faces']} faces, "
        f"{summary['seconds']:.0f} s; see {out / 'report.html'}"
    )
    return outcome


def _camera_notes(outcome: Outcome) -> list[str]:
    """Returns what was done to given cameras."""
    note = outcome.get("sparse").note if "sparse" in outcome else ""
    return [note] if note else []


def _texture_notes(outcome: Outcome) -> list[str]:
    """Says so where the mesh was too large for a texture."""
    if "textured" not in outcome or outcome.get("textured").texture is not None:
        return []
    return [UNTEXTURED_NOTE]


def _learnt_notes(outcome: Outcome) -> list[str]:
    """Returns what training on the scene brought."""
    if "learnt" not in outcome:
        return []
    learnt = outcome.get("learnt")
    if not learnt.is_needed:
        return ["the photos tell nearly all depth themselves: the network stayed as it was"]
    if learnt.before is None:
        return ["the photos told too little to learn the scene from: the network stayed as it was"]
    end = "" if learnt.has_learnt else ": not clearly better, so it stayed as it was"
    return [
        f"what the photos tell of depth, kept from training: the network was {100 * learnt.before:.1f} % off "
        f"before and {100 * learnt.after:.1f} % after{end}"
    ]


def _sky_notes(outcome: Outcome) -> list[str]:
    """Returns of how many photos without masks the sky was left out."""
    names = outcome.views("kept") if "kept" in outcome else ()
    count = sum(not outcome.get("kept", name).all() for name in names)
    of = f"of {count} of {len(names)} photos" if len(names) > 1 else "of the photo"
    return [f"sky: left out {of} (--select.keep-sky gives it depth, too)"] if count else []


@dataclass(frozen=True)
class Single:
    """One photo to a mesh in the camera's frame: x right, y down, z forward.

    Depth is taken as predicted: by the small model that comes with the package, unless --checkpoint,
    --predictions or --predictor say otherwise. OUT then holds mesh.glb (textured), mesh.ply, depth/,
    report.html, report.json and run.json.
    """

    photo: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PHOTO")]
    """JPEG, PNG, TIFF or WebP."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder for the results; made if need be."""

    source: Unprefixed[PredictorFlags] = field(default_factory=PredictorFlags)

    fov: float | None = None
    """Horizontal field of view, degrees; from EXIF if not given, else found from the normals, else 60."""

    masks: Path | None = None
    """Folder of masks, NAME.png for photo NAME; non-zero pixels are kept."""

    keep_backdrop: bool = False
    """Give depth to a black backdrop, too. Otherwise what is black is left out, as if by masks, where most
    photos have at least a quarter of black that touches their border."""

    config: Path | None = None
    """Options from a TOML file or an earlier run's run.json; flags override them."""

    options: Unprefixed[SingleView] = field(default_factory=SingleView)


def single(words: Sequence[str]) -> None:
    """Runs `recon single`."""
    early = early_flags(words)
    pipeline = configured(SingleView(), early)
    if isinstance(pipeline.predict, InterpolatePoints):
        raise InputError("--predictor points: a single photo has no sparse points, only several have")
    default = Single(tyro.MISSING, tyro.MISSING, options=pipeline)
    command = parse(repeated(default, early, SINGLE_INPUTS), "recon single", words)
    if not command.photo.is_file():
        found = "a folder" if command.photo.is_dir() else "no such file"
        raise InputError(f"{command.photo}: {found}; wanted one photo")
    verify_photo(command.photo)
    if command.masks is not None and not command.masks.is_dir():
        raise InputError(f"{command.masks}: no such folder of masks")
    if command.masks is not None and find_mask(command.masks, command.photo.name) is None:
        raise InputError(f"{command.masks}: no mask of the photo, wanted {command.photo.stem}.png")
    pipeline = command.options
    check_predictor(pipeline.predict)
    if command.fov is not None:
        pipeline = replace(pipeline, camera=replace(pipeline.camera, fov=command.fov))
    if pipeline.camera.fov is None and exif_focal_px(command.photo) is None:
        pipeline = replace(pipeline, depth=replace(pipeline.depth, search_fov=True))
    out = open_out(command.out)
    name = command.photo.name
    digests = {name: file_digest(command.photo)}
    files = {name: command.photo}
    before_black = not command.keep_backdrop and stand_before_black(files, command.masks)
    photos = Photos(
        files,
        digests,
        masks=command.masks,
        before_black=before_black,
        workspace=out / "cache",
        given={name: getattr(command, name) for name in ("photo", *SINGLE_INPUTS)},
    )
    with Console() as console:
        outcome = reconstruct(pipeline, photos, out, console)
        fov = outcome.get("depth", name).camera.fov_deg
        console.say(f"horizontal field of view {fov:.0f} degrees, {_origin_of_fov(pipeline)}")


def _origin_of_fov(pipeline: SingleView) -> str:
    if pipeline.camera.fov is not None:
        return "as given"
    return "guessed; --fov gives it" if pipeline.depth.search_fov else "from EXIF"
