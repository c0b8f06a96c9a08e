"""`recon evaluate`, `recon plan` and `recon view`: looking at results and at what makes them."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from jaxtyping import UInt8

from pipelines.config import options_of, read_options, with_options
from pipelines.graph import build_graph, inputs_of, name_of
from pipelines.graph import plan as plan_of
from pipelines.multi_view import MultiView
from pipelines.predictors import FromFiles
from pipelines.single_view import SingleView
from pipelines.viewer import view as show
from recon import evaluation
from recon.errors import InputError
from recon.geometry import transform
from recon.io.images import check_ending, write_image
from recon.io.meshes import read_mesh
from recon.raycasting import RayCaster, orbit_view
from recon.scene import Camera, Mesh

MAX_PORT = 65535


@dataclass(frozen=True)
class Evaluate:
    """Compares a mesh with a reference mesh or point cloud, as JSON on standard output.

    Accuracy: distance of the mesh's surface to the reference. Completeness: the reverse. Precision, recall
    and F-score: shares of both below a threshold.
    """

    mesh: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MESH")]
    """PLY, OBJ or GLB."""

    reference: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REFERENCE")]
    """PLY, OBJ or GLB; a point cloud if it has no faces."""

    thresholds: tuple[float, ...] = ()
    """Distances, reference units; 0.5, 1, 2 and 5 % of the reference's extent if not given."""

    align: Literal["none", "icp", "similarity"] = "none"
    """Move the mesh onto the reference first: rigidly (icp), or with scale too (similarity)."""

    samples: int = 200_000
    """Points on each surface."""

    picture: Path | None = None
    """Write a picture of the mesh, coloured by its distance to the reference."""


def evaluate(words: Sequence[str]) -> None:
    """Runs `recon evaluate`."""
    command = tyro.cli(Evaluate, args=words, prog="recon evaluate")
    if command.samples < 1:
        raise InputError(f"--samples {command.samples}, at least 1 wanted")
    if command.picture is not None:
        check_ending(command.picture)
    mesh, reference = read_mesh(command.mesh), read_mesh(command.reference)
    if command.align != "none":
        moved = evaluation.icp(mesh, reference, with_scale=command.align == "similarity")
        mesh = replace(mesh, vertices=transform(moved, mesh.vertices))
    thresholds = command.thresholds or None
    score = evaluation.evaluate_mesh(mesh, reference, thresholds=thresholds, samples=command.samples)
    sys.stdout.write(json.dumps(options_of(score), indent=2) + "\n")
    if command.picture is not None:
        write_image(command.picture, _error_picture(mesh, reference))


def _error_picture(mesh: Mesh, reference: Mesh) -> UInt8[np.ndarray, "h w 3"]:
    """The mesh from four sides, coloured by distance; the worst 5 % share the last colour."""
    if not len(mesh.faces):
        raise InputError("--picture needs a mesh with faces")
    distances = evaluation.vertex_distances(mesh, reference)
    colored = evaluation.error_colors(mesh, distances, limit=float(np.percentile(distances, 95)))
    camera, down = Camera.from_fov(640, 480, 45.0), np.array([0.0, 1.0, 0.0])
    sides = [np.array(side) for side in ((0, 0.5, 1.0), (1.0, 0.5, 0), (0, 0.5, -1.0), (-1.0, 0.5, 0))]
    caster = RayCaster(colored)
    pictures = [caster.draw(camera, orbit_view(colored.vertices, camera, side, down)) for side in sides]
    return np.vstack([np.hstack(pictures[:2]), np.hstack(pictures[2:])])


@dataclass(frozen=True)
class Plan:
    """Shows the steps of a pipeline in order: what each makes, how often, and from what.

    The names on the left are what `recon multi --until` takes.
    """

    pipeline: tyro.conf.Positional[Literal["multi", "single"]] = "multi"

    until: str | None = None
    """Only what this artifact needs."""

    config: Path | None = None
    """Options that choose other stages."""


def plan(words: Sequence[str]) -> None:
    """Runs `recon plan`."""
    command = tyro.cli(Plan, args=words, prog="recon plan")
    pipeline: Any = MultiView() if command.pipeline == "multi" else SingleView(FromFiles(Path()))
    if command.config:
        pipeline = with_options(pipeline, read_options(command.config), str(command.config))
    graph = build_graph(pipeline.stages)
    for artifact in plan_of(graph, command.until):
        stage = graph.nodes[artifact]["stage"]
        reads = ", ".join(f"all {i.name}" if i.by_view else i.name for i in inputs_of(stage))
        once = "each view" if stage.per_view else "once"
        sys.stdout.write(f"{artifact:18s}{once:11s}{name_of(stage):19s}from {reads}\n")


@dataclass(frozen=True)
class View:
    """Opens a result in the browser: mesh, cameras and sparse points."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """OUT of a reconstruction."""

    port: int = 8080


def view(words: Sequence[str]) -> None:
    """Runs `recon view`."""
    command = tyro.cli(View, args=words, prog="recon view")
    if not 1 <= command.port <= MAX_PORT:
        raise InputError(f"--port {command.port}, wanted 1 to {MAX_PORT}")
    show(command.out, command.port)
