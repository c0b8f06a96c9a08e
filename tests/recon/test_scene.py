"""The values check themselves when made; a scene knows which points a view can trust."""

from dataclasses import replace

import numpy as np
import pytest

from recon import (
    Camera,
    DepthMap,
    InputError,
    Mesh,
    Prediction,
    Scene,
    SparseCloud,
    SparseDepth,
    View,
    ViewError,
    synthetic,
)
from recon.geometry import look_at, project, sample_depth, transform

CAMERA = Camera.from_fov(32, 24, 60.0)


def looking(center: tuple[float, float, float], name: str) -> View:
    pose = look_at(np.array(center), np.array([0.0, 0, 4]), np.array([0.0, 1, 0]))
    return View(name, CAMERA, pose)


def cloud_of(points: np.ndarray, views: list[View], **changes: object) -> SparseCloud:
    count = len(points)
    seen = np.array([(point, view) for point in range(count) for view in range(len(views))], np.int64)
    uv = np.concatenate(
        [[project(view.camera.K, transform(view.cam_from_world, p)) for view in views] for p in points]
    )
    fields = {
        "points": points,
        "colors": np.zeros((count, 3), np.uint8),
        "errors": np.full(count, 0.5),
        "seen": seen,
        "uv": uv,
    }
    return SparseCloud(**(fields | changes))  # type: ignore[arg-type]


def test_resizing_scales_K_and_adds_nothing() -> None:
    half = CAMERA.resized(16, 12)
    assert np.allclose(half.K[:2], CAMERA.K[:2] / 2)
    assert np.allclose(CAMERA.fitted(16).K, half.K)


def test_fov_is_the_angle_between_the_outer_borders() -> None:
    left, right = (np.linalg.inv(CAMERA.K) @ [u, 12, 1] for u in (0, 32))
    cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    assert np.isclose(np.degrees(np.arccos(cosine)), 60)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Camera(np.diag([-1.0, 1, 1]), 4, 3), "positive focal lengths"),
        (lambda: Camera(np.eye(3), 0, 3), "size 0x3"),
        (lambda: Camera.from_fov(4, 3, 180.0), "field of view"),
        (lambda: View("a", CAMERA, 2 * np.eye(4)), "no rotation"),
        (lambda: View("a", CAMERA, np.full((4, 4), np.nan)), "NaN"),
        (lambda: Prediction(np.zeros((3, 4), np.float32), "depth"), "wanted one of metric"),
        (lambda: SparseDepth(np.zeros((1, 2)), np.zeros(1), np.ones(1)), "must be positive"),
        (lambda: Mesh(np.zeros((2, 3)), np.array([[0, 1, 2]])), "outside 0..1"),
        (lambda: Scene((looking((0.0, 0, 0), "a"), looking((1.0, 0, 0), "a"))), "same name"),
    ],
)
def test_wrong_values_are_named(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(("depth", "sigma"), [(-1.0, 1.0), (np.nan, 1.0), (1.0, 0.0), (np.inf, 1.0)])
def test_depth_map_refuses_what_cannot_be_fused(depth: float, sigma: float) -> None:
    maps = (np.full((24, 32), value, np.float32) for value in (depth, sigma))
    with pytest.raises(InputError):
        DepthMap(CAMERA, next(maps), np.zeros((24, 32, 3), np.float32), next(maps))


def test_anchors_are_the_points_at_their_depth() -> None:
    views = [looking((x, 0.0, 0), f"{x}") for x in (-1.0, 0.0, 1.0)]
    points = np.array([[0.0, 0, 4], [0.3, 0.2, 5], [-0.5, 0.1, 3.5]])
    scene = Scene(tuple(views), cloud_of(points, views))
    anchors = scene.anchors(scene.views[1])
    assert np.allclose(anchors.depth, points[:, 2])
    assert np.allclose(anchors.uv, project(CAMERA.K, points))


def test_sigma_between_two_views_is_that_of_their_angle() -> None:
    views = [looking((x, 0.0, 0), f"{x}") for x in (-1.0, 1.0)]
    scene = Scene(tuple(views), cloud_of(np.array([[0.0, 0, 4]]), views, errors=np.zeros(1)))
    cosine, sine = np.cos(2 * np.arctan2(1, 4)), np.sin(2 * np.arctan2(1, 4))
    along, across, up = (1 + cosine**2) / sine**2, 1, 0.5  # variances: of rays of one view by the other's
    wanted = np.sqrt(17) * 0.7 / CAMERA.K[0, 0] * np.sqrt(along + across / 2 + up / 2)
    assert np.isclose(scene.anchors(scene.views[1]).sigma[0], wanted, rtol=1e-6)


@pytest.mark.parametrize("keep", [0.4, 1.0])
def test_sigma_is_the_spread_of_points_triangulated_from_noisy_keypoints(keep: float) -> None:
    world = synthetic.box_room()
    noisy = synthetic.PointSampling(count=3000, noise_px=0.7, keep=keep)
    seen = synthetic.capture(
        world, synthetic.room_cameras(world, 160, 120, 8), seed=0, supersample=1, points=noisy
    )
    off = []
    for view in seen.scene.views:
        anchors = seen.scene.anchors(view)
        truth = sample_depth(seen.depth_maps[view.name].depth, anchors.uv)
        off.append((np.abs(anchors.depth - truth) / anchors.sigma)[truth > 0])
    assert (np.concatenate(off) < 1).mean() == pytest.approx(0.683, abs=0.04)
    assert (np.concatenate(off) < 1.96).mean() == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("gate", ["track", "error", "angle", "behind"])
def test_points_that_cannot_be_trusted_are_no_anchors(gate: str) -> None:
    near = 0.02 if gate == "angle" else 1.0
    views = [looking((x, 0.0, 0), f"{x}") for x in (-near, 0.0, near)]
    point = np.array([[0.0, 0, 4]])
    cloud = cloud_of(point, views)
    if gate == "track":
        cloud = cloud_of(point, views, seen=cloud.seen[:2], uv=cloud.uv[:2])
    if gate == "error":
        cloud = cloud_of(point, views, uv=cloud.uv + 3)
    if gate == "behind":
        cloud = replace(cloud, points=-point)
    scene = Scene(tuple(views), cloud)
    assert len(scene.anchors(scene.views[0])) == 0


def test_scene_without_points_says_so() -> None:
    view = looking((0.0, 0, 0), "a.jpg")
    with pytest.raises(ViewError, match=r"a\.jpg: the scene has no sparse points"):
        Scene((view,)).anchors(view)


def test_synthetic_anchors_lie_on_the_true_depth() -> None:
    world = synthetic.box_room()
    capture = synthetic.capture(world, synthetic.room_cameras(world, 64, 48, 6), seed=0, supersample=1)
    view = capture.scene.views[2]
    anchors = capture.scene.anchors(view)
    truth = capture.depth_maps[view.name].depth[
        np.floor(anchors.uv[:, 1]).astype(int), np.floor(anchors.uv[:, 0]).astype(int)
    ]
    assert np.median(np.abs(anchors.depth / truth - 1)) < 0.03  # half a pixel of noise, slanted walls
