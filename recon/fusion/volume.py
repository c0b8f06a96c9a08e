"""The sparse volume that depth maps are fused into; the only object of the project that changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt16

from recon.devices import find_device
from recon.errors import InputError, PipelineError, ViewError
from recon.scene import Camera, DepthMap, Mesh

if TYPE_CHECKING:
    from recon.fusion.observations import Observations
    from recon.fusion.on_device import DevicePages
    from recon.fusion.pages import Pages
    from recon.fusion.seen_views import SeenView

TRUNCATION_VOXELS = 4.0  # narrower bands lose noisy depth, wider ones thin parts
MIN_WEIGHT = 0.02  # one pixel with a sigma of seven voxels, or one near a depth edge
SURE_WEIGHT = 0.1  # one pixel with a sigma of three voxels
ROTATION_TOLERANCE = 1e-5
SIDE = 8


@dataclass(frozen=True)
class VolumeSize:
    """How much a volume holds."""

    blocks: int
    voxels: int
    bytes: int
    """Of the blocks' arrays, in memory or on disk; the process may have reserved up to as much again."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A mesh with what the volume knows about each vertex."""

    mesh: Mesh
    weights: Float32[np.ndarray, "n"]
    """Sum of the weights of the pixels that saw it; one seen head-on with a sigma of one voxel weighs 1."""


class TSDFVolume:
    """A truncated signed distance field on hashed blocks of 8 x 8 x 8 voxels.

    Each voxel has the mean signed distance to the surface, in units of the truncation distance and positive
    in front of it, its weight and variance, the mean of the normals seen, and a mean colour where the views
    come with photos; and votes of views that saw through it. Those that saw no surface in its block vote for
    cells of 2 x 2 x 2 voxels.
    `recon/fusion/reference.py` has the formulas.

    The same views in the same order give the same bytes, whatever the number of threads and the memory.
    Another order of views gives the same surface up to rounding where no pixel is an outlier, but votes for
    free space count only in blocks that exist when they are cast.

    Example:
        volume = TSDFVolume(voxel_size=choose_voxel_size(depth_maps))
        for depth_map, view, photo in zip(depth_maps, views, photos):
            volume.integrate(depth_map, view.cam_from_world, photo)
        mesh = volume.extract()
    """

    def __init__(
        self,
        voxel_size: float,
        truncation: float | None = None,
        *,
        threads: int | None = None,
        memory: float | None = None,
        folder: Path | None = None,
        device: str = "cpu",
    ) -> None:
        """Makes an empty volume.

        Args:
            voxel_size: Scene units.
            truncation: Scene units; None means four voxels.
            threads: Of the kernels; None means one per processor.
            memory: Most bytes of voxels in memory; blocks beyond are kept in a temporary file.
                None means any.
            folder: Where that file is; None means the system's folder for temporary files.
            device: Where voxels are and are updated: "cpu", or a device of torch such as "cuda" ("cpu:0" is
                torch's own way on the processor). Pixels are observed, and surfaces extracted, on the CPU.

        Raises:
            InputError: A size is not positive, the truncation distance is below two voxels, there is no
                such device, or a device of torch shall keep to a limit of memory.
        """
        if not (np.isfinite(voxel_size) and voxel_size > 0):
            raise InputError(f"voxel size {voxel_size}, wanted a positive number")
        truncation = TRUNCATION_VOXELS * voxel_size if truncation is None else truncation
        if not (np.isfinite(truncation) and truncation >= 2 * voxel_size):
            raise InputError(f"truncation distance {truncation}, wanted at least two voxels of {voxel_size}")
        if memory is not None and not memory > 0:
            raise InputError(f"memory of {memory} bytes, wanted a positive number")
        if device != "cpu":
            find_device(device)
            if memory is not None:
                raise InputError(
                    f"memory of {memory:g} bytes on device {device!r}: wanted no limit, or the device cpu"
                )
        from recon.fusion.blocks import BlockIndex

        self.voxel_size = float(voxel_size)
        self.truncation = float(truncation)
        self.threads = threads
        self.memory, self.folder, self.device = memory, folder, device
        self.index: BlockIndex = BlockIndex()
        self.origin: Int64[np.ndarray, 3] | None = None
        """Of the index's coordinates, blocks of the world; so that scenes far from its origin have keys."""
        self.views: list[SeenView] = []
        self._pages: Pages | DevicePages | None = None
        self._room: Observations | None = None

    @property
    def size(self) -> VolumeSize:
        """Blocks, voxels and bytes in use."""
        blocks = len(self.index)
        block_bytes = self._pages.block_bytes + 128 if self._pages else 0
        return VolumeSize(blocks=blocks, voxels=512 * blocks, bytes=blocks * block_bytes)

    @property
    def colored(self) -> bool | None:
        """Whether the views came with photos; None before the first."""
        return None if self._pages is None else self._pages.channels > 4

    @property
    def pages(self) -> "Pages | DevicePages":
        """The voxels, and votes for free space.

        Raises:
            PipelineError: Nothing was brought into the volume.
        """
        if self._pages is None:
            raise PipelineError("the volume is empty: no view brought usable depth into it")
        return self._pages

    @property
    def free_votes(self) -> UInt16[np.ndarray, "n 64"]:
        """Sums of votes of views that saw through cells of 2 x 2 x 2 voxels, by block; in steps of 1 / 63.

        Of those that saw no surface in the block; the others' are kept by voxel.
        """
        return np.zeros((0, 64), np.uint16) if self._pages is None else self._pages.free_votes

    def reserve(self, blocks: int, *, colored: bool) -> None:
        """Takes the memory of so many blocks now, so that the views that need them do not wait for it.

        To take it view by view is about a sixth of their time in a room. More blocks than that, or fewer, may
        follow.

        Args:
            blocks: Of 8 x 8 x 8 voxels, 10.4 kB each with colours; with a limit of memory at most what fits.
            colored: Whether the views will come with photos.

        Raises:
            InputError: No blocks, the volume holds views and they did otherwise, or a device has no room for
                so many.
        """
        if blocks < 1:
            raise InputError(f"room for {blocks} blocks, wanted at least one")
        if self.colored not in (None, colored):
            raise InputError(f"room for blocks {'with' if colored else 'without'} colours, unlike the views'")
        self.prepare(colored)
        self.index.reserve(blocks)
        self.pages.reserve(blocks)

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
        from recon.fusion.updates import add_view
        from recon.fusion.view import center_of

        self._check_view(depth_map, cam_from_world, color)
        if self.origin is None:
            center = center_of(cam_from_world)
            self.origin = np.floor(center / (SIDE * self.voxel_size)).astype(np.int64)
        self.views.append(add_view(self, depth_map, cam_from_world, color))

    def remove(
        self,
        depth_map: DepthMap,
        cam_from_world: Float64[np.ndarray, "4 4"],
        color: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> None:
        """Takes away what a view brought; the volume is then, to rounding, as if it had not been there.

        Exact where the view's pixels were no outliers, and but for votes for free space in blocks that later
        views made.

        Args:
            depth_map: As it was integrated.
            cam_from_world: As it was.
            color: As it was.

        Raises:
            InputError: No view was integrated with this pose.
        """
        from recon.fusion.seen_views import same_pose
        from recon.fusion.updates import remove_view

        self._check_view(depth_map, cam_from_world, color)
        found = [i for i, view in enumerate(self.views) if same_pose(view, cam_from_world)]
        if not found:
            raise InputError("no view was integrated with this pose, so none can be taken away")
        remove_view(self, depth_map, color, self.views.pop(found[-1]))

    def reintegrate(
        self,
        depth_map: DepthMap,
        old_cam_from_world: Float64[np.ndarray, "4 4"],
        cam_from_world: Float64[np.ndarray, "4 4"],
        color: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> None:
        """Moves what a view brought to where it belongs after its pose has changed.

        Args:
            depth_map: As it was integrated.
            old_cam_from_world: The pose that it was integrated with.
            cam_from_world: The new pose.
            color: As it was integrated.

        Raises:
            InputError: No view was integrated with the old pose, or the new one is not rigid.
            ViewError: The map reaches too far for a grid of this voxel size.
        """
        self._check_view(depth_map, cam_from_world, color)
        self.check_reach(depth_map.camera, float(depth_map.depth.max()), cam_from_world)
        self.remove(depth_map, old_cam_from_world, color)
        self.integrate(depth_map, cam_from_world, color)

    def merge(self, other: "TSDFVolume") -> None:
        """Adds what another volume holds, as if its views had been integrated here.

        Raises:
            InputError: The voxel sizes or truncation distances differ, or only one volume has colours.
        """
        from recon.fusion.merging import merge_into

        merge_into(self, other)

    def extract(
        self, min_weight: float = MIN_WEIGHT, sure_weight: float = SURE_WEIGHT, *, smooth: bool = True
    ) -> Mesh:
        """Returns the surface as triangles, world frame, counter-clockwise seen from the free side.

        Blocks share their vertices. Vertices have unit normals, the gradient of the signed distance mixed
        with the mean of the normals seen, and colours where the views came with photos. Triangles need eight
        known voxels around: unseen space makes no surface.

        Args:
            min_weight: Voxels with less are unknown. A pixel seen head-on whose sigma is one voxel weighs 1.
            sure_weight: Connected pieces that have it nowhere are left out.
            smooth: Average distances over voxels where views disagree by over half of one; the volume itself
                stays as it is.

        Raises:
            PipelineError: There is no surface.
        """
        return self.extract_surface(min_weight, sure_weight, smooth=smooth).mesh

    def extract_surface(
        self, min_weight: float = MIN_WEIGHT, sure_weight: float = SURE_WEIGHT, *, smooth: bool = True
    ) -> Surface:
        """Returns what `extract` returns, with the weights of its vertices.

        Raises:
            PipelineError: There is no surface.
        """
        from recon.fusion.extraction import extract_surface

        self._room = None  # the mesh may need the memory
        return extract_surface(self, min_weight, sure_weight, smooth)

    def weights_at(self, points: Float64[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
        """Returns the signed distance / truncation, the weight and the votes for free space at world points.

        Of the voxels and cells that they are in; zero where there is no block.
        """
        from recon.fusion.queries import look_up

        return look_up(self, points)

    def observed(self, points: Float64[np.ndarray, "n 3"], min_weight: float = MIN_WEIGHT) -> np.ndarray:
        """Returns whether world points are known to be free or occupied, (n,) bool."""
        return self.free(points, min_weight) | self.occupied(points, min_weight)

    def free(self, points: Float64[np.ndarray, "n 3"], min_weight: float = MIN_WEIGHT) -> np.ndarray:
        """Returns whether world points are known to be free, (n,) bool: seen through, or before a surface.

        Only space in the blocks near surfaces is remembered; everything else is unknown.
        """
        distance, weight, votes = self.weights_at(points).T
        return ((weight >= min_weight) & (distance > 0)) | (votes > np.maximum(weight, min_weight))

    def occupied(self, points: Float64[np.ndarray, "n 3"], min_weight: float = MIN_WEIGHT) -> np.ndarray:
        """Returns whether world points are known to be behind a surface, within the truncation distance."""
        distance, weight, votes = self.weights_at(points).T
        return (weight >= min_weight) & (distance <= 0) & (votes <= weight)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the state as arrays, read-only views that the next `integrate` may change."""
        from recon.fusion.state import arrays_of

        return arrays_of(self)

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        threads: int | None = None,
        memory: float | None = None,
        device: str = "cpu",
    ) -> "TSDFVolume":
        """Returns the volume whose state `arrays()` gave; integrating goes on as if it had not stopped.

        Raises:
            InputError: An array is missing or does not fit the others, or as for a new volume.
        """
        from recon.fusion.state import fill_from_arrays

        missing = {"voxel_size", "truncation", "origin", "blocks", "views", "group"} - set(arrays)
        if missing:
            raise InputError(f"TSDF volume: no array {', '.join(sorted(missing))}")
        sizes = (float(arrays["voxel_size"]), float(arrays["truncation"]))
        volume = cls(*sizes, threads=threads, memory=memory, device=device)
        fill_from_arrays(volume, arrays)
        return volume

    def save(self, path: Path) -> None:
        """Writes the volume to an npz file, which appears only when it is complete.

        Raises:
            InputError: The folder is not there or not writable.
        """
        from recon.fusion.state import write

        write(self, Path(path))

    @classmethod
    def load(
        cls, path: Path, threads: int | None = None, memory: float | None = None, device: str = "cpu"
    ) -> "TSDFVolume":
        """Reads a volume that `save` wrote, on whatever device it was.

        Raises:
            InputError: The file is missing, damaged or not a volume, or as for a new volume.
        """
        from recon.fusion.state import read

        return cls.from_arrays(read(Path(path)), threads, memory, device)

    def prepare(self, colored: bool) -> None:
        """Makes room for voxels with or without colours, if that was not done before."""
        from recon.fusion.on_device import DevicePages
        from recon.fusion.pages import Pages

        channels = 5 if colored else 4
        if self._pages is None and self.device != "cpu":
            self._pages = DevicePages(channels, find_device(self.device))
        elif self._pages is None:
            budget = None if self.memory is None else int(self.memory)
            self._pages = Pages(channels, budget, self.folder)

    def room(self, height: int, width: int) -> "Observations":
        """Returns room for what a view sees, the last view's if it has the same size."""
        from recon.fusion.observations import make_room

        if self._room is None or self._room.records.shape[:2] != (height + 2, width + 2):
            self._room = make_room(height, width)
        return self._room

    def parts(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the rows in as many as fit into memory at once."""
        size = max(min(self.pages.most or len(rows), len(rows)), 1)
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def _check_view(
        self,
        depth_map: DepthMap,
        cam_from_world: Float64[np.ndarray, "4 4"],
        color: UInt8[np.ndarray, "h w 3"] | None,
    ) -> None:
        rotation = cam_from_world[:3, :3]
        skew = np.abs(rotation @ rotation.T - np.eye(3)).max()  # NaN if anything is
        rigid = skew <= ROTATION_TOLERANCE and np.linalg.det(rotation) > 0
        if not rigid or not np.isfinite(cam_from_world).all():
            raise InputError("cam_from_world: not a rigid transform")
        if color is not None and color.shape[:2] != depth_map.depth.shape:
            raise InputError(
                f"photo of {color.shape[1]}x{color.shape[0]} pixels, "
                f"its depth map has {depth_map.camera.width}x{depth_map.camera.height}"
            )
        if self.colored is not None and self.colored != (color is not None):
            raise InputError("some views have a photo and some have none, wanted all or none")

    def check_reach(self, camera: Camera, depth: float, cam_from_world: Float64[np.ndarray, "4 4"]) -> None:
        """Checks that the grid has room for what a view sees up to this depth.

        Raises:
            ViewError: It has not.
        """
        from recon.fusion.blocks import MAX_COORDINATE
        from recon.fusion.view import center_of

        width, height = camera.width, camera.height
        corners = np.array([[0.0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        ray_length = np.linalg.norm(np.linalg.inv(camera.K) @ corners, axis=0).max()
        assert self.origin is not None
        from_origin = center_of(cam_from_world) - self.origin * (SIDE * self.voxel_size)
        farthest = np.linalg.norm(from_origin) + 2 * (depth * ray_length + self.truncation)
        if farthest > MAX_COORDINATE * SIDE * self.voxel_size:
            raise ViewError(
                f"depth up to {depth:g} with voxels of {self.voxel_size:g}: the grid has room for "
                f"{MAX_COORDINATE * SIDE:.2g} voxels to each side of the first camera"
            )
