"""Projective geometry: identities, axioms, and a wall, a floor and a sphere whose normals are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recon import Camera, InputError
from recon.geometry import (
    depth_edges,
    invert,
    look_at,
    normals_from_depth,
    pixel_centers,
    points_from_depth,
    project,
    rays,
    rotate,
    rotation_from_wxyz,
    sample,
    sample_depth,
    similarity,
    transform,
    unproject,
)

CAMERA = Camera(
    np.array([[50.0, 0, 17.3], [0, 40.0, 11.9], [0, 0, 1]]), 32, 24
)  # no square pixels, off centre

coordinates = st.floats(-5, 5, allow_subnormal=False)
points = arrays(np.float64, (6, 3), elements=coordinates)
wxyz = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)
few = settings(max_examples=30, deadline=None)


def rigid(quaternion: np.ndarray, translation: np.ndarray) -> np.ndarray:
    target_from_source = np.eye(4)
    target_from_source[:3, :3] = rotation_from_wxyz(quaternion)
    target_from_source[:3, 3] = translation
    return target_from_source


def plane_depth(normal: np.ndarray, distance: float) -> np.ndarray:
    """Depth of the plane normal . x = -distance in front of CAMERA."""
    return (-distance / (rays(CAMERA.K, CAMERA.width, CAMERA.height) @ normal)).astype(np.float32)


@few
@given(points)
def test_unproject_undoes_project(points_cam: np.ndarray) -> None:
    front = points_cam + np.array([0, 0, 5.5])
    assert np.allclose(unproject(CAMERA.K, project(CAMERA.K, front), front[:, 2]), front, atol=1e-9)


def test_points_behind_the_camera_have_no_pixel() -> None:
    assert np.isnan(project(CAMERA.K, np.array([[0.0, 0, -1], [0, 0, 0]]))).all()


@few
@given(wxyz, arrays(np.float64, 3, elements=coordinates), points)
def test_inverse_undoes_a_transform(
    quaternion: np.ndarray, translation: np.ndarray, source: np.ndarray
) -> None:
    there = rigid(quaternion, translation)
    assert np.allclose(transform(invert(there), transform(there, source)), source, atol=1e-9)


@few
@given(wxyz, st.floats(0.1, 10), points)
def test_inverse_undoes_a_similarity(quaternion: np.ndarray, scale: float, source: np.ndarray) -> None:
    there = rigid(quaternion, np.ones(3))
    there[:3, :3] *= scale
    assert np.allclose(transform(invert(there), transform(there, source)), source, atol=1e-8)
    assert np.allclose(np.linalg.norm(rotate(there, source), axis=1), np.linalg.norm(source, axis=1))


@few
@given(wxyz, st.floats(0.1, 10), arrays(np.float64, 3, elements=coordinates))
def test_similarity_is_found_again(quaternion: np.ndarray, scale: float, translation: np.ndarray) -> None:
    there = rigid(quaternion, translation)
    there[:3, :3] *= scale
    source = np.random.default_rng(0).normal(size=(8, 3))
    assert np.allclose(similarity(source, transform(there, source)), there, atol=1e-8)


def test_similarity_of_mirrored_points_is_no_reflection() -> None:
    source = np.random.default_rng(1).normal(size=(8, 3))
    found = similarity(source, source * [1, 1, -1.0])
    assert np.linalg.det(found[:3, :3]) > 0


@pytest.mark.parametrize("source", [np.zeros((2, 3)), np.outer(np.arange(5.0), [1, 2, 3])])
def test_similarity_of_too_little_is_refused(source: np.ndarray) -> None:
    with pytest.raises(InputError):
        similarity(source, source)


def test_first_pixel_centre_is_half_a_pixel_in() -> None:
    assert pixel_centers(4, 3)[0, 0].tolist() == [0.5, 0.5]
    assert pixel_centers(4, 3)[2, 3].tolist() == [3.5, 2.5]


def test_ray_through_the_principal_point_is_the_axis() -> None:
    assert np.allclose(unproject(CAMERA.K, np.array([[17.3, 11.9]]), np.ones(1)), [[0, 0, 1]])


def test_look_at_puts_the_target_on_the_axis_and_down_below() -> None:
    cam_from_world = look_at(np.array([1.0, 2, 3]), np.array([4.0, 2, 7]), np.array([0.0, 1, 0]))
    assert np.allclose(transform(cam_from_world, np.array([4.0, 2, 7])), [0, 0, 5])
    assert transform(cam_from_world, np.array([4.0, 3, 7]))[1] > 0


@pytest.mark.parametrize(
    ("normal", "distance"),
    [((0.0, 0, -1), 3.0), ((0.0, -1, 0), 1.0), ((0.6, 0, -0.8), 4.0), ((0.3, -0.5, -np.sqrt(0.66)), 2.0)],
)
def test_normals_of_a_plane_are_exact_and_face_the_camera(
    normal: tuple[float, float, float], distance: float
) -> None:
    wanted = np.array(normal)
    depth = plane_depth(wanted, distance)
    depth = np.where((depth > 0) & (depth < 50), depth, 0).astype(np.float32)
    found = normals_from_depth(CAMERA.K, depth, relative_jump=10.0)
    known = np.abs(found).sum(axis=-1) > 0
    assert known.sum() > 100
    assert np.abs(found[known] - wanted).max() < 2e-3  # float32 depth


def test_wall_facing_the_camera_has_normal_0_0_minus_1() -> None:
    found = normals_from_depth(CAMERA.K, np.full((24, 32), 2, np.float32))
    assert np.allclose(found, [0, 0, -1], atol=1e-5)


def test_wider_steps_average_the_noise_of_normals() -> None:
    noise = np.random.default_rng(0).normal(scale=0.002, size=(24, 32))
    depth = (2 + noise).astype(np.float32)
    error = [np.abs(normals_from_depth(CAMERA.K, depth, step=step) - [0, 0, -1]).mean() for step in (1, 3)]
    assert error[1] < 0.5 * error[0]


def test_normals_do_not_cross_a_depth_edge() -> None:
    depth = np.full((24, 32), 2, np.float32)
    depth[:, 16:] = 3
    assert np.allclose(normals_from_depth(CAMERA.K, depth), [0, 0, -1], atol=1e-5)


def test_depth_edges_are_both_sides_of_a_jump_and_around_holes() -> None:
    depth = np.full((6, 8), 2, np.float32)
    depth[:, 4:] = 3
    depth[0, 0] = 0
    edges = depth_edges(depth)
    assert edges[3].tolist() == [False, False, False, True, True, False, False, False]
    assert edges[1, 1]


def test_sampling_a_linear_map_is_exact_inside() -> None:
    uv = np.random.default_rng(0).uniform([0.5, 0.5], [31.5, 23.5], (50, 2))
    linear = pixel_centers(32, 24) @ [2.0, -3.0] + 1
    assert np.allclose(sample(linear, uv), uv @ [2.0, -3.0] + 1)


def test_depth_of_a_plane_is_sampled_exactly() -> None:
    depth = plane_depth(np.array([0.6, 0, -0.8]), 4.0)
    uv = np.random.default_rng(0).uniform([1, 1], [31, 23], (50, 2))
    rays_there = unproject(CAMERA.K, uv, np.ones(50))
    assert np.allclose(sample_depth(depth, uv), -4.0 / (rays_there @ [0.6, 0, -0.8]), rtol=1e-6)


def test_depth_is_never_mixed_over_an_edge() -> None:
    depth = np.full((4, 4), 2, np.float32)
    depth[:, 2:] = 5
    across = np.stack([np.linspace(0.6, 3.4, 30), np.full(30, 2.0)], axis=1)
    assert set(sample_depth(depth, across).round(6)) == {2.0, 5.0}


def test_depth_outside_the_map_and_in_holes_is_none() -> None:
    depth = np.full((4, 4), 2, np.float32)
    depth[2, 2] = 0
    assert sample_depth(depth, np.array([[-0.1, 1], [4.2, 1], [2.5, 2.5]])).tolist() == [0, 0, 0]


def test_points_of_a_depth_map_project_to_their_pixels() -> None:
    depth = plane_depth(np.array([0.1, -0.2, -1.0]), 3.0)
    found = project(CAMERA.K, points_from_depth(CAMERA.K, depth))
    assert np.allclose(found, pixel_centers(32, 24))
