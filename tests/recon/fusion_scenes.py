"""Depth maps of spheres and planes with known truth, for the tests of the fusion."""

import numpy as np

from recon.fusion import TSDFVolume
from recon.geometry import invert, look_at, points_from_depth, rays, transform
from recon.scene import Camera, DepthMap

CAMERA = Camera.from_fov(64, 48, 60.0)
RADIUS, VOXEL = 1.0, 0.07
GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


def depth_map_of(depth, normals, sigma=0.01, camera=CAMERA):
    depth = depth.astype(np.float32)
    valid = depth > 0
    return DepthMap(
        camera,
        depth,
        np.where(valid[..., None], normals, 0).astype(np.float32),
        np.where(valid, np.float32(sigma), 0).astype(np.float32),
    )


def see_sphere(cam_from_world, camera=CAMERA, radius=RADIUS, sigma=0.01):
    """Exact depth of a sphere about the world's origin."""
    directions = rays(camera.K, camera.width, camera.height)
    center = cam_from_world[:3, 3]
    a, b = (directions**2).sum(-1), directions @ center
    disc = b**2 - a * (center @ center - radius**2)
    depth = np.where(disc > 0, (b - np.sqrt(np.maximum(disc, 0))) / a, 0)
    normals = (directions * depth[..., None] - center) / radius
    return depth_map_of(depth, normals, sigma, camera)


def see_plane(cam_from_world, normal, offset, camera=CAMERA, sigma=0.01):
    """Exact depth of the plane normal . x = offset, world frame."""
    directions = rays(camera.K, camera.width, camera.height)
    normal_cam = cam_from_world[:3, :3] @ normal
    distance = offset + normal_cam @ cam_from_world[:3, 3]
    along = directions @ normal_cam
    depth = np.where(along * distance > 0, distance / np.where(along == 0, 1, along), 0)
    facing = -normal_cam * np.sign(distance)
    return depth_map_of(depth, np.broadcast_to(facing, directions.shape), sigma, camera)


def sphere_poses(count, distance=3.0):
    """Cameras all around that look at the origin."""
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    angle = GOLDEN_ANGLE * np.arange(count)
    ring = np.sqrt(1 - height**2)
    centers = distance * np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=-1)
    return [look_at(center, np.zeros(3), np.array([0.1, 0.2, -1.0])) for center in centers]


def fuse(poses, see=see_sphere, voxel=VOXEL, threads=1, paint=None):
    volume = TSDFVolume(voxel, threads=threads)
    for pose in poses:
        depth_map = see(pose)
        volume.integrate(depth_map, pose, None if paint is None else paint(depth_map, pose))
    return volume


def positions_as_colors(depth_map, pose):
    points = transform(invert(pose), points_from_depth(depth_map.camera.K, depth_map.depth))
    return np.clip(128 + 60 * points, 0, 255).astype(np.uint8)


def boundary_edges(mesh):
    edges = np.sort(
        np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]), axis=1
    )
    _, counts = np.unique(edges, axis=0, return_counts=True)
    return counts != 2
