"""Views with anchors, and depth to judge by, for `alignment_baselines.py`: synthetic, tracks, RGB-D.

- synthetic: sparse points as SfM would triangulate them; judged by the exact depth of every third pixel.
- tracks: photos with given cameras (`cameras.json`), points triangulated by COLMAP. 30 % of the tracks are
  hidden in every view and judge. There is no network here: the "prediction" is the smooth field through ALL
  points (`recon.interpolation`), distorted. So it knows the hidden points up to that field's own error, which
  no smooth correction removes; the rows `undistorted field` of the table show how much that is.
- rgbd: sensor depth is the truth and, distorted, the prediction; anchors are some of its pixels with noise.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon import synthetic
from recon.geometry import depth_edges, normals_from_depth, pixel_centers, sample_depth
from recon.interpolation import interpolate_points, to_depth_map
from recon.io import colmap
from recon.io.colmap import SfmOptions
from recon.io.sequences import read_sequence
from recon.scene import Camera, DepthMap, Scene, SparseCloud, SparseDepth, View

WIDTH = 320
POINTS = 12_000  # of a synthetic world, so that nearly every view has 1000 anchors
JUDGED_STEP = 3  # pixels between those that judge, along u and v
HIDDEN_SHARE = 0.3
SENSOR_NOISE = 0.005  # relative, of anchors taken from sensor depth
SENSOR_ANCHORS = 3000
SENSOR_VIEWS = 8
SPLINE_ERROR = 0.01  # relative; only its sign matters here
WRONG_DEPTH = (0.6, 1.6)  # range of the factor by which an outlier is off, as in `recon.synthetic`
PHOTO_SIZE = 1000  # longer side for features


@dataclass(frozen=True, eq=False)
class Sample:
    """One view: where anchors may be, and where the answer is known."""

    view: View
    """Of the size of the prediction."""

    truth: DepthMap
    """To be distorted."""

    pool: SparseDepth
    judged_uv: np.ndarray
    judged_depth: np.ndarray


def synthetic_samples(world_name: str, seed: int, views: int) -> list[Sample]:
    """A ring of views of a synthetic world."""
    world = getattr(synthetic, world_name)(seed)
    cameras = getattr(synthetic, f"{world_name}_cameras")(world, WIDTH, WIDTH * 3 // 4, views)
    points = synthetic.PointSampling(count=POINTS)
    seen = synthetic.capture(world, cameras, seed=seed, supersample=1, points=points)
    return [
        _densely_judged(view, seen.depth_maps[view.name], seen.scene.anchors(view))
        for view in seen.scene.views
    ]


def track_samples(folder: Path, work: Path, seed: int) -> list[Sample]:
    """Photos with given cameras; 30 % of the tracks judge."""
    views = list(_given_views(folder))
    photos = {view.name: folder / view.name for view in views}
    work.mkdir(parents=True, exist_ok=True)
    model = colmap.triangulate(photos, views, work, SfmOptions(max_image_size=PHOTO_SIZE))
    scene = colmap.scene_from_model(model, photos, max_size=WIDTH)
    assert scene.cloud is not None
    hidden = np.random.default_rng(seed).random(len(scene.cloud.points)) < HIDDEN_SHARE
    shown_scene, hidden_scene = (_part(scene, chosen) for chosen in (~hidden, hidden))
    samples = []
    for view in scene.views:
        every, shown, judged = (part.anchors(view) for part in (scene, shown_scene, hidden_scene))
        field = to_depth_map(interpolate_points(every, view.camera), view.camera, SPLINE_ERROR)
        known = sample_depth(field.depth, judged.uv) > 0
        samples.append(Sample(view, field, shown, judged.uv[known], judged.depth[known]))
    return samples


def sensor_samples(folder: Path, seed: int) -> list[Sample]:
    """RGB-D frames, evenly spread over the sequence."""
    sequence = read_sequence(folder)
    chosen = np.unique(np.linspace(0, len(sequence.frames) - 1, SENSOR_VIEWS).astype(int))
    samples = []
    for number in chosen:
        frame = sequence.frames[number]
        full = sequence.read_depth(frame)
        step = full.shape[1] // WIDTH
        depth = np.ascontiguousarray(full[step // 2 :: step, step // 2 :: step])
        height, width = depth.shape
        camera = frame.view.camera.resized(width, height)
        normals = normals_from_depth(camera.K, depth)
        truth = DepthMap(camera, depth, normals, (SENSOR_NOISE * depth).astype(np.float32))
        view = View(frame.name, camera, frame.view.cam_from_world)
        samples.append(_densely_judged(view, truth, _noisy_pixels(depth, (seed, int(number)))))
    return samples


def some_anchors(pool: SparseDepth, count: int, outliers: float, seed: tuple[int, ...]) -> SparseDepth:
    """`count` of the anchors, a share of them wrong."""
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(pool))[:count]
    factor = np.ones(len(kept))
    factor[: round(outliers * len(kept))] = rng.uniform(*WRONG_DEPTH, round(outliers * len(kept)))
    return SparseDepth(pool.uv[kept], pool.depth[kept] * factor, pool.sigma[kept])


def _densely_judged(view: View, truth: DepthMap, pool: SparseDepth) -> Sample:
    uv = pixel_centers(view.camera.width, view.camera.height)[1::JUDGED_STEP, 1::JUDGED_STEP].reshape(-1, 2)
    depth = truth.depth[1::JUDGED_STEP, 1::JUDGED_STEP].ravel().astype(np.float64)
    return Sample(view, truth, pool, uv[depth > 0], depth[depth > 0])


def _noisy_pixels(depth: np.ndarray, seed: tuple[int, ...]) -> SparseDepth:
    rng = np.random.default_rng(seed)
    v, u = np.nonzero((depth > 0) & ~depth_edges(depth))
    kept = rng.permutation(len(u))[:SENSOR_ANCHORS]
    z = depth[v[kept], u[kept]].astype(np.float64)
    noisy = z * (1 + SENSOR_NOISE * rng.standard_normal(len(z)))
    return SparseDepth(np.stack([u[kept], v[kept]], axis=1) + 0.5, noisy, SENSOR_NOISE * z)


def _given_views(folder: Path) -> Iterator[View]:
    """Views of `cameras.json`, whose first pixel is centred on (0, 0)."""
    for given in json.loads((folder / "cameras.json").read_text())["cameras"]:
        K = np.array(given["K"], np.float64)
        K[:2, 2] += 0.5
        left, _, right = np.linalg.svd(np.array(given["R"], np.float64))  # printed with few digits
        cam_from_world = np.eye(4)
        cam_from_world[:3] = np.column_stack([left @ right, given["t"]])
        yield View(given["image"], Camera(K, given["width"], given["height"]), cam_from_world)


def _part(scene: Scene, chosen: np.ndarray) -> Scene:
    """The scene with some of its points."""
    cloud = scene.cloud
    assert cloud is not None
    rows = chosen[cloud.seen[:, 0]]
    renumbered = np.cumsum(chosen) - 1
    seen = np.stack([renumbered[cloud.seen[rows, 0]], cloud.seen[rows, 1]], axis=1).astype(np.int64)
    part = SparseCloud(cloud.points[chosen], cloud.colors[chosen], cloud.errors[chosen], seen, cloud.uv[rows])
    return Scene(scene.views, part)
