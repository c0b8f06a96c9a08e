"""A run killed at any moment and started again ends in the bytes of a run that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recon import synthetic

KILLS = int(os.environ.get("RECON_KILLS", "3"))  # the suite's share; 10 and more by hand


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    world = synthetic.tabletop(seed=1)
    cameras = synthetic.tabletop_cameras(world, 320, 240, 8)
    synthetic.write_photos(synthetic.capture(world, cameras, seed=1, supersample=1), folder)
    return folder


def start(photos: Path, out: Path) -> "subprocess.Popen[bytes]":
    words = ["multi", str(photos), str(out), "--fuse.voxel-size", "0.05", "--learn-steps", "2"]
    code = f"from pipelines.cli import main; main({words!r})"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def test_killed_runs_end_in_the_bytes_of_an_undisturbed_one(photos: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    assert start(photos, tmp_path / "whole").wait() == 0
    duration = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(KILLS):
        process = start(photos, tmp_path / "killed")
        time.sleep(moments.uniform(0, 0.9 * duration))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(photos, tmp_path / "killed").wait() == 0
    for name in ("mesh.ply", "mesh.glb", "sparse/points3D.bin"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
