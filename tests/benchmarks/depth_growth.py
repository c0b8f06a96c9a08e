"""Time and memory of alignment, correction and normal-guided refinement of one view, by picture size.

    python -m tests.benchmarks.depth_growth [--widths 320 640 1280 1600] [--anchors 1500] [--photos]

With `--photos` it is the measurement in the photos instead: one view beside four others of a room, from exact
depth with an error of 0.5 %, on all cores. It prints one JSON object per size, each measured in a process of
its own: seconds (wall) and CPU seconds of the second of two runs, the first one paying for compilation, the
memory that the second added (peak resident set less what was resident before; Linux only), and microseconds
and bytes per pixel, which linear growth keeps constant.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.executors import one_torch_thread
from recon import photometric, synthetic
from recon.alignment import agree, align, corrected
from recon.geometry import pixel_centers, sample_depth
from recon.refinement import refine
from recon.scene import DepthMap, Prediction, SparseDepth, View
from recon.synthetic.distortion import FineErrors, smooth_field

VIEWS = 2  # the least that can agree
OUTLIERS, OUTLIER_RANGE, ANCHOR_ERROR = 0.08, (0.6, 1.6), 0.004
FINE = FineErrors(normal_tilt_deg=4.2, normal_noise_deg=4.2)
MEGA = 1e6
CAMERAS, NEIGHBOURS = 12, 4  # of the ring, of the measured view
PRIOR_ERROR = 0.005


def anchors_of(truth: DepthMap, count: int, rng: np.random.Generator) -> SparseDepth:
    """Points of the exact depth with noise, a share of them wrong."""
    uv = pixel_centers(truth.camera.width, truth.camera.height).reshape(-1, 2)
    uv = uv[rng.choice(len(uv), count, replace=False)]
    depth = sample_depth(truth.depth, uv)
    uv, depth = uv[depth > 0], depth[depth > 0]
    factor = 1 + ANCHOR_ERROR * rng.standard_normal(len(depth))
    wrong = rng.random(len(depth)) < OUTLIERS
    factor[wrong] = rng.uniform(*OUTLIER_RANGE, wrong.sum())
    return SparseDepth(uv, depth * factor, ANCHOR_ERROR * depth)


def one_run(views: list[View], given: dict[str, tuple[Prediction, SparseDepth]]) -> None:
    aligned = {view.name: align(*given[view.name], view.camera) for view in views}
    changes = agree(views, aligned.__getitem__)
    for view in views:
        one = aligned.pop(view.name)
        if view.name in changes:
            one = corrected(one, changes[view.name])
        with one_torch_thread():
            refine(one.depth_map, given[view.name][1])


def measure_photos(width: int) -> dict[str, float]:
    world = synthetic.room(0)
    cameras = synthetic.room_cameras(world, width, width * 3 // 4, CAMERAS)
    cameras = [cameras[index] for index in range(-(NEIGHBOURS // 2), NEIGHBOURS // 2 + 1)]
    capture = synthetic.capture(world, cameras, seed=0, supersample=1)
    photos = [
        photometric.Photo(view.camera, view.cam_from_world, capture.images[view.name])
        for view in capture.scene.views
    ]
    own, truth = photos.pop(NEIGHBOURS // 2), capture.depth_maps[capture.scene.views[NEIGHBOURS // 2].name]
    bend = PRIOR_ERROR * smooth_field(truth.depth > 0, np.random.default_rng(0))
    depth = (truth.depth * np.exp(bend)).astype(np.float32)
    prior = DepthMap(truth.camera, depth, truth.normals, (PRIOR_ERROR * depth).astype(np.float32))
    del capture
    return _second_of_two(lambda: photometric.refine(own, prior, photos), 1)


def _second_of_two(run: Callable[[], object], views: int) -> dict[str, float]:
    run()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_s": wall / views, "cpu_s": cpu / views, "added_mb": (_status("VmHWM") - before) / MEGA}


def measure(width: int, anchors: int) -> dict[str, float]:
    world = synthetic.room(0)
    cameras = synthetic.room_cameras(world, width, width * 3 // 4, CAMERAS)[:VIEWS]
    capture = synthetic.capture(world, cameras, seed=0, supersample=1)
    views = [View(view.name, view.camera, view.cam_from_world) for view in capture.scene.views]
    given = {}
    for index, view in enumerate(views):
        truth = capture.depth_maps[view.name]
        prediction = synthetic.distort(truth, seed=(0, index), fine=FINE)
        given[view.name] = (prediction, anchors_of(truth, anchors, np.random.default_rng(index)))
    del capture
    return _second_of_two(lambda: one_run(views, given), VIEWS)


def _status(key: str) -> float:
    """Bytes of a line of the process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * float(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="*", default=[320, 640, 1280, 1600])
    parser.add_argument("--anchors", type=int, default=1500)
    parser.add_argument("--photos", action="store_true", help="the measurement in the photos")
    parser.add_argument("--alone", action="store_true", help="measure the one size here")
    arguments = parser.parse_args()
    for width in arguments.widths:
        if not arguments.alone:
            words = ["--alone", "--widths", str(width), "--anchors", str(arguments.anchors)]
            words += ["--photos"] * arguments.photos
            subprocess.run([sys.executable, "-m", "tests.benchmarks.depth_growth", *words], check=True)
            continue
        row = measure_photos(width) if arguments.photos else measure(width, arguments.anchors)
        pixels = width * (width * 3 // 4)
        row |= {
            "us_per_pixel": 1e6 * row["cpu_s"] / pixels,
            "bytes_per_pixel": MEGA * row["added_mb"] / pixels,
        }
        print(json.dumps({"width": width, **{key: round(v, 2) for key, v in row.items()}}), flush=True)


if __name__ == "__main__":
    main()
