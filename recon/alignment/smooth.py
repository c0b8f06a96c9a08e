"""The smooth correction of one view, and whether held-out anchors want it."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from recon.alignment import few
from recon.alignment.affine import Fit, median_of, regression, simplest, spread_over
from recon.alignment.field import Field, fit_field
from recon.alignment.line import Line
from recon.alignment.points import Points, folds
from recon.alignment.spaces import depth_of, log_ratio, slope_of
from recon.alignment.usable import Known
from recon.alignment.waves import Waves
from recon.scene import SparseDepth

REFUTED = 0.5  # standard errors by which a few held-out anchors must prefer the plain fit
PIXEL_STEP = 4  # every fourth pixel shows the range of depth


@dataclass(frozen=True, eq=False)
class Trial:
    """The smooth correction of a view as it turns out."""

    fit: Fit
    """Scale and shift under the correction."""

    field: Field
    held_out_errors: Float64[np.ndarray, "m"]
    """As `Fit.held_out_errors`, with the correction, of the usable anchors."""

    helps: bool
    """Whether held-out anchors prefer the corrected depth."""

    def corrected_fit(self, used: Int64[np.ndarray, "m"]) -> Fit:
        """Returns the fit with its figures judged after the correction; `used` are the usable anchors."""
        inliers = np.zeros_like(self.fit.inliers)
        inliers[used] = self.field.inliers
        errors = np.abs(np.expm1(-self.field.residuals[self.field.inliers]))
        return replace(
            self.fit,
            inliers=inliers,
            median_error=median_of(errors),
            held_out_errors=spread_over(self.held_out_errors, used, len(inliers)),
            corrected=True,
        )


def try_correction(
    fit: Fit, line: Line, plain_errors: Float64[np.ndarray, "m"], known: Known, anchors: SparseDepth
) -> Trial:
    """Returns the smooth correction, and whether its held-out errors beat those of the plain fit.

    Args:
        fit: Scale and shift alone.
        line: That fit as a regression.
        plain_errors: Its held-out errors at the anchors.
        known: The prediction.
        anchors: The usable ones.
    """
    points = regression(fit.space, known, anchors)
    depth = fit.depth(known.values[::PIXEL_STEP, ::PIXEL_STEP])
    fitted = depth_of(fit.space, line.scale * points.x + line.shift)
    height, width = known.values.shape
    waves = Waves.filling(width, height, np.log(np.append(depth[depth > 0], fitted[fitted > 0])))
    settled, lines = fit, line.fold_lines
    opinion: few.Opinion | None = None
    if len(points.x) <= few.MOST:
        settled, lines, opinion = _settle(fit, line, points, anchors, waves)
    errors, fold = _errors_by_fold(fit.space, lines, points, anchors), folds(points.tile)
    field = fit_field(_log_points(settled, points, anchors, waves), anchors.uv, waves, errors, opinion)
    field_errors = np.abs(errors[np.arange(len(fold)), fold] - field.held_out)
    if opinion is None:
        helps = simplest([plain_errors, field_errors], fold) == 1
    else:
        helps = _stands(plain_errors, field_errors, opinion.weights)
    return Trial(settled, field, field_errors, helps)


def _settle(
    fit: Fit, line: Line, points: Points, anchors: SparseDepth, waves: Waves
) -> tuple[Fit, Float64[np.ndarray, "f 2"], few.Opinion]:
    """Returns scale and shift fitted anew by a few anchors, those without each fold, and the reasons."""
    logs = _log_points(fit, points, anchors, waves)
    jacobian, steps = _line_steps(fit, points, np.exp(logs.x))
    opinion = few.listen(logs, waves.at(anchors.uv, logs.x), jacobian, waves, folds(points.tile))
    start = np.array([line.scale, line.shift])
    scale, shift = start + opinion.change @ steps
    covariance = steps.T @ opinion.covariance @ steps + line.hidden
    settled = replace(fit, scale=float(scale), shift=float(shift), covariance=covariance)
    lines = np.where(np.isfinite(line.fold_lines), start + opinion.fold_changes @ steps, np.nan)
    return settled, lines, opinion


def _stands(
    plain: Float64[np.ndarray, "n"], corrected: Float64[np.ndarray, "n"], weights: Float64[np.ndarray, "n"]
) -> bool:
    """Returns whether held-out errors at anchors that are right leave the correction standing.

    Networks bend, so it stands unless the mean error grows by more than half its standard error. Means, not
    medians by fold: a fold of a few dozen anchors has no median to speak of.
    """
    judged = np.isfinite(plain) & np.isfinite(corrected)
    gains = (weights * (plain - corrected))[judged]
    return bool(gains.sum() > -REFUTED * np.sqrt(np.square(gains).sum()))


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
    by_shift = typical / (slope_of(fit.space, fitted) * fitted)
    return np.stack([ones, by_shift], axis=1), np.concatenate([scaling, [[0, sign * typical]]])


def _log_points(fit: Fit, points: Points, anchors: SparseDepth, waves: Waves) -> Points:
    """Returns the anchors as a regression problem of log depth under the fit."""
    fitted = depth_of(fit.space, fit.scale * points.x + fit.shift)
    return replace(
        points,
        x=np.where(fitted > 0, np.log(np.where(fitted > 0, fitted, 1)), waves.high),
        y=log_ratio(fitted, anchors.depth, np.ones(len(fitted), bool)),
        sigma=anchors.sigma / anchors.depth,
        unit=np.ones(len(fitted)),
    )


def _errors_by_fold(
    space: str, lines: Float64[np.ndarray, "f 2"], points: Points, anchors: SparseDepth
) -> Float64[np.ndarray, "n f"]:
    """Returns log z - log z_fit of all anchors under the line without each fold."""
    by_fold = lines[:, 0] * points.x[:, None] + lines[:, 1]
    truth = np.broadcast_to(anchors.depth[:, None], by_fold.shape)
    return log_ratio(depth_of(space, by_fold), truth, np.isfinite(by_fold))
