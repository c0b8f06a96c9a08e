"""The tiny random checkpoints of the reference outputs, and combinations of them; never the network."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def lotus_golden(golden: Path) -> Path:
    """Folder with checkpoint_g, checkpoint_d, images and the reference's outputs."""
    return golden / "lotus"


@pytest.fixture(scope="session")
def manifest(lotus_golden: Path) -> dict[str, Any]:
    return json.loads((lotus_golden / "manifest.json").read_text())


@pytest.fixture(scope="session")
def photo(lotus_golden: Path) -> np.ndarray:
    """A picture of 160 x 112 pixels."""
    return np.array(Image.open(lotus_golden / "images/shapes_160x112.png").convert("RGB"))


@pytest.fixture
def broken(lotus_golden: Path, tmp_path: Path) -> Path:
    """A private copy of checkpoint_d to be damaged; its name says nothing of its task."""
    return Path(shutil.copytree(lotus_golden / "checkpoint_d", tmp_path / "copy"))


@pytest.fixture(scope="session")
def checkpoints(lotus_golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of checkpoints whose names say their task; depth, disparity and normal share one VAE."""
    home = tmp_path_factory.mktemp("checkpoints")
    for name, source in {"depth-d": "d", "disparity-d": "d", "normal-g": "g", "depth-wide-g": "g"}.items():
        shutil.copytree(lotus_golden / f"checkpoint_{source}", home / name)
    shutil.rmtree(home / "normal-g/vae")
    shutil.copytree(lotus_golden / "checkpoint_d/vae", home / "normal-g/vae")
    shutil.copytree(lotus_golden / "checkpoint_g", home / "normal-other-vae-g")
    shutil.rmtree(home / "depth-wide-g/vae")
    shutil.copytree(lotus_golden / "vae_wide_posterior/vae", home / "depth-wide-g/vae")
    return home
