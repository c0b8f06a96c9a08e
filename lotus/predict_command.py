"""What `lotus predict` does; `lotus.cli` finds it by name."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from jaxtyping import UInt8

from lotus.checkpoints import is_embedded, tasks_of
from lotus.contact_sheet import sheet, strip
from lotus.devices import resolve_device, resolve_dtype
from lotus.predictor import KINDS, LotusPredictor
from lotus.record import Record, digest_of, read_record, settings_of, write_record
from recon.errors import InputError, ViewError
from recon.io.images import find_photos, read_photo, write_image
from recon.io.maps import ROBUST_PERCENTILES, colorize, colorize_normals, write_prediction
from recon.scene import Prediction

DEFAULT_CHECKPOINT = "lotus-tiny"  # comes with the package
PUBLISHED = (
    "--checkpoint jingheya/lotus-depth-d-v2-0-disparity --normals-checkpoint jingheya/lotus-normal-d-v1-1"
)
PICTURED = ("depth", "normals")
MAX_SHEET_PHOTOS = 48


@dataclass(frozen=True)
class Predict:
    """Depth and normals of photos, each by itself, at the size the network works at.

    OUT then holds NAME.npz for each photo NAME.jpg (`values`, `kind`, `normals`, `confidence`: what
    `recon multi PHOTOS OUT --predictions DIR` reads), pictures/NAME_depth.png and NAME_normals.png (near is
    warm; red right, green up, blue toward the viewer), contact_sheet.jpg, and predictions.json, by which a
    second run does only what is missing.

    Depth is known up to scale and shift (kind affine), disparity, 1 / depth, likewise (affine_disparity).
    Normals are unit vectors in the camera's frame: x right, y down, z forward; a facing wall has 0 0 -1.
    """

    photos: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PHOTOS")]]
    """A photo, or a folder of photos (also in folders below it, but not in OUT)."""

    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """Folder for the results. Photos whose maps are there, made with the same settings, are passed over;
    other files of the same names are replaced."""

    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="ID|DIR")] = None
    """Checkpoint of depth or disparity: a folder in the published layout, or a hub id. Best are the authors'
    jingheya/lotus-depth-d-v2-0-disparity with the normals of jingheya/lotus-normal-d-v1-1. Default:
    lotus-tiny, which comes with the package, needs no network, and is of demo quality."""

    normals_checkpoint: Annotated[str | None, tyro.conf.arg(metavar="ID|DIR")] = None
    """Checkpoint of normals to go with --checkpoint. Without one there are those of a joint checkpoint."""

    task: Literal["auto", "depth", "disparity", "normal"] = "auto"
    """What --checkpoint draws. Its files do not say; auto reads it from its name. With normal there are
    normals only."""

    processing_res: int | None = None
    """Longer side of the maps, px; 0: the photo's own size. Default: what the checkpoint was trained at, 768
    for the published ones."""

    device: str = "auto"
    """auto is the GPU where there is one, else the CPU; or cpu, cuda, cuda:1, ..."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto is float16 on a GPU, bfloat16 on CPUs that multiply it, else float32 (slower, most exact)."""

    seed: int = 0
    """Of the noise of generative checkpoints (lotus-...-g-...); the same seed gives the same maps."""

    seeds: int = 1
    """Predictions with different noise to average; where they differ, confidence falls. Generative only."""

    steps: int = 1
    """Denoising steps of generative checkpoints; the published ones were trained for one."""

    flip: bool = False
    """Also predict the mirrored photo and average: twice the time, less bias."""

    scales: tuple[float, ...] = (1.0,)
    """Sizes to predict at and average, in units of --processing-res, such as 1 0.75."""

    detail: int = 1
    """Maps this many times longer, at most the photo's size: overlapping tiles, fitted to the whole."""

    batch_size: int = 4
    """Most photos at once."""

    compile: bool = False
    """Compile the networks first (torch.compile; kernels are kept on disk): for many photos of one size."""

    def predictor(self) -> LotusPredictor:
        """Returns the predictor that these flags describe.

        Raises:
            InputError: They contradict each other.
        """
        if self.normals_checkpoint and not self.checkpoint:
            raise InputError("--normals-checkpoint goes with --checkpoint, which is missing")
        depth: str | None = self.checkpoint or DEFAULT_CHECKPOINT
        normals = self.normals_checkpoint
        drawn = tasks_of(self.checkpoint or DEFAULT_CHECKPOINT)
        task = (drawn[0] if drawn else None) if self.task == "auto" else self.task
        if task == "normal":
            if self.normals_checkpoint:
                raise InputError(f"--checkpoint {depth} and --normals-checkpoint are both for normals")
            depth, normals = None, depth
        return LotusPredictor(
            depth,
            normals,
            space=task if task in KINDS else "auto",
            processing_res=self.processing_res,
            device=self.device,
            dtype=self.dtype,
            seed=self.seed,
            seeds=self.seeds,
            steps=self.steps,
            flip=self.flip,
            scales=self.scales,
            detail=self.detail,
            batch_size=self.batch_size,
            compile=self.compile,
        )


def predict(words: Sequence[str]) -> None:
    """Predicts every photo that is not done yet, and writes maps, pictures and the contact sheet.

    Raises:
        InputError: A flag, a checkpoint or the photo folder is not what it has to be.
        ViewError: Some photos cannot be read; the others are done.
    """
    options = tyro.cli(Predict, args=list(words), prog="lotus predict")
    found = _find(options.photos, options.out)
    photos = dict(zip(_names(found, options.photos), found, strict=True))
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out}: a file; wanted a folder for the results")
    predictor = options.predictor()
    predictor.check()
    record = _open_record(options.out, settings_of(predictor))
    todo = {name: photo for name, photo in photos.items() if not record.holds(options.out, name, photo)}
    if len(todo) < len(photos):
        sys.stdout.write(
            f"{len(photos) - len(todo)} of {len(photos)} photos are done already, with these settings\n"
        )
    failures = _predict_all(todo, predictor, options.out, record) if todo else {}
    done = {name: photo for name, photo in photos.items() if name not in failures}
    if done:
        write_image(options.out / "contact_sheet.jpg", _sheet_of(done, options.out))
    sys.stdout.write(f"{len(done)} of {len(photos)} photos done, in {options.out}\n")
    if failures:
        reasons = "; ".join(failures.values())
        raise ViewError(f"{len(failures)} of {len(photos)} photos cannot be read: {reasons}")


def _find(photos: Path, out: Path) -> list[Path]:
    """Returns a photo, or the photos of a folder; where OUT is inside it, not those below OUT."""
    if photos.is_file():
        return [photos]
    found, home, results = find_photos(photos), photos.resolve(), out.resolve()
    if results == home:
        raise InputError(f"{out}: the folder of the photos, wanted another one for the results")
    if not results.is_relative_to(home):
        return found
    own = [path for path in found if not (home / path.relative_to(photos)).is_relative_to(results)]
    if not own:
        raise InputError(f"{photos}: no photo outside {out}, the folder for the results")
    return own


def _open_record(out: Path, settings: dict[str, Any]) -> Record:
    """Returns what is done in OUT with these settings; says so where other settings made what is there."""
    there = read_record(out)
    if there is None or there.settings == settings:
        return there or Record(settings, {})
    names = sorted(settings.keys() | there.settings.keys())
    other = [name for name in names if settings.get(name) != there.settings.get(name)]
    sys.stdout.write(f"{out} has maps of other settings ({', '.join(other)}): all photos are done anew\n")
    return Record(settings, {})


def _predict_all(
    photos: dict[str, Path], predictor: LotusPredictor, out: Path, record: Record
) -> dict[str, str]:
    """Predicts photos by name and records each; returns why some cannot be read."""
    from tqdm import tqdm

    predictor.models()  # a checkpoint that cannot be loaded leaves what is there as it is
    write_record(out, record)  # before any photo is read, for where it cannot be written
    sys.stdout.write(_announcement(predictor))
    failures, names = {}, list(photos)
    with tqdm(total=len(photos), unit="photo", file=sys.stderr) as progress:
        for start in range(0, len(names), predictor.batch_size):
            batch, read = names[start : start + predictor.batch_size], {}
            for name in batch:
                try:
                    read[name] = read_photo(photos[name])
                except ViewError as error:
                    failures[name] = str(error)
            for name, prediction in zip(read, predictor(list(read.values())), strict=True):
                _write(out, name, prediction)
            record = record.with_photos({name: digest_of(photos[name]) for name in read})
            write_record(out, record)
            progress.update(len(batch))
    return failures


def _announcement(predictor: LotusPredictor) -> str:
    place = resolve_device(predictor.device)
    number = str(resolve_dtype(predictor.dtype, place)).removeprefix("torch.")
    lines = []
    if predictor.depth:
        lines.append(f"{predictor.kind()} values by {predictor.depth}")
    normals, size = predictor.normals_source(), predictor.longer_side()
    lines.append(f"normals by {normals}" if normals else "no normals: no checkpoint for them")
    length = f"{size} px" if size else "the photo's size"
    said = f"{'; '.join(lines)}; {number} on {place}, {length}\n"
    if is_embedded(predictor.depth or normals or ""):
        said += f"embedded demo-quality model; for best results: {PUBLISHED}\n"
    return said


def _names(photos: list[Path], root: Path) -> list[str]:
    """Returns where each photo's results go, without ending; two photos must not share a name."""
    names = [
        Path(photo.name if photo == root else photo.relative_to(root)).with_suffix("").as_posix()
        for photo in photos
    ]
    for first, second in zip(range(len(names)), range(1, len(names)), strict=False):
        if names[first] in names[second:]:
            twin = names.index(names[first], second)
            raise InputError(f"{photos[first]} and {photos[twin]} would both write {names[first]}.npz")
    return names


def _pictures(prediction: Prediction) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    pictures = {}
    known = np.isfinite(prediction.values)
    if known.any():
        nearness = prediction.values if prediction.kind == "affine_disparity" else -prediction.values
        low, high = np.percentile(nearness[known], ROBUST_PERCENTILES)
        pictures["depth"] = colorize(nearness, float(low), float(high))
    if prediction.normals is not None:
        pictures["normals"] = colorize_normals(prediction.normals)
    return pictures


def _write(out: Path, name: str, prediction: Prediction) -> None:
    write_prediction(out / f"{name}.npz", prediction)
    pictures = _pictures(prediction)
    for kind, picture in pictures.items():
        write_image(_picture_file(out, name, kind), picture)
    for kind in PICTURED:
        if kind not in pictures:  # an earlier run with other settings may have drawn it
            _picture_file(out, name, kind).unlink(missing_ok=True)


def _picture_file(out: Path, name: str, kind: str) -> Path:
    return out / "pictures" / f"{name}_{kind}.png"


def _sheet_of(photos: dict[str, Path], out: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Returns photos that are done, or some of many, each beside its pictures."""
    names = list(photos)
    rows = np.linspace(0, len(names) - 1, min(len(names), MAX_SHEET_PHOTOS)).round().astype(int)
    strips = []
    for name in (names[row] for row in rows):
        pictures = [_picture_file(out, name, kind) for kind in PICTURED]
        there = [read_photo(picture) for picture in pictures if picture.is_file()]
        strips.append(strip([read_photo(photos[name]), *there]))
    return sheet(strips)
