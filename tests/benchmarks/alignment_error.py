"""Depth error, calibration and time of the alignment with and without correction; prints JSON.

Views of a synthetic world get predictions with a smooth error (`--bend`), and some of their sparse points.
Errors are relative, in percent, means over the views; pixels near depth edges, which the predictions blur,
count in the errors but not in the calibration. With `--mesh`, the F-scores of the fused meshes of ours,
of ours without correction, of the plain back end, and of the exact depth.

    python tests/benchmarks/alignment_error.py --world room --seed 3 --outliers 0.2 --anchors 0 300 100 20
"""

import argparse
import json
import time

import numpy as np
from plain_backend import plain_fusion, plain_reconstruction

from recon import synthetic
from recon.alignment import align
from recon.evaluation import evaluate_mesh
from recon.fusion import TSDFVolume
from recon.geometry import depth_edges
from recon.scene import DepthMap, Mesh, Prediction, SparseDepth
from recon.synthetic import Capture, PointSampling
from recon.synthetic.distortion import near_edges

BLUR_PX = 1.5
THRESHOLDS = (0.01, 0.02, 0.04, 0.05)


def walk(arguments: argparse.Namespace) -> Capture:
    """Photos, exact depth and sparse points of a walk through the world."""
    world = getattr(synthetic, arguments.world)(arguments.seed)
    place_cameras = getattr(synthetic, f"{arguments.world}_cameras")
    cameras = place_cameras(world, arguments.width, arguments.width * 3 // 4, arguments.views)
    sampling = PointSampling(count=arguments.points, outliers=arguments.outliers)
    return synthetic.capture(world, cameras, seed=arguments.seed, supersample=1, points=sampling)


def some_of(anchors: SparseDepth, count: int, seed: tuple[int, ...]) -> SparseDepth:
    """At most `count` of the anchors; all for 0."""
    kept = np.sort(np.random.default_rng(seed).permutation(len(anchors))[: count or len(anchors)])
    return SparseDepth(anchors.uv[kept], anchors.depth[kept], anchors.sigma[kept])


def score(found: DepthMap, exact: DepthMap) -> dict[str, float]:
    """Errors and coverage of one depth map."""
    judged = (found.depth > 0) & (exact.depth > 0)
    log_error = np.abs(np.log(found.depth[judged] / exact.depth[judged]))
    relative = np.abs(found.depth[judged] / exact.depth[judged] - 1)
    inner = (near_edges(depth_edges(exact.depth), BLUR_PX) == 0)[judged]
    stretch = (log_error / (found.sigma[judged] / found.depth[judged]))[inner]
    return {
        "abs_rel": 100 * float(relative.mean()),
        "median": 100 * float(np.median(relative)),
        "within_68": 100 * float((stretch <= 1).mean()),
        "within_95": 100 * float((stretch <= 1.96).mean()),
    }


def compare(capture: Capture, predictions: dict[str, Prediction], count: int, seed: int) -> dict[str, object]:
    """Mean scores over the views for one number of anchors."""
    rows: dict[str, list[dict[str, float]]] = {"plain": [], "corrected": []}
    for index, view in enumerate(capture.scene.views):
        anchors = some_of(capture.scene.anchors(view), count, (seed, index))
        for name in rows:
            start = time.process_time()
            aligned = align(
                predictions[view.name], anchors, view.camera, min_points=10, correct=name == "corrected"
            )
            row = score(aligned.depth_map, capture.depth_maps[view.name])
            row |= {"cpu_s": time.process_time() - start, "corrected": float(aligned.fit.corrected)}
            rows[name].append(row | {"held_out": 100 * aligned.fit.held_out_error})
    ours, plain = ([row["median"] for row in rows[name]] for name in ("corrected", "plain"))
    means = {
        name: {key: round(float(np.mean([row[key] for row in table])), 3) for key in table[0]}
        for name, table in rows.items()
    }
    return {**means, "worst_ratio_of_medians": round(float(np.max(np.divide(ours, plain))), 3)}


def f_scores(
    capture: Capture, predictions: dict[str, Prediction], voxel_size: float
) -> dict[str, dict[str, float]]:
    """F-scores of meshes at the same voxel size and truncation distance."""
    truncation = 4 * voxel_size
    exact = {name: depth_map.depth for name, depth_map in capture.depth_maps.items()}
    views = list(capture.scene.views)
    meshes = {
        "corrected": fused(capture, predictions, voxel_size, correct=True),
        "uncorrected": fused(capture, predictions, voxel_size, correct=False),
        "plain": plain_reconstruction(capture.scene, predictions, capture.images, voxel_size, truncation),
        "exact depth": plain_fusion(views, exact, capture.images, voxel_size, truncation),
    }
    found = {}
    for name, mesh in meshes.items():
        result = evaluate_mesh(mesh, capture.mesh, thresholds=THRESHOLDS, views=views)
        found[name] = {
            f"f_{limit:g}": round(f, 3) for limit, f in zip(THRESHOLDS, result.f_score, strict=True)
        }
        found[name]["normals"] = round(result.normal_consistency or 0.0, 3)
    return found


def fused(capture: Capture, predictions: dict[str, Prediction], voxel_size: float, *, correct: bool) -> Mesh:
    """Mesh of the aligned predictions."""
    volume = TSDFVolume(voxel_size)
    for view in capture.scene.views:
        anchors = capture.scene.anchors(view)
        aligned = align(predictions[view.name], anchors, view.camera, correct=correct)
        volume.integrate(aligned.depth_map, view.cam_from_world)
    return volume.extract()


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", default="room", choices=["room", "tabletop"])
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--outliers", type=float, default=0.0)
    parser.add_argument("--bend", type=float, default=0.06)
    parser.add_argument("--anchors", type=int, nargs="*", default=[0, 300, 100, 20], help="0: all")
    parser.add_argument("--mesh", type=float, help="voxel size; scores meshes too")
    arguments = parser.parse_args()
    capture = walk(arguments)
    predictions = {
        name: synthetic.distort(
            depth_map, seed=(arguments.seed, index), bend=arguments.bend, edge_blur_px=BLUR_PX
        )
        for index, (name, depth_map) in enumerate(capture.depth_maps.items())
    }
    counts = [len(capture.scene.anchors(view)) for view in capture.scene.views]
    report: dict[str, object] = {"arguments": vars(arguments), "anchors": [min(counts), max(counts)]}
    for count in arguments.anchors:
        report[f"{count or 'all'} anchors"] = compare(capture, predictions, count, arguments.seed)
    if arguments.mesh:
        report["meshes"] = f_scores(capture, predictions, arguments.mesh)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
