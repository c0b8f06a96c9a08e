"""One scale and, where the prediction needs it, one shift per view, in the space where that is enough."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from recon.alignment.line import Line, fit_line
from recon.alignment.points import Points, folds, tiles
from recon.alignment.spaces import depth_of, log_ratio, regressor, slope_of, target_of
from recon.alignment.usable import MIN_CONFIDENCE, Known, has_one_value, seen_at
from recon.errors import ViewError
from recon.geometry import sample
from recon.scene import SparseDepth

FAR_QUANTILE = 0.01  # this share of pixels may come out beyond infinity or behind the camera
MIN_GAIN = 0.03  # share of the held-out error that one more parameter has to win
MIN_FOLDS_TO_CHOOSE = 3  # folds with anchors, without which the simplest model is taken


@dataclass(frozen=True, eq=False)
class Fit:
    """How a prediction becomes depth, and how well that works at the anchors."""

    space: str
    """depth: z = scale * m + shift. disparity: 1/z = scale * m + shift. log: log z = scale * log m + shift.
    m is the predicted value."""

    scale: float
    shift: float
    covariance: Float64[np.ndarray, "2 2"]
    """Of (scale, shift), spatially correlated residuals accounted for; 0 in the shift's row without shift."""

    inliers: Bool[np.ndarray, "n"]
    """Of all anchors given, judged after the correction; False too where an anchor could not be used."""

    predicted: Float64[np.ndarray, "n"]
    """m at the anchors (its log in log space); NaN where the anchor could not be used."""

    target: Float64[np.ndarray, "n"]
    """Depth, disparity or log depth of the anchors."""

    median_error: float
    """Median |z_fit - z| / z over the inliers, after the correction if there is one."""

    held_out_errors: Float64[np.ndarray, "n"]
    """|log z_fit - log z| of each anchor, at most 1, judged by a fit that did not see the tiles of its
    fold (`fold_of`); NaN where it could not be used or the others do not suffice for that."""

    corrected: bool
    """Whether the depth map has the smooth correction, because held-out anchors prefer it."""

    plain_held_out_error: float
    """`held_out_error` as it would be without the correction."""

    @property
    def held_out_error(self) -> float:
        """Median of `held_out_errors`; NaN if there are none."""
        return median_of(self.held_out_errors)

    def depth(self, values: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
        """Returns depth of predicted values before the correction, scene units; 0 where the fit has none.

        There is none beyond infinity and where the value is NaN.
        """
        return depth_of(self.space, self.scale * regressor(self.space, values) + self.shift)


def best_line(known: Known, anchors: SparseDepth) -> tuple[str, Line, Float64[np.ndarray, "n"]]:
    """Returns the space, the line in it, and its held-out errors, of the model that the prediction needs.

    Raises:
        ViewError: The prediction falls where depth rises.
    """
    models = [("disparity" if known.kind == "affine_disparity" else "depth", True)]  # (space, with shift)
    if known.is_depth:
        models = [("depth", False), ("depth", True), ("log", True)]  # the simplest first
    lowest = float(np.nanpercentile(known.values[::2, ::2], 100 * FAR_QUANTILE))
    height, width = known.values.shape
    fold = folds(tiles(anchors.uv, width, height))
    if known.is_depth and has_one_value(seen_at(known, anchors)):
        models = models[:1]  # one depth for all has a scale, and no more
    lines, errors = [], []
    for space, with_shift in models:
        points = regression(space, known, anchors)
        line = fit_line(points, with_shift=with_shift, lowest=np.nan if space == "log" else lowest)
        lines.append(line)
        errors.append(_log_errors(space, line, anchors.depth))
    chosen = simplest(errors, fold)
    if lines[chosen].scale <= 0:
        raise ViewError(f"view: prediction falls where the depth of the {len(anchors)} anchors rises")
    return models[chosen][0], lines[chosen], errors[chosen]


def regression(space: str, known: Known, anchors: SparseDepth) -> Points:
    """Returns the anchors as a regression problem."""
    height, width = known.values.shape
    slope = slope_of(space, anchors.depth)
    return Points(
        x=regressor(space, seen_at(known, anchors)),
        y=target_of(space, anchors.depth),
        sigma=slope * anchors.sigma,
        unit=slope * anchors.depth,
        confidence=np.maximum(sample(known.confidence, anchors.uv), MIN_CONFIDENCE),
        tile=tiles(anchors.uv, width, height),
    )


def _log_errors(space: str, line: Line, depth: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Returns |log z_fit - log z| of held-out anchors, at most 1; NaN where none could judge."""
    return np.abs(log_ratio(depth_of(space, line.held_out), depth, np.isfinite(line.held_out)))


def simplest(errors: list[Float64[np.ndarray, "n"]], fold: Int64[np.ndarray, "n"]) -> int:
    """Returns the first model whose held-out error is within a standard error, or MIN_GAIN, of the best."""
    judged = np.isfinite(errors).all(axis=0)
    filled = np.unique(fold[judged])
    if len(filled) < MIN_FOLDS_TO_CHOOSE:
        return 0
    medians = np.array([[np.median(error[judged & (fold == one)]) for one in filled] for error in errors])
    excess = medians - medians[medians.mean(axis=1).argmin()]
    standard_error = excess.std(axis=1, ddof=1) / np.sqrt(len(filled))
    allowed = np.maximum(standard_error, MIN_GAIN * medians.mean(axis=1))
    return int((excess.mean(axis=1) <= allowed).argmax())


def describe(
    space: str,
    line: Line,
    held_out: Float64[np.ndarray, "m"],
    used: Int64[np.ndarray, "m"],
    anchors: SparseDepth,
    seen: Float64[np.ndarray, "m"],
) -> Fit:
    """Returns the fit with its figures in the order in which the anchors were given."""
    inliers = np.zeros(len(anchors), bool)
    inliers[used] = line.inliers
    predicted = np.full(len(anchors), np.nan)
    predicted[used] = seen
    fitted = depth_of(space, line.scale * predicted + line.shift)
    errors = np.abs(fitted / anchors.depth - 1)[inliers]
    return Fit(
        space=space,
        scale=line.scale,
        shift=line.shift,
        covariance=line.covariance,
        inliers=inliers,
        predicted=predicted,
        target=target_of(space, anchors.depth),
        median_error=float(np.median(errors)) if len(errors) else float("nan"),
        held_out_errors=spread_over(held_out, used, len(anchors)),
        corrected=False,
        plain_held_out_error=median_of(held_out),
    )


def spread_over(
    values: Float64[np.ndarray, "m"], used: Int64[np.ndarray, "m"], count: int
) -> Float64[np.ndarray, "n"]:
    """Returns the values of used anchors in the order in which all were given; NaN for the others."""
    every = np.full(count, np.nan)
    every[used] = values
    return every


def median_of(values: Float64[np.ndarray, "n"]) -> float:
    """Returns the median of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
