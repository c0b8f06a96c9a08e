"""The mesh of things on a table ends with the table: no sheets in the blank background."""

from pathlib import Path

import numpy as np

from pipelines.stages import Fuse
from recon import synthetic
from tests.benchmarks.room_mesh import our_run, predictions_of

RIM = 0.03


def test_nothing_is_made_of_the_background(tmp_path: Path) -> None:
    world = synthetic.tabletop(seed=3)
    cameras = synthetic.tabletop_cameras(world, 320, 240, 10)
    capture = synthetic.capture(world, cameras, seed=3, supersample=1)
    outcome = our_run(capture, predictions_of(capture, seed=3), tmp_path, Fuse(0.008, 0.032))
    points = outcome.get("mesh").vertices
    low, high = capture.mesh.vertices.min(axis=0), capture.mesh.vertices.max(axis=0)
    beyond = np.maximum(low - points, points - high).max(axis=1)
    assert (beyond < 0.01).mean() > 0.9
    assert (beyond > RIM).mean() < 0.01
