from dataclasses import replace

import numpy as np
import pytest

from recon import synthetic
from recon.errors import InputError
from recon.evaluation import icp
from recon.evaluation.targets import extent_of
from recon.geometry import invert, rotation_from_wxyz, transform
from recon.raycasting import sample_surface
from recon.scene import Mesh


def small_motion(scale):
    motion = np.eye(4)
    motion[:3, :3] = scale * rotation_from_wxyz(np.array([1.0, 0.04, -0.06, 0.05]))
    motion[:3, 3] = [0.05, -0.04, 0.03]
    return motion


def worst_gap(reference_from_mesh, moved, reference):
    gaps = np.linalg.norm(transform(reference_from_mesh, moved.vertices) - reference.vertices, axis=1)
    return gaps.max() / extent_of(reference)


@pytest.fixture(scope="module")
def reference():
    return synthetic.tabletop().mesh


@pytest.mark.parametrize(("scale", "with_scale"), [(1.0, False), (1.06, True), (0.93, True)])
def test_icp_recovers_a_known_motion(reference, scale, with_scale):
    moved = replace(reference, vertices=transform(invert(small_motion(scale)), reference.vertices))
    assert worst_gap(icp(moved, reference, with_scale=with_scale), moved, reference) < 1e-5


def test_icp_onto_a_cloud_without_normals_is_as_good_as_its_spacing(reference):
    points, _ = sample_surface(reference, 20_000, np.random.default_rng(1))
    cloud = Mesh(points, np.zeros((0, 3), np.int64))
    moved = replace(reference, vertices=transform(invert(small_motion(1.03)), reference.vertices))
    assert worst_gap(icp(moved, cloud, with_scale=True), moved, reference) < 0.004


def test_icp_ignores_parts_that_the_other_lacks(reference):
    middles = reference.vertices[reference.faces].mean(axis=1)
    faces = reference.faces[middles[:, 0] < 0.25]  # half of the things are missing
    moved = replace(reference, vertices=transform(invert(small_motion(1.0)), reference.vertices), faces=faces)
    assert worst_gap(icp(moved, reference, overlap=0.5), moved, reference) < 1e-5


def test_icp_starts_from_a_first_guess(reference):
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])  # half a turn: too far for closest points
    moved = replace(reference, vertices=transform(invert(turned), reference.vertices))
    assert worst_gap(icp(moved, reference, start=turned @ small_motion(1.0)), moved, reference) < 1e-5


def test_icp_is_equivariant_to_scale(reference):
    moved = replace(reference, vertices=transform(invert(small_motion(1.0)), reference.vertices))
    large = [replace(each, vertices=500 * each.vertices) for each in (moved, reference)]
    first, second = icp(moved, reference), icp(*large)
    np.testing.assert_allclose(second[:3, :3], first[:3, :3], atol=1e-6)
    np.testing.assert_allclose(second[:3, 3], 500 * first[:3, 3], atol=1e-3)


def test_a_rotation_that_the_shape_leaves_free_stays_zero():
    sphere = synthetic.sphere(subdivisions=4).mesh
    moved = replace(sphere, vertices=sphere.vertices + np.array([0.1, 0.0, -0.05]))
    assert worst_gap(icp(moved, sphere), moved, sphere) < 1e-2


def test_an_overlap_of_nothing_is_an_input_error(reference):
    with pytest.raises(InputError, match="overlap 0"):
        icp(reference, reference, overlap=0.0)


@pytest.mark.parametrize("count", [1, 2])
def test_icp_needs_three_distinct_points(reference, count):
    points = np.repeat(np.arange(3.0 * count).reshape(count, 3), 2, axis=0)
    few = Mesh(points, np.zeros((0, 3), np.int64))
    with pytest.raises(InputError, match=f"the mesh has {count} distinct points, at least 3 wanted"):
        icp(few, reference)
    with pytest.raises(InputError, match=f"the reference has {count} distinct points, at least 3 wanted"):
        icp(reference, few)
