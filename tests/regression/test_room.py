"""The mesh of a synthetic room: within its bounds, and better than a plain back end makes of the same."""

import tomllib
from pathlib import Path

import pytest

from pipelines.stages import Fuse
from recon import synthetic
from recon.evaluation import MeshScore, evaluate_mesh
from recon.scene import Mesh
from recon.synthetic import Capture
from tests.benchmarks.plain_backend import plain_reconstruction
from tests.benchmarks.room_mesh import our_run, predictions_of

BOUNDS = tomllib.loads((Path(__file__).parent / "bounds.toml").read_text())["room"]
VOXEL_SIZE = 0.03
TRUNCATION = 4 * VOXEL_SIZE


@pytest.fixture(scope="module")
def capture() -> Capture:
    world = synthetic.room(seed=5)
    return synthetic.capture(world, synthetic.room_cameras(world, 240, 180, 10), seed=5, supersample=1)


def score(mesh: Mesh, capture: Capture) -> MeshScore:
    views = capture.scene.views
    return evaluate_mesh(mesh, capture.mesh, thresholds=[0.04, 0.08], samples=50_000, views=views)


def test_room_is_within_its_bounds_and_above_the_plain_back_end(
    capture: Capture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    predictions = predictions_of(capture, seed=5)
    folder = tmp_path_factory.mktemp("room")
    outcome = our_run(capture, predictions, folder, Fuse(VOXEL_SIZE, TRUNCATION))
    ours = score(outcome.get("mesh"), capture)
    plain = score(
        plain_reconstruction(capture.scene, predictions, capture.images, VOXEL_SIZE, TRUNCATION), capture
    )
    assert ours.f_score[0] >= max(BOUNDS["f_score_at_1_percent"], plain.f_score[0])
    assert ours.f_score[1] >= max(BOUNDS["f_score_at_2_percent"], plain.f_score[1])
