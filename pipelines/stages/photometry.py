"""Depth measured in the photos, brought together with what was predicted, and checked."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from pipelines.executors import one_torch_thread
from pipelines.graph import ByView
from pipelines.stages.gaps import (
    Trial,
    fill_gaps,
    going_on,
    is_between,
    says_how_far,
    shown_around,
    trust_of,
    try_prior,
    without_refuted,
)
from pipelines.stages.maps import check_count, check_positive, check_size, enlarged, masked, resized_mask
from recon import (
    consistency,
    photometric,
    planar,
    refinement,
)
from recon.alignment import Alignment
from recon.consistency import Agreement
from recon.errors import ViewError
from recon.io import images
from recon.photometric import Measurement
from recon.planar import Planes
from recon.raycasting import RayCaster
from recon.refinement import Refinement
from recon.scene import Camera, DepthMap, Mesh, Scene, SparseDepth, View

EDGES_ASKED = 100_000  # triangles whose edges tell the size of a voxel
CHECKING_VIEWS = 6  # views whose measurements confirm or refute one another


@dataclass(frozen=True)
class Match:
    """Measures depth in the photos themselves: patches near the refined depth, compared with other photos."""

    neighbours: int = 4
    """Photos that each is compared with; 0 for no comparison."""

    max_size: int = 1024
    """Longer side of the compared photos and so of the depth, px: at most the photos', at least that of
    predictions."""

    camera_error_px: float = 0.1
    """Standard deviation of where the cameras put a point in another photo, px."""

    device: str = "cpu"
    """Where photos are compared: cpu, or a GPU by its name in torch (cuda)."""

    makes: ClassVar[str] = "measured"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 10

    def __post_init__(self) -> None:
        check_size("match.max_size", self.max_size)
        check_positive("match.camera_error_px", self.camera_error_px)
        check_count("match.neighbours", self.neighbours, 0)

    @property
    def whole_machine(self) -> bool:
        """Whether one process does it for all views: on the processor each worker has a core of its own."""
        return self.device != "cpu"

    def __call__(
        self,
        *,
        view: View,
        scene: Scene,
        aligned: Alignment,
        refined: ByView[Refinement],
        image: ByView[np.ndarray],
        kept: Bool[np.ndarray, "h w"],
    ) -> Measurement:
        """Returns what the photos say, at their size; nothing where they say nothing."""
        prior = refined[view.name].depth_map
        if not aligned.is_predicted:
            prior = self._wide(view, scene, prior)
        if self.neighbours:
            prior = enlarged(prior, view.camera.fitted(self.max_size))
        prior = masked(prior, resized_mask(kept, prior.camera))  # at the photo's outlines
        chosen = []
        if self.neighbours and scene.cloud is not None:
            chosen = photometric.choose_neighbours(scene, view, count=self.neighbours)
        others = [near for near in chosen if near.name in image and near.name in refined]
        size = max(prior.camera.width, prior.camera.height)
        photos = [_photo(near, image[near.name], near.camera.fitted(size)) for near in others]
        return photometric.refine(
            _photo(view, image[view.name], prior.camera),
            prior,
            photos,
            camera_error_px=self.camera_error_px,
            device=self.device,
        )

    def _wide(self, view: View, scene: Scene, depth_map: DepthMap) -> DepthMap:
        """Returns interpolated depth, with the range of the sparse points' depth where there is none."""
        try:
            flat = photometric.flat_prior(depth_map.camera, *photometric.depth_range(scene, view))
        except ViewError:
            return depth_map
        known = depth_map.depth > 0
        return DepthMap(
            camera=depth_map.camera,
            depth=np.where(known, depth_map.depth, flat.depth),
            normals=np.where(known[..., None], depth_map.normals, flat.normals),
            sigma=np.where(known, depth_map.sigma, flat.sigma),
        )


def _photo(view: View, image: UInt8[np.ndarray, "h w 3"], camera: Camera) -> photometric.Photo:
    return photometric.Photo(
        camera, view.cam_from_world, images.resize_image(image, camera.width, camera.height)
    )


@dataclass(frozen=True)
class FindPlanes:
    """Finds the planes that what the photos measured lies on: walls go on where nothing was measured."""

    makes: ClassVar[str] = "planes"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 3

    def __call__(self, *, scene: Scene, measured: ByView[Measurement]) -> Planes:
        """Returns them, world frame."""
        return planar.find_planes(
            (measured[view.name].depth_map, view.cam_from_world)
            for view in scene.views
            if view.name in measured
        )


@dataclass(frozen=True)
class Settle:
    """Brings refined and measured depth together: what views confirm is averaged in and spread by normals.

    These are the mean of the predicted ones and those of what was measured, as far as either is right.
    What nobody measured is what was refined, drawn through what was measured around it where it is far off;
    if it tells that no better than a field does, it is the plane that goes on there and
    that no sparse point contradicts, or depth between measured pixels where that is surer, and left out where
    other views look through it. Depth interpolated between sparse points without a prediction ends with what
    was measured: beyond may be the sky. So does that of a prediction that tells less than what was measured
    around it, but for planes, and where the photos show something that they do not tell.
    """

    makes: ClassVar[str] = "settled"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 42

    def __call__(  # noqa: PLR0913 - all that is known of a view
        self,
        *,
        view: View,
        scene: Scene,
        aligned: Alignment,
        refined: Refinement,
        measured: ByView[Measurement],
        planes: Planes,
        points: SparseDepth,
        kept: Bool[np.ndarray, "h w"],
    ) -> Refinement:
        """Returns depth with what the photos measured, where other views' measurements agree."""
        own = measured[view.name]
        if not own.depth_map.depth.any() or scene.cloud is None:
            return refined
        near = photometric.choose_neighbours(scene, view, count=CHECKING_VIEWS)
        others = [
            (measured[other.name].depth_map, other.cam_from_world) for other in near if other.name in measured
        ]
        checked = photometric.cross_check(own, view.cam_from_world, others).depth_map
        prior = enlarged(refined.depth_map, checked.camera)
        anchors = points.resized(view.camera, checked.camera)
        seen = _Seen(own, checked, view.cam_from_world, others, resized_mask(kept, checked.camera))
        walls = None
        if not aligned.is_predicted:
            prior = masked(prior, seen.between)
        trial = try_prior(
            prior, checked, is_predicted=aligned.is_predicted, has_own_normals=aligned.has_own_normals
        )
        if trial is not None and not trial.is_enough:
            says = None
            if aligned.is_predicted:  # not what is drawn: reflections would draw it to planes behind them
                says = says_how_far(prior, checked)
                predicted = _with_predicted_normals(masked(prior, says), aligned)
                walls = _walls(seen, predicted, planes, anchors)
            prior = _filled(seen, trial, says, walls)
        elif trial is not None:
            prior = trial.prior
        merged = photometric.merge(prior, checked)
        merged, normal_sigma = photometric.merge_normals(
            merged, checked, use_predicted=aligned.has_own_normals
        )
        if walls is not None:
            on = (walls.depth > 0) & (np.abs(merged.depth - walls.depth) < walls.sigma)
            merged = replace(merged, normals=np.where(on[..., None], walls.normals, merged.normals))
            normal_sigma[on] = 0
        with one_torch_thread():
            return refinement.refine(merged, anchors, normal_sigma=normal_sigma)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the photos show of a view."""

    measured: Measurement
    checked: DepthMap
    """Without what other views do not confirm."""

    cam_from_world: Float64[np.ndarray, "4 4"]
    others: list[tuple[DepthMap, Float64[np.ndarray, "4 4"]]]
    """What other views measured, and their poses."""

    inside: Bool[np.ndarray, "h w"]
    """Pixels that the user wants."""

    @cached_property
    def between(self) -> Bool[np.ndarray, "h w"]:
        """Pixels that are confirmed, or between such."""
        return is_between(self.checked.depth > 0)


def _walls(seen: _Seen, prior: DepthMap, planes: Planes, anchors: SparseDepth) -> DepthMap:
    """Returns the depth of planes that gaps lie on, 0 elsewhere."""
    walls = planar.fill_planes(
        planes,
        prior,
        seen.checked,
        (seen.cam_from_world, seen.others),
        seen.inside,
        (seen.measured.depth_map.depth > 0) & (seen.checked.depth <= 0),
    )
    return planar.without_contradicted(walls, anchors, seen.measured.depth_map)


def _filled(
    seen: _Seen, trial: Trial, says: Bool[np.ndarray, "h w"] | None, walls: DepthMap | None
) -> DepthMap:
    """Returns a prior that does not know what stands in the gaps, with what fills them.

    `says` is where a network says how far things are; None of depth without one.
    """
    fills, allowed = trial.prior, seen.between & seen.inside
    if says is not None:
        known = seen.between | (seen.checked.depth > 0)
        shown = shown_around(seen.measured.is_textured, seen.measured.is_blank, seen.between)
        fills, allowed = going_on(trial, shown, known)
        allowed &= seen.inside & says
    filled = fill_gaps(fills, seen.checked, trial, allowed=allowed, walls=walls)
    trust = trust_of(seen.measured.depth_map.depth > 0, seen.checked.depth > 0, walls)
    return without_refuted(filled, seen.cam_from_world, seen.others, trust)


def _with_predicted_normals(depth_map: DepthMap, aligned: Alignment) -> DepthMap:
    """Returns the map with the normals of the prediction, where alignment left others."""
    predicted = aligned.predicted_normals
    if predicted is None:
        return depth_map
    height, width = depth_map.depth.shape
    rows = (np.arange(height) + 0.5) * predicted.shape[0] / height
    columns = (np.arange(width) + 0.5) * predicted.shape[1] / width
    normals = predicted[rows.astype(int)][:, columns.astype(int)]
    return replace(depth_map, normals=normals)


@dataclass(frozen=True)
class Check:
    """Drops depth that other views see through."""

    neighbours: int = 8
    """Views that each view is compared with; 0 for no check."""

    makes: ClassVar[str] = "checked"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def __call__(self, *, view: View, scene: Scene, settled: ByView[Refinement]) -> Agreement:
        """Returns the depth that is fused, with the votes of the neighbours."""
        known = (near for near in scene.neighbours(view, len(scene.views)) if near.name in settled)
        chosen = islice(known, self.neighbours)
        return consistency.check(
            view, settled[view.name].depth_map, [(near, settled[near.name].depth_map) for near in chosen]
        )


@dataclass(frozen=True)
class Draw:
    """Draws the surface of a first pass into each view: the depth around which a second one compares photos.

    It holds what all views know together. It is rounded where depth has edges, so that depth predicted well
    gains nothing by a second pass.
    """

    makes: ClassVar[str] = "drawn"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1
    whole_machine: ClassVar[bool] = True
    batch_size: ClassVar[int] = 8  # for which one mesh is prepared

    edges: ClassVar[float] = 1.3  # typical edges of triangles that the surface may be off by: about a voxel

    def __call__(self, *, view: View, settled: Refinement, mesh: Mesh) -> Refinement:
        """Returns the surface's depth, and where there is none what was settled."""
        return self.many([{"view": view, "settled": settled, "mesh": mesh}])[0]

    def many(self, inputs: list[dict[str, Any]]) -> list[Refinement]:
        """Returns the same for a few views of one mesh."""
        mesh = inputs[0]["mesh"]
        some = mesh.faces[:: max(1, len(mesh.faces) // EDGES_ASKED)]
        edge = np.linalg.norm(mesh.vertices[some[:, 0]] - mesh.vertices[some[:, 1]], axis=1)
        sigma, caster = np.float32(self.edges * np.median(edge)), RayCaster(mesh)
        drawn = []
        for one in inputs:
            known = one["settled"].depth_map
            hits = caster.cast(known.camera, one["view"].cam_from_world)
            hit = hits.depth > 0
            depth_map = DepthMap(
                camera=known.camera,
                depth=np.where(hit, hits.depth, known.depth),
                normals=np.where(hit[..., None], hits.normals, known.normals),
                sigma=np.where(hit, sigma, known.sigma),
            )
            drawn.append(refinement.unrefined(depth_map))
        return drawn
