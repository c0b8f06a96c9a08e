"""`recon demo`: a scene of which everything is known, through the whole pipeline."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float64

from pipelines.commands.flags import Unprefixed
from pipelines.commands.photos import reconstruct
from pipelines.config import options_of
from pipelines.console import Console
from pipelines.multi_view import MultiView
from pipelines.outputs import open_out
from pipelines.sources import find_photos
from recon import evaluation, synthetic
from recon.errors import InputError
from recon.geometry import similarity, transform
from recon.scene import Scene


@dataclass(frozen=True)
class Demo:
    """Renders photos of a furnished room, reconstructs them, and compares the mesh with the true surface."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder for photos and results; made if need be."""

    seed: int = 0
    """Another number, another room."""

    options: Unprefixed[MultiView] = field(default_factory=MultiView)


def demo(words: Sequence[str]) -> None:
    """Runs `recon demo`."""
    command = tyro.cli(Demo, args=words, prog="recon demo", config=(tyro.conf.AvoidSubcommands,))
    if command.seed < 0:
        raise InputError(f"--seed {command.seed}, at least 0 wanted")
    out = open_out(command.out)
    with Console() as console:
        console.say("rendering photos of a room")
        world = synthetic.room(command.seed)
        capture = synthetic.capture(world, synthetic.room_cameras(world), seed=command.seed)
        synthetic.write_photos(capture, out / "photos")
        outcome = reconstruct(command.options, find_photos(out / "photos", out / "cache"), out, console)
    mesh_from_truth = _similarity_of_cameras(capture.scene, outcome.scene)
    truth = replace(capture.mesh, vertices=transform(mesh_from_truth, capture.mesh.vertices))
    score = evaluation.evaluate_mesh(outcome.get("mesh"), truth, views=outcome.scene.views)
    (out / "score.json").write_text(json.dumps(options_of(score), indent=2) + "\n")
    console.say(f"against the true surface: {evaluation.describe(score)}; see {out / 'score.json'}")


def _similarity_of_cameras(source: Scene, target: Scene) -> Float64[np.ndarray, "4 4"]:
    """The similarity that moves the camera centres of one scene onto those of another, by name."""
    centers = {view.name: view.center for view in source.views}
    shared = [view for view in target.views if view.name in centers]
    return similarity(
        np.stack([centers[view.name] for view in shared]), np.stack([view.center for view in shared])
    )
