"""A prediction in scene units: scale and shift, then a smooth correction if it helps, and the depth map."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int64

from recon.alignment.affine import Fit, best_line, describe
from recon.alignment.depth import corrected_depth, plain_sigma, to_depth_map
from recon.alignment.field import Field
from recon.alignment.points import folds, tiles
from recon.alignment.smooth import try_correction
from recon.alignment.spaces import regressor
from recon.alignment.usable import choose_anchors, known_part, seen_at
from recon.errors import InputError
from recon.scene import Camera, DepthMap, Prediction, SparseDepth


@dataclass(frozen=True, eq=False)
class Alignment:
    """A prediction in scene units."""

    depth_map: DepthMap
    fit: Fit
    field: Field | None = None
    """The smooth correction, of coefficients 0 where held-out anchors saw no use for it; None if not asked
    for."""

    has_own_normals: bool = False
    """Whether the normals are predicted, not made from the depth."""

    note: str = ""
    """What a reader has to know of this view."""

    is_predicted: bool = False
    """Whether a prediction tells depth where there are no anchors; else it is interpolated between them."""

    predicted_normals: Float32[np.ndarray, "h2 w2 3"] | None = None
    """Of the prediction, where the depth map has others; maybe of another size."""


def align(
    prediction: Prediction,
    anchors: SparseDepth,
    camera: Camera,
    *,
    min_points: int = 20,
    correct: bool = True,
) -> Alignment:
    """Returns the prediction as depth in scene units, with the fit that made it so.

    A disparity or affine depth gets scale and shift in its own space. A depth up to scale (or metric) gets
    a scale; a shift or a contrast (log space) only where held-out anchors prefer it by more than one
    standard error. Then a smooth correction of log depth is fitted to what is left, and kept where held-out
    anchors prefer it as clearly (up to 200 anchors: unless they prefer the plain fit by half a standard
    error); with it, scale and shift of up to 200 anchors are fitted anew. The result does not depend on the
    order of the anchors and scales with the scene.

    The sigma of the depth map holds the covariance of the fit (of the correction near anchors, of scale and
    shift far from them) and the prediction's own error as held-out anchors show it, divided by the root of
    the confidence. Pixels without prediction, with confidence 0, beyond infinity or less certain than half
    their depth get depth 0. Normals are the prediction's, or those of the depth where it has none.

    Args:
        prediction: Of the picture of `camera`.
        anchors: Points of known depth, pixels of `camera`.
        camera: Pinhole camera of the prediction's size.
        min_points: Fewest usable anchors: inside the picture, where the prediction is known, off its edges.
        correct: False keeps scale and shift alone.

    Raises:
        InputError: The prediction has another size than the camera.
        ViewError: Too few usable anchors, a prediction that is flat over them or falls where they rise, or a
            fit that leaves next to no depth.
    """
    from threadpoolctl import threadpool_limits

    if prediction.values.shape != (camera.height, camera.width):
        height, width = prediction.values.shape
        raise InputError(f"prediction: {width}x{height}, the camera is {camera.width}x{camera.height}")
    known = known_part(prediction)
    used = choose_anchors(known, anchors, min_points)
    chosen = SparseDepth(anchors.uv[used], anchors.depth[used], anchors.sigma[used])
    space, line, errors = best_line(known, chosen)
    fit = describe(space, line, errors, used, anchors, regressor(space, seen_at(known, chosen)))
    depth = fit.depth(known.values)
    sigma = plain_sigma(fit, line, known, depth)
    field = None
    if correct:
        with threadpool_limits(1, user_api="blas"):  # the same bytes everywhere; small matrices lose nothing
            trial = try_correction(fit, line, errors, known, chosen)
            field = trial.field
            if trial.helps:
                fit = trial.corrected_fit(used)
                depth, sigma = corrected_depth(field, fit, line.hidden, known)
            else:
                field = replace(field, coefficients=np.zeros_like(field.coefficients))
    depth_map = to_depth_map(known, depth, sigma, prediction.normals, camera)
    return Alignment(depth_map, fit, field, has_own_normals=prediction.normals is not None, is_predicted=True)


def fold_of(anchors: SparseDepth, camera: Camera) -> Int64[np.ndarray, "n"]:
    """Returns the part of the picture, 0 to 4, that holds each anchor: the folds of `Fit.held_out_errors`.

    Each consists of tiles all over the picture that touch at corners at most.
    """
    inside = np.clip(anchors.uv, 0, [camera.width - 1e-6, camera.height - 1e-6])
    return folds(tiles(inside, camera.width, camera.height))
