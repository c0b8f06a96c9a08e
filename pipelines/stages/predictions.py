"""What a network, or the sparse points alone, say of a photo."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool

from lotus.checkpoints import EMBEDDED_NAMES
from lotus.predictor import LotusPredictor
from pipelines.predictors import Imported, Predictor
from pipelines.sources import Photo, same_ratio
from pipelines.stages.maps import (
    FEWEST_POINTS,
    MAD_TO_SIGMA,
    check_count,
    check_positive,
    check_size,
    masked,
    points_inside,
    resized_mask,
)
from recon import interpolation
from recon.alignment import Alignment, Fit
from recon.errors import ViewError
from recon.io import colmap, images
from recon.scene import Camera, Prediction, SparseDepth, View

MIN_RELATIVE_ERROR = 1e-4  # of interpolated depth; float32 maps and pixel positions are no better


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
    version: ClassVar[int] = 2
    whole_machine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("predict.max_size", self.max_size)
        check_positive("predict.batch_size", self.batch_size)

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


def embedded() -> Predict:
    """Returns the stage that asks the small model that comes with the package."""
    return Predict(LotusPredictor(depth=EMBEDDED_NAMES[0]))


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
    version: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_size("predict.size", self.size)
        check_count("predict.min_points", self.min_points, FEWEST_POINTS)

    def __call__(self, *, view: View, points: SparseDepth, kept: Bool[np.ndarray, "h w"]) -> Alignment:
        """Returns the field, in scene units already; its error is how well half the points tell the rest."""
        points = points_inside(points, kept)
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
        return Alignment(masked(depth_map, resized_mask(kept, camera)), fit)


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
    if not same_ratio(width, height, photo):
        raise ViewError(
            f"prediction is {width}x{height}, photo {photo.width}x{photo.height}: their sides' ratios differ"
        )
    return view.camera.fitted(max(width, height)) if view.lens else view.camera.resized(width, height)
