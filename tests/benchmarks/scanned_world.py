"""Scanned objects with their own textures on a textured table, photographed: truth for `scanned_objects`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from recon.geometry import look_at, rays, rotate, transform
from recon.io.meshes import read_mesh
from recon.raycasting import Hits, RayCaster
from recon.scene import Camera, Mesh, Scene, View
from recon.synthetic import Capture, Lamp, Material, PointSampling, World, build_world, exact_depth
from recon.synthetic.photos import surface_colors
from recon.synthetic.points import triangulated_points
from recon.synthetic.shapes import Shape, box

BOX = "mesh_ycb/003_cracker_box_textured.gltf"
BOTTLE = "mesh_ycb/006_mustard_bottle_textured.gltf"
CAT = "mesh_cat_statue/cat.glb"
CAT_HEIGHT = 0.3  # the file's scale is arbitrary
TABLE = ((-0.5, -0.45, -0.03), (0.5, 0.45, 0.0))
CLOTH = Material((0.36, 0.33, 0.28), size=0.2)
SCANNED = Material((0.5, 0.5, 0.5))  # stands for the objects' own textures where sparse points are drawn
LAMPS = (Lamp((0.5, -0.6, 1.0), 0.75), Lamp((-0.7, 0.3, 0.9), 0.5))
AMBIENT = 0.3
GAMMA = 2.2
SENSOR_NOISE = 1.2  # grey levels
BACKGROUND = 150.0
SUPERSAMPLE = 2
FOV_DEG = 50.0
TURNS = 1.5
ELEVATION_DEG = (22.0, 48.0)
DISTANCE = 0.78


@dataclass(frozen=True)
class Placed:
    """One object on the table."""

    file: str
    at: tuple[float, float]
    yaw: float
    height: float | None = None
    """Metres; the file's own if not given."""


SCENES = {
    "box_bottle": (Placed(BOX, (-0.08, 0.02), 0.5), Placed(BOTTLE, (0.09, -0.04), -0.8)),
    "cat": (Placed(CAT, (0.0, 0.0), 0.9, CAT_HEIGHT),),
    "all": (
        Placed(BOX, (-0.13, 0.08), 1.1),
        Placed(BOTTLE, (0.14, 0.07), 2.2),
        Placed(CAT, (0.02, -0.06), -0.6, CAT_HEIGHT),
    ),
}


@dataclass(frozen=True, eq=False)
class Skin:
    """The texture of one object: linear colours at falling sizes, and where its triangles lie in it."""

    levels: tuple[Float32[np.ndarray, "_ _ 3"], ...]
    uv: Float64[np.ndarray, "m 3 2"]
    normals: Float64[np.ndarray, "m 3 3"]
    """Of the triangles' corners, local frame."""

    texels: Float64[np.ndarray, "m"]
    """Of the first level, per metre of each triangle."""


def capture_objects(folder: Path, scene: str, *, seed: int, views: int, points: PointSampling) -> Capture:
    """Returns photos, exact depth, sparse points and surface of one of SCENES."""
    placed = [(thing, read_mesh(folder / thing.file)) for thing in SCENES[scene]]
    shapes = [_stood(thing, mesh) for thing, mesh in placed]
    skins = [skin_of(shape, mesh) for shape, (_, mesh) in zip(shapes, placed, strict=True)]
    parts = [(box(*TABLE), CLOTH), *((shape, SCANNED) for shape in shapes)]
    top = max(shape[0][:, 2].max() for shape in shapes)
    world = build_world(parts, LAMPS, center=(0.0, 0.0, 0.3 * top), seed=seed)
    firsts = np.cumsum([len(box(*TABLE)[1]), *(len(shape[1]) for shape in shapes)])
    cameras = helix(world, Camera.from_fov(640, 480, FOV_DEG), views)
    taken = tuple(View(f"view_{index:03d}.png", camera, pose) for index, (camera, pose) in enumerate(cameras))
    caster = RayCaster(world.mesh)
    depth_maps = {view.name: exact_depth(caster, view.camera, view.cam_from_world) for view in taken}
    images = {
        view.name: photograph(world, caster, view, skins, firsts, np.random.default_rng((seed, index)))
        for index, view in enumerate(taken)
    }
    rng = np.random.default_rng((seed, views))
    cloud = triangulated_points(world, taken, depth_maps, sampling=points, rng=rng)
    return Capture(Scene(taken, cloud), images, depth_maps, world.mesh)


def helix(world: World, camera: Camera, count: int) -> list[tuple[Camera, Float64[np.ndarray, "4 4"]]]:
    """Returns cameras on one and a half rising turns around the world's centre."""
    share = np.arange(count) / count
    angle, elevation = 2 * np.pi * TURNS * share, np.radians(np.interp(share, [0, 1], ELEVATION_DEG))
    toward = np.stack(
        [np.cos(angle) * np.cos(elevation), np.sin(angle) * np.cos(elevation), np.sin(elevation)], axis=1
    )
    centers = world.center + DISTANCE * toward  # the world is the local frame, moved
    return [(camera, look_at(center, world.center, world.down)) for center in centers]


def photograph(
    world: World,
    caster: RayCaster,
    view: View,
    skins: list[Skin],
    firsts: Int64[np.ndarray, "k"],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the photo of one view: textures and table under the same lamps, noise of a sensor.

    Args:
        world: Table, then the objects in the order of `skins`.
        caster: Of its mesh.
        view: Camera and pose.
        skins: Of the objects.
        firsts: First triangle of each object, and one past the last.
        rng: Draws the noise.
    """
    camera = view.camera
    fine = camera.resized(camera.width * SUPERSAMPLE, camera.height * SUPERSAMPLE)
    hits = caster.cast(fine, view.cam_from_world)
    linear = np.full((*hits.depth.shape, 3), (BACKGROUND / 255) ** GAMMA, np.float32)
    table = (hits.faces >= 0) & (hits.faces < firsts[0])
    footprint = float(np.median(hits.depth[table])) / fine.K[0, 0]
    points = world_points(fine, view, hits, table)
    colors = surface_colors(world, points, hits.faces[table], footprint)
    linear[table] = (colors / 255) ** GAMMA
    for skin, first, last in zip(skins, firsts[:-1], firsts[1:], strict=True):
        on = (hits.faces >= first) & (hits.faces < last)
        faces, weights = hits.faces[on] - first, hits.barycentric[on]
        texels = skin.texels[faces] * hits.depth[on] / fine.K[0, 0]
        albedo = sampled(skin.levels, np.einsum("nk,nkc->nc", weights, skin.uv[faces]), texels)
        normals = np.einsum("nk,nkc->nc", weights, skin.normals[faces])
        local = transform(world.local_from_world, world_points(fine, view, hits, on))
        linear[on] = albedo * _light(world.lamps, local, normals)[:, None]
    shape = (camera.height, SUPERSAMPLE, camera.width, SUPERSAMPLE, 3)
    levels = 255 * np.clip(linear.reshape(shape).mean(axis=(1, 3)), 0, 1) ** (1 / GAMMA)
    return np.clip(np.rint(levels + rng.normal(0, SENSOR_NOISE, levels.shape)), 0, 255).astype(np.uint8)


def _stood(thing: Placed, mesh: Mesh) -> Shape:
    """Returns an object of glTF's axes (y up) on the table, z up."""
    vertices = mesh.vertices @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    scale = 1.0 if thing.height is None else thing.height / (high[2] - low[2])
    foot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(thing.yaw), -np.sin(thing.yaw)], [np.sin(thing.yaw), np.cos(thing.yaw)]]
    return rotate(turn, scale * (vertices - foot)) + np.array([*thing.at, 0]), mesh.faces


def skin_of(shape: Shape, mesh: Mesh) -> Skin:
    assert mesh.texture is not None
    assert mesh.uv is not None
    vertices, faces = shape
    level = ((mesh.texture / np.float32(255)) ** np.float32(GAMMA)).astype(np.float32)
    levels = [level]
    while min(level.shape[:2]) > 32:
        level = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2, 3).mean(axis=(1, 3))
        levels.append(level)
    corners, uv = vertices[faces], mesh.uv[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    in_texture = np.cross(uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]) * levels[0].shape[0] * levels[0].shape[1]
    area = np.maximum(np.linalg.norm(across, axis=1), 1e-12)
    summed = np.zeros_like(vertices)
    np.add.at(summed, faces, across[:, None])
    return Skin(tuple(levels), uv, summed[faces], np.sqrt(np.abs(in_texture) / area))


def sampled(
    levels: tuple[Float32[np.ndarray, "_ _ 3"], ...],
    uv: Float64[np.ndarray, "n 2"],
    texels: Float64[np.ndarray, "n"],
) -> Float64[np.ndarray, "n 3"]:
    """Returns colours at uv, each the mean of so many texels along each side, trilinear."""
    level = np.clip(np.log2(np.maximum(texels, 1)), 0, len(levels) - 1.001)
    colors = np.zeros((len(uv), 3))
    for number, texture in enumerate(levels):
        share = np.maximum(1 - np.abs(level - number), 0)
        used = share > 0
        colors[used] += share[used, None] * _bilinear(texture, uv[used])
    return colors


def _bilinear(texture: Float32[np.ndarray, "h w 3"], uv: Float64[np.ndarray, "n 2"]) -> np.ndarray:
    from recon.geometry import sample

    return sample(texture, np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) * texture.shape[1::-1])


def _light(
    lamps: tuple[Lamp, ...], points: Float64[np.ndarray, "n 3"], normals: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n"]:
    light = np.full(len(points), AMBIENT)
    lengths = np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    for lamp in lamps:
        toward = np.array(lamp.position) - points
        squared = np.einsum("nc,nc->n", toward, toward)
        cosine = np.einsum("nc,nc->n", toward, normals) / (np.sqrt(squared) * lengths)
        light += lamp.power * np.maximum(cosine, 0) / (squared + 0.5)
    return light


def world_points(camera: Camera, view: View, hits: Hits, chosen: np.ndarray) -> Float64[np.ndarray, "n 3"]:
    """Returns where chosen rays hit, world frame."""
    local = rays(camera.K, camera.width, camera.height)[chosen] * hits.depth[chosen, None].astype(np.float64)
    return transform(np.linalg.inv(view.cam_from_world), local)
