"""Depth before and after the photometric refinement, per scene; prints one JSON object per line.

    python -m tests.benchmarks.photometric_depth room:3 tabletop:3 room:3:flat fountain=FOLDER temple=FOLDER

A word names a synthetic world and its seed; `flat` replaces the predictions by one depth range. A word with =
is a folder with `cameras.json` and photos, whose cameras are taken as given: 70 % of its sparse points make
the prior, the others judge; `points_off` is the median error that the judges' own sigma makes. Errors are
relative, percent; `share` is of the pixels (or points) with truth.
`within_68` and `within_95` are the shares of errors within 1 and 1.96 sigma, away from depth edges.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon import interpolation, synthetic
from recon.alignment import align
from recon.geometry import depth_edges, sample, sample_depth
from recon.io import colmap
from recon.io.images import read_photo, resize_image
from recon.photometric import Photo, choose_neighbours, cross_check, depth_range, flat_prior, refine
from recon.scene import Camera, DepthMap, Scene, SparseDepth, View
from recon.synthetic.distortion import near_edges

NEIGHBOURS = 4
NORMAL_ERRORS = synthetic.FineErrors(normal_tilt_deg=4.2, normal_noise_deg=4.2)  # 6 degrees together
GATE = 3.0  # standard deviations by which prior and measurement may differ and still be averaged
HELD_OUT = 0.3
SIZE = 1024  # longer side of real photos, px
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Round:
    """What one pass over all views gives."""

    measured: Mapping[str, DepthMap]
    checked: Mapping[str, DepthMap]
    merged: Mapping[str, DepthMap]
    cpu_s: float
    wall_s: float


def merge(prior: DepthMap, measured: DepthMap) -> DepthMap:
    """The precision-weighted mean where both agree, the measurement where they do not, else the prior."""
    known, seen = prior.depth > 0, measured.depth > 0
    precision = [
        1 / np.square(np.where(m.depth > 0, m.sigma, 1).astype(np.float64)) for m in (prior, measured)
    ]
    precision[0] *= known
    precision[1] *= seen
    apart = np.abs(prior.depth - measured.depth) > GATE * np.hypot(prior.sigma, measured.sigma)
    precision[0] *= ~(seen & apart)
    total = np.maximum(precision[0] + precision[1], np.finfo(float).tiny)
    depth = (precision[0] * prior.depth + precision[1] * measured.depth) / total
    normals = np.where(known[..., None], prior.normals, measured.normals)
    sigma = np.where(known | seen, 1 / np.sqrt(total), 0)
    return DepthMap(prior.camera, depth.astype(np.float32), normals, sigma.astype(np.float32))


def run_round(
    scene: Scene, photos: Mapping[str, Photo], priors: Mapping[str, DepthMap], camera_error_px: float
) -> Round:
    chosen = {view.name: choose_neighbours(scene, view, count=NEIGHBOURS) for view in scene.views}
    cpu, wall = time.process_time(), time.perf_counter()
    found = {
        view.name: refine(
            photos[view.name],
            priors[view.name],
            [photos[other.name] for other in chosen[view.name]],
            camera_error_px=camera_error_px,
        )
        for view in scene.views
    }
    maps = {name: measurement.depth_map for name, measurement in found.items()}
    checked = {
        view.name: cross_check(
            found[view.name],
            view.cam_from_world,
            [(maps[other.name], other.cam_from_world) for other in chosen[view.name]],
        ).depth_map
        for view in scene.views
    }
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    merged = {name: merge(priors[name], checked[name]) for name in maps}
    count = len(scene.views)
    return Round(maps, checked, merged, round(cpu / count, 2), round(wall / count, 2))


def mean_scores(found: Mapping[str, DepthMap], exact: Mapping[str, DepthMap]) -> dict[str, float]:
    rows = [score(found[name], exact[name]) for name in exact]
    return {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}


def score(found: DepthMap, exact: DepthMap) -> dict[str, float]:
    true = exact.depth > 0
    judged = true & (found.depth > 0)
    relative = np.abs(found.depth[judged] / exact.depth[judged] - 1)
    inner = (near_edges(depth_edges(exact.depth), 1.5) == 0)[judged]
    stretch = (relative / (found.sigma[judged] / exact.depth[judged]))[inner]
    return {
        "share": float(judged.sum() / true.sum()),
        "abs_rel": 100 * float(relative.mean()),
        "median": 100 * float(np.median(relative)),
        "over_1_percent": 100 * float((relative > 0.01).mean()),
        "over_3_percent": 100 * float((relative > 0.03).mean()),
        "within_68": 100 * float((stretch <= 1).mean()),
        "within_95": 100 * float((stretch <= 1.96).mean()),
    }


def synthetic_scene(word: str) -> dict:
    name, seed, *rest = word.split(":")
    world = getattr(synthetic, name)(int(seed))
    cameras = getattr(synthetic, f"{name}_cameras")(world, 640, 480, 12 if name == "room" else 16)
    points = synthetic.PointSampling(count=2000, outliers=0.05)
    capture = synthetic.capture(world, cameras, seed=int(seed), points=points)
    scene, exact = capture.scene, capture.depth_maps
    photos = {v.name: Photo(v.camera, v.cam_from_world, capture.images[v.name]) for v in scene.views}
    if rest == ["flat"]:
        priors = {view.name: flat_prior(view.camera, *depth_range(scene, view)) for view in scene.views}
    else:
        priors = {
            view.name: align(
                synthetic.distort(exact[view.name], seed=(int(seed), index), fine=NORMAL_ERRORS),
                scene.anchors(view),
                view.camera,
            ).depth_map
            for index, view in enumerate(scene.views)
        }
    result: dict = {"scene": word, "prior": mean_scores(priors, exact)}
    for number in (1, 2):
        done = run_round(scene, photos, priors, camera_error_px=0.02)
        result[f"round_{number}"] = {
            "measured": mean_scores(done.measured, exact),
            "checked": mean_scores(done.checked, exact),
            "merged": mean_scores(done.merged, exact),
            "cpu_s_per_view": done.cpu_s,
            "wall_s_per_view": done.wall_s,
        }
        priors = done.merged
    return result


def given_views(folder: Path) -> tuple[list[View], dict[str, Path]]:
    entries = json.loads((folder / "cameras.json").read_text())["cameras"]
    views = []
    for entry in entries:
        K = np.array(entry["K"], np.float64)
        K[0, 1] = 0
        K[:2, 2] += 0.5  # the file's pixel centres are whole numbers
        cam_from_world = np.eye(4)
        left, _, right = np.linalg.svd(np.array(entry["R"], np.float64))  # printed with few digits
        cam_from_world[:3, :3], cam_from_world[:3, 3] = left @ right, entry["t"]
        camera = Camera(K, entry["width"], entry["height"])
        views.append(View(Path(entry["image"]).name, camera, cam_from_world, folder / entry["image"]))
    return views, {view.name: view.image for view in views if view.image}


def real_scene(word: str) -> dict:
    name, folder = word.split("=")
    views, paths = given_views(Path(folder))
    with tempfile.TemporaryDirectory() as work:
        options = colmap.SfmOptions(max_image_size=1600)
        model = colmap.triangulate(paths, views, Path(work), options)
    scene = colmap.scene_from_model(model, paths, max_size=SIZE)
    photos = {
        view.name: Photo(
            view.camera,
            view.cam_from_world,
            resize_image(read_photo(paths[view.name], SIZE), view.camera.width, view.camera.height),
        )
        for view in scene.views
    }
    priors, judges = {}, {}
    for index, view in enumerate(scene.views):
        anchors = scene.anchors(view)
        held_out = np.random.default_rng(index).random(len(anchors)) < HELD_OUT
        priors[view.name] = interpolated(subset(anchors, ~held_out), view.camera)
        judges[view.name] = subset(anchors, held_out)
    done = run_round(scene, photos, priors, camera_error_px=0.2)
    stages = {"prior": priors, "measured": done.measured, "checked": done.checked, "merged": done.merged}
    return {
        "scene": name,
        "views": len(scene.views),
        "size": [scene.views[0].camera.width, scene.views[0].camera.height],
        "points_off": round(100 * points_off(list(judges.values())), 3),
        **{stage: at_points(maps, judges) for stage, maps in stages.items()},
        "cpu_s_per_view": done.cpu_s,
        "wall_s_per_view": done.wall_s,
    }


def subset(anchors: SparseDepth, kept: np.ndarray) -> SparseDepth:
    return SparseDepth(anchors.uv[kept], anchors.depth[kept], anchors.sigma[kept])


def interpolated(anchors: SparseDepth, camera: Camera) -> DepthMap:
    field = interpolation.interpolate_points(anchors, camera)
    off = np.abs(np.log(interpolation.predict_held_out(anchors, camera) / anchors.depth))
    return interpolation.to_depth_map(field, camera, MAD_TO_SIGMA * max(float(np.nanmedian(off)), 1e-3))


def points_off(judges: list[SparseDepth]) -> float:
    sigma = np.concatenate([points.sigma / points.depth for points in judges])
    return float(np.median(np.abs(sigma * np.random.default_rng(0).standard_normal(len(sigma)))))


def at_points(maps: Mapping[str, DepthMap], judges: Mapping[str, SparseDepth]) -> dict[str, float]:
    errors, stretches, total = [], [], 0
    for name, points in judges.items():
        depth = sample_depth(maps[name].depth, points.uv)
        seen = depth > 0
        off = np.abs(depth[seen] / points.depth[seen] - 1)
        sigma = sample(maps[name].sigma, points.uv)[seen]
        stretches.append(off * points.depth[seen] / np.hypot(sigma, points.sigma[seen]))
        errors.append(off)
        total += len(points)
    every, stretch = np.concatenate(errors), np.concatenate(stretches)
    return {
        "share": round(len(every) / total, 3),
        "median": round(100 * float(np.median(every)), 3),
        "over_1_percent": round(100 * float((every > 0.01).mean()), 2),
        "within_68": round(100 * float((stretch <= 1).mean()), 1),
        "within_95": round(100 * float((stretch <= 1.96).mean()), 1),
    }


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps(real_scene(argument) if "=" in argument else synthetic_scene(argument)), flush=True)
