"""One scale and, where the prediction needs it, one shift per view; then a smooth correction if it helps."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from recon.alignment import few
from recon.alignment.field import Field, fit_field
from recon.alignment.line import Line, Points, fit_line, folds, tiles
from recon.alignment.waves import Waves
from recon.errors import InputError, ViewError
from recon.geometry import normals_from_depth, sample, sample_depth
from recon.scene import Camera, DepthMap, Prediction, SparseDepth

EDGE_CONTRAST = 0.03  # bend over one pixel, share of the prediction's range, that is a depth edge
EDGE_NOISE = 6.0  # times the median bend of the map, so that a noisy prediction is not all edges
FLAT_RANGE = 0.01  # anchors must span this share of the prediction's range to fix scale and shift
FAR_QUANTILE = 0.01  # this share of pixels may come out beyond infinity or behind the camera
MAX_RELATIVE_SIGMA = 0.5  # a depth less certain than this says nothing
MIN_KEPT_SHARE = 0.05  # a fit that leaves less of the prediction is wrong
MIN_CONFIDENCE = 1e-4  # keeps variances finite
MIN_GAIN = 0.03  # share of the held-out error that one more parameter has to win
PIXEL_STEP = 4  # every fourth pixel shows the range of depth
MIN_SATURATED = 0.002  # share of the pixels at one extreme value that shows clipping
SATURATED_SIGMA = 0.3  # relative; a clipped value says no more than nearer or farther than
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
        return _median(self.held_out_errors)

    def depth(self, values: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
        """Returns depth of predicted values before the correction, scene units; 0 where the fit has none.

        There is none beyond infinity and where the value is NaN.
        """
        return _depth_of(self.space, self.scale * _regressor(self.space, values) + self.shift)


def fold_of(anchors: SparseDepth, camera: Camera) -> Int64[np.ndarray, "n"]:
    """Returns the part of the picture, 0 to 4, that holds each anchor: the folds of `Fit.held_out_errors`.

    Each consists of tiles all over the picture that touch at corners at most.
    """
    inside = np.clip(anchors.uv, 0, [camera.width - 1e-6, camera.height - 1e-6])
    return folds(tiles(inside, camera.width, camera.height))


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


@dataclass(frozen=True, eq=False)
class _Known:
    """The part of a prediction that can be used."""

    values: Float32[np.ndarray, "h w"]
    """NaN where nothing is known."""

    confidence: Float32[np.ndarray, "h w"]
    saturated: Bool[np.ndarray, "h w"]
    """Where the values are clipped."""

    kind: str

    @property
    def is_depth(self) -> bool:
        """Whether the values are depth up to a scale: then only the scale is wanted."""
        return self.kind in ("scale", "metric")


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
    anchors prefer it as clearly (up to 200 anchors: by 3 % of their mean error); with it, scale and shift of
    up to 200 anchors are fitted anew. The result does not depend on the order of the anchors and scales with
    the scene.

    The sigma of the depth map holds the covariance of the fit (of the correction near anchors, of scale and
    shift far from them) and the prediction's own error as held-out anchors show it, divided by the root of
    the confidence. Pixels without prediction, with confidence 0,
    beyond infinity or less certain than half their depth get depth 0. Normals are the prediction's, or those
    of the depth where it has none.

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
    known = _known(prediction)
    used = _usable(known, anchors, min_points)
    chosen = SparseDepth(anchors.uv[used], anchors.depth[used], anchors.sigma[used])
    space, line, errors = _best_line(known, chosen)
    fit = _describe(space, line, errors, used, anchors, _regressor(space, _seen(known, chosen)))
    depth = fit.depth(known.values)
    sigma = _sigma(fit, line, known, depth)
    field = None
    with threadpool_limits(1, user_api="blas"):  # the same bytes on any machine; small matrices lose nothing
        if correct:
            settled, field, field_errors, helps = _correction(fit, line, errors, known, chosen)
            if helps:
                fit = _corrected(settled, field, field_errors, used)
                depth, sigma = _apply(field, fit, line.hidden, known)
            else:
                field = replace(field, coefficients=np.zeros_like(field.coefficients))
    sigma = np.where(known.saturated, np.maximum(sigma, SATURATED_SIGMA * depth), sigma)
    return Alignment(
        _depth_map(known, depth, sigma, prediction.normals, camera),
        fit,
        field,
        prediction.normals is not None,
    )


def _known(prediction: Prediction) -> _Known:
    values, confidence = prediction.values, prediction.confidence
    if confidence is None:
        confidence = np.ones_like(values)
    valid = np.isfinite(values) & (confidence > 0)
    if prediction.kind in ("scale", "metric"):
        valid &= values > 0
    if not valid.any():
        raise ViewError("prediction: no pixel has a value and confidence")
    return _Known(
        values=np.where(valid, values, np.float32(np.nan)),
        confidence=np.where(valid, confidence, np.float32(0)),
        saturated=_saturated(np.where(valid, values, np.float32(np.nan))),
        kind=prediction.kind,
    )


def _saturated(values: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns True where a value is the smallest or largest of all and many others equal it.

    Networks trained on clipped annotations (Lotus: 2 % at either end) give such plateaus, whose depth is only
    nearer or farther than the value says.
    """
    saturated = np.zeros(values.shape, bool)
    if np.nanmin(values) < np.nanmax(values):
        for extreme in (np.nanmin(values), np.nanmax(values)):
            same = values == extreme
            if same.sum() > MIN_SATURATED * np.isfinite(values).sum():
                saturated |= same
    return saturated


def _usable(known: _Known, anchors: SparseDepth, min_points: int) -> Int64[np.ndarray, "m"]:
    """Returns the indices of usable anchors, sorted by what they hold: the given order leaves no trace."""
    height, width = known.values.shape
    u, v = anchors.uv.T
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    safe = np.where(inside[:, None], anchors.uv, 0.5)
    seen = sample(known.values, safe)
    predicted = inside & np.isfinite(seen)
    on_edge = sample(_edges(known.values).astype(np.float32), safe) > 0
    clipped = sample(known.saturated.astype(np.float32), safe) > 0
    usable = predicted & ~on_edge & ~clipped
    wanted = max(min_points, 2)
    if usable.sum() < wanted:
        raise ViewError(
            f"view: {usable.sum()} anchors inside the photo, at least {wanted} wanted ({len(anchors)} given, "
            f"{(~predicted).sum()} beside the prediction, {(predicted & on_edge).sum()} on its edges, "
            f"{(predicted & clipped & ~on_edge).sum()} where it is clipped)"
        )
    span = np.ptp(seen[usable])
    if not known.is_depth and (span == 0 or span <= FLAT_RANGE * _range(known.values)):
        raise ViewError(
            f"view: prediction is flat over the {usable.sum()} anchors, so scale and shift are unknown"
        )
    order = np.lexsort((anchors.sigma, anchors.depth, anchors.uv[:, 1], anchors.uv[:, 0]))
    return order[usable[order]]


def _range(values: Float32[np.ndarray, "h w"]) -> float:
    low, high = np.nanpercentile(values[::2, ::2], [2, 98])
    return float(high - low)


def _edges(values: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns True where the prediction bends too sharply for a surface: beside steps, whatever the slope."""
    bend = np.zeros(values.shape, np.float32)
    bend[1:-1] = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    across = np.abs(values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2])
    bend[:, 1:-1] = np.maximum(bend[:, 1:-1], across)
    finite = np.isfinite(bend)
    noise = float(np.median(bend[finite])) if finite.any() else 0.0
    return ~(bend <= max(EDGE_CONTRAST * _range(values), EDGE_NOISE * noise))  # so NaN is an edge


def _seen(known: _Known, anchors: SparseDepth) -> Float64[np.ndarray, "n"]:
    """Returns the predicted values at anchors."""
    # sample_depth interpolates 1 / depth, which is what is linear over the picture of a plane
    return sample_depth(known.values, anchors.uv) if known.is_depth else sample(known.values, anchors.uv)


def _best_line(known: _Known, anchors: SparseDepth) -> tuple[str, Line, Float64[np.ndarray, "n"]]:
    """Returns the space, the line in it, and its held-out errors, of the model that the prediction needs."""
    models = [("disparity" if known.kind == "affine_disparity" else "depth", True)]  # (space, with shift)
    if known.is_depth:
        models = [("depth", False), ("depth", True), ("log", True)]  # the simplest first
    lowest = float(np.nanpercentile(known.values[::2, ::2], 100 * FAR_QUANTILE))
    height, width = known.values.shape
    fold = folds(tiles(anchors.uv, width, height))
    lines, errors = [], []
    for space, with_shift in models:
        points = _points(space, known, anchors)
        line = fit_line(points, with_shift=with_shift, lowest=np.nan if space == "log" else lowest)
        lines.append(line)
        errors.append(_log_errors(space, line, anchors.depth))
    chosen = _simplest(errors, fold)
    if lines[chosen].scale <= 0:
        raise ViewError(f"view: prediction falls where the depth of the {len(anchors)} anchors rises")
    return models[chosen][0], lines[chosen], errors[chosen]


def _points(space: str, known: _Known, anchors: SparseDepth) -> Points:
    """Returns the anchors as a regression problem."""
    height, width = known.values.shape
    slope = _slope(space, anchors.depth)
    return Points(
        x=_regressor(space, _seen(known, anchors)),
        y=_target(space, anchors.depth),
        sigma=slope * anchors.sigma,
        unit=slope * anchors.depth,
        confidence=np.maximum(sample(known.confidence, anchors.uv), MIN_CONFIDENCE),
        tile=tiles(anchors.uv, width, height),
    )


def _regressor(space: str, values: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    values = np.asarray(values, np.float64)
    return np.log(np.where(values > 0, values, np.nan)) if space == "log" else values


def _target(space: str, depth: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    return {"depth": depth, "disparity": 1 / depth, "log": np.log(depth)}[space]


def _slope(space: str, depth: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Returns |dg/dz|."""
    return {"depth": np.ones_like(depth), "disparity": depth**-2.0, "log": 1 / depth}[space]


def _depth_of(space: str, target: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Returns z where g(z) = target; 0 where there is no positive and finite one."""
    with np.errstate(all="ignore"):
        depth = {"depth": target, "disparity": 1 / target, "log": np.exp(target)}[space]
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)


def _log_errors(space: str, line: Line, depth: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Returns |log z_fit - log z| of held-out anchors, at most 1; NaN where none could judge."""
    return np.abs(_log_ratio(_depth_of(space, line.held_out), depth, np.isfinite(line.held_out)))


def _log_ratio(
    fitted: Float64[np.ndarray, "*shape"],
    depth: Float64[np.ndarray, "*shape"],
    known: Bool[np.ndarray, "*shape"],
) -> Float64[np.ndarray, "*shape"]:
    """Returns log z - log z_fit within -1 to 1; 1 where there is no z_fit, NaN where not known."""
    has_depth = fitted > 0
    ratio = np.where(has_depth, np.log(depth / np.where(has_depth, fitted, 1)), 1.0)
    return np.where(known, np.clip(ratio, -1, 1), np.nan)


def _simplest(errors: list[Float64[np.ndarray, "n"]], fold: Int64[np.ndarray, "n"]) -> int:
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


def _describe(
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
    fitted = _depth_of(space, line.scale * predicted + line.shift)
    errors = np.abs(fitted / anchors.depth - 1)[inliers]
    return Fit(
        space=space,
        scale=line.scale,
        shift=line.shift,
        covariance=line.covariance,
        inliers=inliers,
        predicted=predicted,
        target=_target(space, anchors.depth),
        median_error=float(np.median(errors)) if len(errors) else float("nan"),
        held_out_errors=_spread(held_out, used, len(anchors)),
        corrected=False,
        plain_held_out_error=_median(held_out),
    )


def _spread(
    values: Float64[np.ndarray, "m"], used: Int64[np.ndarray, "m"], count: int
) -> Float64[np.ndarray, "n"]:
    """Returns the values of used anchors in the order in which all were given; NaN for the others."""
    every = np.full(count, np.nan)
    every[used] = values
    return every


def _median(values: Float64[np.ndarray, "n"]) -> float:
    """Returns the median of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _correction(
    fit: Fit, line: Line, plain_errors: Float64[np.ndarray, "m"], known: _Known, anchors: SparseDepth
) -> tuple[Fit, Field, Float64[np.ndarray, "m"], bool]:
    """Returns the fit under the smooth correction, that, its held-out errors, and whether it is wanted.

    It is where its held-out errors beat the plain fit's.
    """
    points = _points(fit.space, known, anchors)
    fold = folds(points.tile)
    depth = fit.depth(known.values[::PIXEL_STEP, ::PIXEL_STEP])
    fitted = _depth_of(fit.space, line.scale * points.x + line.shift)
    height, width = known.values.shape
    waves = Waves.filling(width, height, np.log(np.append(depth[depth > 0], fitted[fitted > 0])))
    logs = _log_points(fit, points, anchors, waves)
    if len(points.x) > few.MOST:
        errors = _errors_by_fold(fit.space, line.fold_lines, points, anchors)
        field = fit_field(logs, anchors.uv, waves, errors)
        field_errors = np.abs(errors[np.arange(len(fold)), fold] - field.held_out)
        return fit, field, field_errors, bool(_simplest([plain_errors, field_errors], fold))
    jacobian, steps = _line_steps(fit, points, np.exp(logs.x))
    opinion = few.listen(logs, waves.at(anchors.uv, logs.x), jacobian, waves, fold)
    changes = np.array([line.scale, line.shift]) + opinion.fold_changes @ steps
    lines = np.where(np.isfinite(line.fold_lines), changes, np.nan)
    errors = _errors_by_fold(fit.space, lines, points, anchors)
    scale, shift = np.array([line.scale, line.shift]) + opinion.change @ steps
    covariance = steps.T @ opinion.covariance @ steps + line.hidden
    settled = replace(fit, scale=float(scale), shift=float(shift), covariance=covariance)
    logs = _log_points(settled, points, anchors, waves)
    field = fit_field(logs, anchors.uv, waves, errors, opinion)
    field_errors = np.abs(errors[np.arange(len(fold)), fold] - field.held_out)
    return settled, field, field_errors, _is_better(plain_errors, field_errors, opinion.weights)


def _is_better(
    plain: Float64[np.ndarray, "n"], corrected: Float64[np.ndarray, "n"], weights: Float64[np.ndarray, "n"]
) -> bool:
    """Returns whether the correction has the smaller held-out errors, by MIN_GAIN, at anchors that are right.

    Their mean, not medians by fold: a fold of a few dozen anchors has no median to speak of.
    """
    judged = np.isfinite(plain) & np.isfinite(corrected)
    gain = (weights * (plain - corrected))[judged].sum()
    return bool(gain > MIN_GAIN * (weights * plain)[judged].sum())


def _line_steps(
    fit: Fit, points: Points, fitted: Float64[np.ndarray, "n"]
) -> tuple[Float64[np.ndarray, "n p"], Float64[np.ndarray, "p 2"]]:
    """Returns how log depth changes with a few parameters of size about 1, and (scale, shift) with these.

    The first scales depth, the second moves the shift, if the fit has one.
    """
    ones = np.ones_like(fitted)
    if fit.space == "log":
        middle = float(np.median(points.x))
        return np.stack([ones, points.x - middle], axis=1), np.array([[0, 1.0], [1.0, -middle]])
    sign = -1.0 if fit.space == "disparity" else 1.0
    scaling = sign * np.array([[fit.scale, fit.shift]])
    if not fit.covariance[1, 1]:
        return ones[:, None], scaling
    typical = float(np.median(points.unit))
    by_shift = typical / (_slope(fit.space, fitted) * fitted)
    return np.stack([ones, by_shift], axis=1), np.concatenate([scaling, [[0, sign * typical]]])


def _log_points(fit: Fit, points: Points, anchors: SparseDepth, waves: Waves) -> Points:
    """Returns the anchors as a regression problem of log depth under the fit."""
    fitted = _depth_of(fit.space, fit.scale * points.x + fit.shift)
    return replace(
        points,
        x=np.where(fitted > 0, np.log(np.where(fitted > 0, fitted, 1)), waves.high),
        y=_log_ratio(fitted, anchors.depth, np.ones(len(fitted), bool)),
        sigma=anchors.sigma / anchors.depth,
        unit=np.ones(len(fitted)),
    )


def _errors_by_fold(
    space: str, lines: Float64[np.ndarray, "f 2"], points: Points, anchors: SparseDepth
) -> Float64[np.ndarray, "n f"]:
    """Returns log z - log z_fit of all anchors under the line without each fold."""
    by_fold = lines[:, 0] * points.x[:, None] + lines[:, 1]
    truth = np.broadcast_to(anchors.depth[:, None], by_fold.shape)
    return _log_ratio(_depth_of(space, by_fold), truth, np.isfinite(by_fold))


def _corrected(
    fit: Fit, field: Field, held_out: Float64[np.ndarray, "m"], used: Int64[np.ndarray, "m"]
) -> Fit:
    inliers = np.zeros_like(fit.inliers)
    inliers[used] = field.inliers
    errors = np.abs(np.expm1(-field.residuals[field.inliers]))
    return replace(
        fit,
        inliers=inliers,
        median_error=_median(errors),
        held_out_errors=_spread(held_out, used, len(inliers)),
        corrected=True,
    )


def _apply(
    field: Field, fit: Fit, hidden: Float64[np.ndarray, "2 2"], known: _Known
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
    """Returns the corrected depth and its sigma.

    What scale and shift leave uncertain matters as far as the anchors have not pinned the correction down;
    a slope that they cannot show always does.
    """
    plain = fit.depth(known.values)
    log_depth = np.log(np.where(plain > 0, plain, 1.0))
    depth = plain * np.exp(field.at(log_depth))
    of_field = field.variance(log_depth)
    open_share = np.minimum(of_field / field.amplitude**2, 1)
    of_fit = _line_variance(fit.space, fit.covariance - hidden, known, plain) * open_share
    of_fit += _line_variance(fit.space, hidden, known, plain)
    of_prediction = field.noise.variance(np.ones_like(depth), _confidence(known))
    return depth, depth * np.sqrt(of_field + of_fit + of_prediction)


def _depth_map(
    known: _Known,
    depth: Float64[np.ndarray, "h w"],
    sigma: Float64[np.ndarray, "h w"],
    normals: Float32[np.ndarray, "h w 3"] | None,
    camera: Camera,
) -> DepthMap:
    keep = (depth > 0) & (sigma <= MAX_RELATIVE_SIGMA * depth)
    share = keep.sum() / np.isfinite(known.values).sum()
    if share < MIN_KEPT_SHARE:
        raise ViewError(
            f"view: the fit gives depth to {100 * share:.1f} % of the prediction, "
            f"at least {100 * MIN_KEPT_SHARE:g} % wanted"
        )
    kept_depth = np.where(keep, depth, 0).astype(np.float32)
    if normals is None:
        normals = normals_from_depth(camera.K, kept_depth)
    certain = keep & np.isfinite(normals).all(axis=-1)
    return DepthMap(
        camera,
        kept_depth,
        np.where(certain[..., None], normals, np.float32(0)),
        np.where(keep, sigma, 0).astype(np.float32),
    )


def _sigma(
    fit: Fit, line: Line, known: _Known, depth: Float64[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Returns the standard deviation of depth, from the fit and the prediction; anything where depth is 0."""
    z = np.where(depth > 0, depth, 1.0)
    slope = _slope(fit.space, z)
    of_prediction = line.noise.variance(slope * z, _confidence(known)) / slope**2
    return np.sqrt(_line_variance(fit.space, fit.covariance, known, depth) * z**2 + of_prediction)


def _line_variance(
    space: str, covariance: Float64[np.ndarray, "2 2"], known: _Known, depth: Float64[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Returns the variance of log depth that scale and shift bring; anything where depth is 0."""
    x = np.where(depth > 0, _regressor(space, known.values), 0.0)
    z = np.where(depth > 0, depth, 1.0)
    (scale_variance, both), (_, shift_variance) = covariance
    variance = np.maximum(scale_variance * x**2 + 2 * both * x + shift_variance, 0)
    return variance / (_slope(space, z) * z) ** 2


def _confidence(known: _Known) -> Float64[np.ndarray, "h w"]:
    return np.maximum(known.confidence.astype(np.float64), MIN_CONFIDENCE)
