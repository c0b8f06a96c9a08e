"""Depth maps of all views to one mesh."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from pipelines.graph import ByView
from pipelines.runner import Progress
from pipelines.stages.maps import check_count, check_positive
from recon import consistency, fusion, meshing, texturing
from recon.consistency import Agreement
from recon.errors import InputError, PipelineError
from recon.fusion import TSDFVolume
from recon.io import images
from recon.scene import DepthMap, Mesh, Scene, View

VOXEL_SIZE_VIEWS = 12  # views that decide on the voxel size; more change it by less than it is uncertain
COMPARED_VIEWS = 4  # neighbours that tell how far the depth of each of them is apart


@dataclass(frozen=True)
class Fuse:
    """Fuses the depth maps of all views in a sparse TSDF volume."""

    voxel_size: float | None = None
    """Side of a voxel, scene units; chosen from depth maps' resolution, certainty, spread if not given."""

    truncation: float | None = None
    """Distance up to which the volume knows the surface, scene units; 4 voxels if not given."""

    memory: float = 8.0
    """Most memory for the volume's voxels, GB; what does not fit is kept in a temporary file."""

    device: str = "cpu"
    """Where voxels are updated: cpu, or a GPU by its name in torch (cuda), which has to hold them all."""

    makes: ClassVar[str] = "volume"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 11
    fills_memory: ClassVar[bool] = True

    most_per_view: ClassVar[float] = 2.0  # times the memory that one view may fill; more is a mistaken size

    def __post_init__(self) -> None:
        for name in ("voxel_size", "truncation", "memory"):
            check_positive(f"fuse.{name}", getattr(self, name))

    def start(self, depth_maps: Iterable[DepthMap], spread: float = 0.0) -> TSDFVolume:
        """Returns an empty volume; a few depth maps and their spread decide on a voxel size not given."""
        size = self.voxel_size
        if size is None:
            size = fusion.choose_voxel_size(list(islice(depth_maps, VOXEL_SIZE_VIEWS)), spread)
        memory = self.memory * 1e9 if self.device == "cpu" else None  # what is elsewhere is not paged
        return TSDFVolume(size, self.truncation, memory=memory, device=self.device)

    def add(
        self,
        volume: TSDFVolume,
        view: View,
        depth_map: DepthMap,
        image: UInt8[np.ndarray, "h w 3"] | None,
    ) -> None:
        """Integrates one view into the volume.

        Raises:
            InputError: The view alone would fill the memory more than twice.
        """
        camera = depth_map.camera
        needed = fusion.needed_bytes(depth_map, volume.voxel_size, volume.truncation)
        if needed > self.most_per_view * self.memory * 1e9:
            raise InputError(
                f"{view.name}: voxels of {volume.voxel_size:g} need about {needed / 1e9:.1f} GB for this "
                f"view alone, memory is {self.memory:g}; take larger voxels"
            )
        color = None if image is None else images.resize_image(image, camera.width, camera.height)
        volume.integrate(depth_map, view.cam_from_world, color)

    def __call__(
        self,
        *,
        scene: Scene,
        checked: ByView[Agreement],
        image: ByView[np.ndarray],
        progress: Progress,
    ) -> TSDFVolume:
        """Returns the volume that holds every view."""
        names = list(checked)
        progress(self.makes, 0, len(names))  # the voxel size takes a while
        some = names[:: max(1, len(names) // VOXEL_SIZE_VIEWS)]
        spread = _spread(scene, checked, some) if self.voxel_size is None else 0.0
        volume = self.start((checked[name].depth_map for name in some), spread)
        for done, name in enumerate(names, 1):
            self.add(volume, scene.view(name), checked[name].depth_map, image[name])
            progress(self.makes, done, len(names))
        return volume


def _spread(scene: Scene, checked: ByView[Agreement], names: Iterable[str]) -> float:
    """Returns the median over views of what their neighbours say of their depth's standard deviation."""
    found = []
    for name in names:
        view = scene.view(name)
        known = (near for near in scene.neighbours(view, len(scene.views)) if near.name in checked)
        near = [(each, checked[each.name].depth_map) for each in islice(known, COMPARED_VIEWS)]
        found.append(consistency.depth_spread(view, checked[name].depth_map, near))
    told = [spread for spread in found if np.isfinite(spread)]
    return float(np.median(told)) if told else 0.0


@dataclass(frozen=True)
class ExtractMesh:
    """Draws the surface out of the volume and removes small loose pieces."""

    min_component_share: float = 0.005
    """Pieces with a smaller share of the faces are removed."""

    smooth: bool = True
    """Average the surface where the views disagree by over half a voxel; where they agree it stays sharp."""

    makes: ClassVar[str] = "mesh"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 6

    def __post_init__(self) -> None:
        if not 0 <= self.min_component_share <= 1:
            raise InputError(
                f"extract.min_component_share: {self.min_component_share:g}, wanted a share between 0 and 1"
            )

    def __call__(self, *, volume: TSDFVolume) -> Mesh:
        """Returns the mesh with vertex colours, world frame."""
        mesh = volume.extract(smooth=self.smooth)
        mesh = meshing.remove_small_components(mesh, min_share=self.min_component_share)
        if not len(mesh.faces):
            raise PipelineError("the volume holds no surface: the depth maps agree nowhere")
        return mesh


@dataclass(frozen=True)
class Texture:
    """Gives the mesh a texture made of the photos."""

    max_size: int = texturing.MAX_SIZE
    """Most pixels of a side of the texture; photos are shrunk until what is seen of them fits."""

    makes: ClassVar[str] = "textured"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_count("texture.max_size", self.max_size, texturing.MIN_SIZE)

    def __call__(
        self,
        *,
        scene: Scene,
        mesh: Mesh,
        checked: ByView[Agreement],
        image: ByView[np.ndarray],
        progress: Progress,
    ) -> Mesh:
        """Returns the same surface with vertices repeated where pieces of photos meet, and their texture.

        What is too large for a texture stays as it is, with the colours of its vertices.
        """
        views = [scene.view(name) for name in checked]
        try:
            return texturing.texture_mesh(
                mesh, views, image, max_size=self.max_size, on_view=partial(progress, self.makes)
            )
        except InputError:
            return mesh
