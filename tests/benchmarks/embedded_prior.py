"""What a checkpoint's predictions are worth beside sparse points and photos, on real photos with given poses.

    python -m tests.benchmarks.embedded_prior fountain=../shared/data/mv_fountain_p11 \\
        desk=../shared/data/rgbd_tum_fr1_desk_9 [--checkpoint lotus-tiny] [--keep OUT]

A folder has `cameras.json`, or is a sequence with measured depth (7-Scenes, TUM, Redwood); of that only
photos and poses are used, measured depth judges. 30 % of the sparse points are kept from the programs and
judge as well. `aligned` is each photo's prediction put into scene units (the gate included) beside depth
interpolated between the points; `final` is what `recon multi` writes with and without the checkpoint, photos
compared. Per judge: the share that has depth, median and mean error of it and the share of all within 2 %,
percent.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lotus.predictor import LotusPredictor
from pipelines.cli import main as recon
from pipelines.stages.alignment import Align
from pipelines.stages.predictions import InterpolatePoints
from recon.errors import ReconError
from recon.geometry import sample_depth
from recon.io import colmap
from recon.io.images import read_photo, write_image
from recon.io.maps import read_depth_map
from recon.io.sequences import read_sequence
from recon.scene import Scene, SparseCloud, SparseDepth
from tests.benchmarks.embedded_model import SEQUENCES, registered
from tests.benchmarks.held_out import SHARE
from tests.benchmarks.photometric_depth import given_views

FEATURE_SIZE = 1600  # longer side of the photos in which the sparse points are found, px
MOST_FRAMES = 16  # of a sequence, evenly spread
FAR = 4.0  # m, up to which a sensor's depth judges


@dataclass(frozen=True)
class Case:
    scene: Scene
    judges: Mapping[str, SparseDepth]
    """Points kept back, by view."""

    sensed: Mapping[str, np.ndarray]
    """Measured depth, 0 = none; empty without a sensor."""


def case_of(source: Path, folder: Path) -> Case:
    if (source / "cameras.json").is_file():
        views, sensed = given_views(source)[0], {}
        paths = {view.name: view.image for view in views if view.image}
    else:
        sequence, zoom = read_sequence(source), SEQUENCES.get(source.name, (1, 1.0))[1]
        chosen = np.linspace(0, len(sequence.frames) - 1, min(MOST_FRAMES, len(sequence.frames)))
        frames = [sequence.frames[int(index)] for index in chosen]
        views, sensed, paths = [], {}, {}
        for number, frame in enumerate(frames):
            name = f"{number:03d}.png"
            paths[name] = folder / "given" / name
            write_image(paths[name], registered(frame, zoom))
            views.append(replace(frame.view, name=name, image=paths[name], lens=None))
            depth = sequence.read_depth(frame)
            sensed[name] = np.where(depth < FAR, depth, 0).astype(np.float32)
    options = colmap.SfmOptions(max_image_size=FEATURE_SIZE)
    model = colmap.triangulate(paths, views, folder / "features", options)
    scene = colmap.scene_from_model(model, paths)
    smaller, held = held_back(scene)
    judges = {view.name: replace(scene, cloud=held).anchors(view) for view in scene.views}
    return Case(smaller, judges, sensed)


def held_back(scene: Scene) -> tuple[Scene, SparseCloud]:
    """The scene without some of its points, and these."""
    cloud = scene.cloud
    assert cloud is not None
    held = np.random.default_rng(0).random(len(cloud.points)) < SHARE
    parts = []
    for chosen in (~held, held):
        number = np.cumsum(chosen) - 1
        rows = chosen[cloud.seen[:, 0]]
        seen = np.stack([number[cloud.seen[rows, 0]], cloud.seen[rows, 1]], axis=1)
        parts.append(
            SparseCloud(
                cloud.points[chosen], cloud.colors[chosen], cloud.errors[chosen], seen, cloud.uv[rows]
            )
        )
    return replace(scene, cloud=parts[0]), parts[1]


def aligned_maps(case: Case, predictor: LotusPredictor) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {"with": {}, "without": {}}
    for view in case.scene.views:
        assert view.image is not None
        points = case.scene.anchors(view)
        mask = np.ones((view.camera.height, view.camera.width), bool)
        try:
            alone = InterpolatePoints()(view=view, points=points, kept=mask)
            found["without"][view.name] = alone.depth_map.depth
            (prediction,) = predictor([read_photo(view.image)])
            aligned = Align()(view=view, scene=case.scene, points=points, prediction=prediction, kept=mask)
            found["with"][view.name] = aligned.depth_map.depth
        except ReconError as error:
            print(json.dumps({"view": view.name, "dropped": str(error)}), flush=True)
    return found


def final_maps(case: Case, folder: Path, checkpoint: str) -> dict[str, dict[str, np.ndarray]]:
    colmap.write_model(colmap.model_from_scene(case.scene), folder / "sparse")
    photos = folder / "photos"
    photos.mkdir()
    for view in case.scene.views:
        assert view.image is not None
        (photos / view.name).symlink_to(view.image.absolute())
    found = {}
    for name, more in {"with": ["--checkpoint", checkpoint], "without": ["--predictor", "points"]}.items():
        out = folder / name
        try:
            recon(["multi", str(photos), str(out), "--sparse", str(folder / "sparse"), *more])
        except SystemExit as stop:
            if stop.code:
                raise
        found[name] = {
            view.name: read_depth_map(path).depth
            for view in case.scene.views
            if (path := out / "depth" / f"{Path(view.name).stem}.npz").is_file()
        }
    return found


def scores(case: Case, maps: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    at_points, at_pixels, none = [], [], np.zeros((2, 2), np.float32)
    for view in case.scene.views:
        depth, points = maps.get(view.name, none), case.judges[view.name]
        size = np.array([depth.shape[1] / view.camera.width, depth.shape[0] / view.camera.height])
        found = sample_depth(depth, points.uv * size)
        at_points.append(np.where(found > 0, np.abs(found / points.depth - 1), np.nan))
        if view.name in case.sensed:
            truth = case.sensed[view.name]
            rows = (np.arange(truth.shape[0]) + 0.5) * depth.shape[0] / truth.shape[0]
            columns = (np.arange(truth.shape[1]) + 0.5) * depth.shape[1] / truth.shape[1]
            found = depth[rows.astype(int)][:, columns.astype(int)]
            off = np.where(found > 0, np.abs(found / np.maximum(truth, 1e-6) - 1), np.nan)
            at_pixels.append(off[truth > 0])
    judged = {"points": at_points} | ({"sensor": at_pixels} if at_pixels else {})
    return {name: summary(np.concatenate(parts)) for name, parts in judged.items()}


def summary(errors: np.ndarray) -> dict[str, float]:
    known = errors[np.isfinite(errors)]
    return {
        "share": round(100 * len(known) / len(errors), 1),
        "median": round(100 * float(np.median(known)), 3),
        "mean": round(100 * float(known.mean()), 3),
        "within_2_percent": round(100 * float((known < 0.02).sum() / len(errors)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--checkpoint", default="lotus-tiny")
    parser.add_argument("--keep", type=Path, help="new folder for inputs and results")
    options = parser.parse_args()
    predictor = LotusPredictor(options.checkpoint, device="cpu")
    with tempfile.TemporaryDirectory() as temporary:
        for word in options.scenes:
            name, _, source = word.partition("=")
            folder = (options.keep or Path(temporary)).absolute() / name
            (folder / "given").mkdir(parents=True)
            case = case_of(Path(source), folder)
            count = int(np.median([len(case.scene.anchors(view)) for view in case.scene.views]))
            print(json.dumps({"scene": name, "views": len(case.scene.views), "points": count}), flush=True)
            show(name, "aligned", case, aligned_maps(case, predictor))
            show(name, "final", case, final_maps(case, folder, options.checkpoint))


def show(name: str, step: str, case: Case, found: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    for way, maps in found.items():
        print(json.dumps({"scene": name, "step": step, "way": way, **scores(case, maps)}), flush=True)


if __name__ == "__main__":
    main()
