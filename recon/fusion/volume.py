"""The sparse volume that depth maps are fused into; the only object of the project that changes."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from recon.errors import InputError, PipelineError, ViewError
from recon.geometry import invert, transform, unproject
from recon.scene import DepthMap, Mesh

if TYPE_CHECKING:
    from recon.fusion.observations import Observations

TRUNCATION_VOXELS = 4.0  # narrower bands lose noisy depth, wider ones thin parts
GROWTH = 2.0  # of the arrays, when they are full
MIN_WEIGHT = 0.02  # one pixel with a sigma of seven voxels, or one near a depth edge
ROTATION_TOLERANCE = 1e-5
CHANNELS = ("tsdf", "weight", "free", "color")


@dataclass(frozen=True)
class VolumeSize:
    """How much a volume holds."""

    blocks: int
    voxels: int
    bytes: int
    """Of the blocks' arrays in use; the process may have reserved up to as much again."""


class TSDFVolume:
    """A truncated signed distance field on hashed blocks of 8 x 8 x 8 voxels.

    Each voxel has the mean signed distance to the surface, in units of the truncation distance and positive
    in front of it, its weight, and a mean colour where the views come with photos; each cell of 2 x 2 x 2
    voxels has votes of views that saw through it. `recon/fusion/reference.py` has the formulas.

    The same views in the same order give the same bytes, whatever the number of threads. Another order of
    views gives the same surface up to rounding, but votes for free space count only in blocks that exist when
    they are cast.

    Example:
        volume = TSDFVolume(voxel_size=choose_voxel_size(depth_maps))
        for depth_map, view, photo in zip(depth_maps, views, photos):
            volume.integrate(depth_map, view.cam_from_world, photo)
        mesh = volume.extract()
    """

    def __init__(
        self, voxel_size: float, truncation: float | None = None, *, threads: int | None = None
    ) -> None:
        """Makes an empty volume.

        Args:
            voxel_size: Scene units.
            truncation: Scene units; None means four voxels.
            threads: Of the kernels; None means one per processor.

        Raises:
            InputError: A size is not positive, or the truncation distance is below two voxels.
        """
        if not (np.isfinite(voxel_size) and voxel_size > 0):
            raise InputError(f"voxel size {voxel_size}, wanted a positive number")
        truncation = TRUNCATION_VOXELS * voxel_size if truncation is None else truncation
        if not (np.isfinite(truncation) and truncation >= 2 * voxel_size):
            raise InputError(f"truncation distance {truncation}, wanted at least two voxels of {voxel_size}")
        from recon.fusion.blocks import BlockIndex

        self.voxel_size = float(voxel_size)
        self.truncation = float(truncation)
        self.threads = threads
        self._origin: np.ndarray | None = None  # blocks, (3,) int64; makes far-away scenes exact in float32
        self._index = BlockIndex()
        self._channels: dict[str, np.ndarray] = {}  # name -> (capacity, ...), rows in use first

    @property
    def size(self) -> VolumeSize:
        """Blocks, voxels and memory in use."""
        blocks = len(self._index.keys)
        used = sum(channel[:blocks].nbytes for channel in self._channels.values())
        return VolumeSize(blocks=blocks, voxels=512 * blocks, bytes=used)

    def integrate(
        self,
        depth_map: DepthMap,
        cam_from_world: Float64[np.ndarray, "4 4"],
        color: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> None:
        """Adds what one view sees.

        Args:
            depth_map: Pixels without normal count as facing the optical axis, with half weight.
            cam_from_world: Rigid.
            color: Photo of the map's size; either all views have one or none.

        Raises:
            InputError: The photo's size is not the map's, the pose is not rigid, or only some views have
                photos.
            ViewError: The map reaches too far for a grid of this voxel size.
        """
        from recon.fusion.blocks import touched_keys
        from recon.fusion.observations import observe

        self._check_view(depth_map, cam_from_world, color)
        seen = observe(
            depth_map,
            color,
            voxel_size=self.voxel_size,
            truncation=self.truncation,
            threads=self.threads,
        )
        cam_from_grid = self._cam_from_grid(cam_from_world)
        self._check_reach(depth_map, cam_from_grid)
        K = depth_map.camera.K
        keys = touched_keys(
            seen,
            K,
            invert(cam_from_grid),
            voxel_size=self.voxel_size,
            truncation=self.truncation,
            threads=self.threads,
        )
        rows = self._rows_of(keys, colored=color is not None)
        if len(self._index.keys):
            self._update(seen, rows, K, cam_from_grid)

    def extract(self, min_weight: float = MIN_WEIGHT) -> Mesh:
        """Returns the surface as triangles, world frame, counter-clockwise seen from the free side.

        Blocks share their vertices. Vertices have unit normals, the gradient of the signed distance, and
        colours where the views came with photos. Triangles need eight known voxels around: unseen space makes
        no surface.

        Args:
            min_weight: Voxels with less are unknown. A pixel seen head-on whose sigma is one voxel weighs 1.

        Raises:
            PipelineError: There is no surface.
        """
        from recon.fusion.marching_cubes import extract_triangles

        if self._origin is None or not len(self._index.keys):
            raise PipelineError("the volume is empty: no view brought usable depth into it")
        channels = tuple(self._channels.get(name, np.empty((0, 512, 3), np.uint16)) for name in CHANNELS)
        triangles = extract_triangles(self._index, channels, min_weight, self.threads)
        if not len(triangles.faces):
            raise PipelineError(
                f"no surface among {self.size.voxels} voxels with a weight of at least {min_weight:g}"
            )
        colored = "color" in self._channels
        return Mesh(
            vertices=(triangles.vertices + 8 * self._origin) * self.voxel_size,
            faces=triangles.faces,
            normals=triangles.normals,
            colors=triangles.colors if colored else None,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the state as arrays, read-only views that the next `integrate` may change."""
        from recon.fusion.blocks import unpack

        used = {name: channel[: len(self._index.keys)] for name, channel in self._channels.items()}
        for channel in used.values():
            channel.flags.writeable = False
        return {
            "voxel_size": np.array(self.voxel_size),
            "truncation": np.array(self.truncation),
            "origin": np.zeros(0, np.int64) if self._origin is None else self._origin.copy(),
            "blocks": unpack(self._index.keys),
            **used,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], threads: int | None = None) -> "TSDFVolume":
        """Returns the volume whose state `arrays()` gave; integrating goes on as if it had not stopped.

        Raises:
            InputError: An array is missing or does not fit the others.
        """
        from recon.fusion.blocks import pack

        missing = {"voxel_size", "truncation", "origin", "blocks"} - set(arrays)
        if missing:
            raise InputError(f"TSDF volume: no array {', '.join(sorted(missing))}")
        volume = cls(float(arrays["voxel_size"]), float(arrays["truncation"]), threads=threads)
        blocks = np.asarray(arrays["blocks"])
        if blocks.ndim != 2 or blocks.shape[1] != 3 or blocks.dtype != np.int32:
            raise InputError(f"TSDF volume: blocks are {blocks.dtype} {blocks.shape}, wanted int32 (n, 3)")
        volume._origin = np.asarray(arrays["origin"], np.int64).copy() if len(arrays["origin"]) else None
        volume._index.insert(pack(blocks))
        empty = _empty_channels(len(blocks), colored="color" in arrays)
        for name, channel in empty.items():
            given = arrays.get(name)
            if len(blocks) and (
                given is None or given.shape != channel.shape or given.dtype != channel.dtype
            ):
                found = "missing" if given is None else f"{given.dtype} {given.shape}"
                raise InputError(f"TSDF volume: {name} is {found}, wanted {channel.dtype} {channel.shape}")
            volume._channels[name] = channel if given is None else given.copy()
        return volume

    def save(self, path: Path) -> None:
        """Writes the volume to an npz file, which appears only when it is complete.

        Raises:
            InputError: The folder is not there or not writable.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **self.arrays())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "TSDFVolume":
        """Reads a volume that `save` wrote.

        Raises:
            InputError: The file is missing, damaged or not a volume.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a TSDF volume: {error}") from error
        return cls.from_arrays(arrays, threads)

    def _check_view(
        self,
        depth_map: DepthMap,
        cam_from_world: Float64[np.ndarray, "4 4"],
        color: UInt8[np.ndarray, "h w 3"] | None,
    ) -> None:
        rotation = cam_from_world[:3, :3]
        rigid = np.isfinite(cam_from_world).all() and np.linalg.det(rotation) > 0
        if not rigid or not np.allclose(rotation @ rotation.T, np.eye(3), atol=ROTATION_TOLERANCE):
            raise InputError("cam_from_world: not a rigid transform")
        if color is not None and color.shape[:2] != depth_map.depth.shape:
            raise InputError(
                f"photo of {color.shape[1]}x{color.shape[0]} pixels, "
                f"its depth map has {depth_map.camera.width}x{depth_map.camera.height}"
            )
        if self._channels and ("color" in self._channels) != (color is not None):
            raise InputError("some views have a photo and some have none, wanted all or none")

    def _check_reach(self, depth_map: DepthMap, cam_from_grid: Float64[np.ndarray, "4 4"]) -> None:
        from recon.fusion.blocks import MAX_COORDINATE, SIDE

        camera = depth_map.camera
        corners = np.array([[0, 0], [camera.width, 0], [0, camera.height], [camera.width, camera.height]])
        ray_length = np.linalg.norm(unproject(camera.K, corners.astype(np.float64), np.ones(4)), axis=1).max()
        depth = float(depth_map.depth.max())
        farthest = np.linalg.norm(cam_from_grid[:3, 3]) + 2 * (depth * ray_length + self.truncation)
        if farthest > MAX_COORDINATE * SIDE * self.voxel_size:
            raise ViewError(
                f"depth up to {depth:g} with voxels of {self.voxel_size:g}: the grid has room for "
                f"{MAX_COORDINATE * SIDE:.2g} voxels to each side of the first camera"
            )

    def _cam_from_grid(self, cam_from_world: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
        """Returns the pose in the grid's frame: moved so that the first camera is near the origin."""
        if self._origin is None:
            center = invert(cam_from_world)[:3, 3]
            self._origin = np.floor(center / (8 * self.voxel_size)).astype(np.int64)
        world_from_grid = np.eye(4)
        world_from_grid[:3, 3] = self._origin * (8 * self.voxel_size)
        return cam_from_world @ world_from_grid

    def _rows_of(self, keys: Int64[np.ndarray, "n"], colored: bool) -> Int32[np.ndarray, "n"]:
        """Returns the rows of blocks, new ones at the end."""
        rows = self._index.find(keys, self.threads)
        new = keys[rows < 0]
        if len(new):
            used = len(self._index.keys)
            self._reserve(used + len(new), colored)
            self._index.insert(new)
            rows[rows < 0] = np.arange(used, used + len(new), dtype=np.int32)
        return rows

    def _reserve(self, blocks: int, colored: bool) -> None:
        capacity = len(self._channels["tsdf"]) if self._channels else 0
        if blocks <= capacity:
            return
        used = len(self._index.keys)
        for name, larger in _empty_channels(max(blocks, int(GROWTH * capacity)), colored).items():
            if used:
                larger[:used] = self._channels[name][:used]
            self._channels[name] = larger

    def _update(
        self,
        seen: "Observations",
        rows: Int32[np.ndarray, "n"],
        K: Float64[np.ndarray, "3 3"],
        cam_from_grid: Float64[np.ndarray, "4 4"],
    ) -> None:
        from recon.fusion.blocks import unpack
        from recon.fusion.integration import FREE_MARGIN_VOXELS, carve_blocks, fuse_blocks
        from recon.fusion.jit import run_pieces

        first_voxels = (8 * unpack(self._index.keys) + 0.5) * self.voxel_size
        corners = transform(cam_from_grid, first_voxels).astype(np.float32)
        steps = (cam_from_grid[:3, :3].T * self.voxel_size).astype(np.float32)
        view = (seen.ranges, seen.planes, K.astype(np.float32), corners, steps)
        tsdf, weight, free = (self._channels[name] for name in CHANNELS[:3])
        color = self._channels.get("color", np.empty((0, 512, 3), np.uint16))
        run_pieces(fuse_blocks, len(rows), self.threads, rows, view, seen.colors, (tsdf, weight, free, color))
        margin = np.float32(FREE_MARGIN_VOXELS * self.voxel_size)
        run_pieces(carve_blocks, len(corners), self.threads, view, margin, free)


def _empty_channels(blocks: int, colored: bool) -> dict[str, np.ndarray]:
    channels = {
        "tsdf": np.zeros((blocks, 512), np.float32),
        "weight": np.zeros((blocks, 512), np.float32),
        "free": np.zeros((blocks, 64), np.float32),
    }
    return channels | ({"color": np.zeros((blocks, 512, 3), np.uint16)} if colored else {})
