"""A hall larger than memory: fused with and without a limit, in processes of their own; prints JSON.

A hall of 40 x 40 x 3 with walls, pillars and boxes, seen by `--views` cameras of 640 x 480, voxels of 2 cm.
Each process says how much memory it took at most after integration and after extraction, and what it made;
the parent compares the meshes byte for byte and counts open edges.

    python tests/benchmarks/fusion_memory.py --views 300 --memory 0.2
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time

import numpy as np

from recon.fusion import TSDFVolume
from recon.geometry import invert, look_at, points_from_depth, transform
from recon.raycasting import RayCaster
from recon.scene import Camera, DepthMap, Mesh

SIZE, HEIGHT = 40.013, 3.007
DOWN = np.array([0.0, 0, -1])


def box(low: np.ndarray, high: np.ndarray, inside: bool) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return low + corners * (high - low), faces[:, ::-1] if inside else faces


def hall() -> Mesh:
    rng = np.random.default_rng(1)
    parts = [box(np.array([0.0031, 0.0017, 0.0023]), np.array([SIZE, SIZE, HEIGHT]), True)]
    for i in range(4):
        for j in range(4):
            low = np.array([8.0 * i + 7.7 + 0.0123, 8.0 * j + 7.7 + 0.0071, 0.0])
            parts.append(box(low, low + np.array([0.5, 0.5, 3.0]), False))
    for _ in range(60):
        low = np.append(rng.uniform(1, 38, 2), 0.0)
        parts.append(box(low, low + rng.uniform(0.4, 1.6, 3), False))
    vertices, faces, first = [], [], 0
    for v, f in parts:
        vertices.append(v)
        faces.append(f + first)
        first += len(v)
    return Mesh(np.concatenate(vertices), np.concatenate(faces).astype(np.int64))


def pose(view: int, views: int) -> np.ndarray:
    """Rows of cameras at eye height that look around."""
    side = int(np.ceil(np.sqrt(views)))
    i, j = view // side, view % side
    center = np.array([1.5 + 37.0 * (i + 0.5) / side, 1.5 + 37.0 * (j + 0.5) / side, 1.61])
    angle = 2.399963 * view  # the golden angle: all directions alike
    return look_at(center, center + np.array([np.cos(angle), np.sin(angle), -0.25]), DOWN)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(views: int, voxel: float, memory: float | None) -> dict[str, object]:
    camera, caster = Camera.from_fov(640, 480, 75.0), RayCaster(hall())
    volume = TSDFVolume(voxel, threads=2, memory=None if memory is None else memory * 1e9)
    start, cpu, spent = peak_mb(), 0.0, 0.0
    for view in range(views):
        cam_from_world = pose(view, views)
        hits = caster.cast(camera, cam_from_world)
        near = (hits.depth > 0) & (hits.depth < 12)
        depth = np.where(near, hits.depth, 0).astype(np.float32)
        normals = np.where(near[..., None], hits.normals, 0).astype(np.float32)
        points = transform(invert(cam_from_world), points_from_depth(camera.K, depth))
        color = (127.5 + 127.5 * np.sin(points)).astype(np.uint8)
        depth_map = DepthMap(camera, depth, normals, np.where(near, 0.004, 0).astype(np.float32))
        before, wall = time.process_time(), time.perf_counter()
        volume.integrate(depth_map, cam_from_world, color)
        cpu, spent = cpu + time.process_time() - before, spent + time.perf_counter() - wall
    integrated, before = peak_mb(), time.perf_counter()
    mesh = volume.extract()
    seconds = time.perf_counter() - before
    extracted = peak_mb()
    hashes = {
        name: hashlib.sha256(np.ascontiguousarray(getattr(mesh, name))).hexdigest()
        for name in ("vertices", "faces", "normals", "colors")
    }
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    keys = np.sort(edges[:, 0] * len(mesh.vertices) + edges[:, 1])
    changes = np.flatnonzero(np.diff(keys, prepend=-1, append=-1))
    return {
        "memory_gb": memory,
        "blocks": volume.size.blocks,
        "volume_gb": volume.size.bytes / 1e9,
        "peak_mb_before": start,
        "peak_mb_integrated": integrated,
        "peak_mb_extracted": extracted,
        "integrate_ms_per_view": 1000 * spent / views,
        "integrate_cpu_ms_per_view": 1000 * cpu / views,
        "extract_s": seconds,
        "triangles": len(mesh.faces),
        "open_edges": int((np.diff(changes) == 1).sum()),
        "hashes": hashes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--views", type=int, default=300)
    parser.add_argument("--voxel", type=float, default=0.02)
    parser.add_argument("--memory", type=float, default=0.2, help="limit of the second run, GB")
    parser.add_argument("--limit", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.limit is not None:
        print(json.dumps(run(options.views, options.voxel, options.limit or None)))
        return
    results = []
    for limit in (0.0, options.memory):
        words = [sys.executable, __file__, "--views", str(options.views), "--voxel", str(options.voxel)]
        done = subprocess.run([*words, "--limit", str(limit)], check=True, stdout=subprocess.PIPE)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    same = results[0].pop("hashes") == results[1].pop("hashes")
    print(json.dumps({"views": options.views, "same_bytes": same, "runs": results}, indent=1))


if __name__ == "__main__":
    main()
