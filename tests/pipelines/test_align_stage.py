"""What becomes of views whose prediction or points are too poor for an alignment of their own."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.stages import Align, InterpolatePoints, Refine
from recon import interpolation, synthetic
from recon.alignment import Alignment, Fit, fold_of
from recon.errors import ViewError
from recon.geometry import normals_from_depth
from recon.scene import Camera, DepthMap, Prediction, Scene, SparseDepth, View
from recon.synthetic import Capture, PointSampling
from recon.synthetic.distortion import smooth_field

SIZE = (96, 72)


@pytest.fixture(scope="module")
def capture() -> Capture:
    world = synthetic.room(2)
    cameras = synthetic.room_cameras(world, *SIZE, count=8)
    points = PointSampling(count=1500, outliers=0.05)
    return synthetic.capture(world, cameras, seed=2, supersample=1, points=points)


def aligned(scene: Scene, view: View, points: SparseDepth, prediction: Prediction) -> Alignment:
    mask = np.ones((view.camera.height, view.camera.width), bool)
    return Align()(view=view, scene=scene, points=points, prediction=prediction, kept=mask)


def first(points: SparseDepth, count: int) -> SparseDepth:
    return SparseDepth(points.uv[:count], points.depth[:count], points.sigma[:count])


def median_error(found: DepthMap, exact: DepthMap) -> float:
    known = found.depth > 0
    return float(np.median(np.abs(found.depth / exact.depth - 1)[known]))


@pytest.mark.parametrize("count", [0, 6])
def test_a_view_with_few_points_borrows_those_of_others(capture: Capture, count: int) -> None:
    for index, view in enumerate(capture.scene.views[:4]):
        exact = capture.depth_maps[view.name]
        prediction = synthetic.distort(exact, seed=(3, index))
        result = aligned(capture.scene, view, first(capture.scene.anchors(view), count), prediction)
        assert "other views" in result.note
        assert median_error(result.depth_map, exact) < 0.04


def test_a_view_whose_few_points_contradict_its_prediction_takes_those_of_others(capture: Capture) -> None:
    for index, view in enumerate(capture.scene.views[:2]):
        exact = capture.depth_maps[view.name]
        own = first(capture.scene.anchors(view), 30)
        upside_down = replace(own, depth=own.depth.min() + own.depth.max() - own.depth)
        result = aligned(capture.scene, view, upside_down, synthetic.distort(exact, seed=(3, index)))
        assert "other views" in result.note
        assert result.has_own_normals
        assert median_error(result.depth_map, exact) < 0.04


def test_projected_points_are_mostly_visible_ones(capture: Capture) -> None:
    for view in capture.scene.views[:4]:
        points = capture.scene.projected(view)
        column, row = points.uv.astype(np.int64).T
        right = np.abs(points.depth / capture.depth_maps[view.name].depth[row, column] - 1) < 0.05
        assert right.mean() > 0.75
        assert len(points) >= 50


def test_a_constant_prediction_is_not_used(capture: Capture) -> None:
    view = capture.scene.views[0]
    exact = capture.depth_maps[view.name]
    for kind in ("scale", "affine_disparity"):
        constant = Prediction(np.full(exact.depth.shape, 2, np.float32), kind, exact.normals)
        result = aligned(capture.scene, view, capture.scene.anchors(view), constant)
        assert result.note.startswith("prediction not used")
        assert not result.has_own_normals
        assert median_error(result.depth_map, exact) < 0.03


def test_a_good_prediction_is_used(capture: Capture) -> None:
    view = capture.scene.views[0]
    prediction = synthetic.distort(capture.depth_maps[view.name], seed=4)
    result = aligned(capture.scene, view, capture.scene.anchors(view), prediction)
    assert result.note == ""
    assert result.has_own_normals


def test_a_scene_without_points_says_so(capture: Capture) -> None:
    view = capture.scene.views[0]
    prediction = synthetic.distort(capture.depth_maps[view.name], seed=4)
    none = SparseDepth(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    with pytest.raises(ViewError, match="no sparse points"):
        aligned(replace(capture.scene, cloud=None), view, none, prediction)


@pytest.mark.parametrize("strength", [0.02, 0.7])
def test_no_prediction_makes_held_out_points_worse_than_none(capture: Capture, strength: float) -> None:
    filled = 0
    for number, view in enumerate(capture.scene.views[:4]):
        exact, points = capture.depth_maps[view.name], capture.scene.anchors(view)
        rough = strength * smooth_field(exact.depth > 0, np.random.default_rng(number), cycles=8.0)
        weak = Prediction((exact.depth * np.exp(rough)).astype(np.float32), "scale", exact.normals)
        result = aligned(capture.scene, view, points, weak)
        fold = fold_of(points, view.camera)
        errors = np.abs(np.log(interpolation.predict_held_out(points, view.camera, fold) / points.depth))
        assert result.fit.held_out_error <= 1.1 * np.median(np.nan_to_num(errors, nan=1.0))
        filled += bool(result.note) and not result.note.startswith("bent")
    assert filled < 2 if strength < 0.1 else filled > 2


class WithoutPoints(Align):
    """Never looks at what is left at the points."""

    asked_points = 10**9


def dense_capture(count: int) -> Capture:
    world = synthetic.room(2)
    many = PointSampling(count=count, outliers=0.05)
    cameras = synthetic.room_cameras(world, *SIZE, count=8)
    return synthetic.capture(world, cameras, seed=2, supersample=1, points=many)


def wavy(exact: DepthMap, strength: float) -> Prediction:
    rough = strength * smooth_field(exact.depth > 0, np.random.default_rng(0), cycles=12.0)
    return Prediction((exact.depth * np.exp(rough)).astype(np.float32), "scale", exact.normals)


def test_depth_bends_through_the_points_where_they_tell_each_other_what_is_left() -> None:
    dense = dense_capture(6000)
    view = dense.scene.views[0]
    exact, points = dense.depth_maps[view.name], dense.scene.anchors(view)
    bent = aligned(dense.scene, view, points, wavy(exact, 0.02))
    mask = np.ones(SIZE[::-1], bool)
    plain = WithoutPoints()(
        view=view, scene=dense.scene, points=points, prediction=wavy(exact, 0.02), kept=mask
    )
    assert bent.note.startswith("bent through the points")
    assert median_error(bent.depth_map, exact) < 0.8 * median_error(plain.depth_map, exact)


def test_beside_many_points_a_prediction_that_tells_less_than_they_do_only_fills_gaps() -> None:
    dense, held = dense_capture(9000), []
    for view in (dense.scene.views[1], dense.scene.views[5]):
        exact, points = dense.depth_maps[view.name], dense.scene.anchors(view)
        seen = points.uv[:, 0] < 0.6 * SIZE[0]  # the right part is a gap
        points = SparseDepth(points.uv[seen], points.depth[seen], points.sigma[seen])
        assert len(points) >= Align.dense_points
        result = aligned(dense.scene, view, points, wavy(exact, 0.1))
        assert result.note.startswith("the prediction only fills gaps")
        assert not result.has_own_normals
        column = np.arange(SIZE[0]) / SIZE[0]
        relative = result.depth_map.sigma / result.depth_map.depth
        errors = np.abs(np.log(result.depth_map.depth / exact.depth))
        assert np.median(errors[:, column < 0.55]) < 0.3 * np.median(errors[:, column > 0.7])
        held.append(np.mean((errors < relative)[:, column > 0.7]))
    assert np.mean(held) > 0.6


class BestInGaps(Align):
    """Takes the prediction for the better one where there are no points."""

    def _errors_without(self, fit: Fit, anchors: SparseDepth, camera: Camera) -> np.ndarray:
        return np.full(len(anchors), np.nan)


def test_points_alone_count_near_them_where_the_prediction_is_better_in_the_gaps_only() -> None:
    dense = dense_capture(6000)
    view = dense.scene.views[0]
    exact, points = dense.depth_maps[view.name], dense.scene.anchors(view)
    mask = np.ones(SIZE[::-1], bool)
    result = BestInGaps()(
        view=view, scene=dense.scene, points=points, prediction=wavy(exact, 0.06), kept=mask
    )
    assert result.note.startswith("the points alone near them")
    assert not result.has_own_normals
    field = InterpolatePoints()(view=view, points=points, kept=mask)
    known = field.depth_map.depth > 0
    relative = field.depth_map.sigma / np.where(known, field.depth_map.depth, 1)
    near = known & (relative < 1.3 * relative[known].min())
    assert near.mean() > 0.2
    np.testing.assert_allclose(result.depth_map.depth[near], field.depth_map.depth[near], rtol=1e-4)
    assert (result.depth_map.depth > 0).all()


@pytest.mark.parametrize("count", [60, 200])
def test_a_good_prediction_is_not_given_up_for_points_that_lie_on_few_surfaces(
    capture: Capture, count: int
) -> None:
    for number, view in enumerate(capture.scene.views):
        exact, points = capture.depth_maps[view.name], capture.scene.anchors(view)
        result = aligned(
            capture.scene, view, first(points, count), synthetic.distort(exact, seed=(4, number))
        )
        assert result.note == ""


def test_a_poor_prediction_that_tells_near_from_far_fills_what_points_do_not_reach(capture: Capture) -> None:
    """The ground from 1 to 20 m, points on the left only, from 2 m on."""
    view, rng = capture.scene.views[0], np.random.default_rng(0)
    width, height = SIZE
    depth = np.exp(3 * np.linspace(1, 0, height))[:, None] * np.ones((height, width))
    uv = rng.uniform([0, 0], [0.4 * width, height * (1 - np.log(2) / 3)], (400, 2))
    at = depth[uv[:, 1].astype(int), uv[:, 0].astype(int)]
    points = SparseDepth(uv, at, 0.01 * at)
    rough = 0.5 * smooth_field(depth > 0, rng, cycles=8.0)
    normals = np.broadcast_to(np.array([0, -1, 0], np.float32), (height, width, 3)).copy()
    poor = Prediction((depth * np.exp(rough)).astype(np.float32), "scale", normals)
    result = aligned(capture.scene, view, points, poor)
    assert result.note.startswith("the prediction only fills gaps")
    assert result.is_predicted
    assert not result.has_own_normals
    assert np.array_equal(result.predicted_normals, normals)
    found = result.depth_map
    rows, columns = found.depth.shape
    middle, right = slice(rows // 4, rows // 2), slice(int(0.8 * columns), columns)
    assert (found.depth[middle, right] > 0).mean() > 0.9
    assert np.median(found.sigma[middle, right] / found.depth[middle, right]) > 0.1
    nearer = (found.depth > 0) & (found.depth < 1.4)
    assert (found.sigma[nearer] > 0.3 * found.depth[nearer]).all()


def test_a_thing_that_the_prediction_does_not_show_is_within_its_sigma() -> None:
    camera = Camera.from_fov(160, 120, 60.0)
    view = View("one.png", camera, np.eye(4))
    column, row = np.meshgrid(np.arange(160) + 0.5, np.arange(120) + 0.5)
    ground = 3 / (1 + 0.005 * row)
    thing = (np.abs(column - 80) < 22) & (np.abs(row - 55) < 25)
    inner = (np.abs(column - 80) < 16) & (np.abs(row - 55) < 19)
    exact = np.where(thing, 0.85 * ground, ground)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(exact.size)[:190]
    depth = exact.ravel()[chosen]
    depth[:15] *= np.exp(rng.choice([-1, 1], 15) * rng.uniform(0.05, 0.7, 15))
    points = SparseDepth(np.stack([column.ravel()[chosen], row.ravel()[chosen]], axis=1), depth, 1e-3 * depth)
    normals = normals_from_depth(camera.K, ground.astype(np.float32))
    prediction = Prediction((1 / ground).astype(np.float32), "affine_disparity", normals)
    result = aligned(Scene((view,)), view, points, prediction)
    for found in (result.depth_map, Refine().alone(view, result, points).depth_map):
        away = np.abs(found.depth - exact) / np.maximum(found.sigma, 1e-9)
        assert (away[inner] < 3).mean() > 0.9
        assert np.median(found.sigma[~thing] / exact[~thing]) < 0.005
