"""Every example runs as its docstring says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recon import synthetic

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    world = synthetic.tabletop(seed=2)
    cameras = synthetic.tabletop_cameras(world, 320, 240, 16)[:6]
    synthetic.write_photos(synthetic.capture(world, cameras, seed=2, supersample=1), folder)
    return folder


@pytest.mark.parametrize(
    ("name", "takes_photos", "promised"),
    [
        ("01_photos_to_mesh.py", True, "faces in"),
        ("02_own_predictor.py", True, "% off"),
        ("03_fuse_depth_maps.py", False, "faces in"),
        ("04_stage_by_stage.py", False, "F-score"),
    ],
)
def test_example_prints_what_it_promises(
    photos: Path, tmp_path: Path, name: str, takes_photos: bool, promised: str
) -> None:
    words = [str(photos)] if takes_photos else []
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert promised in run.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_without_words_says_which_it_takes(path: Path) -> None:
    run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith(f"usage: python examples/{path.name} ")
    assert run.stderr.count("\n") == 1


def test_every_example_is_run() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == [
        "01_photos_to_mesh.py",
        "02_own_predictor.py",
        "03_fuse_depth_maps.py",
        "04_stage_by_stage.py",
    ]
