"""Mesh of a synthetic room: this project's back end against a plain one, on the same cameras and predictions.

The plain back end is per-view RANSAC affine and unweighted fusion in Open3D (`plain_backend.py`), at the
same voxel size and truncation. That fusion also gets the exact depth, which is the most that the voxels
allow, and this project's depth maps ("our_maps"), there with whatever one view saw. All get the true
cameras, 12 photos of 640x480, sparse points of which 8 % are wrong, and predictions with a smooth error of
6 %, clipped as Lotus clips, with normals 6 degrees off.

    python -m tests.benchmarks.room_mesh [--anchors 1500] [--prior constant] [--no-photos]
        [--second-pass] [--seeds 0 1]

prints one JSON object per seed: mean relative error of the depth maps, F-scores at 1, 2 and 5 cm in a room of
4 x 3 x 2.5 m, normal consistency, seconds.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from lotus.predictor import LotusPredictor
from pipelines import DiskStore, MultiView, find_photos, run
from pipelines.predictors import FromFiles
from pipelines.runner import Outcome
from pipelines.stages import Fuse, GivenModel, InterpolatePoints, Match, Predict
from recon import synthetic
from recon.evaluation import evaluate_mesh
from recon.io import colmap
from recon.scene import DepthMap, Prediction
from recon.synthetic import Capture, PointSampling
from recon.synthetic.distortion import FineErrors
from tests.benchmarks.plain_backend import plain_depth, plain_fusion, plain_reconstruction

VOXEL_SIZE = 0.02  # of a room of 4 x 3 x 2.5
TRUNCATION = 4 * VOXEL_SIZE
THRESHOLDS = (0.01, 0.02, 0.05)
VIEWS = 12
OUTLIERS = 0.08
NORMAL_ERROR_DEG = 6.0
SEEN_SHARE = 0.2  # of all points, by one view that keeps 70 % of what it sees


def capture_room(seed: int, anchors: int) -> Capture:
    world = synthetic.room(seed)
    cameras = synthetic.room_cameras(world, 640, 480, VIEWS)
    points = PointSampling(count=round(anchors / SEEN_SHARE), outliers=OUTLIERS)
    return synthetic.capture(world, cameras, seed=seed, points=points)


def predictions_of(capture: Capture, seed: int) -> dict[str, Prediction]:
    part = NORMAL_ERROR_DEG / np.sqrt(2)
    fine = FineErrors(normal_tilt_deg=part, normal_noise_deg=part)
    return {
        name: synthetic.distort(truth, seed=(seed, number), fine=fine)
        for number, (name, truth) in enumerate(capture.depth_maps.items())
    }


def write_inputs(capture: Capture, predictions: dict[str, Prediction], folder: Path) -> None:
    """Writes `images` and `sparse`, which is COLMAP's undistorted layout, and `predictions`."""
    synthetic.write_photos(capture, folder / "images")
    synthetic.write_predictions(predictions, folder / "predictions")
    colmap.write_model(colmap.model_from_scene(capture.scene), folder / "sparse")


def our_run(
    capture: Capture,
    predictions: dict[str, Prediction],
    folder: Path,
    fuse: Fuse,
    *,
    use_photos: bool = True,
    predict: InterpolatePoints | Predict | None = None,
    second_pass: bool = False,
) -> Outcome:
    """Runs the pipeline on predictions, or with another source of them."""
    write_inputs(capture, predictions, folder)
    pipeline = replace(
        MultiView(),
        cameras=GivenModel(folder / "sparse"),
        predict=predict or FromFiles(folder / "predictions"),
        match=Match() if use_photos else Match(neighbours=0),
        second_pass=second_pass,
        fuse=fuse,
    )
    photos = find_photos(folder / "images", folder / "cache")
    return run(pipeline, photos, DiskStore(folder / "cache"))


def abs_rel(capture: Capture, depths: dict[str, np.ndarray]) -> float:
    """Mean over the views of the mean relative error where there is depth."""
    errors = []
    for name, depth in depths.items():
        truth = capture.depth_maps[name].depth
        judged = (depth > 0) & (truth > 0)
        errors.append(np.abs(depth[judged] / truth[judged] - 1).mean())
    return float(np.mean(errors))


def constant_predictions(capture: Capture, depth: float = 2.0) -> dict[str, Prediction]:
    """One depth for all pixels, as of a network that knows nothing."""
    return {
        name: Prediction(np.full_like(truth.depth, depth), "scale", _facing(truth))
        for name, truth in capture.depth_maps.items()
    }


def _facing(truth: DepthMap) -> np.ndarray:
    normals = np.zeros_like(truth.normals)
    normals[..., 2] = -1
    return normals


def other_source(prior: str) -> InterpolatePoints | Predict | None:
    """The stage that stands in for predictions drawn from the truth."""
    if prior in ("distorted", "constant"):
        return None
    return InterpolatePoints() if prior == "points" else Predict(LotusPredictor(prior))


def compare(seed: int, anchors: int, prior: str, use_photos: bool, second_pass: bool) -> dict:
    capture = capture_room(seed, anchors)
    constant = prior == "constant"
    predictions = constant_predictions(capture) if constant else predictions_of(capture, seed)
    views = list(capture.scene.views)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        outcome = our_run(
            capture,
            predictions,
            Path(folder),
            Fuse(VOXEL_SIZE, TRUNCATION),
            use_photos=use_photos,
            predict=other_source(prior),
            second_pass=second_pass,
        )
        ours, our_seconds = outcome.get("mesh"), time.perf_counter() - started
        depths = {name: outcome.get("checked", name).depth_map.depth for name in outcome.views("checked")}
        steps = {step.artifact: round(step.seconds / VIEWS, 2) for step in outcome.steps}
    exact = {name: depth_map.depth for name, depth_map in capture.depth_maps.items()}
    meshes = {"ours": ours}
    for name, maps in (("exact", exact), ("our_maps", depths)):
        meshes[name] = plain_fusion(views, maps, capture.images, VOXEL_SIZE, TRUNCATION, min_views=0.5)
    errors, seconds = {"ours": abs_rel(capture, depths)}, {"ours": our_seconds}
    if prior == "distorted":  # it gives no mesh of predictions without depth
        started = time.perf_counter()
        meshes["plain"] = plain_reconstruction(
            capture.scene, predictions, capture.images, VOXEL_SIZE, TRUNCATION
        )
        seconds["plain"] = time.perf_counter() - started
        plain_depths = {
            view.name: plain_depth(predictions[view.name], capture.scene.anchors(view)) for view in views
        }
        errors["plain"] = abs_rel(capture, plain_depths)
    scores = {
        name: evaluate_mesh(mesh, capture.mesh, thresholds=THRESHOLDS, views=views)
        for name, mesh in meshes.items()
    }
    counts = [len(capture.scene.anchors(view)) for view in views]
    return {
        "seed": seed,
        "anchors": [min(counts), max(counts)],
        "thresholds": THRESHOLDS,
        **{name: [round(value, 4) for value in score.f_score] for name, score in scores.items()},
        "normal_consistency": {name: round(s.normal_consistency or 0, 4) for name, s in scores.items()},
        "abs_rel": {name: round(value, 5) for name, value in errors.items()},
        "coverage": round(float(np.mean([(depth > 0).mean() for depth in depths.values()])), 4),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_per_view": steps,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--anchors", type=int, default=1500, help="about as many per view")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument(
        "--prior",
        default="distorted",
        help="distorted, constant (one depth), points (interpolated), or a Lotus checkpoint (lotus-tiny)",
    )
    parser.add_argument("--no-photos", action="store_true", help="depth is not measured in the photos")
    parser.add_argument("--second-pass", action="store_true", help="photos are compared twice")
    arguments = parser.parse_args()
    for number in arguments.seeds:
        row = compare(
            number, arguments.anchors, arguments.prior, not arguments.no_photos, arguments.second_pass
        )
        print(json.dumps(row), flush=True)
