"""Depth between sparse points: exact on planes, robust, bounded, honest about where it knows nothing."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recon.errors import ViewError
from recon.geometry import rays
from recon.interpolation import interpolate_points
from recon.scene import Camera, SparseDepth

CAMERA = Camera.from_fov(160, 120, 60.0)
NORMAL = np.array([0.4, -0.6, -0.8]) / np.linalg.norm([0.4, -0.6, -0.8])
PLANE_DEPTH = -2 / (rays(CAMERA.K, 160, 120) @ NORMAL)


def on_plane(uv: np.ndarray) -> SparseDepth:
    directions = np.concatenate([uv, np.ones((len(uv), 1))], axis=1) @ np.linalg.inv(CAMERA.K).T
    depth = -2 / (directions @ NORMAL)
    return SparseDepth(uv, depth, 1e-3 * depth)


def scattered(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * [160, 120]


def with_outliers(points: SparseDepth, share: float, seed: int) -> SparseDepth:
    """The same points, a share of them wrong by 25 % to a factor of 3."""
    rng = np.random.default_rng(seed)
    wrong = np.arange(len(points)) < share * len(points)
    factor = np.exp(rng.choice([-1, 1], len(points)) * rng.uniform(0.25, 1.1, len(points)))
    depth = np.where(rng.permutation(wrong), factor, 1) * points.depth
    return SparseDepth(points.uv, depth, 1e-3 * depth)


@pytest.mark.parametrize("count", [6, 20, 100, 400])
def test_slanted_plane_is_reproduced_with_its_normal(count: int) -> None:
    field = interpolate_points(on_plane(scattered(count)), CAMERA)
    # disparity may leave the range of the points by a factor of 1.5 only, which the far corner reaches
    near = np.asarray(field.confidence) > 0.1
    assert np.allclose(field.values[near], PLANE_DEPTH[near], rtol=1e-3)
    assert field.normals is not None
    assert np.median(field.normals[near] @ NORMAL) > 0.9999


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
@example(seed=403)  # five outliers side by side, which a look at all neighbours passes
@example(seed=502)
def test_20_percent_outliers_barely_move_a_plane(seed: int) -> None:
    field = interpolate_points(with_outliers(on_plane(scattered(150, seed)), 0.2, seed), CAMERA)
    error = np.abs(field.values / PLANE_DEPTH - 1)[np.asarray(field.confidence) > 0.5]
    assert np.median(error) < 0.005
    assert np.quantile(error, 0.95) < 0.08


def test_one_outlier_among_few_points_leaves_their_plane_exact() -> None:
    exact = on_plane(scattered(12))
    depth = exact.depth.copy()
    depth[5] *= 2
    field = interpolate_points(SparseDepth(exact.uv, depth, exact.sigma), CAMERA)
    assert np.allclose(field.values[40:80, 50:110], PLANE_DEPTH[40:80, 50:110], rtol=1e-3)


def test_step_between_two_walls_stays_a_step() -> None:
    uv = scattered(300)
    depth = np.where(uv[:, 0] < 80, 1.0, 2.0)
    field = interpolate_points(SparseDepth(uv, depth, 1e-3 * depth), CAMERA)
    assert np.allclose(field.values[:, 4:66], 1, rtol=0.02)
    assert np.allclose(field.values[:, 94:156], 2, rtol=0.02)


def test_small_object_with_several_points_is_no_outlier() -> None:
    uv = scattered(300)
    on_object = np.linalg.norm(uv - [80, 60], axis=1) < 18
    depth = np.where(on_object, 1.0, 3.0)
    field = interpolate_points(SparseDepth(uv, depth, 1e-3 * depth), CAMERA)
    assert field.values[60, 80] == pytest.approx(1, rel=0.02)


@settings(max_examples=5, deadline=None)
@given(factor=st.floats(1e-3, 1e3))
def test_field_scales_with_the_scene(factor: float) -> None:
    points = with_outliers(on_plane(scattered(60)), 0.1, 0)
    larger = SparseDepth(points.uv, points.depth * factor, points.sigma * factor)
    once, scaled = interpolate_points(points, CAMERA), interpolate_points(larger, CAMERA)
    assert np.allclose(scaled.values, once.values * factor, rtol=1e-5)
    assert np.allclose(scaled.confidence, once.confidence, atol=1e-5)


@pytest.mark.parametrize("count", [4, 12, 80])
def test_order_of_points_changes_no_bit(count: int) -> None:
    points = with_outliers(on_plane(scattered(count)), 0.1, 0)
    order = np.random.default_rng(3).permutation(count)
    other = SparseDepth(points.uv[order], points.depth[order], points.sigma[order])
    first, second = interpolate_points(points, CAMERA), interpolate_points(other, CAMERA)
    assert first.values.tobytes() == second.values.tobytes()


def test_depth_never_leaves_the_range_of_the_points_by_more_than_half() -> None:
    rng = np.random.default_rng(0)
    uv = np.array([20, 15]) + rng.uniform(0, 1, (60, 2)) * [60, 40]
    points = on_plane(uv)
    values = interpolate_points(points, CAMERA).values
    assert values.min() >= points.depth.min() / 1.5 * (1 - 1e-6)
    assert values.max() <= points.depth.max() * 1.5 * (1 + 1e-6)


def test_confidence_is_zero_far_from_all_points() -> None:
    uv = scattered(100) * [0.3, 1]
    confidence = interpolate_points(on_plane(uv), CAMERA).confidence
    assert confidence is not None
    assert not confidence[:, 120:].any()
    assert confidence[20:100, 8:40].min() > 0.3


def test_points_on_a_line_give_their_middle_depth() -> None:
    uv = np.stack([np.linspace(10, 150, 10), np.full(10, 60.0)], axis=1)
    depth = np.linspace(1.9, 2.1, 10)
    values = interpolate_points(SparseDepth(uv, depth, 0.1 * depth), CAMERA).values
    assert np.allclose(values, 2, rtol=0.02)
    assert np.ptp(values) == 0


def test_many_points_at_one_place_are_no_trouble() -> None:
    uv = np.concatenate([np.full((40, 2), 50.0), scattered(40)])
    field = interpolate_points(on_plane(uv), CAMERA)
    near = np.asarray(field.confidence) > 0.3
    assert np.allclose(field.values[near], PLANE_DEPTH[near], rtol=1e-3)


def test_wall_that_faces_the_camera_has_its_normal() -> None:
    uv = scattered(50)
    normals = interpolate_points(SparseDepth(uv, np.full(50, 3.0), np.full(50, 0.01)), CAMERA).normals
    assert np.allclose(normals, [0, 0, -1], atol=1e-4)


@pytest.mark.parametrize("count", [0, 2])
def test_fewer_than_three_points_are_a_view_error(count: int) -> None:
    uv = np.concatenate([scattered(count), [[-5.0, 10.0], [200.0, 10.0]]])
    with pytest.raises(ViewError, match=f"{count} points inside the photo, at least 3 wanted"):
        interpolate_points(SparseDepth(uv, np.ones(count + 2), np.ones(count + 2)), CAMERA)
