"""Rays against a triangle mesh: depth, normals and hit triangles of a camera, distances of points, pictures.

The only file of the packages that knows Open3D (its RaycastingScene, Embree, runs without a screen).
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from recon.errors import InputError
from recon.geometry import look_at, rays, rotate, sample
from recon.scene import Camera, Mesh

NO_FACE = 0xFFFFFFFF  # what Open3D returns for a ray that hits nothing
MAX_BACKS = 16  # back sides that a ray goes through at most
STEP_PAST = np.float32(1 + 1e-5)  # a ray that goes on starts so much behind the triangle it met
AMBIENT = 0.35  # share of light that does not depend on the angle, so that steep faces stay visible


def import_open3d() -> Any:
    """Returns the module `open3d`, loaded so that it works where the system has no libusb.

    Open3D's Linux wheels need the system's libusb-1.0 only for depth cameras, but do not load without it.
    The wheel of `libusb-package` carries one; loaded first, it satisfies the linker.
    """
    if "open3d" not in sys.modules and sys.platform == "linux":
        import ctypes

        import libusb_package

        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    import open3d

    return open3d


@dataclass(frozen=True, eq=False)
class Hits:
    """What the rays through a camera's pixel centres meet first."""

    depth: Float32[np.ndarray, "h w"]
    """z in the camera frame; 0 where a ray meets nothing."""

    normals: Float32[np.ndarray, "h w 3"]
    """Of the triangle, camera frame, facing the camera; zeros where a ray meets nothing."""

    faces: Int64[np.ndarray, "h w"]
    """Index of the triangle; -1 where a ray meets nothing."""

    barycentric: Float32[np.ndarray, "h w 3"]
    """Weights of the triangle's three vertices."""

    front: np.ndarray
    """(h, w) bool: the triangle's counter-clockwise side faces the camera."""


class RayCaster:
    """A mesh prepared for many rays."""

    def __init__(self, mesh: Mesh) -> None:
        o3d = import_open3d()
        self.mesh = mesh
        self._scene = o3d.t.geometry.RaycastingScene()
        vertices = np.ascontiguousarray(mesh.vertices, np.float32)
        faces = np.ascontiguousarray(mesh.faces, np.uint32)
        if len(faces):
            self._scene.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(faces))
        self._empty = not len(faces)

    def cast(
        self, camera: Camera, cam_from_world: Float64[np.ndarray, "4 4"], *, through_backs: bool = False
    ) -> Hits:
        """Returns what each pixel centre sees; `through_backs` leaves out triangles seen from behind."""
        world_from_cam_rotation = cam_from_world[:3, :3].T
        directions_cam = rays(camera.K, camera.width, camera.height)
        directions = directions_cam @ world_from_cam_rotation.T
        center = -world_from_cam_rotation @ cam_from_world[:3, 3]
        origins = np.broadcast_to(center, directions.shape)
        found = self._cast(np.concatenate([origins, directions], axis=-1).astype(np.float32))
        if through_backs:
            self._pass_backs(found, origins, directions)
        hit = found["primitive_ids"] != NO_FACE
        depth = np.where(hit, found["t_hit"], 0).astype(np.float32)  # rays have z = 1, so t is z
        normals = rotate(cam_from_world, found["primitive_normals"])
        facing = -np.sign(np.einsum("hwc,hwc->hw", normals, directions_cam))
        u, v = np.moveaxis(found["primitive_uvs"], -1, 0)
        return Hits(
            depth=depth,
            normals=(normals * (facing * hit)[..., None]).astype(np.float32),
            faces=np.where(hit, found["primitive_ids"].astype(np.int64), -1),
            barycentric=np.stack([1 - u - v, u, v], axis=-1).astype(np.float32),
            front=hit & (facing > 0),
        )

    def distance(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n"]:
        """Returns the distance of points to the closest triangle; infinite for an empty mesh."""
        if self._empty or not len(points):
            return np.full(len(points), np.inf)
        return self._scene.compute_distance(points.astype(np.float32)).numpy().astype(np.float64)

    def closest(
        self, points: Float64[np.ndarray, "n 3"]
    ) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "n"]]:
        """Returns the closest point of the mesh, in float32 precision, and its triangle for each point.

        Raises:
            InputError: The mesh has no faces.
        """
        if self._empty:
            raise InputError("closest point of a mesh without faces")
        found = self._scene.compute_closest_points(np.ascontiguousarray(points, np.float32))
        return found["points"].numpy().astype(np.float64), found["primitive_ids"].numpy().astype(np.int64)

    def draw(
        self,
        camera: Camera,
        cam_from_world: Float64[np.ndarray, "4 4"],
        *,
        colored: bool = True,
        through_backs: bool = False,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a picture of the mesh, lit from the camera, white background; back sides are reddish.

        Args:
            camera: Size and field of view of the picture.
            cam_from_world: Where it is taken from.
            colored: True takes the texture or vertex colours where there are some, False draws the bare
                shape in grey.
            through_backs: Leaves out back sides, so that one looks into a room from outside.
        """
        hits, mesh = self.cast(camera, cam_from_world, through_backs=through_backs), self.mesh
        hit = hits.faces >= 0
        albedo = np.full((*hit.shape, 3), 200.0)
        if colored and mesh.uv is not None and mesh.texture is not None and hit.any():
            albedo[hit] = self._textured(hits, hit, camera.K[0, 0])
        elif colored and mesh.colors is not None and len(mesh.faces):
            corners = mesh.colors[mesh.faces[np.where(hit, hits.faces, 0)]].astype(
                np.float64
            )  # (h, w, 3, rgb)
            albedo = np.einsum("hwk,hwkc->hwc", hits.barycentric, corners)
        directions = rays(camera.K, camera.width, camera.height)
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        cosine = np.clip(-np.einsum("hwc,hwc->hw", hits.normals, directions), 0, 1)
        picture = albedo * (AMBIENT + (1 - AMBIENT) * cosine)[..., None]
        picture[hit & ~hits.front] *= [1.0, 0.6, 0.6]
        picture[~hit] = 255
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _textured(self, hits: Hits, hit: np.ndarray, focal: float) -> Float64[np.ndarray, "n 3"]:
        """Returns the texture's colours at what was hit, averaged where a pixel spans more than a texel."""
        assert self.mesh.uv is not None
        assert self.mesh.texture is not None
        texture = self.mesh.texture
        corners = self.mesh.faces[hits.faces[hit]]  # (n, 3)
        size = np.array(texture.shape[1::-1])
        at = self.mesh.uv[corners] * [1, -1] + [0, 1]
        texels = np.linalg.norm((at[:, 1] - at[:, 0]) * size, axis=1)
        length = np.linalg.norm(self.mesh.vertices[corners[:, 1]] - self.mesh.vertices[corners[:, 0]], axis=1)
        per_pixel = np.median(texels / np.maximum(length, 1e-300) * hits.depth[hit] / focal)
        step = 2 ** max(0, round(float(np.log2(max(per_pixel, 1.0)))))
        if step > 1:
            padded = np.pad(
                texture, [(0, -side % step) for side in texture.shape[:2]] + [(0, 0)], mode="edge"
            )
            blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step, 3)
            texture = blocks.mean(axis=(1, 3), dtype=np.float32)
        uv = np.einsum("nk,nkc->nc", hits.barycentric[hit], at)
        return sample(texture, uv * size / step)

    def _pass_backs(
        self,
        found: dict[str, np.ndarray],
        origins: Float64[np.ndarray, "h w 3"],
        directions: Float64[np.ndarray, "h w 3"],
    ) -> None:
        """Casts the rays that met a back side on from there, in place, until none is left."""
        for _ in range(MAX_BACKS):
            hit = found["primitive_ids"] != NO_FACE
            back = hit & (np.einsum("hwc,hwc->hw", found["primitive_normals"], directions) >= 0)
            if not back.any():
                return
            reached = found["t_hit"][back] * STEP_PAST
            starts = origins[back] + directions[back] * reached[:, None]
            further = self._cast(np.concatenate([starts, directions[back]], axis=-1).astype(np.float32))
            for name, values in further.items():
                found[name][back] = values
            found["t_hit"][back] += reached

    def _cast(self, rays_world: Float32[np.ndarray, "*shape 6"]) -> dict[str, np.ndarray]:
        if self._empty:
            shape = rays_world.shape[:-1]
            return {
                "t_hit": np.full(shape, np.inf, np.float32),
                "primitive_ids": np.full(shape, NO_FACE, np.uint32),
                "primitive_normals": np.zeros((*shape, 3), np.float32),
                "primitive_uvs": np.zeros((*shape, 2), np.float32),
            }
        return {name: tensor.numpy() for name, tensor in self._scene.cast_rays(rays_world).items()}


def sample_surface(
    mesh: Mesh, count: int, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "n"]]:
    """Returns `count` random points of a mesh, evenly spread over its area, and their triangles.

    One point is drawn from each of `count` equal shares of the area, taken in the order of the faces; this
    has less variance than independent points.

    Raises:
        InputError: The mesh has no area.
    """
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    ends = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    if not len(ends) or not ends[-1] > 0:
        raise InputError(f"a mesh of {len(mesh.faces)} faces has no area to sample")
    positions = (np.arange(count) + rng.random(count)) / count * ends[-1]
    faces = np.minimum(np.searchsorted(ends, positions, side="right"), len(ends) - 1)
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1, 1 - u, u)[:, None], np.where(u + v > 1, 1 - v, v)[:, None]
    return a[faces] + u * (b - a)[faces] + v * (c - a)[faces], faces.astype(np.int64)


def orbit_view(
    points: Float64[np.ndarray, "n 3"],
    camera: Camera,
    toward: Float64[np.ndarray, "3"],
    down: Float64[np.ndarray, "3"],
) -> Float64[np.ndarray, "4 4"]:
    """Returns `cam_from_world` of a camera that sees points from outside, looking along `toward`.

    Their extent is taken without the outermost 1 % on each side.
    """
    low, high = np.percentile(points, [1, 99], axis=0)
    middle, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    half_fov = np.arctan(min(camera.width / camera.K[0, 0], camera.height / camera.K[1, 1]) / 2)
    distance = radius / np.sin(half_fov)
    return look_at(middle - toward / np.linalg.norm(toward) * distance, middle, down)
