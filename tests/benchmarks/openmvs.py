"""Photos to mesh beside OpenMVS: same photos, cameras and sparse points, two threads each, in the same run.

    OPENMVS=FOLDER python -m tests.benchmarks.openmvs room:0 room:1 fountain=FOLDER [--size 1024] [--keep OUT]

OPENMVS is a folder of its programs InterfaceCOLMAP, DensifyPointCloud and ReconstructMesh, built without CUDA
(AGPL: run as programs of their own, never part of this project). Without it nothing is measured. They run
with their defaults but for `--resolution-level 0` (all pixels), two threads and ordinary priority; ours is
`recon multi` with its defaults, and its time includes everything that command writes.
Neither time includes cameras and sparse points; ours does not include a network's, which writes the
predictions. The first run after an installation compiles our kernels: its time counts for nothing.

A word names a rendered room and its seed. There `ours` gets predictions with a smooth error of 6 % and
normals 6 degrees off, which OpenMVS cannot use, so `ours_without_network` stands beside it: no predictions,
the points interpolated. A word with = is a folder with `cameras.json` and photos, whose cameras are taken as
given and whose photos are shrunk to `--size`, at which both compare photos; nobody gets predictions.

Prints one JSON object per scene. Rooms: F-scores at 1, 2 and 5 cm, completeness as the share of the visible
true surface within these distances of the mesh, precision likewise. Photos: see `held_out.py`. Then seconds,
CPU seconds, peak memory of all processes together (GB), the machine's load at each program's end, and ratios
of time, above 1 where ours is faster. Where others work on the machine, CPU seconds say more than seconds.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recon.evaluation import evaluate_mesh
from recon.io import colmap
from recon.io.images import read_photo, resize_image, write_image
from recon.io.meshes import read_mesh
from recon.scene import Mesh, Scene
from tests.benchmarks.held_out import Given, explained_photo, hold_out, points_in_mesh
from tests.benchmarks.photometric_depth import given_views
from tests.benchmarks.room_mesh import THRESHOLDS, capture_room, predictions_of, write_inputs

THREADS = 2
POINTS = ["--predictor", "points"]
ANCHORS = 1500  # per view of a room, about
POLL_S = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")
FEATURE_SIZE = 1600  # longer side of the photos in which the sparse points are found, px
OURS = "import sys; from pipelines.cli import main; main(sys.argv[1:])"


@dataclass(frozen=True)
class Made:
    """A mesh and what it took."""

    mesh: Mesh
    steps: dict[str, float]
    """Wall seconds of each step."""

    seconds: float
    cpu_s: float
    peak_gb: float
    load: float
    """Mean number of processes that wanted a core in the last minute of the run, its own among them."""


def run_measured(words: Sequence[str], log: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in GB of a program and all that it starts."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    started, peak, over = time.perf_counter(), [0], threading.Event()
    with log.open("ab") as output:
        program = subprocess.Popen(
            words, stdout=output, stderr=output, env=os.environ | threads, start_new_session=True
        )

        def watch() -> None:
            while not over.wait(POLL_S):
                peak[0] = max(peak[0], session_bytes(program.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            _, status, usage = os.wait4(program.pid, 0)
        except BaseException:
            os.killpg(program.pid, signal.SIGTERM)
            raise
        finally:
            over.set()
            watcher.join()
    seconds = time.perf_counter() - started
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise SystemExit(f"{words[0]}: ended with {program.returncode}; its output is in {log}")
    return seconds, usage.ru_utime + usage.ru_stime, max(peak[0], usage.ru_maxrss * 1024) / 1e9


def session_bytes(session: int) -> int:
    """Resident memory of all processes of a session; what they share counts for each."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += int((folder / "statm").read_text().split()[1]) * PAGE
        except (OSError, IndexError):  # it ended meanwhile
            continue
    return total


def run_openmvs(programs: Path, dense: Path, work: Path) -> Made:
    """OpenMVS on a folder with `images` and `sparse`."""
    work.mkdir()
    log = work / "log.txt"
    common = ["-w", str(work), "--max-threads", str(THREADS), "--process-priority", "0"]
    steps = {
        "InterfaceCOLMAP": ["-i", str(dense), "-o", "scene.mvs", "--image-folder", str(dense / "images")],
        "DensifyPointCloud": ["-i", "scene.mvs", "-o", "dense.mvs", "--resolution-level", "0"],
        "ReconstructMesh": ["-i", "dense.mvs", "-o", "mesh.ply"],
    }
    costs = {
        name: run_measured([str(programs / name), *words, *common], log) for name, words in steps.items()
    }
    return Made(
        mesh=read_mesh(work / "mesh.ply"),
        steps={name: cost[0] for name, cost in costs.items()},
        seconds=sum(cost[0] for cost in costs.values()),
        cpu_s=sum(cost[1] for cost in costs.values()),
        peak_gb=max(cost[2] for cost in costs.values()),
        load=os.getloadavg()[0],
    )


def run_ours(inputs: Path, work: Path, options: Sequence[str]) -> Made:
    """`recon multi` on a folder with `images`, `sparse` and perhaps `predictions`."""
    words = [sys.executable, "-c", OURS, "multi", str(inputs / "images"), str(work)]
    words += ["--sparse", str(inputs / "sparse"), *options]
    seconds, cpu_s, peak_gb = run_measured(words, work.with_suffix(".txt"))
    report = json.loads((work / "report.json").read_text())
    steps = {step["artifact"]: step["seconds"] for step in report["steps"]}
    return Made(read_mesh(work / "mesh.ply"), steps, seconds, cpu_s, peak_gb, os.getloadavg()[0])


def costs_of(made: dict[str, Made]) -> dict:
    peer, ours = made["openmvs"], {name: run for name, run in made.items() if name != "openmvs"}
    return {
        "seconds": {name: round(run.seconds, 1) for name, run in made.items()},
        "cpu_s": {name: round(run.cpu_s, 1) for name, run in made.items()},
        "peak_gb": {name: round(run.peak_gb, 2) for name, run in made.items()},
        "load": {name: round(run.load, 1) for name, run in made.items()},
        "triangles": {name: len(run.mesh.faces) for name, run in made.items()},
        "time_ratio": {name: round(peer.seconds / run.seconds, 2) for name, run in ours.items()},
        "cpu_ratio": {name: round(peer.cpu_s / run.cpu_s, 2) for name, run in ours.items()},
        "steps": {
            name: {step: round(seconds, 1) for step, seconds in run.steps.items()}
            for name, run in made.items()
        },
    }


def room_row(seed: int, programs: Path, folder: Path) -> dict:
    capture = capture_room(seed, ANCHORS)
    write_inputs(capture, predictions_of(capture, seed), folder)
    made = {
        "openmvs": run_openmvs(programs, folder, folder / "openmvs"),
        "ours": run_ours(folder, folder / "ours", ["--predictions", str(folder / "predictions")]),
        "ours_without_network": run_ours(folder, folder / "ours_without_network", POINTS),
    }
    scores = {
        name: evaluate_mesh(run.mesh, capture.mesh, thresholds=THRESHOLDS, views=capture.scene.views)
        for name, run in made.items()
    }
    return {
        "thresholds": THRESHOLDS,
        "f_score": {name: rounded(score.f_score) for name, score in scores.items()},
        "completeness": {name: rounded(score.recall) for name, score in scores.items()},
        "precision": {name: rounded(score.precision) for name, score in scores.items()},
        **costs_of(made),
    }


def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def photo_row(source: Path, size: int, programs: Path, folder: Path) -> dict:
    scene, given = held_out_inputs(source, size, folder)
    options = [*POINTS, "--match.max-size", str(size)]
    made = {
        "openmvs": run_openmvs(programs, folder, folder / "openmvs"),
        "ours": run_ours(folder, folder / "ours", options),
        "ours_second_pass": run_ours(folder, folder / "ours_second_pass", [*options, "--second-pass"]),
    }
    pictures = {view.name: read_photo(folder / "images" / view.name) for view in given.scene.views}
    pictures[given.photo.name] = read_photo(folder / given.photo.name)
    return {
        "size": [given.photo.camera.width, given.photo.camera.height],
        "points": {name: points_in_mesh(run.mesh, scene, given) for name, run in made.items()},
        "photo": {name: explained_photo(run.mesh, scene, given, pictures) for name, run in made.items()},
        **costs_of(made),
    }


def held_out_inputs(source: Path, size: int, folder: Path) -> tuple[Scene, Given]:
    """Writes `images` and `sparse` without what is kept back; the photo that is lies in the folder itself."""
    scene = shrunk_scene(source, size, folder)
    given = hold_out(scene)
    (folder / "images" / given.photo.name).rename(folder / given.photo.name)
    colmap.write_model(colmap.model_from_scene(given.scene), folder / "sparse")
    return scene, given


def shrunk_scene(source: Path, size: int, folder: Path) -> Scene:
    """Views with the given cameras at a smaller size, their photos in `images`, points of the larger ones."""
    views = [replace(view, name=f"{Path(view.name).stem}.png") for view in given_views(source)[0]]
    paths = {view.name: view.image for view in views if view.image}
    options = colmap.SfmOptions(max_image_size=FEATURE_SIZE)
    model = colmap.triangulate(paths, views, folder / "features", options)
    shrunk = {view.name: folder / "images" / view.name for view in views}
    for view in views:
        camera = view.camera.fitted(size)
        picture = resize_image(read_photo(paths[view.name]), camera.width, camera.height)
        write_image(shrunk[view.name], picture)
    return colmap.scene_from_model(model, shrunk)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", help="room:SEED or NAME=FOLDER")
    parser.add_argument("--size", type=int, default=1024, help="longer side of a folder's photos, px")
    parser.add_argument("--keep", type=Path, help="new folder for inputs, meshes and logs")
    options = parser.parse_args()
    if "OPENMVS" not in os.environ:
        print("skipped: OPENMVS is not set; wanted the folder of OpenMVS's programs", file=sys.stderr)
        return
    programs = Path(os.environ["OPENMVS"]).absolute()
    with tempfile.TemporaryDirectory() as temporary:
        for word in options.scenes:
            name, _, source = word.partition("=")
            folder = (options.keep or Path(temporary)).absolute() / name.replace(":", "_")
            folder.mkdir(parents=True)
            if source:
                row = photo_row(Path(source), options.size, programs, folder)
            else:
                row = room_row(int(name.partition(":")[2]), programs, folder)
            print(json.dumps({"scene": name, **row}), flush=True)


if __name__ == "__main__":
    main()
