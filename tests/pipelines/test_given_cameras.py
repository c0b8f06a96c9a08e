"""`recon multi --sparse`: poses that are off are named, and refined where points are found anew."""

from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from recon.io import colmap
from tests.recon.io.test_colmap_sfm import OPTIONS, moved, posed, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def sparse(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of poses that are off, its points triangulated from them."""
    rng, work = np.random.default_rng(0), tmp_path_factory.mktemp("work")
    views = [moved(posed(index), rng) for index in range(5)]
    model = colmap.triangulate(photos, views, work, OPTIONS, keep_poses=True)
    colmap.write_model(model, work / "sparse")
    return work / "sparse"


def centers(folder: Path, photos: dict[str, Path]) -> np.ndarray:
    scene = colmap.scene_from_model(colmap.read_model(folder), photos)
    return np.stack([view.center for view in scene.views])


@pytest.mark.parametrize("flags", [[], ["--cameras.retriangulate"]])
def test_poses_that_are_off(
    photos: dict[str, Path],
    sparse: Path,
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(next(iter(photos.values())).parent)
    command = ["multi", folder, str(tmp_path), "--sparse", str(sparse), "--predictor", "points"]
    cli.main([*command, "--until", "sparse", *flags])
    said = capsys.readouterr().err
    assert ("retriangulate finds points anew" in said) != bool(flags)
    assert ("contradict the given poses" in said) == bool(flags)
    apart = np.linalg.norm(centers(tmp_path / "sparse", photos) - centers(sparse, photos), axis=1)
    assert (apart.min() > 1e-3) if flags else (apart.max() < 1e-9)
