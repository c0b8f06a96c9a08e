"""Every stage, in the order of the data: from photos to a mesh.

Each is glue of a few lines around one function of `recon`; its fields are its options and their docstrings
the help of the command line. How stages are connected, reused and run is in `graph.py` and `runner.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from lotus.predictor import LotusPredictor
from pipelines.executors import one_torch_thread
from pipelines.graph import ByView, digest
from pipelines.predictors import Imported, Predictor
from pipelines.runner import Progress
from pipelines.sources import MAX_ASPECT_ERROR, Photo, Photos, folder_digest
from recon import (
    alignment,
    calibration,
    consistency,
    fusion,
    interpolation,
    meshing,
    photometric,
    refinement,
)
from recon.alignment import Alignment, Correction, Fit
from recon.consistency import Agreement
from recon.errors import InputError, PipelineError, ViewError
from recon.fusion import TSDFVolume
from recon.geometry import normals_from_depth, pixel_centers, sample_depth
from recon.io import colmap, images
from recon.io.colmap import ColmapModel, SfmOptions
from recon.io.sequences import Frame, Sequence
from recon.photometric import Measurement
from recon.refinement import Refinement
from recon.scene import Camera, DepthMap, Mesh, Prediction, Scene, SparseDepth, View

MIN_SIZE = 16  # pixels; smaller pictures have no neighbourhoods to speak of
MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
MIN_RELATIVE_ERROR = 1e-4  # of interpolated depth; float32 maps and pixel positions are no better
CHECKING_VIEWS = 6  # views whose measurements confirm or refute one another
VOXEL_SIZE_VIEWS = 12  # views that decide on the voxel size; more change it by less than it is uncertain


def _check_size(option: str, size: int) -> None:
    if size < MIN_SIZE:
        raise InputError(f"{option}: {size} pixels, at least {MIN_SIZE} wanted")


@dataclass(frozen=True)
class Sfm:
    """Finds cameras and sparse points of the photos with COLMAP."""

    options: SfmOptions = field(default_factory=SfmOptions)

    makes: ClassVar[str] = "sparse"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, photos: Photos, progress: Progress) -> ColmapModel:
        """Returns the largest model; photos that are not in it are named with the reason."""
        work = photos.workspace / f"sfm-{digest(photos.key, self.options)}"
        return colmap.reconstruct(
            photos.files,
            work,
            self.options,
            masks=photos.masks,
            ordered=photos.ordered,
            on_progress=progress,
        )


@dataclass(frozen=True)
class GivenModel:
    """Takes cameras and sparse points from an existing COLMAP model, poses as they are."""

    folder: Path
    """Folder of the model: cameras, images and points3D, binary or text."""

    options: SfmOptions = field(default_factory=SfmOptions)
    """Used only if the model has poses but no points: then points are triangulated."""

    makes: ClassVar[str] = "sparse"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def content(self, view: str | None) -> str:
        """Returns the digest of the model's files."""
        return folder_digest(self.folder)

    def __call__(self, *, photos: Photos, progress: Progress) -> ColmapModel:
        """Returns the model, with points triangulated if it had none."""
        model = colmap.read_model(self.folder)
        if model.summary["points"]:
            return model
        views = colmap.scene_from_model(model, photos.files).views
        work = photos.workspace / f"triangulate-{digest(photos.key, self.options, self.content(None))}"
        return colmap.triangulate(photos.files, views, work, self.options, on_progress=progress)


@dataclass(frozen=True)
class Undistort:
    """Turns a COLMAP model into views with pinhole cameras, sparse points moved along."""

    max_size: int = 1600
    """Longer side of the undistorted pictures, px; larger photos are shrunk."""

    makes: ClassVar[str] = "scene"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_size("undistort.max_size", self.max_size)

    def __call__(self, *, sparse: ColmapModel, photos: Photos) -> Scene:
        """Returns the scene."""
        return colmap.scene_from_model(sparse, photos.files, max_size=self.max_size)


@dataclass(frozen=True)
class Predict:
    """Asks a network for depth and normals of each photo as taken."""

    predictor: LotusPredictor | Imported

    batch_size: int = 1
    """Photos given to the network at once."""

    max_size: int = 1536
    """Longer side of the photos given to the network, px."""

    makes: ClassVar[str] = "photo_prediction"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def content(self, view: str | None) -> str:
        """Returns the digest of the network's weights, where the predictor tells it."""
        predictor: Predictor = self.predictor
        return predictor.content() if hasattr(predictor, "content") else ""

    def __call__(self, *, photo: Photo) -> Prediction:
        """Returns the prediction of one photo."""
        return self.many([{"photo": photo}])[0]

    def many(self, inputs: list[dict[str, Any]]) -> list[Prediction]:
        """Returns the predictions of a few photos, made in one batch."""
        return self.predictor([entry["photo"].read(self.max_size) for entry in inputs])


@dataclass(frozen=True)
class InterpolatePoints:
    """Stands in for a network: a smooth depth field through the sparse points of each view.

    It knows nothing that the points do not say: fine where they are dense, blank where there are none.
    """

    size: int = 640
    """Longer side of the field, px."""

    min_points: int = 20
    """Fewest points; a view with fewer is dropped."""

    makes: ClassVar[str] = "aligned"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_size("predict.size", self.size)

    def __call__(self, *, view: View, points: SparseDepth, mask: Bool[np.ndarray, "h w"]) -> Alignment:
        """Returns the field, in scene units already; its error is how well half the points tell the rest."""
        if len(points) < self.min_points:
            raise ViewError(f"{len(points)} sparse points, at least {self.min_points} wanted")
        camera = view.camera.fitted(self.size)
        anchors = points.resized(view.camera, camera)
        field = interpolation.interpolate_points(anchors, camera)
        held_out = interpolation.predict_held_out(anchors, camera)
        errors = np.abs(np.log(held_out / anchors.depth))
        error = interpolation.median_error(errors)
        depth_map = interpolation.to_depth_map(field, camera, MAD_TO_SIGMA * max(error, MIN_RELATIVE_ERROR))
        fit = Fit(
            space="depth",
            scale=1.0,
            shift=0.0,
            covariance=np.zeros((2, 2)),
            inliers=errors <= 3 * MAD_TO_SIGMA * error,
            predicted=held_out,
            target=anchors.depth,
            median_error=error,
            held_out_errors=errors,
            corrected=False,
            plain_held_out_error=error,
        )
        return Alignment(_masked(depth_map, _resized_mask(mask, camera)), fit)


@dataclass(frozen=True)
class Rectify:
    """Moves a prediction from the photo as taken to the view's pinhole camera."""

    makes: ClassVar[str] = "prediction"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1
    kept: ClassVar[bool] = False

    def __call__(self, *, view: View, photo_prediction: Prediction) -> Prediction:
        """Returns the prediction as the undistorted photo would have it, about as large as it was."""
        height, width = photo_prediction.values.shape
        camera = _camera_of_size(view, width, height)
        if view.lens is None:
            return photo_prediction
        return images.remap_prediction(photo_prediction, colmap.photo_pixels(view, width, height, camera))


def _camera_of_size(view: View, width: int, height: int) -> Camera:
    photo = view.lens or view.camera
    stretch = (width / height) / (photo.width / photo.height)
    if abs(stretch - 1) > MAX_ASPECT_ERROR:
        raise ViewError(
            f"prediction is {width}x{height}, photo {photo.width}x{photo.height}: their sides' ratios differ"
        )
    return view.camera.fitted(max(width, height)) if view.lens else view.camera.resized(width, height)


@dataclass(frozen=True)
class Align:
    """Puts a prediction into scene units with the sparse points its view sees.

    A prediction that does not fit them is not used: then depth is interpolated between the points. So it is
    where that tells held-out points better than the prediction does, which then fills the gaps. A view that
    sees too few points borrows those of other views that fall into it.
    """

    min_points: int = 20
    """Fewest points; a view with fewer, borrowed ones included, is dropped."""

    makes: ClassVar[str] = "aligned"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 5

    suspect_error: ClassVar[float] = 0.003  # held-out, from which the points alone are asked
    asked_size: ClassVar[int] = 160  # px, of the field that answers
    clearly_wrong: ClassVar[float] = 0.04  # held-out, from which the prediction may not be used at all
    clearly_worse: ClassVar[float] = 2.0  # times the error between near points: nor are its normals

    def __call__(
        self,
        *,
        view: View,
        scene: Scene,
        points: SparseDepth,
        prediction: Prediction,
        mask: Bool[np.ndarray, "h w"],
    ) -> Alignment:
        """Returns depth in scene units with its standard deviation, and the fit; nothing outside the mask."""
        height, width = prediction.values.shape
        camera = view.camera.resized(width, height)
        if len(points) < self.min_points:
            return self._borrowing(view, scene, prediction, mask)
        anchors = points.resized(view.camera, camera)
        try:
            aligned = alignment.align(prediction, anchors, camera, min_points=self.min_points)
        except ViewError as error:
            return self._without(view, points, mask, str(error))
        fit = aligned.fit
        off = fit.held_out_error if np.isfinite(fit.held_out_error) else fit.median_error
        if off > self.clearly_wrong:
            alone = interpolation.held_out_error(anchors, camera)
            if off > self.clearly_worse * alone:
                return self._without(view, points, mask, f"{off:.1%} off, the points alone {alone:.1%}")
        if off > self.suspect_error:
            errors = self._errors_without(fit, anchors, camera)
            if np.isfinite(errors).any() and off > np.nanmedian(errors):
                aligned = self._filling(aligned, anchors, errors)
        return replace(aligned, depth_map=_masked(aligned.depth_map, _resized_mask(mask, camera)))

    def _errors_without(self, fit: Fit, anchors: SparseDepth, camera: Camera) -> Float64[np.ndarray, "n"]:
        """Returns what `fit.held_out_errors` would be without a prediction, at the same anchors."""
        small = camera.fitted(self.asked_size)
        fold = alignment.fold_of(anchors, camera)
        predicted = interpolation.predict_held_out(anchors.resized(camera, small), small, fold)
        errors = np.abs(np.log(predicted / anchors.depth))
        errors = np.where(np.isfinite(errors), np.minimum(errors, 1), 1)  # no depth is as bad as it gets
        return np.where(np.isfinite(fit.held_out_errors), errors, np.nan)

    def _filling(
        self, aligned: Alignment, anchors: SparseDepth, errors: Float64[np.ndarray, "n"]
    ) -> Alignment:
        """Returns depth between the points, the prediction in the gaps they leave, with its normals."""
        fit, made = aligned.fit, aligned.depth_map
        off, alone = fit.held_out_error, float(np.nanmedian(errors))
        field = interpolation.interpolate_points(anchors, made.camera)
        between = interpolation.to_depth_map(field, made.camera, MAD_TO_SIGMA * alone)
        known = between.depth > 0
        vague = np.maximum(made.sigma, np.float32(MAD_TO_SIGMA * off) * made.depth)
        own = aligned.has_own_normals
        depth_map = DepthMap(
            camera=made.camera,
            depth=np.where(known, between.depth, made.depth),
            normals=made.normals if own else np.where(known[..., None], between.normals, made.normals),
            sigma=np.where(known, between.sigma, vague),
        )
        note = f"the prediction only fills gaps: {off:.2%} off, the points alone {alone:.2%}"
        return Alignment(depth_map, replace(fit, held_out_errors=errors, corrected=False), None, own, note)

    def _borrowing(
        self, view: View, scene: Scene, prediction: Prediction, mask: Bool[np.ndarray, "h w"]
    ) -> Alignment:
        height, width = prediction.values.shape
        camera = view.camera.resized(width, height)
        borrowed = scene.projected(view).resized(view.camera, camera)
        aligned = alignment.align(prediction, borrowed, camera, min_points=self.min_points)
        return replace(
            aligned,
            depth_map=_masked(aligned.depth_map, _resized_mask(mask, camera)),
            note=f"sees fewer than {self.min_points} points itself: aligned with those of other views",
        )

    def _without(
        self, view: View, points: SparseDepth, mask: Bool[np.ndarray, "h w"], reason: str
    ) -> Alignment:
        field = InterpolatePoints(min_points=self.min_points)(view=view, points=points, mask=mask)
        return replace(field, note=f"prediction not used: {reason}")


@dataclass(frozen=True)
class Agree:
    """Lets the views' smooth corrections agree where they see the same surface."""

    makes: ClassVar[str] = "agreement"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 2

    def __call__(
        self, *, scene: Scene, aligned: ByView[Alignment], progress: Progress
    ) -> dict[str, Correction]:
        """Returns the corrections by view; views that cannot be compared with others have none."""
        views = [view for view in scene.views if view.name in aligned]
        return alignment.agree(
            views, aligned.__getitem__, progress=lambda done, total: progress(self.makes, done, total)
        )


@dataclass(frozen=True)
class Refine:
    """Makes depth agree with the predicted normals, and spreads it into what no sparse point told."""

    normals: bool = True
    """Refine by the normals; false leaves depth as it was aligned."""

    makes: ClassVar[str] = "refined"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __call__(
        self,
        *,
        view: View,
        aligned: Alignment,
        agreement: dict[str, Correction],
        points: SparseDepth,
    ) -> Refinement:
        """Returns the view's depth, corrected to agree with others and refined."""
        if view.name in agreement:
            aligned = alignment.corrected(aligned, agreement[view.name])
        return self.alone(view, aligned, points)

    def alone(self, view: View, aligned: Alignment, points: SparseDepth) -> Refinement:
        """Returns the refined depth of a view without regard to others."""
        depth_map = aligned.depth_map
        if not (self.normals and aligned.has_own_normals):
            return refinement.unrefined(depth_map)
        with one_torch_thread():
            return refinement.refine(depth_map, points.resized(view.camera, depth_map.camera))


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

    makes: ClassVar[str] = "measured"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def __call__(
        self,
        *,
        view: View,
        scene: Scene,
        aligned: Alignment,
        refined: ByView[Refinement],
        image: ByView[np.ndarray],
        mask: Bool[np.ndarray, "h w"],
    ) -> Measurement:
        """Returns what the photos say, at their size; nothing where they say nothing."""
        prior = refined[view.name].depth_map
        if not aligned.has_own_normals:
            prior = _masked(self._wide(view, scene, prior), _resized_mask(mask, prior.camera))
        if self.neighbours:
            prior = _enlarged(prior, view.camera.fitted(self.max_size))
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


def _enlarged(depth_map: DepthMap, camera: Camera) -> DepthMap:
    """Returns the map at the size of a larger camera, nothing mixed over depth edges; no smaller one."""
    made = depth_map.camera
    if camera.width <= made.width or camera.height <= made.height:
        return depth_map
    centers = pixel_centers(camera.width, camera.height) * [
        made.width / camera.width,
        made.height / camera.height,
    ]
    rows, columns = np.moveaxis(centers, -1, 0)[::-1].astype(np.int64)
    depth = sample_depth(depth_map.depth, centers.reshape(-1, 2)).reshape(rows.shape)
    known = depth > 0
    return DepthMap(
        camera=camera,
        depth=depth.astype(np.float32),
        normals=np.where(known[..., None], depth_map.normals[rows, columns], 0),
        sigma=np.where(known, depth_map.sigma[rows, columns], 0),
    )


def _photo(view: View, image: UInt8[np.ndarray, "h w 3"], camera: Camera) -> photometric.Photo:
    return photometric.Photo(
        camera, view.cam_from_world, images.resize_image(image, camera.width, camera.height)
    )


@dataclass(frozen=True)
class Settle:
    """Brings refined and measured depth together: what views confirm is averaged in and spread by normals."""

    makes: ClassVar[str] = "settled"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def __call__(
        self,
        *,
        view: View,
        scene: Scene,
        aligned: Alignment,
        refined: Refinement,
        measured: ByView[Measurement],
        points: SparseDepth,
    ) -> Refinement:
        """Returns depth with what the photos measured, where other views' measurements agree."""
        own = measured[view.name]
        if not own.depth_map.depth.any() or scene.cloud is None:
            return refined
        near = photometric.choose_neighbours(scene, view, count=CHECKING_VIEWS)
        others = [
            (measured[other.name].depth_map, other.cam_from_world) for other in near if other.name in measured
        ]
        checked = photometric.cross_check(own, view.cam_from_world, others)
        merged = photometric.merge(_enlarged(refined.depth_map, own.depth_map.camera), checked.depth_map)
        if not aligned.has_own_normals:
            return refinement.unrefined(merged)
        with one_torch_thread():
            return refinement.refine(merged, points.resized(view.camera, merged.camera))


@dataclass(frozen=True)
class Check:
    """Drops depth that other views see through."""

    neighbours: int = 8
    """Views that each view is compared with; 0 for no check."""

    makes: ClassVar[str] = "checked"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __call__(self, *, view: View, scene: Scene, settled: ByView[Refinement]) -> Agreement:
        """Returns the depth that is fused, with the votes of the neighbours."""
        known = (near for near in scene.neighbours(view, len(scene.views)) if near.name in settled)
        chosen = islice(known, self.neighbours)
        return consistency.check(
            view, settled[view.name].depth_map, [(near, settled[near.name].depth_map) for near in chosen]
        )


def _resized_mask(mask: Bool[np.ndarray, "h w"], camera: Camera) -> Bool[np.ndarray, "h2 w2"]:
    return images.resize_map(mask.astype(np.float32), camera.width, camera.height) > 0.5


def _masked(depth_map: DepthMap, kept: Bool[np.ndarray, "h w"]) -> DepthMap:
    return DepthMap(
        camera=depth_map.camera,
        depth=np.where(kept, depth_map.depth, 0).astype(np.float32),
        normals=np.where(kept[..., None], depth_map.normals, 0).astype(np.float32),
        sigma=np.where(kept, depth_map.sigma, 0).astype(np.float32),
    )


@dataclass(frozen=True)
class Fuse:
    """Fuses the depth maps of all views in a sparse TSDF volume."""

    voxel_size: float | None = None
    """Side of a voxel, scene units; chosen from the depth maps' resolution and certainty if not given."""

    truncation: float | None = None
    """Distance up to which the volume knows the surface, scene units; 4 voxels if not given."""

    memory: float = 8.0
    """Most memory for the volume's voxels, GB; what does not fit is kept in a temporary file."""

    makes: ClassVar[str] = "volume"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 2

    most_per_view: ClassVar[float] = 2.0  # times the memory that one view may fill; more is a mistaken size

    def start(self, depth_maps: Iterable[DepthMap]) -> TSDFVolume:
        """Returns an empty volume; a few of the depth maps decide on the voxel size if it is not given."""
        size = self.voxel_size
        if size is None:
            size = fusion.choose_voxel_size(list(islice(depth_maps, VOXEL_SIZE_VIEWS)))
        return TSDFVolume(size, self.truncation, memory=self.memory * 1e9)

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
        spread = names[:: max(1, len(names) // VOXEL_SIZE_VIEWS)]
        volume = self.start(checked[name].depth_map for name in spread)
        for done, name in enumerate(names, 1):
            self.add(volume, scene.view(name), checked[name].depth_map, image[name])
            progress(self.makes, done, len(names))
        return volume


@dataclass(frozen=True)
class ExtractMesh:
    """Draws the surface out of the volume and removes small loose pieces."""

    min_component_share: float = 0.005
    """Pieces with a smaller share of the faces are removed."""

    makes: ClassVar[str] = "mesh"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 2

    def __call__(self, *, volume: TSDFVolume) -> Mesh:
        """Returns the mesh with vertex colours, world frame."""
        mesh = meshing.remove_small_components(volume.extract(), min_share=self.min_component_share)
        if not len(mesh.faces):
            raise PipelineError("the volume holds no surface: the depth maps agree nowhere")
        return mesh


@dataclass(frozen=True)
class OneCamera:
    """Places the camera of a single photo at the origin."""

    fov: float | None = None
    """Horizontal field of view, degrees; from the photo's EXIF if not given."""

    max_size: int = 1600
    """Longer side of the picture, px; a larger photo is shrunk."""

    makes: ClassVar[str] = "scene"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    default_fov_deg: ClassVar[float] = 60.0  # a phone's main camera, held horizontally

    def __call__(self, *, photos: Photos) -> Scene:
        """Returns a scene of one view."""
        ((name, path),) = photos.files.items()
        width, height = images.photo_size(path)
        camera = Camera.from_fov(width, height, self.field_of_view(path))
        return Scene((View(name, camera.fitted(self.max_size), np.eye(4), path),))

    def field_of_view(self, path: Path) -> float:
        """Returns the horizontal field of view used, degrees."""
        if self.fov is not None:
            return self.fov
        focal = images.exif_focal_px(path)
        if focal is None:
            return self.default_fov_deg
        return float(np.degrees(2 * np.arctan(images.photo_size(path)[0] / (2 * focal))))


@dataclass(frozen=True)
class Calibrate:
    """Makes a single prediction depth: its shift is the one that fits its normals, its scale stays open."""

    far_over_near: float = 8.0
    """Ratio of far to near depth assumed where shift and normals are both unknown."""

    search_fov: bool = False
    """Find the field of view with the shift, for a photo whose focal length is unknown."""

    makes: ClassVar[str] = "depth"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __call__(self, *, view: View, prediction: Prediction, mask: Bool[np.ndarray, "h w"]) -> DepthMap:
        """Returns depth in metres for a metric prediction, else in units of the nearest depth."""
        height, width = prediction.values.shape
        camera = view.camera.resized(width, height)
        found = calibration.calibrate(
            prediction, camera, fov_known=not self.search_fov, far_over_near=self.far_over_near
        )
        return _masked(found.depth_map, _resized_mask(mask, camera))


@dataclass(frozen=True)
class MeshDepth:
    """Makes a mesh of a single depth map, cut where the surface is not continuous."""

    relative_jump: float = 0.04
    """Neighbours whose depths differ by more than this share, and more than their slope explains, are cut."""

    makes: ClassVar[str] = "mesh"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, depth: ByView[DepthMap], image: ByView[np.ndarray]) -> Mesh:
        """Returns the mesh in the camera's frame, textured with the photo."""
        ((name, depth_map),) = depth.items()
        camera = depth_map.camera
        picture = images.resize_image(image[name], camera.width, camera.height)
        mesh = meshing.grid_mesh(depth_map, picture, relative_jump=self.relative_jump)
        if not len(mesh.faces):
            raise PipelineError(f"{name}: no two neighbouring pixels have depth, there is no surface")
        return mesh


@dataclass(frozen=True)
class SensorDepth:
    """Reads the depth that a sensor measured for a frame."""

    max_depth: float = 5.0
    """Measurements beyond this many metres are dropped; structured light is useless there."""

    noise: float = 0.0019
    """Standard deviation grows as this times (z - 0.4)^2, metres (Nguyen et al. 2012, Kinect)."""

    relative_noise: float = 0.01
    """Standard deviation over depth for a sequence whose unit is not known to be the metre."""

    makes: ClassVar[str] = "depth"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    floor_m: ClassVar[float] = 0.0012  # same source: noise at the shortest distance
    normal_step: ClassVar[int] = 3  # pixels; single-pixel differences of sensor depth are mostly noise

    def __call__(self, *, sequence: Sequence, frame: Frame) -> DepthMap:
        """Returns depth, metres where the sequence is metric, with the sensor's noise model."""
        depth = sequence.read_depth(frame)
        sigma = self.relative_noise * depth
        if sequence.is_metric:
            depth = np.where(depth <= self.max_depth, depth, 0).astype(np.float32)
            sigma = np.where(depth > 0, self.floor_m + self.noise * (depth - 0.4) ** 2, 0)
        if not depth.any():
            raise ViewError(f"{frame.name}: nothing measured nearer than {self.max_depth:g} m")
        height, width = depth.shape
        camera = frame.view.camera.resized(width, height)
        normals = normals_from_depth(camera.K, depth, step=self.normal_step)
        return DepthMap(camera, depth, normals, sigma.astype(np.float32))
