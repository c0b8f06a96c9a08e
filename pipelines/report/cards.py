"""The card of one view: its figures in a line, and its maps in colours."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from pipelines.report.page import figure, format_value, legend, view_card
from pipelines.report.pictures import data_uri, fit_plot, shrink
from pipelines.report.records import ViewRecord
from recon.io.maps import (
    COLOR_STOPS,
    ROBUST_PERCENTILES,
    SIGMA_SHARE_RANGE,
    colorize,
    colorize_depth,
    colorize_normals,
    colorize_sigma,
)
from recon.scene import Prediction

THUMBNAIL_SIZE = 320  # px, longer side
MOST_SHOWN_VOTES = 5
NEAR_TO_FAR = COLOR_STOPS[::-1]
LOWEST_SIGMA, HIGHEST_SIGMA = (f"{100 * share:g} %" for share in SIGMA_SHARE_RANGE)


def card_of(view: ViewRecord, record: Mapping[str, Any], pictured: bool) -> str:
    """Returns the card of a view with its figures (`view_figures`), and its maps where it is pictured."""
    figures = _pictures(view) if pictured else ()
    return view_card(view.name, _chips(record), "".join(figures))


def _chips(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns the figures of a view's headline."""
    chips = {"note": record["note"]} if record["note"] else {}
    if record["fit"] is not None:
        fit = record["fit"]
        chips["held-out error"] = format_value("held_out_error", fit["held_out_error"])
        chips["median error"] = format_value("median_error", fit["median_error"])
        chips["inliers"] = f"{fit['inliers']} of {fit['anchors']} anchors"
        chips["fit"] = f"{fit['space']}, scale {fit['scale']:.4g}, shift {fit['shift']:.4g}"
        if fit["corrected"]:
            chips["held-out error without correction"] = format_value(
                "held_out_error", fit["plain_held_out_error"]
            )
    elif record["anchors"] is not None:
        chips["anchors"] = format_value("anchors", record["anchors"])
    if record["agreement"] is not None:
        before, after = (record["agreement"][f"disagreement_{when}"] for when in ("before", "after"))
        told = [format_value("held_out_error", value) for value in (before, after)]
        chips["disagreement with other views"] = f"{told[0]}, then {told[1]}"
    if record["refinement"] is not None:
        chips["error at points by normals"] = _normals_chip(record["refinement"])
    if record["dropped_share"]:
        chips["dropped, others see through"] = format_value("dropped_share", record["dropped_share"])
    if record["coverage"] is not None:
        chips["coverage"] = format_value("coverage", record["coverage"])
    if record["median_relative_sigma"] is not None:
        chips["sigma"] = format_value("median_relative_sigma", record["median_relative_sigma"]) + " of depth"
    return chips


def _normals_chip(refinement: Mapping[str, Any]) -> str:
    before, after = (
        format_value("held_out_error", refinement[f"anchor_error_{when}"]) for when in ("before", "after")
    )
    return f"{before}, then {after}" if refinement["used"] else f"{before}, {after} with: not used"


def _pictures(view: ViewRecord) -> Iterator[str]:
    if view.image is not None:
        yield _picture(view.image, "photo")
    if view.prediction is not None:
        kind = view.prediction.kind.replace("_", " ")
        yield _picture(
            _colorized(view.prediction), f"prediction ({kind})", legend("near", "far", NEAR_TO_FAR)
        )
    if view.depth_map is not None:
        depth, sigma = view.depth_map.depth, view.depth_map.sigma
        near, far = _robust_range(depth[depth > 0])
        yield _picture(colorize_depth(depth), "depth", legend(f"{near:.3g}", f"{far:.3g}", NEAR_TO_FAR))
        yield _picture(colorize_normals(view.depth_map.normals), "normals")
        yield _picture(
            colorize_sigma(sigma, depth), "sigma / depth", legend(LOWEST_SIGMA, HIGHEST_SIGMA, COLOR_STOPS)
        )
        if view.agreement is not None:
            votes = view.agreement.confirming.astype(np.float32)
            confirmed = colorize(
                np.where(depth > 0, votes, np.nan).astype(np.float32), 0.0, float(MOST_SHOWN_VOTES)
            )
            below = legend("0", f"{MOST_SHOWN_VOTES} or more", COLOR_STOPS)
            yield _picture(confirmed, "views that confirm it", below)
    elif view.prediction is not None and view.prediction.normals is not None:
        yield _picture(colorize_normals(view.prediction.normals), "predicted normals")
    if view.fit is not None:
        yield figure(fit_plot(view.fit), "fit at the anchors")


def _picture(picture: UInt8[np.ndarray, "h w 3"], caption: str, below: str = "") -> str:
    return figure(data_uri(shrink(picture, THUMBNAIL_SIZE)), caption, below)


def _colorized(prediction: Prediction) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a prediction in colours, near = warm whatever its kind."""
    toward = prediction.values if prediction.kind == "affine_disparity" else -prediction.values
    return colorize(toward, *_robust_range(toward[np.isfinite(toward)]))


def _robust_range(values: Float32[np.ndarray, "n"]) -> tuple[float, float]:
    low, high = np.percentile(values, ROBUST_PERCENTILES) if len(values) else (0.0, 0.0)
    return float(low), float(high)
