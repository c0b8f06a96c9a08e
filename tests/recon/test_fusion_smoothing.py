"""Surfaces are averaged where views disagree, and only there."""

import numpy as np
import pytest

from recon.fusion import TSDFVolume
from recon.geometry import look_at
from recon.scene import Camera, DepthMap
from tests.recon.fusion_scenes import depth_map_of, fuse, see_plane, see_sphere, sphere_poses

CAMERA = Camera.from_fov(96, 72, 60.0)
VOXEL = 0.03
UP = np.array([0.0, 0.0, 1.0])


def poses() -> list[np.ndarray]:
    down = np.array([0.0, 1.0, 0.0])
    return [look_at(np.array([0.4 * np.cos(a), 0.4 * np.sin(a), 2.0]), np.zeros(3), down) for a in range(8)]


def seen(pose: np.ndarray, rng: np.random.Generator, noise: float) -> DepthMap:
    """The plane z = 0 with errors of `noise` voxels that a view's neighbouring pixels share."""
    exact = see_plane(pose, UP, 0.0, CAMERA)
    rows, columns = (np.arange(n) // 4 for n in exact.depth.shape)
    errors = rng.normal(size=(24, 24))[rows][:, columns]
    return depth_map_of(exact.depth + noise * VOXEL * errors, exact.normals, 0.01, CAMERA)


def plane(noise: float, **options: object) -> TSDFVolume:
    rng = np.random.default_rng(0)
    volume = TSDFVolume(VOXEL, 4 * VOXEL, **options)
    for pose in poses():
        volume.integrate(seen(pose, rng, noise), pose)
    return volume


def tilts(mesh) -> np.ndarray:
    """Angles between the faces around the middle and the plane, degrees."""
    corners = mesh.vertices[mesh.faces]
    corners = corners[(np.abs(corners[:, :, :2]) < 0.5).all(axis=(1, 2))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.degrees(np.arccos(np.abs(normals[:, 2]) / np.linalg.norm(normals, axis=1)))


def test_a_plane_of_noisy_views_is_flat() -> None:
    volume = plane(noise=1.5)
    rough, smooth = volume.extract(smooth=False), volume.extract()
    assert np.mean(tilts(smooth)) < 0.5 * np.mean(tilts(rough))
    near = [(np.abs(mesh.vertices[:, :2]) < 0.5).all(axis=1) for mesh in (rough, smooth)]
    off = [np.abs(mesh.vertices[rows, 2]).mean() for mesh, rows in zip((rough, smooth), near, strict=True)]
    assert off[1] < 0.85 * off[0]


def test_nothing_changes_where_views_agree() -> None:
    for volume in (plane(noise=0.0), fuse(sphere_poses(30))):
        rough, smooth = volume.extract(smooth=False), volume.extract()
        np.testing.assert_array_equal(rough.vertices, smooth.vertices)
        np.testing.assert_array_equal(rough.faces, smooth.faces)


def test_the_volume_itself_stays_as_it_is() -> None:
    volume = plane(noise=1.5)
    before = {name: array.copy() for name, array in volume.arrays().items()}
    volume.extract()
    for name, array in volume.arrays().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("options", [{"threads": 3}, {"memory": 3e6}])
def test_threads_and_memory_change_nothing(options: dict[str, float]) -> None:
    one, other = plane(noise=1.5, threads=1).extract(), plane(noise=1.5, **options).extract()
    np.testing.assert_array_equal(one.vertices, other.vertices)
    np.testing.assert_array_equal(one.faces, other.faces)


def test_a_thing_seen_without_noise_keeps_its_form_beside_noise() -> None:
    """A sphere 20 voxels from a plane on which views disagree."""
    rng = np.random.default_rng(0)
    volume = TSDFVolume(VOXEL, 4 * VOXEL)
    for pose in poses():
        behind, ball = seen(pose, rng, 1.5), see_sphere(pose @ shifted(0.9), CAMERA, radius=0.3)
        depth = np.where(ball.depth > 0, ball.depth, behind.depth)
        normals = np.where(ball.depth[..., None] > 0, ball.normals, behind.normals)
        volume.integrate(depth_map_of(depth, normals, 0.01, CAMERA), pose)
    rough, smooth = volume.extract(smooth=False), volume.extract()
    middle = np.array([0.0, 0.0, 0.9])
    errors = [
        np.abs(np.linalg.norm(mesh.vertices[mesh.vertices[:, 2] > 0.95] - middle, axis=1) - 0.3)
        for mesh in (rough, smooth)
    ]
    assert errors[1].mean() < 1.02 * errors[0].mean()


def shifted(height: float) -> np.ndarray:
    """From a frame whose origin is so high above the world's."""
    pose = np.eye(4)
    pose[2, 3] = height
    return pose


def test_voxels_on_a_device_are_averaged_too() -> None:
    one, other = plane(noise=1.5).extract(), plane(noise=1.5, device="cpu:0").extract()
    np.testing.assert_array_equal(one.faces, other.faces)
    np.testing.assert_allclose(one.vertices, other.vertices, atol=0.01 * VOXEL)
