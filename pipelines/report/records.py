"""What a run knows of itself and its views, and the figures of it."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from recon.alignment import Correction, Fit
from recon.consistency import Agreement
from recon.refinement import Refinement
from recon.scene import DepthMap, Mesh, Prediction, Scene, SparseDepth

PACKAGES = ("lotus-recon", "numpy", "scipy", "numba", "torch", "diffusers", "pycolmap", "open3d", "trimesh")


@dataclass(frozen=True, eq=False)
class ViewRecord:
    """What a run knows of one view; None where it did not get so far."""

    name: str
    image: UInt8[np.ndarray, "h w 3"] | None = None
    """The undistorted photo, any size."""

    prediction: Prediction | None = None
    depth_map: DepthMap | None = None
    fit: Fit | None = None
    anchors: SparseDepth | None = None
    correction: Correction | None = None
    refined: Refinement | None = None
    agreement: Agreement | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run knows beside its views."""

    title: str
    notes: Sequence[str]
    """Sentences that a reader has to know: which predictor, what its depth is worth."""

    summary: Mapping[str, Any]
    """More figures and facts, shown as tiles; they win over those counted here (`views_used`, `photos`,
    `sparse_points`, `vertices`, `faces`, `seconds`, `peak_memory_bytes`, `held_out_error`)."""

    dropped: Mapping[str, str]
    """Photo -> why it was not used."""

    steps: Sequence[Mapping[str, Any]]
    """One per artifact: `artifact`, `stage`, `seconds`, `computed`, `reused`, `peak_memory_bytes`."""

    options: Mapping[str, Any]
    """Nested mappings are shown flat."""

    scene: Scene | None = None
    """Poses and sparse points."""

    mesh: Mesh | None = None
    """In the scene's frame."""


def view_figures(view: ViewRecord, registered: bool) -> dict[str, Any]:
    """Returns the figures of one view, keys always the same; None where there is nothing to count."""
    record: dict[str, Any] = {
        "name": view.name,
        "note": view.note,
        "registered": registered,
        "prediction": view.prediction and view.prediction.kind,
        "anchors": None if view.anchors is None else len(view.anchors),
        "fit": None,
        "held_out_error": None,
        "agreement": None,
        "refinement": None,
        "dropped_share": None,
        "coverage": None,
        "median_relative_sigma": None,
    }
    if view.fit is not None:
        record["held_out_error"] = view.fit.held_out_error
        record["fit"] = {
            "space": view.fit.space,
            "scale": view.fit.scale,
            "shift": view.fit.shift,
            "covariance": view.fit.covariance,
            "anchors": int(np.isfinite(view.fit.predicted).sum()),
            "inliers": int(view.fit.inliers.sum()),
            "median_error": view.fit.median_error,
            "held_out_error": view.fit.held_out_error,
            "corrected": view.fit.corrected,
            "plain_held_out_error": view.fit.plain_held_out_error,
        }
    if view.correction is not None:
        record["agreement"] = {
            "compared": view.correction.compared,
            "disagreement_before": view.correction.disagreement_before,
            "disagreement_after": view.correction.disagreement_after,
        }
    if view.refined is not None and view.refined.energies:
        record["refinement"] = {
            "used": view.refined.is_used,
            "smoothing_px": view.refined.smoothing_px,
            "anchor_error_before": view.refined.error_before,
            "anchor_error_after": view.refined.error_after,
        }
    if view.agreement is not None:
        record["dropped_share"] = view.agreement.dropped_share
    if view.depth_map is not None:
        known = view.depth_map.depth > 0
        record["coverage"] = float(known.mean())
        if known.any():
            relative = view.depth_map.sigma[known] / view.depth_map.depth[known]
            record["median_relative_sigma"] = float(np.median(relative))
    return record


def summarize(run: RunRecord, views: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the summary: what follows from the figures of the views and from the run, then its own facts.

    A fact that is not known has no key.
    """
    counted: dict[str, Any] = {"views_used": len(views), "photos": len(views) + len(run.dropped)}
    if run.scene is not None and run.scene.cloud is not None:
        counted["sparse_points"] = len(run.scene.cloud.points)
    if run.mesh is not None:
        counted |= {"vertices": len(run.mesh.vertices), "faces": len(run.mesh.faces)}
    errors = [view["held_out_error"] for view in views if view["held_out_error"] is not None]
    if np.isfinite(errors).any():
        counted["held_out_error"] = float(np.nanmedian(np.where(np.isfinite(errors), errors, np.nan)))
    if run.steps:
        counted["seconds"] = sum(step.get("seconds") or 0 for step in run.steps)
        counted["peak_memory_bytes"] = max(step.get("peak_memory_bytes") or 0 for step in run.steps)
    return {**counted, **run.summary}


def versions() -> dict[str, str]:
    """Returns the versions of Python and the packages that results depend on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # an extra, or a checkout that was never installed
            continue
    return installed


def plain(value: Any) -> Any:
    """Returns a value as JSON knows it; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
