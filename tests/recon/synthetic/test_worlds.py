import numpy as np
import pytest

from recon import synthetic
from recon.errors import InputError
from recon.geometry import rotation_from_wxyz, transform
from recon.synthetic.shapes import ball, box, frustum


def signed_volume(vertices, faces):
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return np.einsum("fc,fc->", a, np.cross(b, c)) / 6


def edge_uses(faces):
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1]


@pytest.mark.parametrize(
    ("shape", "volume", "tolerance"),
    [
        (box((0.0, 1.0, 2.0), (2.0, 2.0, 5.0), yaw=0.7), 6.0, 1e-12),
        (ball((5.0, -3.0, 1.0), 2.0, 4), 4 / 3 * np.pi * 8, 3e-3),
        (frustum((1.0, 2.0, 3.0), 2.0, (1.0, 0.5)), np.pi * 2 * (1 + 0.5 + 0.25) / 3, 2e-3),
    ],
    ids=["box", "ball", "frustum"],
)
def test_shapes_are_closed_outward_and_of_known_volume(shape, volume, tolerance):
    assert (edge_uses(shape[1]) == 2).all()
    assert signed_volume(*shape) == pytest.approx(volume, rel=tolerance)


def test_ball_vertices_lie_on_the_sphere_and_faces_within_the_stated_sag():
    vertices, faces = ball((0.0, 0.0, 0.0), 1.0, 3)
    middles = np.linalg.norm(vertices[faces].mean(axis=1), axis=1)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, atol=1e-12)
    assert 1 - middles.min() < 0.3 * 4.0**-3


@pytest.mark.parametrize("make", [synthetic.room, synthetic.tabletop], ids=["room", "tabletop"])
def test_every_camera_sees_front_faces_only(make):
    world = make()
    cameras = {"room": synthetic.room_cameras, "tabletop": synthetic.tabletop_cameras}[make.__name__](
        world, 64, 48, 8
    )
    caster = synthetic.capturing.RayCaster(world.mesh)
    hits = [caster.cast(*camera) for camera in cameras]
    assert all((hit.front == (hit.faces >= 0)).all() for hit in hits)


def test_box_room_is_seen_all_around_at_the_depth_of_its_walls():
    world = synthetic.box_room()
    camera = synthetic.capturing.Camera.from_fov(33, 25, 60.0)
    ring = synthetic.look_around(world, camera, radius=0.5, count=4)
    depth = synthetic.exact_depth(synthetic.capturing.RayCaster(world.mesh), *ring[0]).depth
    assert depth[12, 16] == pytest.approx(1.5, rel=1e-6)


def test_a_moved_world_looks_the_same_to_cameras_that_move_along():
    world = synthetic.tabletop()
    new_from_world = np.eye(4)
    new_from_world[:3, :3] = 3 * rotation_from_wxyz(np.array([1.0, 0.3, -0.5, 0.2]))
    new_from_world[:3, 3] = [5, -2, 1]
    moved = world.moved(new_from_world)
    camera = synthetic.capturing.Camera.from_fov(64, 48, 50.0)
    before = synthetic.capture(world, synthetic.orbit(world, camera, radius=0.6, height=0.4, count=3), seed=1)
    after = synthetic.capture(moved, synthetic.orbit(moved, camera, radius=1.8, height=1.2, count=3), seed=1)
    for name, image in before.images.items():
        different = np.abs(image.astype(int) - after.images[name]).max(axis=-1) > 2
        assert different.mean() < 0.01  # ray casting is float32, so a few edge samples change sides
    np.testing.assert_allclose(
        transform(new_from_world, world.mesh.vertices), moved.mesh.vertices, rtol=0, atol=1e-12
    )


def test_a_world_of_nothing_is_an_input_error():
    with pytest.raises(InputError, match="no parts"):
        synthetic.build_world([], (), center=(0.0, 0.0, 0.0))


def test_cameras_of_a_moved_room_move_along():
    world = synthetic.room()
    new_from_world = np.diag([4.0, 4.0, 4.0, 1.0])
    before = synthetic.room_cameras(world, 32, 24, 4)[1][1]
    after = synthetic.room_cameras(world.moved(new_from_world), 32, 24, 4)[1][1]
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], atol=1e-12)
    np.testing.assert_allclose(after[:3, 3], 4 * before[:3, 3], rtol=1e-9)


def test_a_room_too_small_for_its_furniture_is_an_input_error():
    with pytest.raises(InputError, match="room: size"):
        synthetic.room(size=(1.0, 1.0, 1.0))
