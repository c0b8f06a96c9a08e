"""A checkpoint learns one scene from parts of its photos."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lotus.data import Told
from lotus.predictor import LotusPredictor
from lotus.training.scene import SceneTraining, learn_scene, range_of_drawn
from recon.errors import InputError
from tests.lotus.training.conftest import picture_of_a_plane

SIZE = (96, 64)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
QUICK = SceneTraining(steps=24, batch_size=4, rate=1e-3, device="cpu")


def left_half(index: int, noise: float = 0.0) -> Told:
    """Returns a plane of which the left half is told, with noise in its depth; a band of that is held out."""
    sample = picture_of_a_plane(index, SIZE)
    rng = np.random.default_rng(index)
    depth = sample.depth * np.exp(noise * rng.standard_normal(sample.depth.shape)).astype(np.float32)
    normals = sample.normals.copy()
    depth[:, SIZE[0] // 2 :] = 0
    normals[:, SIZE[0] // 2 :] = 0
    held_out = np.zeros(depth.shape, bool)
    held_out[:, 16:24] = True
    return Told(replace(sample, depth=depth, normals=normals), held_out)


def errors_to_the_right(checkpoint: str | Path) -> tuple[float, float]:
    """Returns errors of depth and normals (degrees) where nothing was told, after a fit to the left half."""
    predictor = LotusPredictor(str(checkpoint), device="cpu", dtype="float32", processing_res=SIZE[0])
    depth_errors, angles = [], []
    for index in range(6):
        sample = picture_of_a_plane(index, SIZE)
        (found,) = predictor([sample.image])
        assert found.values.shape == sample.depth.shape
        left, right = np.s_[:, : SIZE[0] // 2], np.s_[:, SIZE[0] // 2 :]
        slope, shift = np.polyfit(found.values[left].ravel(), 1 / sample.depth[left].ravel(), 1)
        disparity = np.maximum(slope * found.values[right] + shift, 0.05)
        depth_errors.append(np.abs(1 / disparity / sample.depth[right] - 1).mean())
        assert found.normals is not None
        cosine = (found.normals[right] * sample.normals[right]).sum(axis=-1)
        angles.append(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())
    return float(np.mean(depth_errors)), float(np.mean(angles))


def test_what_was_told_of_a_part_is_known_of_the_rest(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    told = [left_half(index) for index in range(6)]
    learnt = learn_scene(
        "lotus-tiny", told, tmp_path / "out", QUICK, progress=lambda *done: steps.append(done)
    )
    assert steps == [(step, 24) for step in range(1, 25)]
    before, after = errors_to_the_right("lotus-tiny"), errors_to_the_right(tmp_path / "out")
    assert after[0] < 0.75 * before[0]  # 0.4 to 0.6 over seeds
    assert after[1] < 0.75 * before[1]
    assert learnt is not None
    assert learnt.after < 0.75 * learnt.before


def test_noise_is_not_learnt_where_it_is_held_out(tmp_path: Path) -> None:
    told = [left_half(index, noise=0.5) for index in range(6)]
    learnt = learn_scene("lotus-tiny", told, tmp_path / "out", QUICK)
    assert learnt is not None
    assert learnt.after > 0.9 * learnt.before


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    told = [left_half(index) for index in range(3)]
    few, errors = replace(QUICK, steps=2), []
    for name, depth in (("first", 1.0), ("second", 3.0)):
        for each in told:
            each.sample.depth[each.held_out] = depth
        errors.append(learn_scene("lotus-tiny", told, tmp_path / name, few))
    weights = [load_file(tmp_path / name / WEIGHTS) for name in ("first", "second")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert errors[0] != errors[1]
    unjudged = [replace(each, held_out=np.zeros_like(each.held_out)) for each in told]
    assert learn_scene("lotus-tiny", unjudged, tmp_path / "third", few) is None


def test_a_map_that_draws_near_as_far_is_as_bad_as_can_be(tmp_path: Path) -> None:
    each = left_half(0)
    depth = np.where(each.sample.depth > 0, 1 / np.maximum(each.sample.depth, 1e-6), 0).astype(np.float32)
    turned = replace(each, sample=replace(each.sample, depth=depth))
    learnt = learn_scene("lotus-tiny", [turned], tmp_path / "out", replace(QUICK, steps=1))
    assert learnt is not None
    assert learnt.before == pytest.approx(0.1)


def test_the_same_scene_gives_the_same_weights(tmp_path: Path) -> None:
    few = replace(QUICK, steps=2)
    last = left_half(3)
    parts = {name: getattr(last.sample, name)[:, 8:72] for name in ("image", "depth", "normals", "sky")}
    upright = Told(replace(last.sample, **parts), last.held_out[:, 8:72])  # of another size than the others
    for name in ("first", "second"):
        learn_scene("lotus-tiny", [*(left_half(index) for index in range(3)), upright], tmp_path / name, few)
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_range_that_is_drawn_is_found_where_depth_is_known() -> None:
    depth = torch.tensor([[1.0, 2.0, 4.0, 0.0]])[None, None]
    drawn = torch.tensor([[0.9, 0.4, 0.15, -1.0]])[None, None]  # disparity - 0.1
    wanted, fits = range_of_drawn(drawn, depth)
    assert fits.all()
    torch.testing.assert_close(wanted[..., :3], drawn[..., :3])
    assert not range_of_drawn(-drawn, depth)[1].any()  # far where it is near: no scale makes that right


def test_what_cannot_be_learnt_is_said(tmp_path: Path) -> None:
    some = left_half(0)
    blank = replace(some, sample=replace(some.sample, depth=np.zeros(SIZE[::-1], np.float32)))
    with pytest.raises(InputError, match="no photo tells any depth, wanted some that do"):
        learn_scene("lotus-tiny", [blank], tmp_path / "out", QUICK)
    with pytest.raises(InputError, match="wanted disparity and normal, a joint one"):
        learn_scene("jingheya/lotus-depth-d-v2-0-disparity", [left_half(0)], tmp_path / "out", QUICK)
