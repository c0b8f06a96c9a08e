"""The embedded model: small, offline, joint, and better than a guess on real rooms."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lotus.checkpoints import EMBEDDED, find_checkpoint, is_embedded, tasks_of
from lotus.predictor import LotusPredictor
from lotus.training.validation import score_depth

HOME = EMBEDDED / "lotus-tiny"
FRAMES = ("00000", "00002", "00004")


@pytest.fixture(scope="module")
def predictor() -> LotusPredictor:
    return LotusPredictor("lotus-tiny", device="cpu", dtype="float32")


def test_it_comes_with_the_package_within_20_megabytes() -> None:
    assert find_checkpoint("lotus-tiny") == HOME
    assert sum(path.stat().st_size for path in HOME.rglob("*") if path.is_file()) < 20e6
    assert "Apache" in (HOME / "README.md").read_text()  # what the licence of the image encoder asks for


def test_its_name_gives_way_to_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_embedded("lotus-tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lotus-tiny").mkdir()
    assert not is_embedded("lotus-tiny")


def test_it_says_what_it_draws_and_how_large(predictor: LotusPredictor) -> None:
    assert tasks_of("lotus-tiny") == ("disparity", "normal")
    assert predictor.kind() == "affine_disparity"
    assert predictor.normals_source() == "lotus-tiny"
    assert 128 <= predictor.longer_side() <= 256


def test_a_photo_three_times_as_wide_is_seen_larger_unless_a_size_is_chosen() -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    (prediction,) = LotusPredictor("lotus-tiny", device="cpu")([wide])
    assert prediction.values.shape == (128, 384)
    (chosen,) = LotusPredictor("lotus-tiny", device="cpu", processing_res=192)([wide])
    assert chosen.values.shape == (64, 192)


def test_a_real_room_is_nearer_to_the_truth_by_a_quarter_than_a_ramp(
    predictor: LotusPredictor, shared_data: Path
) -> None:
    home = shared_data / "rgbd_redwood_livingroom1_5"
    found, ramps = [], []
    for name in FRAMES:
        (prediction,) = predictor([np.array(Image.open(home / f"color/{name}.jpg"))])
        height, width = prediction.values.shape
        depth_file = next((home / "depth").glob(f"{name}*"))
        picture = Image.open(depth_file).resize((width, height), Image.Resampling.NEAREST)
        depth = np.array(picture).astype(np.float32) / 1000
        ramp = np.broadcast_to(np.linspace(0, 1, height)[:, None], (height, width))
        found.append(score_depth(prediction.values, depth, "disparity")[0])
        ramps.append(score_depth(ramp, depth, "disparity")[0])
    assert np.mean(found) < 0.75 * np.mean(ramps)


def test_normals_are_unit_vectors_toward_the_camera(predictor: LotusPredictor) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
    (prediction,) = predictor([photo])
    assert prediction.normals is not None
    length = np.linalg.norm(prediction.normals, axis=-1)
    assert ((np.abs(length - 1) < 1e-4) | (length == 0)).all()
    assert (prediction.normals[..., 2] <= 0).mean() > 0.9
