import numpy as np
import pytest

from recon.errors import InputError
from recon.evaluation.targets import target_of
from recon.raycasting import RayCaster, sample_surface
from recon.scene import Mesh
from recon.synthetic.shapes import box


@pytest.fixture
def brick():
    return Mesh(*box((1.0, 2.0, 3.0), (2.0, 4.0, 6.0)))


def test_samples_are_on_the_surface_and_share_out_by_area(brick):
    points, faces = sample_surface(brick, 2200, np.random.default_rng(0))
    a, b, c = np.moveaxis(brick.vertices[brick.faces], 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    counts = np.bincount(faces, minlength=len(brick.faces))
    assert np.abs(counts - 2200 * areas / areas.sum()).max() <= 1
    assert RayCaster(brick).distance(points).max() < 1e-5  # float32


def test_closest_points_of_a_box_are_its_clamped_coordinates(brick):
    points = np.random.default_rng(1).uniform(-5, 10, (200, 3))
    outside = points[((points < [1, 2, 3]) | (points > [2, 4, 6])).any(axis=1)]
    found, faces = RayCaster(brick).closest(outside)
    expected = np.clip(outside, [1, 2, 3], [2, 4, 6])
    np.testing.assert_allclose(found, expected, atol=1e-3)  # float32 may prefer an edge to the face beside it
    distances = [np.linalg.norm(points - outside, axis=1) for points in (found, expected)]
    np.testing.assert_allclose(*distances, atol=1e-5)
    assert ((faces >= 0) & (faces < len(brick.faces))).all()


def test_mesh_and_cloud_targets_give_points_with_their_normals(brick):
    points, normals = target_of(brick, "mesh").samples(500, np.random.default_rng(0))
    cloud = Mesh(points, np.zeros((0, 3), np.int64), normals=5 * normals)
    found, found_normals = target_of(cloud, "cloud").closest(points)
    np.testing.assert_array_equal(found, points)
    np.testing.assert_allclose(found_normals, normals, atol=1e-12)


def test_a_mesh_without_faces_has_no_closest_point():
    nothing = Mesh(np.zeros((3, 3)), np.zeros((0, 3), np.int64))
    with pytest.raises(InputError, match="without faces"):
        RayCaster(nothing).closest(np.zeros((1, 3)))
