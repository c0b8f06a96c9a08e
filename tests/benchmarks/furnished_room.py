"""A furnished room with blank walls: photos to mesh with the embedded model, without one, and by OpenMVS.

    [OPENMVS=FOLDER] python -m tests.benchmarks.furnished_room FOLDER [--views 16 24] [--seeds 0 7]
        [--keep OUT]

FOLDER is `mesh_drake_living_room` (CC0): textured furniture, wooden floor, painted walls of one colour each,
6 x 6 x 3 m. Photos of 640x480 from a circle of 1.5 m radius across the room, lamps with shadows, exposures
and a sensor's noise; true cameras; sparse points as SIFT and COLMAP find them there (some hundred in all).
For OPENMVS see `openmvs.py`; without it ours alone is measured.

Prints one JSON object per room: F-scores at 1, 2 and 5 cm, precision, completeness, normal consistency,
seconds; with `--keep` a picture per mesh, below it the mesh in the colours of its error (red from 5 cm).
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.evaluation import error_colors, evaluate_mesh, vertex_distances
from recon.geometry import look_at, transform
from recon.io import colmap
from recon.io.images import write_image
from recon.raycasting import RayCaster
from recon.scene import Camera, Mesh, View
from tests.benchmarks.openmvs import POINTS, Made, run_openmvs, run_ours
from tests.benchmarks.room_mesh import THRESHOLDS
from tests.benchmarks.scanned_world import (
    GAMMA,
    SENSOR_NOISE,
    SUPERSAMPLE,
    Skin,
    sampled,
    skin_of,
    world_points,
)

LAMPS = (((0.5, 0.3, 2.9), 2.2), ((-1.8, -1.5, 2.6), 1.2), ((2.0, -2.0, 1.6), 0.5))
AMBIENT = 0.35
EXPOSURE = 0.15  # standard deviation, stops
RADIUS, EYE, AIM = 1.5, 1.45, 0.7  # m, of the circle of cameras; heights of the cameras and of what they see
FOV_DEG = 65.0
NEAREST = 0.5  # m, of what a photo shows
FEATURE_SIZE = 1600
ERROR_LIMIT = 0.05  # m, red in the pictures
SHADOW_GAP = 1e-3  # m above a surface, from which lamps are looked for
DRAWN = 5  # views in the pictures


@dataclass(frozen=True, eq=False)
class Part:
    """One material of one piece."""

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int64[np.ndarray, "m 3"]
    color: Float64[np.ndarray, "3"]
    """Linear; times the texture where there is one."""

    skin: Skin | None


def parts_of(folder: Path) -> Iterator[Part]:
    """The pieces of `scene.json` in the room."""
    import trimesh

    for entry in json.loads((folder / "scene.json").read_text())["objects"]:
        for piece in trimesh.load_scene(folder / entry["file"]).dump():
            vertices = transform(np.array(entry["matrix"]), np.asarray(piece.vertices, np.float64))
            faces = np.asarray(piece.faces, np.int64)
            material, uv = piece.visual.material, piece.visual.uv
            factor = material.baseColorFactor
            color = np.ones(3) if factor is None else np.asarray(factor[:3], np.float64) / 255
            skin = None
            if material.baseColorTexture is not None and uv is not None:
                texture = np.asarray(material.baseColorTexture.convert("RGB").resize((1024, 1024)))
                textured = Mesh(vertices, faces, texture=texture, uv=np.asarray(uv, np.float64))
                skin = skin_of((vertices, faces), textured)
            yield Part(vertices, faces, color, skin)


@dataclass(frozen=True, eq=False)
class Room:
    parts: tuple[Part, ...]
    mesh: Mesh
    caster: RayCaster

    @property
    def firsts(self) -> Int64[np.ndarray, "k"]:
        """First triangle of each part, and one past the last."""
        return np.cumsum([0, *(len(part.faces) for part in self.parts)])


def room_of(folder: Path) -> Room:
    parts = tuple(parts_of(folder))
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=False)]
    mesh = Mesh(np.concatenate([part.vertices for part in parts]), np.concatenate(faces))
    return Room(parts, mesh, RayCaster(mesh))


def views_of(room: Room, count: int, seed: int) -> list[View]:
    """Cameras on a circle, each toward the far side, none with its nose in a thing."""
    rng, camera = np.random.default_rng(seed), Camera.from_fov(640, 480, FOV_DEG)
    views: list[View] = []
    while len(views) < count:
        angle = 2 * np.pi * len(views) / count + rng.normal(0, 0.05)
        radius, toward = RADIUS + rng.normal(0, 0.15), angle + np.pi + rng.normal(0, 0.25)
        center = np.array([radius * np.cos(angle), radius * np.sin(angle), EYE + rng.normal(0, 0.2)])
        target = np.array([1.6 * np.cos(toward), 1.6 * np.sin(toward), AIM + rng.normal(0, 0.25)])
        pose = look_at(center, target, np.array([0.0, 0, -1]))
        if np.percentile(room.caster.cast(camera, pose).depth, 2) > NEAREST:
            views.append(View(f"view_{len(views):03d}.png", camera, pose))
    return views


def photograph(room: Room, view: View, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    camera = view.camera
    fine = camera.resized(camera.width * SUPERSAMPLE, camera.height * SUPERSAMPLE)
    hits = room.caster.cast(fine, view.cam_from_world)
    linear = np.ones((*hits.depth.shape, 3))
    for part, first, last in zip(room.parts, room.firsts[:-1], room.firsts[1:], strict=True):
        on = (hits.faces >= first) & (hits.faces < last)
        if not on.any():
            continue
        albedo = np.broadcast_to(part.color, (on.sum(), 3))
        if part.skin is not None:
            faces, weights = hits.faces[on] - first, hits.barycentric[on]
            texels = part.skin.texels[faces] * hits.depth[on] / fine.K[0, 0]
            uv = np.einsum("nk,nkc->nc", weights, part.skin.uv[faces])
            albedo = albedo * sampled(part.skin.levels, uv % 1, texels)
        points = world_points(fine, view, hits, on)
        linear[on] = albedo * light(room, view, points, hits.faces[on])[:, None]
    shape = (camera.height, SUPERSAMPLE, camera.width, SUPERSAMPLE, 3)
    exposed = linear.reshape(shape).mean(axis=(1, 3)) * 2 ** rng.normal(0, EXPOSURE)
    levels = 255 * np.clip(exposed, 0, 1) ** (1 / GAMMA) + rng.normal(0, SENSOR_NOISE, exposed.shape)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def light(
    room: Room, view: View, points: Float64[np.ndarray, "n 3"], faces: np.ndarray
) -> Float64[np.ndarray, "n"]:
    """Lambert's light of the lamps that are seen, both sides of a face alike."""
    import open3d as o3d

    corners = room.mesh.vertices[room.mesh.faces[faces]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    normals *= np.sign(np.einsum("nc,nc->n", view.center - points, normals))[:, None]
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(room.mesh.vertices.astype(np.float32)),
        o3d.core.Tensor(room.mesh.faces.astype(np.uint32)),
    )
    total = np.full(len(points), AMBIENT)
    start = points + SHADOW_GAP * normals
    for position, power in LAMPS:
        toward = np.array(position) - start
        squared = np.einsum("nc,nc->n", toward, toward)
        cosine = np.einsum("nc,nc->n", toward, normals) / np.sqrt(squared)
        between = o3d.core.Tensor(np.concatenate([start, toward], axis=1).astype(np.float32))
        dark = scene.test_occlusions(between, 0.0, 0.98).numpy()
        total += power * np.maximum(cosine, 0) / (squared + 0.5) * ~dark
    return total


def write_room(room: Room, views: list[View], seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Writes `images` and `sparse`; returns the photos."""
    photos = {
        view.name: photograph(room, view, np.random.default_rng((seed, index)))
        for index, view in enumerate(views)
    }
    paths = {name: folder / "images" / name for name in photos}
    for name, photo in photos.items():
        write_image(paths[name], photo)
    options = colmap.SfmOptions(max_image_size=FEATURE_SIZE)
    colmap.write_model(colmap.triangulate(paths, views, folder / "features", options), folder / "sparse")
    return photos


def draw(mesh: Mesh, room: Room, views: list[View], photos: dict[str, np.ndarray], path: Path) -> None:
    some = views[:: max(1, len(views) // DRAWN)][:DRAWN]
    wrong = error_colors(mesh, vertex_distances(mesh, room.mesh), ERROR_LIMIT)
    rows = [[photos[view.name] for view in some]]
    for shown, colored in ((mesh, False), (wrong, True)):
        caster = RayCaster(shown)
        rows.append([caster.draw(view.camera, view.cam_from_world, colored=colored) for view in some])
    write_image(path, np.concatenate([np.concatenate(row, axis=1) for row in rows]))


def compare(room: Room, count: int, seed: int, folder: Path) -> dict:
    views = views_of(room, count, seed)
    photos = write_room(room, views, seed, folder)
    made: dict[str, Made] = {}
    if programs := os.environ.get("OPENMVS"):
        made["openmvs"] = run_openmvs(Path(programs), folder, folder / "openmvs")
    made["lotus_tiny"] = run_ours(folder, folder / "lotus_tiny", [])
    made["points"] = run_ours(folder, folder / "points", POINTS)
    row: dict = {
        "views": count,
        "seed": seed,
        "sparse_points": colmap.read_model(folder / "sparse").summary["points"],
    }
    for name, run in made.items():
        score = evaluate_mesh(run.mesh, room.mesh, thresholds=THRESHOLDS, views=views)
        row[name] = {
            key: [round(value, 4) for value in getattr(score, key)]
            for key in ("f_score", "precision", "recall")
        } | {"normals": round(score.normal_consistency or 0, 4), "seconds": round(run.seconds, 1)}
        draw(run.mesh, room, views, photos, folder / f"{name}.png")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="mesh_drake_living_room")
    parser.add_argument("--views", type=int, nargs="*", default=[16, 24])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 7], help="one for each number of views")
    parser.add_argument("--keep", type=Path, help="new folder for inputs, results and pictures")
    options = parser.parse_args()
    room = room_of(options.folder)
    with tempfile.TemporaryDirectory() as temporary:
        for count, seed in zip(options.views, options.seeds, strict=True):
            folder = (options.keep or Path(temporary)).absolute() / f"{count}_{seed}"
            (folder / "images").mkdir(parents=True)
            print(json.dumps(compare(room, count, seed, folder)), flush=True)


if __name__ == "__main__":
    main()
