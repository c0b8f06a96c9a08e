"""What of a prediction can be used, and which anchors count: those where it is smooth and not clipped."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from recon.errors import ViewError
from recon.geometry import sample, sample_depth
from recon.scene import Prediction, SparseDepth

EDGE_CONTRAST = 0.03  # bend over one pixel, share of the prediction's range, that is a depth edge
EDGE_NOISE = 6.0  # times the median bend of the map, so that a noisy prediction is not all edges
ROUNDING = 1e-6  # share of values in float32
FLAT_RANGE = 0.01  # anchors must span this share of the prediction's range to fix scale and shift
MIN_CONFIDENCE = 1e-4  # keeps variances finite
MIN_SATURATED = 0.002  # share of the pixels at one extreme value that shows clipping


@dataclass(frozen=True, eq=False)
class Known:
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


def known_part(prediction: Prediction) -> Known:
    """Returns what can be used of a prediction.

    Raises:
        ViewError: Nothing can.
    """
    values, confidence = prediction.values, prediction.confidence
    if confidence is None:
        confidence = np.ones_like(values)
    valid = np.isfinite(values) & (confidence > 0)
    if prediction.kind in ("scale", "metric"):
        valid &= values > 0
    if not valid.any():
        raise ViewError("prediction: no pixel has a value and confidence")
    return Known(
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


def choose_anchors(known: Known, anchors: SparseDepth, min_points: int) -> Int64[np.ndarray, "m"]:
    """Returns the indices of usable anchors, sorted by what they hold: the given order leaves no trace.

    Raises:
        ViewError: They are too few, or the prediction is flat over them.
    """
    height, width = known.values.shape
    u, v = anchors.uv.T
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    safe = np.where(inside[:, None], anchors.uv, 0.5)
    seen = sample(known.values, safe)
    predicted = inside & np.isfinite(seen)
    on_edge = sample(sharp_bends(known.values).astype(np.float32), safe) > 0
    clipped = sample(known.saturated.astype(np.float32), safe) > 0
    usable = predicted & ~on_edge & ~clipped
    wanted = max(min_points, 2)
    if usable.sum() < wanted:
        raise ViewError(
            f"view: {usable.sum()} anchors inside the photo, at least {wanted} wanted ({len(anchors)} given, "
            f"{(~predicted).sum()} beside the prediction, {(predicted & on_edge).sum()} on its edges, "
            f"{(predicted & clipped & ~on_edge).sum()} where it is clipped)"
        )
    if not known.is_depth and (
        has_one_value(seen[usable]) or np.ptp(seen[usable]) <= FLAT_RANGE * _range(known.values)
    ):
        raise ViewError(
            f"view: prediction is flat over the {usable.sum()} anchors, so scale and shift are unknown"
        )
    order = np.lexsort((anchors.sigma, anchors.depth, anchors.uv[:, 1], anchors.uv[:, 0]))
    return order[usable[order]]


def _range(values: Float32[np.ndarray, "h w"]) -> float:
    low, high = np.nanpercentile(values[::2, ::2], [2, 98])
    return float(high - low)


def sharp_bends(values: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns True where the prediction bends too sharply for a surface: beside steps, whatever the slope."""
    bend = np.zeros(values.shape, np.float32)
    bend[1:-1] = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    across = np.abs(values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2])
    bend[:, 1:-1] = np.maximum(bend[:, 1:-1], across)
    finite = np.isfinite(bend)
    noise = float(np.median(bend[finite])) if finite.any() else 0.0
    return ~(bend <= max(EDGE_CONTRAST * _range(values), EDGE_NOISE * noise))  # so NaN is an edge


def has_one_value(seen: Float64[np.ndarray, "n"]) -> bool:
    """Returns whether predicted values differ by rounding alone: a slope through them means nothing."""
    return bool(np.ptp(seen) <= ROUNDING * np.abs(seen).max())


def seen_at(known: Known, anchors: SparseDepth) -> Float64[np.ndarray, "n"]:
    """Returns the predicted values at anchors."""
    # sample_depth interpolates 1 / depth, which is what is linear over the picture of a plane
    return sample_depth(known.values, anchors.uv) if known.is_depth else sample(known.values, anchors.uv)


def confidence_of(known: Known) -> Float64[np.ndarray, "h w"]:
    """Returns the confidence of every pixel as a positive divisor of variances."""
    return np.maximum(known.confidence.astype(np.float64), MIN_CONFIDENCE)
