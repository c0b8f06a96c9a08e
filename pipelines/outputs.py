"""What a run leaves in OUT: mesh, model, depth maps, report, and the options that made them."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.config import INPUT_SECTION, RUN_SECTION, options_of
from pipelines.report import RunRecord, ViewRecord, write_report
from pipelines.runner import Outcome
from recon.errors import InputError
from recon.io import colmap, maps, meshes
from recon.io.files import replaced
from recon.scene import Mesh, Scene

PACKAGES = ("lotus-recon", "torch", "diffusers", "open3d", "pycolmap", "numpy", "scipy", "trimesh")


def open_out(out: Path) -> Path:
    """Returns OUT, made if need be.

    Raises:
        InputError: It cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        (out / "cache").mkdir(exist_ok=True)
    except OSError as error:
        where = error.filename or out
        raise InputError(f"{where}: cannot write there ({error.strerror}); OUT has to be a folder") from None
    for name in ("sparse", "depth"):
        if (out / name).exists() and not (out / name).is_dir():
            raise InputError(f"{out / name}: is a file, results need a folder of that name")
    for name in ("mesh.glb", "mesh.ply", "report.html", "report.json", "run.json"):
        if (out / name).is_dir():
            raise InputError(f"{out / name}: is a folder, results need a file of that name")
    return out


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Holds OUT for this process; a killed process lets go of it by itself.

    Raises:
        InputError: Another run writes to OUT at present.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        yield
        return
    with (out / "cache" / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{out}: another run is writing there; wait for it, or take another OUT"
            ) from None
        yield


def write_run(out: Path, command: str, pipeline: Any, inputs: Mapping[str, Any]) -> None:
    """Writes `run.json`: command, inputs, resolved options, versions. It can be given back as --config."""
    record = {
        "command": command,
        INPUT_SECTION: {name: _absolute(value) for name, value in inputs.items()},
        RUN_SECTION: options_of(pipeline),
        "versions": {package: version(package) for package in PACKAGES},
    }
    with replaced(out / "run.json") as path:
        path.write_text(json.dumps(record, indent=2) + "\n")


def _absolute(value: Any) -> Any:
    return str(value.absolute()) if isinstance(value, Path) else value


def write_mesh_files(out: Path, mesh: Mesh, textured: Mesh | None = None) -> None:
    """Writes `mesh.ply` and `mesh.glb`, that with a texture where there is one."""
    meshes.write_mesh(out / "mesh.ply", mesh)
    meshes.write_mesh(out / "mesh.glb", textured or mesh)


def write_outcome(out: Path, outcome: Outcome, title: str, notes: list[str], pipeline: Any) -> dict[str, Any]:
    """Writes everything that a run over photos made, and returns the report's summary.

    Mesh and depth maps of an earlier run stay where this one stopped before them; where it made depth maps,
    those of photos that it has no depth of are removed.
    """
    earlier = _earlier_depth_maps(out)
    if "sparse" in outcome:
        colmap.write_model(outcome.get("sparse"), out / "sparse")
    written = _write_depth_maps(out / "depth", outcome)
    mesh = outcome.get("mesh") if "mesh" in outcome else None
    textured = outcome.get("textured") if "textured" in outcome else mesh
    if mesh is not None:
        write_mesh_files(out, mesh, textured)
    for path in earlier - written if written else ():
        path.unlink(missing_ok=True)
    summary = _summary(outcome, mesh)
    record = RunRecord(
        title=title,
        notes=notes,
        summary=summary,
        dropped=outcome.dropped,
        steps=[asdict(step) for step in outcome.steps],
        options=options_of(pipeline),
        scene=scene_as_seen(outcome),
        mesh=textured,
    )
    write_report(out, record, _view_records(outcome))
    return summary


def _earlier_depth_maps(out: Path) -> set[Path]:
    """Returns where the depth maps of an earlier run are, which its report names."""
    try:
        report = json.loads((out / "report.json").read_text())
        names = [str(view["name"]) for view in report["views"]]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    paths = {_depth_path(out / "depth", name) for name in names}
    return {path for path in paths if path.resolve().is_relative_to(out.resolve())}


def _depth_path(folder: Path, name: str) -> Path:
    return (folder / name).with_suffix(".npz")


def _summary(outcome: Outcome, mesh: Mesh | None) -> dict[str, Any]:
    photos = outcome.get("photos").files
    cloud = outcome.scene.cloud
    return {
        "photos": len(photos),
        "views_used": sum(view.name not in outcome.dropped for view in outcome.scene.views),
        "sparse_points": 0 if cloud is None else len(cloud.points),
        "vertices": 0 if mesh is None else len(mesh.vertices),
        "faces": 0 if mesh is None else len(mesh.faces),
        "seconds": sum(step.seconds for step in outcome.steps),
        "peak_memory_bytes": max((step.peak_memory_bytes for step in outcome.steps), default=0),
    }


def _depth_map_of(outcome: Outcome, name: str) -> Any:
    if "depth" in outcome and name in outcome.views("depth"):
        return outcome.get("depth", name)
    for artifact in ("checked", "settled", "refined", "aligned"):
        if artifact in outcome and name in outcome.views(artifact):
            return outcome.get(artifact, name).depth_map
    return None


def scene_as_seen(outcome: Outcome) -> Scene:
    """Returns the scene with the focal lengths that were found: a single photo's is when its depth is."""
    if "depth" not in outcome:
        return outcome.scene
    found = {name: outcome.get("depth", name).camera for name in outcome.views("depth")}
    views = (
        replace(view, camera=found[view.name].resized(view.camera.width, view.camera.height))
        if view.name in found
        else view
        for view in outcome.scene.views
    )
    return replace(outcome.scene, views=tuple(views))


def _focal_note(outcome: Outcome, name: str) -> str:
    """Says which field of view a single photo's depth was made with."""
    if "depth" not in outcome or name not in outcome.views("depth"):
        return ""
    return f"horizontal field of view {outcome.get('depth', name).camera.fov_deg:.1f} degrees"


def _write_depth_maps(folder: Path, outcome: Outcome) -> set[Path]:
    """Returns the files that it wrote."""
    written = set()
    for view in outcome.scene.views:
        depth_map = _depth_map_of(outcome, view.name)
        if depth_map is not None:
            path = _depth_path(folder, view.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            maps.write_depth_map(path, depth_map)
            written.add(path)
    return written


def _view_records(outcome: Outcome) -> Iterator[ViewRecord]:
    corrections = outcome.get("agreement") if "agreement" in outcome else {}
    for view in outcome.scene.views:
        if view.name in outcome.dropped:
            continue
        has = {
            name: name in outcome and view.name in outcome.views(name)
            for name in ("image", "prediction", "photo_prediction", "aligned", "points", "refined", "checked")
        }
        predicted = "prediction" if has["prediction"] else "photo_prediction"
        aligned = outcome.get("aligned", view.name) if has["aligned"] else None
        yield ViewRecord(
            name=view.name,
            image=outcome.get("image", view.name) if has["image"] else None,
            prediction=outcome.get(predicted, view.name) if has[predicted] else None,
            depth_map=_depth_map_of(outcome, view.name),
            fit=aligned.fit if aligned else None,
            note=aligned.note if aligned else _focal_note(outcome, view.name),
            anchors=outcome.get("points", view.name) if has["points"] else None,
            correction=corrections.get(view.name),
            refined=outcome.get("refined", view.name) if has["refined"] else None,
            agreement=outcome.get("checked", view.name) if has["checked"] else None,
        )
