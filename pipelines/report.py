"""The record of a run: `report.json` for programs, `report.html` for people.

The page is one file that needs neither network nor JavaScript. Nothing in either file depends on the clock or
on the folder, so equal runs give equal bytes, up to the times and memory that they measured.
"""

import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from pipelines.page import (
    Section,
    figure,
    flat,
    folded,
    format_value,
    legend,
    page,
    pairs_table,
    steps_table,
    tiles,
    view_card,
)
from pipelines.pictures import (
    camera_map,
    capture_frame,
    data_uri,
    fit_plot,
    is_room,
    mesh_sides,
    shrink,
)
from recon.alignment import Correction, Fit
from recon.consistency import Agreement
from recon.io.files import replaced
from recon.io.maps import (
    COLOR_STOPS,
    ROBUST_PERCENTILES,
    SIGMA_SHARE_RANGE,
    colorize,
    colorize_depth,
    colorize_normals,
    colorize_sigma,
)
from recon.raycasting import RayCaster
from recon.refinement import Refinement
from recon.scene import DepthMap, Mesh, Prediction, Scene, SparseDepth, View

THUMBNAIL_SIZE = 320  # px, longer side
COMPARED_SIZE = 480  # px, longer side of a photo beside the mesh
MAX_COMPARED_VIEWS = 4
MOST_SHOWN_VOTES = 5
MAX_PICTURED_VIEWS = 200  # about 60 kB each; later views get their figures only
NEAR_TO_FAR = COLOR_STOPS[::-1]
LOWEST_SIGMA, HIGHEST_SIGMA = (f"{100 * share:g} %" for share in SIGMA_SHARE_RANGE)
MAP_HINT = "With the sparse points. Hold the pointer over a camera for its photo's name; orange: not used."
VIEWS_HINT = (
    "Held-out error: median relative depth error at sparse points that the fit did not see. Disagreement: "
    "median relative difference of depth where other views see the same surface, before and after all views "
    "were made to agree. Sigma: the standard deviation of depth. In the plot: the line is the fit, blue "
    "anchors agree, orange ones do not."
)
MESH_HINT = "Lit from the camera; reddish: back sides of the surface."
ROOM_HINT = "From outside, with the near side cut away. Lit from the camera."
POSE_HINT = "Seen from the poses of some photos. Reddish: back sides of the surface."
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


def write_report(  # noqa: PLR0913  everything that a run knows comes together here
    folder: Path,
    *,
    title: str,
    notes: Sequence[str],
    summary: Mapping[str, Any],
    views: Iterable[ViewRecord],
    dropped: Mapping[str, str],
    steps: Sequence[Mapping[str, Any]],
    scene: Scene | None = None,
    mesh: Mesh | None = None,
    options: Mapping[str, Any],
) -> None:
    """Writes `report.html` and `report.json` into a folder; each is replaced whole or not at all.

    Args:
        folder: OUT/ of the run; made where absent.
        title: Of the page.
        notes: Sentences that a reader has to know: which predictor, what its depth is worth.
        summary: More figures and facts, shown as tiles; they win over those counted here (`views_used`,
            `photos`, `sparse_points`, `vertices`, `faces`, `seconds`, `peak_memory_bytes`, `held_out_error`).
        views: Read once, one at a time.
        dropped: Photo -> why it was not used.
        steps: One per artifact: `artifact`, `stage`, `seconds`, `computed`, `reused`, `peak_memory_bytes`.
        scene: Poses and sparse points.
        mesh: In the scene's frame.
        options: Of the run; nested mappings are shown flat.

    Raises:
        InputError: A file cannot be written.
    """
    posed = {view.name: view for view in scene.views} if scene else {}
    compared = _evenly([name for name in posed if name not in dropped], MAX_COMPARED_VIEWS)
    photos: dict[str, UInt8[np.ndarray, "h w 3"]] = {}
    records: list[dict[str, Any]] = []
    cards: list[str] = []
    for view in views:
        records.append(_view_record(view, registered=view.name in posed))
        cards.append(_view_card(view, records[-1], pictured=len(cards) < MAX_PICTURED_VIEWS))
        if view.name in compared and view.image is not None:
            photos[view.name] = shrink(view.image, COMPARED_SIZE)
    report = _plain(
        {
            "title": title,
            "notes": list(notes),
            "summary": {**_counted(records, dropped, steps, scene, mesh), **summary},
            "views": records,
            "dropped": dropped,
            "steps": steps,
            "options": options,
            "versions": _versions(),
        }
    )
    sections = _sections(report, cards, _mesh_sections(mesh, scene, photos), scene)
    html = page(title, report["notes"], tiles(report["summary"]), list(sections))
    _write(folder / "report.json", json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(folder / "report.html", html)


def _view_record(view: ViewRecord, registered: bool) -> dict[str, Any]:
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


def _counted(
    records: Sequence[Mapping[str, Any]],
    dropped: Mapping[str, str],
    steps: Sequence[Mapping[str, Any]],
    scene: Scene | None,
    mesh: Mesh | None,
) -> dict[str, Any]:
    """Returns the summary that follows from everything else; a fact that is not known has no key."""
    counted: dict[str, Any] = {"views_used": len(records), "photos": len(records) + len(dropped)}
    if scene is not None and scene.cloud is not None:
        counted["sparse_points"] = len(scene.cloud.points)
    if mesh is not None:
        counted |= {"vertices": len(mesh.vertices), "faces": len(mesh.faces)}
    errors = [record["held_out_error"] for record in records if record["held_out_error"] is not None]
    if np.isfinite(errors).any():
        counted["held_out_error"] = float(np.nanmedian(np.where(np.isfinite(errors), errors, np.nan)))
    if steps:
        counted["seconds"] = sum(step.get("seconds") or 0 for step in steps)
        counted["peak_memory_bytes"] = max(step.get("peak_memory_bytes") or 0 for step in steps)
    return counted


def _versions() -> dict[str, str]:
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # an extra, or a checkout that was never installed
            continue
    return installed


def _plain(value: Any) -> Any:
    """Returns a value as JSON knows it; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _evenly(names: Sequence[str], count: int) -> list[str]:
    """Returns at most `count` names, spread evenly over all."""
    rows = (np.arange(min(count, len(names))) + 0.5) * len(names) / max(1, min(count, len(names)))
    return [names[int(row)] for row in rows]


def _write(path: Path, text: str) -> None:
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sections(
    report: Mapping[str, Any], cards: Sequence[str], mesh_sections: Iterable[Section], scene: Scene | None
) -> Iterator[Section]:
    yield from mesh_sections
    if scene is not None and scene.views:
        yield Section("Cameras", _maps(scene, report["dropped"]), MAP_HINT)
    if report["dropped"]:
        yield Section(
            f"Dropped photos ({len(report['dropped'])})", pairs_table(report["dropped"], "photo", "reason")
        )
    if report["steps"]:
        yield Section("Steps", steps_table(report["steps"]))
    if cards:
        yield Section(f"Views ({len(cards)})", "".join(cards), VIEWS_HINT)
    options = folded("Options", pairs_table(flat(report["options"]), "option", "value"))
    versions = folded("Versions", pairs_table(report["versions"], "package", "version"))
    yield Section("Settings", options + versions)


def _maps(scene: Scene, dropped: Mapping[str, str]) -> str:
    frame = capture_frame(scene.views)
    cards = "".join(
        f'<div class="card">{figure(camera_map(scene, frame, rows, dropped), caption)}</div>'
        for rows, caption in (((0, 2), "from above"), ((0, ~1), "from behind"))
    )
    return f'<div class="maps">{cards}</div>'


def _mesh_sections(
    mesh: Mesh | None, scene: Scene | None, photos: Mapping[str, UInt8[np.ndarray, "h w 3"]]
) -> Iterator[Section]:
    """Yields pictures of the mesh, and of it beside photos; a room first from inside."""
    if mesh is None or not len(mesh.faces):
        return
    views = scene.views if scene is not None else ()
    cloud = scene.cloud if scene is not None else None
    # the mesh may reach far beyond what was photographed; the sparse points say where that is
    focus = mesh.vertices if cloud is None or not len(cloud.points) else cloud.points
    frame, caster = capture_frame(views), RayCaster(mesh)
    room = is_room(caster, views, frame)
    sides = "".join(
        figure(data_uri(picture), caption, kind="mesh")
        for caption, picture in mesh_sides(caster, frame, focus, cut_open=room)
    )
    outside = Section("Mesh", f'<div class="grid four">{sides}</div>', ROOM_HINT if room else MESH_HINT)
    pairs = "".join(_compared(caster, view, photos[view.name]) for view in views if view.name in photos)
    inside = (
        [Section("Mesh beside photos", f'<div class="grid three">{pairs}</div>', POSE_HINT)] if pairs else []
    )
    yield from [*inside, outside] if room else [outside, *inside]


def _compared(caster: RayCaster, view: View, photo: UInt8[np.ndarray, "h w 3"]) -> str:
    """Returns a photo, the mesh from its pose and the bare shape: three figures."""
    camera = view.camera.resized(photo.shape[1], photo.shape[0])
    colored, shape = (caster.draw(camera, view.cam_from_world, colored=colors) for colors in (True, False))
    return (
        figure(data_uri(photo), view.name)
        + figure(data_uri(colored), "mesh", kind="mesh")
        + figure(data_uri(shape), "mesh, shape", kind="mesh")
    )


def _view_card(view: ViewRecord, record: Mapping[str, Any], pictured: bool) -> str:
    figures = _view_figures(view) if pictured else ()
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


def _view_figures(view: ViewRecord) -> Iterator[str]:
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
