"""Mesh of a synthetic room: this project's back end against a plain one, on the same cameras and predictions.

The plain back end is per-view RANSAC affine and unweighted fusion in Open3D (`plain_backend.py`), at the same
voxel size and truncation. Both get the true cameras, 16 photos of 640x480 and predictions with a smooth error
of 6 %.

    python -m tests.benchmarks.room_mesh [SEED ...]

prints one JSON object per seed: F-scores at 0.5, 1 and 2 % of the room's 4 units, and seconds.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from pipelines import DiskStore, MultiView, find_photos, run
from pipelines.predictors import FromFiles
from pipelines.stages import Fuse, GivenModel
from recon import synthetic
from recon.evaluation import evaluate_mesh
from recon.io import colmap
from recon.scene import Mesh
from recon.synthetic import Capture
from tests.benchmarks.plain_backend import plain_reconstruction

VOXEL_SIZE = 0.02  # of a room of 4 x 3 x 2.5
TRUNCATION = 4 * VOXEL_SIZE
THRESHOLDS = (0.02, 0.04, 0.08)


def capture_room(seed: int, width: int = 640, height: int = 480, count: int = 16) -> Capture:
    world = synthetic.room(seed)
    cameras = synthetic.room_cameras(world, width, height, count)
    return synthetic.capture(world, cameras, seed=seed)


def predictions_of(capture: Capture) -> dict:
    return {
        name: synthetic.distort(truth, seed=number)
        for number, (name, truth) in enumerate(capture.depth_maps.items())
    }


def our_mesh(capture: Capture, predictions: dict, folder: Path, fuse: Fuse) -> Mesh:
    synthetic.write_photos(capture, folder / "photos")
    synthetic.write_predictions(predictions, folder / "predictions")
    colmap.write_model(colmap.model_from_scene(capture.scene), folder / "sparse")
    pipeline = replace(
        MultiView(),
        cameras=GivenModel(folder / "sparse"),
        predict=FromFiles(folder / "predictions"),
        fuse=fuse,
    )
    photos = find_photos(folder / "photos", folder / "cache")
    return run(pipeline, photos, DiskStore(folder / "cache")).get("mesh")


def compare(seed: int) -> dict:
    capture = capture_room(seed)
    predictions = predictions_of(capture)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        ours = our_mesh(capture, predictions, Path(folder), Fuse(VOXEL_SIZE, TRUNCATION))
        our_seconds = time.perf_counter() - started
    started = time.perf_counter()
    plain = plain_reconstruction(capture.scene, predictions, capture.images, VOXEL_SIZE, TRUNCATION)
    plain_seconds = time.perf_counter() - started
    scores = {
        name: evaluate_mesh(mesh, capture.mesh, thresholds=THRESHOLDS, views=capture.scene.views)
        for name, mesh in (("ours", ours), ("plain", plain))
    }
    return {
        "seed": seed,
        "thresholds": THRESHOLDS,
        **{name: [round(value, 4) for value in score.f_score] for name, score in scores.items()},
        "normal_consistency": {name: round(s.normal_consistency, 4) for name, s in scores.items()},
        "seconds": {"ours": round(our_seconds, 1), "plain": round(plain_seconds, 1)},
    }


if __name__ == "__main__":
    for word in sys.argv[1:] or ["0", "1"]:
        print(json.dumps(compare(int(word))), flush=True)
