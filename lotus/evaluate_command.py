"""The command `lotus evaluate`: a checkpoint's figures on a benchmark, beside the paper's."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lotus.checkpoints import check_task, fingerprint, load, tasks_of
from lotus.datasets import (
    BENCHMARKS,
    Benchmark,
    DepthBenchmark,
    NormalBenchmark,
    NormalSample,
    open_benchmark,
)
from lotus.devices import resolve_device, resolve_dtype
from lotus.evaluation import Draw, Row, depth_summary, drawer, normal_summary, score_depth, score_normals
from lotus.files import Files
from recon.errors import InputError
from recon.io.files import replaced

PAPER_METRICS = {
    DepthBenchmark: ("abs_rel", "delta1", "delta2"),
    NormalBenchmark: ("mean", "below_11_25", "below_30"),
}
PAPER = {  # arXiv 2409.18124 v5, tables 1 and 2: disparity and v1-1 normals checkpoints, Lotus-D and Lotus-G
    "nyuv2": ((0.051, 0.972, 0.992), (0.054, 0.968, 0.992)),
    "kitti": ((0.081, 0.931, 0.987), (0.085, 0.922, 0.984)),
    "eth3d": ((0.061, 0.970, 0.991), (0.059, 0.970, 0.992)),
    "scannet": ((0.055, 0.965, 0.990), (0.059, 0.957, 0.988)),
    "diode": ((0.228, 0.738, 0.862), (0.229, 0.729, 0.860)),
    "nyuv2-normals": ((16.2, 59.8, 83.9), (16.5, 59.4, 83.5)),
    "scannet-normals": ((14.7, 64.0, 86.1), (15.1, 63.9, 85.3)),
    "ibims-normals": ((17.1, 66.4, 83.0), (17.2, 66.2, 82.7)),
    "sintel-normals": ((32.3, 22.4, 57.0), (33.6, 21.0, 53.8)),
    "oasis-normals": ((22.3, 31.8, 76.1), (22.7, 29.4, 75.8)),
}


@dataclass(frozen=True)
class Evaluate:
    """A checkpoint's figures on a benchmark, measured as the authors do, beside the paper's.

    DATASET and the FOLDER it is in (its own, one above it, or its .tar as downloaded):
      nyuv2, kitti, eth3d, scannet, diode: depth, from Marigold's evaluation archives
        (share.phys.ethz.ch/~pf/bingkedata/marigold/evaluation_dataset)
      nyuv2-normals, scannet-normals, ibims-normals, sintel-normals, oasis-normals: from DSINE's
        dsine_eval.zip, unpacked (github.com/baegwangbin/DSINE). OASIS comes as pickles, which can run code
    and are not read: save the fields of each NAME_normal.pkl as NAME_normal.npz, with a tool you trust

    Depth is fitted to the truth by scale and shift, in disparity for a disparity checkpoint; figures are
    means over photos. Angles of normals, degrees, are pooled over all pixels; below_... are their shares, per
    cent.

    The figures go to the console and --out, those of each photo to a .jsonl beside it; after an interruption
    the same command goes on from there.
    """

    dataset: tyro.conf.Positional[Annotated[Literal[tuple(BENCHMARKS)], tyro.conf.arg(metavar="DATASET")]]  # type: ignore[valid-type]
    """Which benchmark."""

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
    """Where it is; nothing is downloaded."""

    checkpoint: Annotated[str, tyro.conf.arg(metavar="ID|DIR")]
    """A folder in the published layout, or a hub id such as jingheya/lotus-depth-d-v2-0-disparity."""

    task: Literal["auto", "depth", "disparity", "normal"] = "auto"
    """What the checkpoint draws; auto reads it from its name."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Where the figures go. Default: DATASET_CHECKPOINT.json in the current folder."""

    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only so many photos, evenly spread over the benchmark: for a first look."""

    filenames: Annotated[Path | None, tyro.conf.arg(metavar="LIST")] = None
    """The authors' list of photos, one a line, if the folder has more. Default: all."""

    device: str = "auto"
    """auto is the GPU where there is one, else the CPU; or cpu, cuda, cuda:1, ..."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto is float16 on a GPU (as the authors' scripts), bfloat16 on CPUs that multiply it, else float32."""

    seed: int = 42
    """Of the noise of generative checkpoints, the same for every photo."""

    def space(self) -> str:
        """Returns what the checkpoint draws: depth, disparity or normal.

        Raises:
            InputError: Neither it nor --task says so, or --task or the benchmark wants something else.
        """
        of_normals = isinstance(BENCHMARKS[self.dataset], NormalBenchmark)
        drawn = tasks_of(self.checkpoint) if self.task == "auto" else (self.task,)
        if not drawn:
            raise InputError(f"{self.checkpoint}: its name does not say what it draws; say --task")
        check_task(self.checkpoint, drawn[0])
        task = next((each for each in drawn if (each == "normal") == of_normals), drawn[0])
        if (task == "normal") != of_normals:
            measured = "depth" if task == "normal" else "normals"
            raise InputError(f"{self.dataset} measures {measured}, {self.checkpoint} draws {task}")
        return task

    def result(self) -> Path:
        """Returns the file for the figures.

        Raises:
            InputError: It does not end in .json.
        """
        name = self.checkpoint.rstrip("/").rpartition("/")[2]
        path = self.out or Path(f"{self.dataset}_{name}.json")
        if path.suffix != ".json":
            raise InputError(f"--out {path}: wanted a name that ends in .json")
        return path


def evaluate(words: Sequence[str]) -> None:
    """Measures a checkpoint on a benchmark and writes the figures.

    Raises:
        InputError: A flag, the checkpoint or the benchmark's files are not what they have to be.
    """
    from tqdm import tqdm

    options = tyro.cli(Evaluate, args=list(words), prog="lotus evaluate")
    benchmark, space, result = BENCHMARKS[options.dataset], options.space(), options.result()
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}, wanted at least 1")
    files, samples = open_benchmark(benchmark, options.folder, listing=options.filenames, limit=options.limit)
    setting = _setting(options, space)
    rows = read_rows(result.with_suffix(".jsonl"), setting)
    model = load(options.checkpoint, options.device, options.dtype)
    draw = drawer(model, options.seed, space=space)
    done = sum(sample[0] in rows for sample in samples)
    with (
        result.with_suffix(".jsonl").open("a") as kept,
        tqdm(total=len(samples), initial=done, unit="photo", file=sys.stderr) as progress,
    ):
        for names in samples:
            if names[0] not in rows:
                rows[names[0]] = _score(draw, benchmark, files, names, space=space)
                kept.write(json.dumps(rows[names[0]]) + "\n")
                kept.flush()
                progress.update()
    summarise = normal_summary if isinstance(benchmark, NormalBenchmark) else depth_summary
    metrics = summarise([rows[names[0]] for names in samples])
    paper = _paper(options.dataset, space, model.is_generative)
    _write(
        result,
        {
            **setting,
            "photos": len(samples),
            "published_photos": benchmark.count,
            "metrics": metrics,
            "paper": paper,
        },
    )
    sys.stdout.write(_table(benchmark, len(samples), metrics, paper))
    sys.stdout.write(f"figures in {result}, of each photo in {result.with_suffix('.jsonl')}\n")


def read_rows(path: Path, setting: Mapping[str, Any]) -> dict[str, Row]:
    """Returns the rows that an interrupted run left, by photo, and makes the file ready for more.

    The first line is the setting. A last line that was cut off is removed.

    Raises:
        InputError: The rows are of another setting, or the file holds something else or cannot be written.
    """
    try:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        if not entries:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(setting) + "\n")
            return {}
        for name, value in setting.items():
            if entries[0].get(name) != value:
                raise InputError(
                    f"{path}: rows with {name} {entries[0].get(name)}, this run has {value}; "
                    "name another --out or remove it"
                )
        if not lines[-1].endswith("\n"):
            path.write_text("".join(lines[:-1]))
        return {row["photo"]: row for row in entries[1:]}
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise InputError(f"{path}: cannot hold the rows ({type(error).__name__}: {error})") from error


def _score(draw: Draw, benchmark: Benchmark, files: Files, names: tuple[str, ...], *, space: str) -> Row:
    """Returns the row of one photo; what makes it useless is said with its name."""
    sample = benchmark.read(files, names)
    try:
        if isinstance(sample, NormalSample):
            return score_normals(draw, sample)
        assert isinstance(benchmark, DepthBenchmark)
        return score_depth(draw, sample, benchmark, space=space)
    except InputError as error:
        raise InputError(f"{names[0]}: {error}") from error


def _setting(options: Evaluate, space: str) -> dict[str, Any]:
    """Returns all that changes a photo's figures."""
    place = resolve_device(options.device)
    return {
        "dataset": options.dataset,
        "checkpoint": options.checkpoint,
        "fingerprint": fingerprint(options.checkpoint),
        "space": space,
        "dtype": str(resolve_dtype(options.dtype, place)).removeprefix("torch."),
        "device": place.type,
        "seed": options.seed,
    }


def _paper(dataset: str, space: str, is_generative: bool) -> dict[str, float]:
    """Returns the paper's figures of a checkpoint of this kind; it has none of those that draw depth."""
    if space == "depth":
        return {}
    return dict(zip(PAPER_METRICS[type(BENCHMARKS[dataset])], PAPER[dataset][is_generative], strict=True))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _table(
    benchmark: Benchmark, photos: int, metrics: Mapping[str, float], paper: Mapping[str, float]
) -> str:
    lines = [
        f"{benchmark.title}: {photos} of {benchmark.count} photos",
        f"{'':12s}{'here':>10s}{'paper':>10s}",
    ]
    for name, value in metrics.items():
        published = f"{paper[name]:10g}" if name in paper else ""
        lines.append(f"{name:12s}{value:10.4f}{published}")
    return "\n".join(lines) + "\n"
