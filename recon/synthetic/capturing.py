"""Walks around a world with a camera: trajectories, photos, exact depth maps, sparse points as of SfM."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from recon.errors import InputError
from recon.geometry import invert, look_at, rotate, transform
from recon.raycasting import RayCaster
from recon.scene import Camera, DepthMap, Mesh, Scene, View
from recon.synthetic.photos import render
from recon.synthetic.points import SFM_LIKE, PointSampling, triangulated_points
from recon.synthetic.worlds import World

PosedCamera = tuple[Camera, Float64[np.ndarray, "4 4"]]
EXACT_SIGMA = 1e-4  # standard deviation given to exact depth, share of the depth


@dataclass(frozen=True, eq=False)
class Capture:
    """Everything that is true of a walk around a world."""

    scene: Scene
    """Views and sparse points. The points are as noisy as asked for, the poses are exact."""

    images: dict[str, UInt8[np.ndarray, "h w 3"]]
    depth_maps: dict[str, DepthMap]
    """Exact at pixel centres, with the normals of the triangles."""

    mesh: Mesh
    """The true surface."""


def orbit(
    world: World,
    camera: Camera,
    *,
    radius: float | tuple[float, float],
    height: float,
    count: int = 16,
) -> list[PosedCamera]:
    """Returns cameras on a ring around the world's centre, looking at it.

    Args:
        world: Its `center` and `down` place the ring.
        camera: Of every view.
        radius: Of the ring, world units; two numbers are the half axes of an ellipse.
        height: Of the ring above the centre, world units; it waves by a tenth of the radius, so that the
            centres do not lie on one plane.
        count: Views, evenly spread over the full turn.
    """
    axes = np.broadcast_to(np.asarray(radius, np.float64), 2)
    ring, up = _ring(world, count)
    wave = 0.1 * axes.mean() * np.sin(3 * 2 * np.pi * np.arange(count) / count)
    centers = world.center + ring @ (axes[:, None] * _horizontal(world)) + (height + wave)[:, None] * up
    return [(camera, look_at(center, world.center, world.down)) for center in centers]


def look_around(
    world: World, camera: Camera, *, radius: float, height: float = 0.0, count: int = 16
) -> list[PosedCamera]:
    """Returns cameras on a small ring around the world's centre that look outward, as for a panorama.

    Args: as of `orbit`.
    """
    ring, up = _ring(world, count)
    outward = ring @ _horizontal(world)
    wave = 0.1 * radius * np.sin(3 * 2 * np.pi * np.arange(count) / count)
    centers = world.center + radius * outward + (height + wave)[:, None] * up
    pairs = zip(centers, outward, strict=True)
    return [(camera, look_at(center, center + direction, world.down)) for center, direction in pairs]


def room_cameras(world: World, width: int = 640, height: int = 480, count: int = 16) -> list[PosedCamera]:
    """Returns views of `worlds.room` across its middle from beside its walls, with a wide lens."""
    x, y, z = np.ptp(transform(world.local_from_world, world.mesh.vertices), axis=0) / _local_per_world(world)
    camera = Camera.from_fov(width, height, 75.0)
    return orbit(world, camera, radius=(0.39 * x, 0.37 * y), height=0.34 * z, count=count)


def tabletop_cameras(world: World, width: int = 640, height: int = 480, count: int = 16) -> list[PosedCamera]:
    """Returns views of `worlds.tabletop` from around and above."""
    scale = 1 / _local_per_world(world)
    camera = Camera.from_fov(width, height, 50.0)
    return orbit(world, camera, radius=0.62 * scale, height=0.42 * scale, count=count)


def capture(
    world: World,
    cameras: Sequence[PosedCamera],
    *,
    seed: int,
    supersample: int = 2,
    points: PointSampling = SFM_LIKE,
) -> Capture:
    """Photographs a world: the same arguments give the same bytes.

    Args:
        world: What is photographed.
        cameras: Each view's camera and `cam_from_world`; the views are named `view_000.png` and so on.
        seed: Of sensor noise and sparse points.
        supersample: Rays per pixel along each side of a photo.
        points: How many sparse points, and how wrong.

    Raises:
        InputError: There is no camera.
    """
    if not cameras:
        raise InputError("a capture without cameras, at least one wanted")
    caster = RayCaster(world.mesh)
    views = tuple(
        View(f"view_{index:03d}.png", camera, cam_from_world)
        for index, (camera, cam_from_world) in enumerate(cameras)
    )
    depth_maps = {view.name: exact_depth(caster, view.camera, view.cam_from_world) for view in views}
    images = {
        view.name: render(
            world,
            caster,
            (view.camera, view.cam_from_world),
            supersample=supersample,
            rng=np.random.default_rng((seed, index)),
        )
        for index, view in enumerate(views)
    }
    rng = np.random.default_rng((seed, len(views)))
    cloud = triangulated_points(world, views, depth_maps, sampling=points, rng=rng)
    return Capture(Scene(views, cloud), images, depth_maps, world.mesh)


def exact_depth(caster: RayCaster, camera: Camera, cam_from_world: Float64[np.ndarray, "4 4"]) -> DepthMap:
    """Returns the depth and normals of the triangles at pixel centres, with a sigma of almost nothing."""
    hits = caster.cast(camera, cam_from_world)
    return DepthMap(camera, hits.depth, hits.normals, np.float32(EXACT_SIGMA) * hits.depth)


def _ring(world: World, count: int) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "3"]]:
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), -world.down


def _local_per_world(world: World) -> float:
    return float(np.cbrt(np.linalg.det(world.local_from_world[:3, :3])))


def _horizontal(world: World) -> Float64[np.ndarray, "2 3"]:
    """World directions of the local x and y."""
    return rotate(invert(world.local_from_world), np.eye(3))[:2]
