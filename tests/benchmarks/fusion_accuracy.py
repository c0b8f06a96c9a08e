"""Accuracy of the fusion against Open3D's VoxelBlockGrid where truth is known; prints JSON.

- grazing: a floor seen at 60 to 80 degrees off its normal, depth noise that grows with depth squared, and a
  post in front whose edges have flying pixels;
- box: how far the fused surface is from the edges of a box seen from all sides, exact depth;
- plate: two voxels thin, seen from both sides; share of it that is there.

    python tests/benchmarks/fusion_accuracy.py
"""

import json

import numpy as np
from fusion_speed import DOWN, Frame, fuse_open3d, fuse_ours

from recon.geometry import depth_edges, look_at
from recon.raycasting import RayCaster, import_open3d
from recon.scene import Camera, DepthMap, Mesh

VOXEL, NOISE = 0.01, 0.002
TURN = np.array([0.5, 0.3, 0.2])  # off the axes of the grid


def mesh_of(shape: object) -> Mesh:
    return Mesh(np.asarray(shape.vertices), np.asarray(shape.triangles).astype(np.int64))  # type: ignore[attr-defined]


def joined(*meshes: Mesh) -> Mesh:
    firsts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    faces = [mesh.faces + first for mesh, first in zip(meshes, firsts, strict=False)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def see(truth: Mesh, center: np.ndarray, target: np.ndarray, noise: float, seed: int) -> Frame:
    camera, pose = Camera.from_fov(640, 480, 60.0), look_at(center, target, DOWN)
    hits = RayCaster(truth).cast(camera, pose)
    rng, depth = np.random.default_rng(seed), hits.depth
    sigma = np.maximum(noise * depth**2, 1e-4)
    if noise:
        depth = depth + rng.normal(0, 1, depth.shape) * sigma
        flying = depth_edges(hits.depth, 0.1) & (hits.depth > 0)
        depth = np.where(flying, depth * rng.uniform(0.75, 1.0, depth.shape), depth)
    valid = (hits.depth > 0) & (hits.depth < 8)
    depth_map = DepthMap(
        camera,
        np.where(valid, depth, 0).astype(np.float32),
        np.where(valid[..., None], hits.normals, 0).astype(np.float32),
        np.where(valid, sigma, 0).astype(np.float32),
    )
    return Frame(depth_map, pose, np.full((480, 640, 3), 128, np.uint8))


def turned_box(size: tuple[float, float, float]) -> Mesh:
    o3d = import_open3d()
    box = o3d.geometry.TriangleMesh.create_box(*size)
    box.translate(-np.array(size) / 2)
    box.rotate(o3d.geometry.get_rotation_matrix_from_xyz(TURN), center=np.zeros(3))
    return mesh_of(box)


def around(count: int, distance: float) -> list[np.ndarray]:
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    angle, ring = 2.399963 * np.arange(count), np.sqrt(1 - height**2)
    return list(distance * np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=-1))


def grazing() -> dict[str, object]:
    o3d = import_open3d()
    floor = o3d.geometry.TriangleMesh.create_box(14, 14, 0.01).translate((-7, -7, -0.0069))
    post = o3d.geometry.TriangleMesh.create_box(0.2, 0.2, 0.8).translate((-0.1, 1.4, 0.0))
    truth = joined(mesh_of(floor), mesh_of(post))
    frames = []
    for i in range(12):
        angle = 2 * np.pi * i / 12
        center = np.array([2.1 * np.sin(angle), 1.5 - 2.1 * np.cos(angle), 0.75])
        frames.append(see(truth, center, np.array([0.0, 1.5, 0.1]), NOISE, i))
    caster, result = RayCaster(truth), {}
    for name, fuse in (("ours", fuse_ours), ("open3d", fuse_open3d)):
        mesh = fuse(frames, VOXEL).mesh
        near = (np.abs(mesh.vertices[:, :2] - [0, 1.5]) < 1.5).all(axis=1)
        error = 1000 * caster.distance(mesh.vertices[near])
        result[name] = {
            "mean_mm": float(error.mean()),
            "p95_mm": float(np.percentile(error, 95)),
            "flying_over_3_voxels": int((error > 3000 * VOXEL).sum()),
            "vertices": int(near.sum()),
        }
    return result


def box() -> dict[str, object]:
    truth = turned_box((0.613, 0.523, 0.437))
    frames = [see(truth, center, np.zeros(3), 0.0, 0) for center in around(40, 1.7)]
    corners = truth.vertices
    t = np.linspace(0.05, 0.95, 200)[:, None]
    pairs = [(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1]
    edges = np.concatenate([corners[a] * t + corners[b] * (1 - t) for a, b in pairs])
    result = {}
    for name, fuse in (("ours", fuse_ours), ("open3d", fuse_open3d)):
        mesh = fuse(frames, VOXEL).mesh
        rounding = RayCaster(mesh).distance(edges) / VOXEL
        result[name] = {
            "edges_mean_voxels": float(rounding.mean()),
            "edges_max_voxels": float(rounding.max()),
            "mean_mm": float(1000 * RayCaster(truth).distance(mesh.vertices).mean()),
        }
    return result


def plate() -> dict[str, object]:
    truth = turned_box((0.8, 0.8, 2 * VOXEL))
    frames = [see(truth, center, np.zeros(3), 0.0, 0) for center in around(24, 1.6)]
    samples = np.asarray(truth.vertices)
    rng = np.random.default_rng(0)
    corners, areas = samples[truth.faces], None
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    picked = rng.choice(len(areas), 5000, p=areas / areas.sum())
    a, b = rng.uniform(0, 1, (2, 5000, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    p, q, r = corners[picked].swapaxes(0, 1)
    points = p + a * (q - p) + b * (r - p)
    result = {}
    for name, fuse in (("ours", fuse_ours), ("open3d", fuse_open3d)):
        mesh = fuse(frames, VOXEL).mesh
        there = RayCaster(mesh).distance(points) < 0.5 * VOXEL
        back = RayCaster(truth).distance(mesh.vertices)
        result[name] = {"there": float(there.mean()), "mean_mm": float(1000 * back.mean())}
    return result


def main() -> None:
    print(json.dumps({"grazing": grazing(), "box": box(), "plate": plate()}, indent=1))


if __name__ == "__main__":
    main()
