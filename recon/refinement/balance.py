"""How far depth and normals of one view can be trusted, from their disagreement over longer and longer steps.

Over L pixels, a step of log depth and the sum of the slopes between differ with variance

    V(L) = 2 s^2 (1 - rho(L)) + a L + b L^2

with s the noise of depth, correlated over a few pixels, a that of slopes from pixel to pixel and b their
lasting error. A fit to V(4) ... V(32) tells them apart; V(1) then tells how far depth noise is correlated.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from torch import Tensor

    from recon.refinement.slopes import Slopes

STEPS = (1, 2, 4, 8, 16, 32)  # px
FITTED = 2  # steps before this one are shorter than depth noise is correlated
NORMAL_MEDIAN = 0.6745  # median of |x|, x standard normal
MIN_NOISE = 1e-5  # of log depth; float32 is hardly better
LASTING = 32.0  # px; slopes that are wrong from pixel to pixel add up to a L over this distance
TURN = 0.3  # of the picture's longer side: over this length, lasting errors of normals change sign
CORRELATED = (1.0, 60.0)  # px^2, range of the area over which depth noise is one
MIN_FACING = 0.1  # when slopes are weighed; keeps a steep surface from having no slope at all
SMOOTHING = (0.5, 40.0)  # px, range of the result


@dataclass(frozen=True)
class Balance:
    """What decides between depth and normals."""

    depth_noise: float
    """Standard deviation of log depth from pixel to pixel: what smoothing can remove."""

    correlated: float
    """Area over which this noise is one and the same, px^2."""

    slope_error: float
    """Lasting error of a slope, log depth per pixel, of a surface that faces the camera."""

    step_noise: float
    """Standard deviation of the disagreement over one pixel."""

    smoothing: float
    """Length over which normals overrule depth, px."""


def balance(log_depth: "Tensor", slopes: "Slopes") -> Balance:
    """Returns the balance of least error.

    Smoothing over L leaves s^2 A / (4 pi L^2) of the depth's noise and brings b (2 pi / T)^2 L^4 from slopes
    whose lasting errors change sign over T.

    Args:
        log_depth: (h, w), NaN where unknown.
        slopes: From the normals.
    """
    from scipy.optimize import nnls

    variances, typical = _variances(log_depth.double(), slopes)
    known = np.isfinite(variances)
    known[:FITTED] = False
    step_noise = float(np.sqrt(np.nan_to_num(variances[0]))) + MIN_NOISE
    if not known.any():
        return Balance(step_noise, CORRELATED[0], 1.0, step_noise, SMOOTHING[0])
    lengths, spread = np.array(STEPS, np.float64)[known], np.maximum(variances[known], MIN_NOISE**2)
    design = np.stack([2 * np.ones_like(lengths), lengths, lengths**2], axis=1) / spread[:, None]
    (noise, growth, lasting), _ = nnls(design, np.ones(len(lengths)))
    noise = max(noise, step_noise**2 / 2)
    correlation = np.clip(1 - step_noise**2 / (2 * noise), 0.01, 0.99)
    area = float(np.clip(-np.pi / np.log(correlation), *CORRELATED))  # of exp(-r^2 / (4 d^2)): 4 pi d^2
    slope_variance = max(lasting + growth / LASTING, MIN_NOISE**2 / LASTING**2)
    turn = TURN * max(log_depth.shape) / (2 * np.pi)
    length = (noise * area / (8 * np.pi * slope_variance) * turn**2) ** (1 / 6)
    return Balance(
        depth_noise=float(np.sqrt(noise)) / typical,
        correlated=area,
        slope_error=float(np.sqrt(slope_variance)),
        step_noise=step_noise,
        smoothing=float(np.clip(length, *SMOOTHING)),
    )


def _variances(log_depth: "Tensor", slopes: "Slopes") -> tuple[Float64[np.ndarray, "steps"], float]:
    """Returns V of each step, robustly, NaN where no step has both ends known, and the typical weight.

    Each difference counts by facing^2, which makes the errors of slopes alike; those of depth get smaller.
    """
    import torch

    variances = []
    summed = [_running(along, axis) for along, axis in ((slopes.along_u, 1), (slopes.along_v, 0))]
    weight = slopes.facing.double().clamp(MIN_FACING, 1).square()
    for step in STEPS:
        found = []
        for axis, (total, unknown) in zip((1, 0), summed, strict=True):
            count = log_depth.shape[axis] - step
            if count < 1:
                continue
            gap = _difference(log_depth, axis, step) - _difference(total, axis, step)
            gap = gap * weight.narrow(axis, step, count)
            found.append(gap[gap.isfinite() & (_difference(unknown, axis, step) == 0)].abs())
        values = torch.cat(found) if found else log_depth.new_empty(0)
        variances.append(float(values.median() / NORMAL_MEDIAN) ** 2 if len(values) else np.nan)
    known = weight[log_depth.isfinite()]
    return np.array(variances), float(known.median()) if len(known) else 1.0


def _running(along: "Tensor", axis: int) -> "tuple[Tensor, Tensor]":
    """Returns the sums of slopes, and of unknown ones, from the border to every pixel."""
    import torch

    zero = torch.zeros_like(along.narrow(axis, 0, 1), dtype=torch.float64)
    total = along.double().nan_to_num().cumsum(axis)
    unknown = along.isnan().double().cumsum(axis)
    return torch.cat([zero, total], axis), torch.cat([zero, unknown], axis)


def _difference(values: "Tensor", axis: int, step: int) -> "Tensor":
    count = values.shape[axis] - step
    return values.narrow(axis, step, count) - values.narrow(axis, 0, count)
