"""The command `lotus verify`: what of a training data set is there, what is missing, what cannot be used."""

import sys
from collections import defaultdict
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from lotus.data import Folder, Hypersim, VirtualKitti
from lotus.data.listing import Survey
from lotus.data.samples import with_depth
from lotus.data.vkitti import TRAINING_SCENES
from recon.errors import InputError, ReconError
from recon.io.files import replaced

SHARES = ("depth", "normals", "sky")
SHOWN_REASONS = 6
QUEUE_PER_WORKER = 8  # samples that a worker has waiting


@dataclass(frozen=True)
class Verify:
    """What of a training data set is there, what is missing, and what cannot be used.

    LAYOUT is one of
      hypersim: FOLDER/ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg and beside it
        scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5, .normal_cam.hdf5, with the authors'
        FOLDER/metadata_images_split_scene_v1.csv; or FOLDER/train/ai_..., as the Lotus authors prepare it
      vkitti: FOLDER/Scene02/clone/frames/rgb/Camera_0/rgb_00000.jpg and depth/Camera_0/depth_00000.png
      folder: FOLDER/rgb/NAME.jpg, FOLDER/depth/NAME.npy (or .npz, or .png of 16 bits), and if there are
        FOLDER/normals/NAME.npy (or .png), FOLDER/intrinsics.txt (K, or fx fy cx cy)

    Then every sample is opened as training opens it. Ends with exit code 1 if none can be used.
    """

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
    """Where it is; nothing is downloaded and nothing in it is changed."""

    layout: Literal["hypersim", "vkitti", "folder"]
    """How it is laid out."""

    split: Literal["train", "val", "test"] = "train"
    """Of hypersim."""

    scenes: tuple[str, ...] = TRAINING_SCENES
    """Of vkitti; 01 is held out."""

    depth_scale: float = 1000.0
    """Of folder: value of a depth png that stands for one unit."""

    open: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Open only so many samples, evenly spread: for a first look; 0 only looks for files. Default: all."""

    list: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Writes the names of the samples that can be used, for training to take just those."""

    workers: int = 1
    """Processes that open samples."""

    def source(self) -> Hypersim | VirtualKitti | Folder:
        """Returns the data set.

        Raises:
            InputError: A package that it needs is not installed.
        """
        if self.layout == "hypersim":
            return Hypersim(self.folder, self.split)
        if self.layout == "vkitti":
            return VirtualKitti(self.folder, self.scenes)
        return Folder(self.folder, depth_scale=self.depth_scale)


@dataclass(frozen=True)
class Opened:
    """What a sample turned out to be."""

    name: str
    reason: str = ""
    """Why it cannot be used; empty if it can."""

    depth: float = 0.0
    """Share of the pixels whose depth is known; so for the others."""

    normals: float = 0.0
    sky: float = 0.0


def verify(words: Sequence[str]) -> None:
    """Says what of a data set can be used, and what not and why.

    Raises:
        InputError: Nothing can be used, a flag is wrong, or the list cannot be written.
    """
    from tqdm import tqdm

    options = tyro.cli(Verify, args=list(words), prog="lotus verify")
    if options.workers < 1:
        raise InputError(f"--workers {options.workers}, wanted at least 1")
    if options.open is not None and options.open < 0:
        raise InputError(f"--open {options.open}, wanted at least 0")
    source = options.source()
    survey = source.survey
    sys.stdout.write(f"{survey.title}, in {options.folder}\n")
    sys.stdout.write(_survey_lines(survey))
    count = len(survey.whole) if options.open is None else min(options.open, len(survey.whole))
    chosen = np.linspace(0, len(survey.whole) - 1, count).round().astype(int).tolist() if count else []
    found = []
    with closing(_open_all(source, chosen, options.workers)) as opening:
        for each in tqdm(opening, total=count, unit="sample", file=sys.stderr):
            found.append(each)
    unusable = {each.name for each in found if each.reason}
    sys.stdout.write(_opened_lines(found))
    usable = [name for name in survey.whole if name not in unusable]
    if not usable or (found and len(unusable) == len(found)):
        raise InputError(f"{options.folder}: no sample of {survey.title} can be used")
    if options.list:
        with replaced(options.list) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in usable))
        sys.stdout.write(f"their names are in {options.list}\n")


def inspect(source: Hypersim | VirtualKitti | Folder, index: int) -> Opened:
    """Opens a sample."""
    name = source.frames[index]
    try:
        sample = with_depth(source[index])
    except ReconError as error:
        return Opened(name, str(error))
    return Opened(
        name,
        depth=float((sample.depth > 0).mean()),
        normals=float(sample.normals.any(axis=-1).mean()),
        sky=float(sample.sky.mean()),
    )


def _open_all(
    source: Hypersim | VirtualKitti | Folder, chosen: Sequence[int], workers: int
) -> Generator[Opened, None, None]:
    """Yields what the samples are, in order."""
    if workers == 1:
        yield from map(partial(inspect, source), chosen)
        return
    waiting = iter(chosen)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = [
            pool.submit(inspect, source, index) for index in islice(waiting, workers * QUEUE_PER_WORKER)
        ]
        while running:
            yield running.pop(0).result()
            running.extend(pool.submit(inspect, source, index) for index in islice(waiting, 1))


def _survey_lines(survey: Survey) -> str:
    lines = [("wanted", survey.wanted, ""), ("with all files", len(survey.whole), "")]
    if survey.missing_scenes:
        lines.append(("scenes missing", len(survey.missing_scenes), _some(survey.missing_scenes)))
    for kind, names in survey.missing.items():
        lines.append((f"without {kind}", len(names), _some(names)))
    return "".join(f"  {what:16s}{count:8d}  {which}".rstrip() + "\n" for what, count, which in lines)


def _opened_lines(found: Sequence[Opened]) -> str:
    """Returns a table of the samples that were opened, those that cannot be used by reason."""
    good = [each for each in found if not each.reason]
    lines = [f"  {'opened':16s}{len(found):8d}", f"  {'of them usable':16s}{len(good):8d}"]
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for each in found:
        if each.reason:
            reasons[" ".join(each.reason.partition(": ")[2].split()) or each.reason].append(each.name)
    ordered = sorted(reasons.items(), key=lambda reason: -len(reason[1]))
    for reason, names in ordered[:SHOWN_REASONS]:
        lines.append(f"  {'unusable':16s}{len(names):8d}  {reason}: {_some(names)}")
    rest = ordered[SHOWN_REASONS:]
    if rest:
        lines.append(f"  {'unusable':16s}{sum(len(names) for _, names in rest):8d}  for other reasons")
    if good:
        shares = [100 * float(np.mean([getattr(each, what) for each in good])) for what in SHARES]
        known = ", ".join(f"{what} {share:.1f} %" for what, share in zip(SHARES, shares, strict=True))
        lines.append(f"  of their pixels: {known}")
    return "\n".join(lines) + "\n"


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}, ..., {names[-1]}"
