"""Sensor depth of a real room, fused by us and by Open3D, against the depth of frames held out; prints JSON.

Every fifth frame of a folder in the layout of 7-Scenes is held out: its depth is compared with the mesh's
depth along the same rays, all that a mesh covers and, to compare like with like, what both cover. Normals
come from the depth maps, sigma from the sensor's law, 2.85 mm z^2 (Khoshelham and Elberink, 2012).
`--picture` renders both meshes.

    python tests/benchmarks/fusion_sensor.py FOLDER --picture kitchen.png
"""

import argparse
import json
from pathlib import Path

import numpy as np
from fusion_speed import Frame, fuse_open3d, fuse_ours
from PIL import Image

from recon.geometry import invert, normals_from_depth
from recon.raycasting import RayCaster
from recon.scene import Camera, DepthMap, Mesh

SIGMA_PER_DEPTH2 = 0.00285
FAR = 4.0  # metres; the sensor's law holds up to here


def frames_of(folder: Path) -> list[Frame]:
    K = np.loadtxt(folder / "camera-intrinsics.txt")
    K[:2, 2] += 0.5  # the file counts from the centre of the first pixel
    frames = []
    for path in sorted(folder.glob("frames/*.depth.png")):
        raw = np.asarray(Image.open(path)).astype(np.float32)
        depth = np.where((raw > 0) & (raw < 1000 * FAR), raw / 1000, 0).astype(np.float32)
        camera = Camera(K, depth.shape[1], depth.shape[0])
        normals = np.nan_to_num(normals_from_depth(camera.K, depth)).astype(np.float32)
        sigma = (SIGMA_PER_DEPTH2 * depth**2).astype(np.float32)
        world_from_cam = np.loadtxt(str(path).replace("depth.png", "pose.txt"))
        u, _, vt = np.linalg.svd(world_from_cam[:3, :3])  # printed with too few digits to be a rotation
        world_from_cam[:3, :3] = u @ vt
        pose = invert(world_from_cam)
        color = np.asarray(Image.open(str(path).replace("depth.png", "color.jpg")).convert("RGB"))
        frames.append(Frame(DepthMap(camera, depth, normals, sigma), pose, color))
    return frames


def held_out_errors(mesh: Mesh, held: list[Frame]) -> np.ndarray:
    """Relative errors at all pixels of known depth; NaN where the mesh has none."""
    caster, errors = RayCaster(mesh), []
    for frame in held:
        depth = frame.depth_map.depth
        hits = caster.cast(frame.depth_map.camera, frame.cam_from_world)
        known = depth > 0
        found = np.where(hits.depth > 0, hits.depth, np.nan)[known]
        errors.append(np.abs(found - depth[known]) / depth[known])
    return np.concatenate(errors)


def summary(errors: np.ndarray, common: np.ndarray, mesh: Mesh) -> dict[str, float]:
    seen = errors[~np.isnan(errors)]
    return {
        "median_percent": float(100 * np.median(seen)),
        "mean_percent": float(100 * seen.mean()),
        "p90_percent": float(100 * np.percentile(seen, 90)),
        "mean_where_both_cover_percent": float(100 * errors[common].mean()),
        "within_2_percent_of_all": float((seen < 0.02).sum() / len(errors)),
        "covered": float(len(seen) / len(errors)),
        "triangles": len(mesh.faces),
    }


def shaded(mesh: Mesh, frame: Frame) -> np.ndarray:
    hits = RayCaster(mesh).cast(frame.depth_map.camera, frame.cam_from_world)
    light = np.clip(-hits.normals[..., 2], 0, 1) * (hits.depth > 0)
    return (255 * np.repeat(light[..., None], 3, axis=2)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--voxel", type=float, default=0.02)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    frames = frames_of(options.folder)
    held, used = frames[4::5], [frame for i, frame in enumerate(frames) if i % 5 != 4]
    ours, theirs = fuse_ours(used, options.voxel), fuse_open3d(used, options.voxel)
    errors = [held_out_errors(run.mesh, held) for run in (ours, theirs)]
    common = ~np.isnan(errors[0] + errors[1])
    found = [summary(error, common, run.mesh) for error, run in zip(errors, (ours, theirs), strict=True)]
    print(json.dumps({"frames": len(used), "ours": found[0], "open3d": found[1]}, indent=1))
    if options.picture:
        rows = [
            np.concatenate([shaded(ours.mesh, frame), shaded(theirs.mesh, frame), frame.color], axis=1)
            for frame in held[1::6]
        ]
        Image.fromarray(np.concatenate(rows)).save(options.picture)


if __name__ == "__main__":
    main()
