"""Speed and accuracy of the fusion against Open3D's VoxelBlockGrid; prints JSON.

Both fuse the same depth maps and photos of a room with objects, with the same voxel size, truncation distance
and block size, two threads each, in turns. Every figure is a median over rounds; ratios are taken within a
round, and their spread is the smallest and the largest. On a machine with other work wall seconds say little,
so CPU seconds stand beside them. `--noise` adds depth noise that grows with depth squared, and flying pixels
at depth edges.

Open3D takes and clears the memory of its blocks when the volume is made. In `speed_ratio` both have taken the
memory for as many blocks before the first view (`TSDFVolume.reserve`), outside of the time. Where ours takes
memory view by view, as it does when nobody says how much, it is `speed_ratio_unreserved` beside Open3D's time
without the making, and `speed_ratio_with_memory` with it.

`bandwidth` compares with what the memory allows: a view's pixels are read once and the voxels that it changes
are read and written once; how fast that could be is measured by copying arrays on as many threads.

    python tests/benchmarks/fusion_speed.py --views 40 --rounds 3 --noise 0.002
"""

import os

os.environ["OMP_NUM_THREADS"] = "2"  # before any library starts its threads

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from recon.fusion import TSDFVolume
from recon.geometry import depth_edges, invert, look_at, points_from_depth, transform
from recon.raycasting import RayCaster, import_open3d
from recon.scene import Camera, DepthMap, Mesh

SIDE, THREADS, TRUNCATION_VOXELS = 8, 2, 4.0
BLOCKS = 30000  # that Open3D's volume is made with
VOXEL_BYTES = 20  # of a voxel in both: here with gradient and variance, there with colours as three floats
DOWN = np.array([0.0, 0, -1])


@dataclass
class Frame:
    depth_map: DepthMap
    cam_from_world: np.ndarray
    color: np.ndarray


def room() -> Mesh:
    """A room of 4 x 3 x 2.5 with eight objects, off the voxel lattice."""
    shapes = import_open3d().geometry.TriangleMesh
    inside = shapes.create_box(4.013, 3.007, 2.511)
    parts = [(np.asarray(inside.vertices), np.asarray(inside.triangles)[:, ::-1], (0.0031, 0.0017, 0.0023))]
    for shape, place in [
        (shapes.create_sphere(0.4, 50), (1, 1, 0.41)),
        (shapes.create_box(0.6, 0.5, 0.7), (2.5, 0.4, 0.0123)),
        (shapes.create_cylinder(0.25, 0.9, 60), (3.3, 2.2, 0.47)),
        (shapes.create_cone(0.3, 0.8, 60), (0.7, 2.3, 0.013)),
        (shapes.create_torus(0.35, 0.12, 60, 40), (2.1, 1.6, 0.13)),
        (shapes.create_box(0.4, 0.4, 1.3), (3.4, 0.3, 0.0127)),
        (shapes.create_sphere(0.25, 50), (2.8, 1.3, 0.9)),
        (shapes.create_cylinder(0.08, 1.6, 40), (1.8, 2.5, 0.81)),
    ]:
        parts.append((np.asarray(shape.vertices), np.asarray(shape.triangles), place))
    starts = np.cumsum([0] + [len(vertices) for vertices, _, _ in parts])
    return Mesh(
        np.concatenate([vertices + np.array(place) for vertices, _, place in parts]),
        np.concatenate([faces + start for (_, faces, _), start in zip(parts, starts, strict=False)]).astype(
            np.int64
        ),
    )


def render(caster: RayCaster, camera: Camera, view: int, views: int, noise: float) -> Frame:
    angle = 2 * np.pi * view / views
    gaze = angle + np.pi + 0.7 * np.sin(5 * angle)
    center = np.array([2 + 1.3 * np.cos(angle), 1.5 + 0.9 * np.sin(angle), 1.2 + 0.5 * np.sin(3 * angle)])
    target = np.array([2 + 1.5 * np.cos(gaze), 1.5 + 1.2 * np.sin(gaze), 0.7 + 0.4 * np.cos(2 * angle)])
    pose = look_at(center, target, DOWN)
    hits = caster.cast(camera, pose)
    points = transform(invert(pose), points_from_depth(camera.K, hits.depth))
    color = (255 * (0.5 + 0.5 * np.sin(7 * points))).astype(np.uint8)
    depth, sigma = hits.depth, np.maximum(noise * hits.depth**2, 1e-4).astype(np.float32)
    if noise:
        rng = np.random.default_rng(view)
        depth = depth + rng.normal(0, 1, depth.shape) * sigma
        flying = depth_edges(hits.depth, 0.1) & (hits.depth > 0)
        depth = np.where(flying, depth * rng.uniform(0.75, 1.0, depth.shape), depth).astype(np.float32)
    sigma = np.where(depth > 0, sigma, 0).astype(np.float32)
    return Frame(DepthMap(camera, depth, hits.normals, sigma), pose, color)


@dataclass
class Run:
    integrate_s: float
    integrate_cpu_s: float
    memory_s: float
    """In which the volume was made, before."""

    extract_s: float
    mesh: Mesh
    bytes: int


def fuse_ours(frames: list[Frame], voxel: float, reserved: int = 0) -> Run:
    making = time.perf_counter()
    volume = TSDFVolume(voxel, TRUNCATION_VOXELS * voxel, threads=THREADS)
    if reserved:
        volume.reserve(reserved, colored=True)
    start, cpu = time.perf_counter(), time.process_time()
    for frame in frames:
        volume.integrate(frame.depth_map, frame.cam_from_world, frame.color)
    integrated, cpu = time.perf_counter(), time.process_time() - cpu
    mesh = volume.extract()
    extracted = time.perf_counter()
    return Run(integrated - start, cpu, start - making, extracted - integrated, mesh, volume.size.bytes)


def fuse_open3d(frames: list[Frame], voxel: float) -> Run:
    o3d = import_open3d()
    core, tensor_image = o3d.core, o3d.t.geometry.Image
    prepared = [
        (
            tensor_image(core.Tensor(frame.depth_map.depth)),
            tensor_image(core.Tensor(frame.color.astype(np.float32) / 255)),
            core.Tensor(frame.depth_map.camera.K),
            core.Tensor(frame.cam_from_world),
        )
        for frame in frames
    ]
    making = time.perf_counter()
    grid = o3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight", "color"), (core.float32,) * 3, ((1), (1), (3)), voxel, SIDE, BLOCKS
    )
    start, cpu = time.perf_counter(), time.process_time()
    for depth, color, K, pose in prepared:
        touched = grid.compute_unique_block_coordinates(depth, K, pose, 1.0, 100.0, TRUNCATION_VOXELS)
        grid.integrate(touched, depth, color, K, K, pose, 1.0, 100.0, TRUNCATION_VOXELS)
    integrated, cpu = time.perf_counter(), time.process_time() - cpu
    found = grid.extract_triangle_mesh(1.0)
    seconds = time.perf_counter() - integrated
    mesh = Mesh(
        found.vertex.positions.numpy().astype(np.float64), found.triangle.indices.numpy().astype(np.int64)
    )
    return Run(
        integrated - start, cpu, start - making, seconds, mesh, grid.hashmap().size() * SIDE**3 * VOXEL_BYTES
    )


def bytes_to_move(frames: list[Frame], voxel: float) -> float:
    """Per view, at least: its pixels once, the voxels that it changes once in and once out."""
    volume = TSDFVolume(voxel, TRUNCATION_VOXELS * voxel, threads=THREADS)
    total = 0
    for frame in frames:
        before = volume.arrays()["weight"].copy() if volume.views else np.zeros((0, SIDE**3), np.float32)
        volume.integrate(frame.depth_map, frame.cam_from_world, frame.color)
        after = volume.arrays()["weight"]
        changed = (after[: len(before)] != before).sum() + (after[len(before) :] > 0).sum()
        maps = (frame.depth_map.depth, frame.depth_map.normals, frame.depth_map.sigma, frame.color)
        total += sum(array.nbytes for array in maps) + 2 * VOXEL_BYTES * int(changed)
    return total / len(frames)


def copied_per_second() -> float:
    """Bytes read and written per second by copies of arrays larger than caches, the best of ten."""
    parts = [(np.ones(2**24, np.float32), np.ones(2**24, np.float32)) for _ in range(THREADS)]
    seconds = []
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(10):
            start = time.perf_counter()
            list(pool.map(lambda part: np.copyto(*part), parts))
            seconds.append(time.perf_counter() - start)
    return sum(2 * source.nbytes for source, _ in parts) / min(seconds)


def accuracy(mesh: Mesh, truth: RayCaster, seen: np.ndarray) -> dict[str, float]:
    """Distances in thousandths of the scene's unit, which is the metre here."""
    there, back = 1000 * truth.distance(mesh.vertices), 1000 * RayCaster(mesh).distance(seen)
    return {
        "mesh_to_truth_mean_mm": there.mean(),
        "mesh_to_truth_p95_mm": np.percentile(there, 95),
        "truth_to_mesh_mean_mm": back.mean(),
        "truth_to_mesh_p95_mm": np.percentile(back, 95),
        "triangles": len(mesh.faces),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--voxel", type=float, default=0.01)
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of depth at depth 1")
    options = parser.parse_args()
    truth, camera = RayCaster(room()), Camera.from_fov(640, 480, 65.0)
    frames = [render(truth, camera, i, options.views, options.noise) for i in range(options.views)]
    clean = [render(truth, camera, i, options.views, 0.0) for i in range(options.views)]
    seen = np.concatenate(
        [
            transform(
                invert(frame.cam_from_world), points_from_depth(camera.K, frame.depth_map.depth)[::9, ::9]
            ).reshape(-1, 3)
            for frame in clean
        ]
    )
    fuse_ours(frames[:2], options.voxel)  # compiles, or reads the compiled kernels
    fuse_open3d(frames[:2], options.voxel)
    unreserved, ours, theirs = [], [], []
    for _ in range(options.rounds):
        time.sleep(1)  # until the threads of Open3D no longer wait actively for more
        unreserved.append(fuse_ours(frames, options.voxel))
        ours.append(fuse_ours(frames, options.voxel, BLOCKS))
        theirs.append(fuse_open3d(frames, options.voxel))
    per_view, pairs = 1000 / options.views, list(zip(ours, theirs, strict=True))
    unreserved_pairs = list(zip(unreserved, theirs, strict=True))
    moved, copied = bytes_to_move(frames, options.voxel), copied_per_second()
    least_ms = 1000 * moved / copied
    print(
        json.dumps(
            {
                "views": options.views,
                "voxel": options.voxel,
                "noise": options.noise,
                "load": os.getloadavg()[0],
                "ours_ms_per_view": spread([run.integrate_s * per_view for run in ours]),
                "unreserved_ms_per_view": spread([run.integrate_s * per_view for run in unreserved]),
                "open3d_ms_per_view": spread([run.integrate_s * per_view for run in theirs]),
                "ours_cpu_ms_per_view": spread([run.integrate_cpu_s * per_view for run in ours]),
                "open3d_cpu_ms_per_view": spread([run.integrate_cpu_s * per_view for run in theirs]),
                "speed_ratio": spread([b.integrate_s / a.integrate_s for a, b in pairs]),
                "speed_ratio_unreserved": spread(
                    [b.integrate_s / a.integrate_s for a, b in unreserved_pairs]
                ),
                "speed_ratio_with_memory": spread(
                    [(b.memory_s + b.integrate_s) / (a.memory_s + a.integrate_s) for a, b in unreserved_pairs]
                ),
                "cpu_ratio": spread([b.integrate_cpu_s / a.integrate_cpu_s for a, b in pairs]),
                "bandwidth": {
                    "moved_mb_per_view": moved / 1e6,
                    "copied_gb_per_s": copied / 1e9,
                    "least_ms_per_view": least_ms,
                    "share_reached": least_ms / (per_view * np.median([run.integrate_s for run in ours])),
                },
                "ours_extract_s": spread([run.extract_s for run in ours]),
                "open3d_extract_s": spread([run.extract_s for run in theirs]),
                "ours_bytes": ours[-1].bytes,
                "open3d_bytes": theirs[-1].bytes,
                "ours": accuracy(ours[-1].mesh, truth, seen),
                "open3d": accuracy(theirs[-1].mesh, truth, seen),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
