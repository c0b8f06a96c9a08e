from dataclasses import replace

import numpy as np
import pytest

from recon import synthetic
from recon.errors import InputError
from recon.evaluation import describe, error_colors, evaluate_mesh, vertex_distances, visible_points
from recon.evaluation.targets import extent_of
from recon.raycasting import sample_surface
from recon.scene import Camera, Mesh, View
from recon.synthetic.shapes import ball, box, rectangle

EXACT_POINTS = synthetic.PointSampling(count=300, noise_px=0.0)


def square(height, side=2.0):
    return Mesh(*rectangle((-side / 2, -side / 2, height), (side, 0.0, 0.0), (0.0, side, 0.0)))


def flipped(mesh):
    return replace(mesh, faces=mesh.faces[:, ::-1].copy())


def cloud_of(mesh, count, with_normals):
    points, faces = sample_surface(mesh, count, np.random.default_rng(9))
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces[faces]], 1, 0)
    normals = np.cross(b - a, c - a)
    return Mesh(points, np.zeros((0, 3), np.int64), normals=normals if with_normals else None)


def test_parallel_squares_are_their_distance_apart():
    score = evaluate_mesh(square(0.25), square(0.0), thresholds=(0.2, 0.3), samples=2000)
    for value in (score.accuracy_mean, score.accuracy_median, score.completeness_mean, score.chamfer):
        assert value == pytest.approx(0.25, rel=1e-5)
    assert score.precision == score.recall == score.f_score == (0.0, 1.0)
    assert score.normal_consistency == score.signed_normal_consistency == pytest.approx(1)


def test_a_scaled_sphere_is_off_by_the_difference_of_the_radii():
    small, large = Mesh(*ball((3.0, 1.0, 2.0), 1.0, 4)), Mesh(*ball((3.0, 1.0, 2.0), 1.1, 4))
    score = evaluate_mesh(large, small, samples=5000)
    assert score.accuracy_mean == pytest.approx(0.1, abs=1e-3)  # the sag of either is at most 1e-3
    assert score.completeness_mean == pytest.approx(0.1, abs=1e-3)


def test_a_mesh_against_itself_is_perfect():
    mesh = synthetic.tabletop().mesh
    score = evaluate_mesh(mesh, mesh, samples=5000)
    assert score.f_score == (1.0, 1.0, 1.0, 1.0)
    assert score.chamfer < 1e-5 * extent_of(mesh)
    assert score.thresholds == pytest.approx(tuple(extent_of(mesh) * np.array([0.005, 0.01, 0.02, 0.05])))


def test_half_a_surface_is_precise_but_half_complete():
    whole = square(0.0)
    half = replace(whole, vertices=whole.vertices * [0.5, 1, 1])
    score = evaluate_mesh(half, whole, thresholds=(1e-4,), samples=20_000)
    assert score.precision == (1.0,)
    assert score.recall[0] == pytest.approx(0.5, abs=0.01)
    assert score.f_score[0] == pytest.approx(2 * score.recall[0] / (1 + score.recall[0]))


def test_a_mesh_inside_out_has_the_wrong_sign_only():
    mesh = Mesh(*box((0.0, 0.0, 0.0), (1.0, 2.0, 3.0)))
    score = evaluate_mesh(flipped(mesh), mesh, samples=2000)
    assert score.normal_consistency > 0.99  # samples beside an edge may meet the other face
    assert score.signed_normal_consistency < -0.99


def test_scores_scale_with_the_scene():
    mesh, reference = synthetic.sphere(subdivisions=2).mesh, synthetic.sphere(subdivisions=3).mesh
    first = evaluate_mesh(mesh, reference, samples=3000)
    large = [replace(each, vertices=1000 * each.vertices) for each in (mesh, reference)]
    second = evaluate_mesh(*large, samples=3000)
    assert second.chamfer == pytest.approx(1000 * first.chamfer, rel=1e-3)  # ray casting is float32
    assert second.f_score == pytest.approx(first.f_score, abs=1e-3)


def test_far_coordinates_keep_their_digits():
    far = [replace(each, vertices=each.vertices + 1e6) for each in (square(0.25), square(0.0))]
    assert evaluate_mesh(*far, samples=500).chamfer == pytest.approx(0.25, rel=1e-4)


def test_a_reference_cloud_gives_distances_to_its_points():
    cloud = Mesh(np.array([[0.0, 0.0, 0.3], [0.5, 0.0, 0.4]]), np.zeros((0, 3), np.int64))
    score = evaluate_mesh(square(0.0), cloud, thresholds=(0.35,), samples=1000)
    assert score.completeness_mean == pytest.approx(0.35)
    assert score.recall == (0.5,)
    assert score.normal_consistency is None


def test_a_dense_cloud_with_normals_scores_like_its_mesh():
    mesh = Mesh(*ball((0.0, 0.0, 0.0), 1.0, 4))
    score = evaluate_mesh(mesh, cloud_of(mesh, 40_000, with_normals=True), thresholds=(0.06,), samples=5000)
    assert score.f_score == (1.0,)  # points are 0.02 apart
    assert score.signed_normal_consistency > 0.995


def test_samples_are_seeded():
    pair = synthetic.sphere(subdivisions=1).mesh, synthetic.sphere(subdivisions=2).mesh
    assert evaluate_mesh(*pair, samples=500) == evaluate_mesh(*pair, samples=500)
    assert evaluate_mesh(*pair, samples=500) != evaluate_mesh(*pair, samples=500, seed=1)


def test_only_what_the_views_see_counts():
    below = rectangle((-1.0, -1.0, -1.0), (2.0, 0.0, 0.0), (0.0, 2.0, 0.0))
    top = square(0.0)
    faces = np.concatenate([top.faces, below[1] + 4])
    reference = Mesh(np.concatenate([top.vertices, below[0]]), faces)  # the lower square is hidden
    cam_from_world = np.diag([1.0, -1.0, -1.0, 1.0])
    cam_from_world[2, 3] = 5.0
    view = View("above.png", Camera.from_fov(64, 64, 40.0), cam_from_world)
    assert evaluate_mesh(top, reference, thresholds=(0.1,), samples=2000).recall[0] < 0.6
    assert evaluate_mesh(top, reference, thresholds=(0.1,), samples=2000, views=(view,)).recall == (1.0,)


def test_visible_points_are_those_with_depth_in_a_view():
    world = synthetic.tabletop()
    result = synthetic.capture(
        world, synthetic.tabletop_cameras(world, 48, 36, 3), seed=0, points=EXACT_POINTS
    )
    points = result.scene.cloud.points
    assert visible_points(points, result.scene.views, occluder=world.mesh).all()
    assert not visible_points(points - [0, 0, 0.5], result.scene.views, occluder=world.mesh).any()


def test_error_colors_run_from_blue_to_red():
    mesh = square(0.0)
    colors = error_colors(mesh, np.array([0.0, 1.0, 2.0, 3.0]), limit=2.0).colors
    assert colors[0].argmax() == 2
    assert colors[2].argmax() == 0
    np.testing.assert_array_equal(colors[2], colors[3])


def test_error_colors_of_an_exact_mesh_are_blue():
    colors = error_colors(square(0.0), np.zeros(4), limit=0.0).colors
    assert (colors.argmax(axis=1) == 2).all()


def test_vertex_distances_to_a_plane_are_heights():
    np.testing.assert_allclose(vertex_distances(square(0.4, 1.0), square(0.1)), 0.3, rtol=1e-5)


def test_a_score_is_told_in_one_line():
    line = describe(evaluate_mesh(square(0.25), square(0.0), thresholds=(0.3,), samples=100))
    assert line == "accuracy 0.25, completeness 0.25, F-score 1.000 at 0.3"


@pytest.mark.parametrize(
    ("mesh", "thresholds", "message"),
    [
        (Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64)), None, "the mesh has no vertices"),
        (square(0.0, side=0.0), None, "no area"),
        (square(0.0), (0.1, -1.0), "positive"),
        (square(0.0), (), "positive"),
    ],
)
def test_what_cannot_be_scored_is_an_input_error(mesh, thresholds, message):
    with pytest.raises(InputError, match=message):
        evaluate_mesh(mesh, square(0.0), thresholds=thresholds)


def test_views_that_see_nothing_are_an_input_error():
    away = np.eye(4)
    away[2, 3] = -50.0
    view = View("away.png", Camera.from_fov(8, 8, 40.0), away)
    with pytest.raises(InputError, match="is visible"):
        evaluate_mesh(square(0.0), square(0.0), views=(view,))
