"""What the commands of `lotus` do; `lotus.cli` finds them by name."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from jaxtyping import UInt8

from lotus.checkpoints import is_embedded, tasks_of
from lotus.devices import resolve_device, resolve_dtype
from lotus.predictor import KINDS, LotusPredictor
from recon.errors import InputError, ViewError
from recon.io.images import find_photos, read_photo, resize_image, write_image
from recon.io.maps import ROBUST_PERCENTILES, colorize, colorize_normals, write_prediction
from recon.scene import Prediction

DEFAULT_CHECKPOINT = "lotus-tiny"  # comes with the package
PUBLISHED = (
    "--checkpoint jingheya/lotus-depth-d-v2-0-disparity --normals-checkpoint jingheya/lotus-normal-d-v1-1"
)
THUMBNAIL_HEIGHT, MARGIN = 180, 4  # px
MAX_THUMBNAIL_RATIO = 3  # width / height; wider photos are lower on the sheet
MAX_SHEET_PHOTOS = 48
SHEET_RATIO = 1.4  # width / height of the contact sheet, about


@dataclass(frozen=True)
class Predict:
    """Depth and normals of photos, each by itself, at the size the network works at.

    OUT then holds NAME.npz for each photo NAME.jpg (`values`, `kind`, `normals`, `confidence`: what
    `recon multi PHOTOS OUT --predictions DIR` reads), pictures/NAME_depth.png and NAME_normals.png (near is
    warm; red right, green up, blue toward the viewer), and contact_sheet.jpg.

    Depth is known up to scale and shift (kind affine), disparity, 1 / depth, likewise (affine_disparity).
    Normals are unit vectors in the camera's frame: x right, y down, z forward; a facing wall has 0 0 -1.
    """

    photos: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PHOTOS")]]
    """A photo, or a folder of photos (also in folders below it)."""

    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """Folder for the results; files of the same names are replaced."""

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
    """Predicts every photo and writes maps, pictures and the contact sheet.

    Raises:
        InputError: A flag, a checkpoint or the photo folder is not what it has to be.
        ViewError: Some photos cannot be read; the others are done.
    """
    from tqdm import tqdm

    options = tyro.cli(Predict, args=list(words), prog="lotus predict")
    photos = [options.photos] if options.photos.is_file() else find_photos(options.photos)
    names = _names(photos, options.photos)
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out}: a file; wanted a folder for the results")
    predictor = options.predictor()
    predictor.models()  # a checkpoint that cannot be loaded is said before the first photo is read
    sys.stdout.write(_announcement(predictor))
    shown = set(
        np.linspace(0, len(photos) - 1, min(len(photos), MAX_SHEET_PHOTOS)).round().astype(int).tolist()
    )
    rows, failures = [], []
    with tqdm(total=len(photos), unit="photo", file=sys.stderr) as progress:
        for batch in _batches(list(range(len(photos))), options.batch_size):
            read = {}
            for index in batch:
                try:
                    read[index] = read_photo(photos[index])
                except ViewError as error:
                    failures.append(str(error))
            for (index, photo), prediction in zip(read.items(), predictor(list(read.values())), strict=True):
                pictures = _pictures(prediction)
                _write(options.out, names[index], prediction, pictures)
                if index in shown:
                    rows.append(_strip([photo, *pictures.values()]))
            progress.update(len(batch))
    if rows:
        write_image(options.out / "contact_sheet.jpg", _sheet(rows))
    sys.stdout.write(f"{len(photos) - len(failures)} of {len(photos)} photos done, in {options.out}\n")
    if failures:
        raise ViewError(f"{len(failures)} of {len(photos)} photos cannot be read: {'; '.join(failures)}")


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


def _names(photos: list[Path], root: Path) -> list[Path]:
    """Returns where each photo's results go, without ending; two photos must not share a name."""
    names = [
        Path(photo.name if photo == root else photo.relative_to(root)).with_suffix("") for photo in photos
    ]
    for first, second in zip(range(len(names)), range(1, len(names)), strict=False):
        if names[first] in names[second:]:
            twin = names.index(names[first], second)
            raise InputError(f"{photos[first]} and {photos[twin]} would both write {names[first]}.npz")
    return names


def _batches(indices: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


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


def _write(
    out: Path, name: Path, prediction: Prediction, pictures: dict[str, UInt8[np.ndarray, "_h _w 3"]]
) -> None:
    write_prediction((out / name).with_name(f"{name.name}.npz"), prediction)
    for kind, picture in pictures.items():
        write_image((out / "pictures" / name).with_name(f"{name.name}_{kind}.png"), picture)


def _strip(pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns small pictures side by side, all of the first one's size, with a white margin."""
    height, width = pictures[0].shape[:2]
    scale = min(THUMBNAIL_HEIGHT / height, MAX_THUMBNAIL_RATIO * THUMBNAIL_HEIGHT / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    row = np.concatenate([resize_image(picture, *size) for picture in pictures], axis=1)
    below = THUMBNAIL_HEIGHT - size[1] + MARGIN
    return np.pad(row, ((MARGIN, below), (MARGIN, MARGIN), (0, 0)), constant_values=255)


def _sheet(strips: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns strips in rows on white, in reading order."""
    area = sum(strip.shape[0] * strip.shape[1] for strip in strips)
    width = max(round((area * SHEET_RATIO) ** 0.5), *(strip.shape[1] for strip in strips), 1)
    rows: list[list[np.ndarray]] = [[]]
    for strip in strips:
        if sum(each.shape[1] for each in rows[-1]) + strip.shape[1] > width:
            rows.append([])
        rows[-1].append(strip)
    joined = [np.concatenate(row, axis=1) for row in rows if row]
    widest = max(row.shape[1] for row in joined)
    padded = [
        np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in joined
    ]
    return np.concatenate(padded)
