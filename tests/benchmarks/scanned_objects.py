"""Mesh of scanned objects on a table: the whole back end on photos of real textures.

    python -m tests.benchmarks.scanned_objects FOLDER [--scenes box_bottle cat all] [--anchors 1000]
        [--prior constant]

FOLDER holds `mesh_ycb` and `mesh_cat_statue`. 16 photos of 640x480 from one and a half turns around, true
cameras, sparse points of which 8 % are wrong, predictions with a smooth error of 6 %, clipped as Lotus clips,
with normals 6 degrees off. Voxels and truncation are what the pipeline chooses.

Prints one JSON object per scene: F-scores, precision and recall at 2 and 4 mm, normal consistency, mean
relative error of each step's depth, seconds. `exact` is this project's fusion of the true depth at the same
voxel size, `exact_4mm` Open3D's at 4 mm. With `--keep FOLDER` the runs and pictures stay there.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from pipelines.runner import Outcome
from pipelines.stages import ExtractMesh, Fuse
from pipelines.stages.maps import enlarged
from recon.evaluation import MeshScore, error_colors, evaluate_mesh, vertex_distances
from recon.io.images import write_image
from recon.raycasting import RayCaster
from recon.scene import DepthMap, Mesh
from recon.synthetic import Capture, PointSampling
from tests.benchmarks.plain_backend import plain_fusion
from tests.benchmarks.room_mesh import (
    OUTLIERS,
    abs_rel,
    constant_predictions,
    other_source,
    our_run,
    predictions_of,
)
from tests.benchmarks.scanned_world import SCENES, capture_objects

VIEWS = 16
THRESHOLDS = (0.002, 0.004)
OPEN3D_VOXEL = 0.004
SEEN_SHARE = 0.33  # of all points, by one view that keeps 70 % of what it sees
CONSTANT_DEPTH = 0.8
ERROR_LIMIT = 0.004  # red in the pictures
STEPS = ("aligned", "refined", "measured", "settled", "checked")
DRAWN = (0, 5, 9, 14)  # views in the pictures


def capture_of(folder: Path, scene: str, seed: int, anchors: int) -> Capture:
    points = PointSampling(count=round(anchors / SEEN_SHARE), outliers=OUTLIERS)
    return capture_objects(folder, scene, seed=seed, views=VIEWS, points=points)


def fused(capture: Capture, maps: dict[str, DepthMap], voxel_size: float) -> Mesh:
    """Returns this project's fusion of some depth maps."""
    stage = Fuse(voxel_size)
    volume = stage.start(maps.values())
    for view in capture.scene.views:
        stage.add(volume, view, maps[view.name], capture.images[view.name])
    return ExtractMesh()(volume=volume)


def depth_of(outcome: Outcome, step: str, capture: Capture, view: str) -> np.ndarray:
    """Returns what a step made of a view, at the photo's size."""
    return enlarged(outcome.get(step, view).depth_map, capture.depth_maps[view].camera).depth


def score(capture: Capture, mesh: Mesh) -> MeshScore:
    return evaluate_mesh(mesh, capture.mesh, thresholds=THRESHOLDS, views=capture.scene.views)


def described(found: MeshScore) -> dict:
    rounded = {
        name: [round(value, 4) for value in getattr(found, name)]
        for name in ("f_score", "precision", "recall")
    }
    return {**rounded, "normal_consistency": round(found.normal_consistency or 0, 4)}


def draw(capture: Capture, mesh: Mesh, path: Path) -> None:
    """Writes photos, the mesh, and the mesh in the colours of its error: blue 0, red from 4 mm on."""
    wrong = error_colors(mesh, vertex_distances(mesh, capture.mesh), ERROR_LIMIT)
    views = [capture.scene.views[index] for index in DRAWN]
    rows = [[capture.images[view.name] for view in views]]
    for shown, colored in ((mesh, False), (wrong, True)):
        caster = RayCaster(shown)
        rows.append([caster.draw(view.camera, view.cam_from_world, colored=colored) for view in views])
    write_image(path, np.concatenate([np.concatenate(row, axis=1) for row in rows]))


def compare(capture: Capture, seed: int, prior: str, work: Path) -> dict:
    constant = prior == "constant"
    predictions = constant_predictions(capture, CONSTANT_DEPTH) if constant else predictions_of(capture, seed)
    started = time.perf_counter()
    outcome = our_run(capture, predictions, work, Fuse(), predict=other_source(prior))
    mesh, seconds = outcome.get("mesh"), time.perf_counter() - started
    voxel_size = outcome.get("volume").voxel_size
    exact = {name: depth_map.depth for name, depth_map in capture.depth_maps.items()}
    views = list(capture.scene.views)
    open3d = plain_fusion(views, exact, capture.images, OPEN3D_VOXEL, 4 * OPEN3D_VOXEL)
    depths = {
        step: {view: depth_of(outcome, step, capture, view) for view in outcome.views(step)} for step in STEPS
    }
    draw(capture, mesh, work / "mesh.png")
    return {
        "voxel_size": round(voxel_size, 5),
        "anchors": [len(capture.scene.anchors(view)) for view in views],
        "thresholds": THRESHOLDS,
        "ours": described(score(capture, mesh)),
        "exact": described(score(capture, fused(capture, dict(capture.depth_maps), voxel_size))),
        "exact_4mm": described(score(capture, open3d)),
        "abs_rel": {step: round(abs_rel(capture, found), 5) for step, found in depths.items()},
        "coverage": {step: round(coverage(capture, found), 4) for step, found in depths.items()},
        "seconds": round(seconds, 1),
        "seconds_per_view": {step.artifact: round(step.seconds / VIEWS, 2) for step in outcome.steps},
    }


def coverage(capture: Capture, depths: dict[str, np.ndarray]) -> float:
    """Mean over the views of the share of pixels with true depth that have some."""
    shares = []
    for name, depth in depths.items():
        true = capture.depth_maps[name].depth > 0
        shares.append(float((depth[true] > 0).mean()))
    return float(np.mean(shares))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds mesh_ycb and mesh_cat_statue")
    parser.add_argument("--scenes", nargs="*", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--anchors", type=int, default=1000, help="about as many per view")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", default="distorted", help="as in room_mesh")
    parser.add_argument("--keep", type=Path, help="folder for runs and pictures")
    arguments = parser.parse_args()
    for scene in arguments.scenes:
        taken = capture_of(arguments.folder, scene, arguments.seed, arguments.anchors)
        with tempfile.TemporaryDirectory() as folder:
            work = (arguments.keep or Path(folder)) / scene
            row = compare(taken, arguments.seed, arguments.prior, work)
        print(json.dumps({"scene": scene, "seed": arguments.seed, **row}), flush=True)
