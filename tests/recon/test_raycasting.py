"""Rays against a box: depth and normals from a formula, back sides, pictures."""

import numpy as np
import pytest

from recon import Camera, Mesh
from recon.geometry import look_at, project, rays, transform
from recon.raycasting import RayCaster, orbit_view

CAMERA = Camera.from_fov(32, 24, 60.0)
DOWN = np.array([0.0, 1, 0])


def wall(z: float, size: float = 10.0, turned: bool = False) -> Mesh:
    """A square at depth z whose front faces the origin, or away from it if turned."""
    vertices = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * size + [0.1, 0.07, z]
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    return Mesh(vertices, faces[:, ::-1] if turned else faces, colors=np.full((4, 3), 200, np.uint8))


def both(first: Mesh, second: Mesh) -> Mesh:
    vertices = np.concatenate([first.vertices, second.vertices])
    return Mesh(vertices, np.concatenate([first.faces, second.faces + len(first.vertices)]))


def test_wall_has_its_depth_and_normal_everywhere() -> None:
    hits = RayCaster(wall(3.0)).cast(CAMERA, np.eye(4))
    assert np.allclose(hits.depth, 3, atol=1e-5)
    assert np.allclose(hits.normals, [0, 0, -1], atol=1e-6)
    assert hits.front.all()


def test_slanted_wall_follows_the_formula() -> None:
    pose = look_at(np.array([0.5, 0.2, 0]), np.array([1.5, 0, 3]), DOWN)
    hits = RayCaster(wall(3.0, size=50)).cast(CAMERA, pose)
    normal = pose[:3, :3] @ [0, 0, -1]
    on_wall = transform(pose, np.array([0.0, 0, 3]))
    wanted = (normal @ on_wall) / (rays(CAMERA.K, 32, 24) @ normal)
    assert np.allclose(hits.depth, wanted, rtol=1e-5)


def test_barycentric_weights_give_the_point() -> None:
    mesh = wall(3.0)
    hits = RayCaster(mesh).cast(CAMERA, np.eye(4))
    points = np.einsum("hwk,hwkc->hwc", hits.barycentric, mesh.vertices[mesh.faces[hits.faces]])
    centers = project(CAMERA.K, points)
    assert np.allclose(centers[5, 7], [7.5, 5.5], atol=1e-3)


def test_rays_past_the_mesh_meet_nothing() -> None:
    hits = RayCaster(wall(3.0, size=0.3)).cast(CAMERA, np.eye(4))
    assert hits.depth[0, 0] == 0
    assert hits.faces[0, 0] == -1
    assert not hits.normals[0, 0].any()


def test_empty_mesh_is_never_met() -> None:
    nothing = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    assert not RayCaster(nothing).cast(CAMERA, np.eye(4)).depth.any()
    assert np.isinf(RayCaster(nothing).distance(np.zeros((2, 3)))).all()


def test_back_sides_are_seen_or_passed() -> None:
    caster = RayCaster(both(wall(2.0, turned=True), wall(3.0)))
    seen, passed = (caster.cast(CAMERA, np.eye(4), through_backs=flag) for flag in (False, True))
    assert np.allclose(seen.depth, 2, atol=1e-5)
    assert not seen.front.any()
    assert np.allclose(passed.depth, 3, atol=1e-4)
    assert passed.front.all()


def test_distance_is_that_to_the_plane() -> None:
    points = np.array([[0.0, 0, 0], [0, 0, 5], [1, 1, 3]])
    assert np.allclose(RayCaster(wall(3.0)).distance(points), [3, 2, 0], atol=1e-5)


def test_picture_is_white_beside_the_mesh_and_reddish_behind_it() -> None:
    front, back = (
        RayCaster(wall(3.0, size=0.8, turned=turned)).draw(CAMERA, np.eye(4)) for turned in (False, True)
    )
    assert front[0, 0].tolist() == [255, 255, 255]
    red, green, _ = back[12, 16]
    assert red > 1.3 * green
    assert len(set(front[12, 16].tolist())) == 1


@pytest.mark.parametrize("toward", [(0.0, 0, 1), (1.0, 0.3, 0.2), (-0.5, 0.9, 0.1)])
def test_orbit_view_has_all_points_in_the_picture(toward: tuple[float, float, float]) -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * [3, 1, 2]
    pose = orbit_view(points, CAMERA, np.array(toward), DOWN)
    uv = project(CAMERA.K, transform(pose, points))
    assert ((uv > 0) & (uv < [32, 24])).all()
