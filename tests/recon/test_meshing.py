"""Meshes of one depth map, cleaning and components."""

import numpy as np
import pytest

from recon.errors import InputError, ViewError
from recon.geometry import normals_from_depth, points_from_depth, rays
from recon.meshing import clean, components, grid_mesh, remove_small_components, select_faces
from recon.scene import Camera, DepthMap, Mesh

CAMERA = Camera.from_fov(32, 24, 60.0)
FULL_GRID = 2 * 31 * 23


def depth_map_of(depth, normals=None):
    depth = depth.astype(np.float32)
    normals = normals_from_depth(CAMERA.K, depth) if normals is None else normals.astype(np.float32)
    return DepthMap(CAMERA, depth, normals, (0.01 * depth).astype(np.float32))


def plane_depth(normal, offset):
    along = rays(CAMERA.K, CAMERA.width, CAMERA.height) @ normal
    return offset / along


def two_walls():
    depth = np.full((24, 32), 2.0)
    depth[:, 16:] = 3.0
    return depth


def triangle_soup():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [5, 5, 5], [2, 0, 0], [0, 0, 0]], float)
    faces = np.array([[0, 1, 2], [1, 3, 2], [2, 0, 1], [1, 1, 3], [0, 1, 5], [0, 6, 1]])
    return Mesh(vertices, faces, colors=np.arange(21, dtype=np.uint8).reshape(7, 3))


def test_wall_becomes_the_full_grid_facing_the_camera():
    mesh = grid_mesh(depth_map_of(np.full((24, 32), 2.0)))
    corners = mesh.vertices[mesh.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert len(mesh.faces) == FULL_GRID
    assert (across[:, 2] < 0).all()
    np.testing.assert_allclose(mesh.normals, np.broadcast_to([0, 0, -1.0], mesh.normals.shape), atol=1e-6)


def test_vertices_are_the_unprojected_pixels():
    depth = plane_depth(np.array([0.3, -0.2, 1.0]), 2.0)
    mesh = grid_mesh(depth_map_of(depth))
    expected = points_from_depth(CAMERA.K, depth.astype(np.float32)).reshape(-1, 3)
    np.testing.assert_array_equal(mesh.vertices, expected)


def test_a_jump_between_two_walls_is_cut():
    mesh = grid_mesh(depth_map_of(two_walls()))
    assert len(np.unique(components(mesh))) == 2
    assert len(mesh.faces) == FULL_GRID - 2 * 23


def test_a_grazing_floor_stays_whole_though_its_steps_are_large():
    floor = np.array([0.0, 1.0, 0.05])
    depth = plane_depth(floor, 1.0)
    depth[(depth <= 0) | (depth > 8)] = 0
    normals = np.broadcast_to(-floor / np.linalg.norm(floor), (24, 32, 3))
    rows = (depth > 0).sum(axis=0)
    mesh = grid_mesh(depth_map_of(depth, normals))
    steps = -np.diff(depth[depth[:, 5] > 0, 5]) / depth[depth[:, 5] > 0, 5][1:]
    assert steps.max() > 0.2  # without the normals' slope this would be cut
    assert len(mesh.faces) == 2 * 31 * (rows[0] - 1)


def test_holes_stay_holes():
    depth = np.full((24, 32), 2.0)
    depth[10, 10] = 0
    mesh = grid_mesh(depth_map_of(depth))
    assert len(mesh.vertices) == 24 * 32 - 1
    assert len(mesh.faces) == FULL_GRID - 4  # each of the four squares around it keeps one triangle


def test_the_diagonal_follows_the_crease():
    u, v = np.meshgrid(np.arange(32), np.arange(24))
    depth = 2 + 0.02 * np.abs(u - v - 4)  # a roof whose ridge falls to the right
    mesh = grid_mesh(depth_map_of(depth))
    pixels = np.rint(np.stack([mesh.uv[:, 0] * 32 - 0.5, (1 - mesh.uv[:, 1]) * 24 - 0.5], axis=-1)).astype(
        int
    )
    side = np.sign(pixels[:, 0] - pixels[:, 1] - 4)[mesh.faces]
    assert not ((side > 0).any(axis=1) & (side < 0).any(axis=1)).any()  # no triangle bridges the ridge


def test_texture_coordinates_find_the_pixels_color():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    mesh = grid_mesh(depth_map_of(np.full((24, 32), 2.0)), image)
    column = np.floor(mesh.uv[:, 0] * 32).astype(int)
    row = np.floor((1 - mesh.uv[:, 1]) * 24).astype(int)
    np.testing.assert_array_equal(mesh.texture[row, column], mesh.colors)
    np.testing.assert_array_equal(mesh.colors, image.reshape(-1, 3))


def test_scale_changes_nothing_but_the_size():
    depth = two_walls() + np.linspace(0, 0.5, 32)
    small, large = grid_mesh(depth_map_of(depth)), grid_mesh(depth_map_of(depth * 512))
    np.testing.assert_array_equal(small.faces, large.faces)
    np.testing.assert_allclose(large.vertices, small.vertices * 512, rtol=1e-6)


def test_no_depth_is_a_view_error():
    with pytest.raises(ViewError, match="0 of 768 pixels valid"):
        grid_mesh(depth_map_of(np.zeros((24, 32))))


def test_photo_of_another_size_is_refused():
    with pytest.raises(InputError, match="photo of 8x6 pixels, its depth map has 32x24"):
        grid_mesh(depth_map_of(np.ones((24, 32))), np.zeros((6, 8, 3), np.uint8))


def test_clean_drops_degenerate_repeated_and_unused():
    mesh = clean(triangle_soup())
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [1, 3, 2]])
    assert len(mesh.vertices) == 4
    np.testing.assert_array_equal(mesh.colors, triangle_soup().colors[:4])


def test_clean_of_a_clean_mesh_is_the_same():
    once = clean(triangle_soup())
    twice = clean(once)
    np.testing.assert_array_equal(once.faces, twice.faces)
    np.testing.assert_array_equal(once.vertices, twice.vertices)


def test_clean_takes_an_empty_mesh():
    empty = Mesh(np.zeros((3, 3)), np.zeros((0, 3), np.int64))
    assert len(clean(empty).vertices) == 0


def test_small_components_go_and_the_largest_stays():
    mesh = grid_mesh(depth_map_of(np.where(np.arange(32) < 28, 2.0, 3.0) * np.ones((24, 1))))
    kept = remove_small_components(mesh, min_faces=200)
    assert len(kept.faces) == 2 * 27 * 23
    np.testing.assert_allclose(kept.vertices[:, 2], 2.0)
    assert len(remove_small_components(mesh, min_faces=10**6).faces) == len(kept.faces)
    assert len(remove_small_components(mesh, min_faces=1, min_share=0.0).faces) == len(mesh.faces)


def test_components_connect_over_vertices():
    faces = np.array([[0, 1, 2], [2, 3, 4], [5, 6, 7]])
    np.testing.assert_array_equal(components(Mesh(np.eye(8, 3), faces)), [0, 0, 1])


def test_select_faces_keeps_attributes_with_their_vertices():
    mesh = select_faces(triangle_soup(), np.array([4]))
    np.testing.assert_array_equal(mesh.vertices, triangle_soup().vertices[[0, 1, 5]])
    np.testing.assert_array_equal(mesh.colors, triangle_soup().colors[[0, 1, 5]])
