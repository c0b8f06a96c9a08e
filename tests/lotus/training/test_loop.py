"""A resumed training is the uninterrupted one, to the bit; its checkpoints are everybody's."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file

import lotus
from lotus.checkpoints import processing_res_of, tasks_of
from lotus.predictor import LotusPredictor
from lotus.training.config import Optimizer, Train
from lotus.training.encoding import encode, make_batch
from lotus.training.jobs import unet_job
from lotus.training.loop import Training, checkpoints, learning_rate, run
from lotus.training.networks import build
from lotus.training.shards import pack
from lotus.training.step import batch_loss
from recon.errors import InputError
from tests.lotus.training.conftest import SIZE, picture_of_a_plane


def planes(number: int) -> dict[str, np.ndarray]:
    """Returns a batch of four planes."""
    return pack([picture_of_a_plane(4 * number + index, SIZE) for index in range(4)])


def trained(options: Train) -> list[dict[str, float]]:
    held_out = [picture_of_a_plane(1000 + index, SIZE) for index in range(2)]
    return list(run(unet_job(options, planes, held_out), options))


@pytest.fixture(scope="module")
def finished(small_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    from tests.lotus.training.conftest import small_training

    options = small_training(small_vae, tmp_path_factory.mktemp("finished") / "out")
    trained(options)
    return options


def test_a_resumed_training_equals_an_uninterrupted_one_to_the_bit(finished: Train, tmp_path: Path) -> None:
    resumed = replace(finished, out=tmp_path / "resumed")
    shutil.copytree(finished.out / "step_0000003", resumed.out / "step_0000003")
    assert [numbers["step"] for numbers in trained(resumed)] == [4, 5, 6]
    names = ["training/weights", "training/average", "training/first", "unet/diffusion_pytorch_model"]
    for name in names:
        expected = load_file(finished.out / f"step_0000006/{name}.safetensors")
        found = load_file(resumed.out / f"step_0000006/{name}.safetensors")
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_what_is_saved_is_the_moving_average(finished: Train) -> None:
    folder = finished.out / "step_0000006"
    average = load_file(folder / "training/average.safetensors")["unet.conv_in.weight"]
    weights = load_file(folder / "training/weights.safetensors")["unet.conv_in.weight"]
    saved = load_file(folder / "unet/diffusion_pytorch_model.safetensors")["conv_in.weight"]
    assert torch.equal(saved, average)
    assert not torch.equal(average, weights)


def test_what_is_saved_keeps_a_share_of_the_start(finished: Train, tmp_path: Path) -> None:
    begun = finished.out / "step_0000006"
    options = replace(
        finished,
        out=tmp_path / "mixed",
        networks=replace(finished.networks, init=str(begun)),
        optimizer=replace(finished.optimizer, start_share=0.25),
        steps=3,
    )
    trained(replace(options, steps=2, save_every=2))
    trained(replace(options, save_every=2))  # resumed, with the same start
    folder, part = options.out / "step_0000003", "unet/diffusion_pytorch_model.safetensors"
    average = load_file(folder / "training/average.safetensors")["unet.conv_in.weight"]
    weights = [load_file(place / part)["conv_in.weight"] for place in (begun, folder)]
    assert not torch.equal(average, weights[0])
    torch.testing.assert_close(weights[1], 0.25 * weights[0] + 0.75 * average, rtol=0, atol=1e-7)


def test_a_share_of_the_start_of_one_is_no_training() -> None:
    with pytest.raises(InputError, match=r"optimizer\.start_share 1\.0, wanted at least 0 and below 1"):
        Optimizer(start_share=1.0)


def test_plain_diffusers_classes_draw_what_lotus_load_draws(finished: Train) -> None:
    folder, photo = finished.out / "step_0000006", picture_of_a_plane(5, SIZE).image
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").eval()
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    prompt = load_file(folder / "prompt.safetensors")["prompt"][None]
    one_hot = torch.eye(3)[[1]]  # depth, normals, photo
    switch = torch.cat([one_hot.sin(), one_hot.cos()], dim=1)
    pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latent = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
        clean = unet(latent, 999, prompt, class_labels=switch).sample
        drawn = vae.decode(clean / vae.config.scaling_factor).sample
    expected = (drawn / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    model = lotus.load(folder, "cpu", "float32")
    found = model.annotate(photo, processing_res=0, switch="normals")[0]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_one_joint_checkpoint_predicts_disparity_and_normals(finished: Train) -> None:
    folder, photo = finished.out / "step_0000006", picture_of_a_plane(5, SIZE).image
    assert tasks_of(folder) == ("disparity", "normal")
    predictor = LotusPredictor(str(folder), processing_res=SIZE[0], device="cpu", dtype="float32")
    (prediction,) = predictor([photo])
    model = lotus.load(folder, "cpu", "float32")
    drawn = {
        switch: model.annotate(photo, processing_res=0, switch=switch)[0]
        for switch in ("annotation", "normals")
    }
    assert prediction.kind == "affine_disparity"
    np.testing.assert_allclose(prediction.values, drawn["annotation"].mean(axis=-1), atol=1e-5)
    normals = 1 - 2 * drawn["normals"]
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    assert prediction.normals is not None
    clear = length[..., 0] > 0.2  # an untrained network draws some that are too short to be a direction
    np.testing.assert_allclose(prediction.normals[clear], (normals / length)[clear], atol=1e-3)
    assert clear.mean() > 0.5


def test_fine_tuning_on_a_new_look_lowers_the_error_on_held_out_pictures_of_it(
    finished: Train, tmp_path: Path
) -> None:
    def negatives(number: int) -> dict[str, np.ndarray]:
        arrays = planes(number % 5)  # 20 pictures
        return arrays | {"image": 255 - arrays["image"]}

    start = replace(finished.networks, init=str(finished.out / "step_0000006"))
    quick = Optimizer(learning_rate=3e-3, ema=0.9)
    options = replace(
        finished, out=tmp_path / "tuned", networks=start, steps=30, save_every=30, optimizer=quick
    )

    def error(folder: Path) -> float:
        networks = build(replace(options, networks=replace(start, init=str(folder))), torch.device("cpu"))
        arrays = planes(50) | {"image": 255 - planes(50)["image"]}
        encoded = encode(arrays, networks, "trunc_disparity")
        batch = make_batch(arrays, encoded, networks, options, np.random.default_rng(0))
        return batch_loss(networks, batch, options, torch.Generator())[1]["annotation"]

    list(run(unet_job(options, negatives, []), replace(options, validate_every=30)))
    assert error(tmp_path / "tuned/step_0000030") < 0.7 * error(finished.out / "step_0000006")


def test_a_checkpoint_asks_for_the_size_of_the_one_it_began_with(finished: Train, tmp_path: Path) -> None:
    def written(options: Train) -> int | None:
        unet_job(options, planes, []).write(options.out)
        return processing_res_of(options.out)

    assert written(replace(finished, out=tmp_path / "scratch")) == 768
    small = replace(finished, out=tmp_path / "small", processing_res=64)
    assert written(small) == 64
    networks = replace(finished.networks, init=str(small.out))
    assert written(replace(finished, out=tmp_path / "tuned", networks=networks)) == 64
    assert written(replace(finished, out=tmp_path / "own", networks=networks, processing_res=96)) == 96


def test_another_training_s_checkpoint_is_refused(finished: Train, tmp_path: Path) -> None:
    other = replace(
        finished, out=tmp_path / "other", networks=replace(finished.networks, unet_channels=(8, 8, 8))
    )
    shutil.copytree(finished.out / "step_0000003", other.out / "step_0000003")
    job = unet_job(other, planes, [])
    with pytest.raises(InputError, match="step_0000003: not a checkpoint of this training"):
        Training(job, other).resume()


def test_a_truncated_state_is_named(finished: Train, tmp_path: Path) -> None:
    cut = replace(finished, out=tmp_path / "cut")
    shutil.copytree(finished.out / "step_0000003", cut.out / "step_0000003")
    file = cut.out / "step_0000003/training/first.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="step_0000003: not a checkpoint of this training"):
        Training(unet_job(cut, planes, []), cut).resume()


def test_copies_beside_the_checkpoints_are_neither_resumed_nor_removed(
    finished: Train, tmp_path: Path
) -> None:
    options = replace(finished, out=tmp_path / "copied", keep=1)
    for name in ("step_0000003", "step_0000003.bak", "step_best"):
        shutil.copytree(finished.out / "step_0000003", options.out / name)
    assert [numbers["step"] for numbers in trained(options)] == [4, 5, 6]
    folders = sorted(path.name for path in options.out.iterdir() if path.is_dir())
    assert folders == ["step_0000003.bak", "step_0000006", "step_best"]


def test_checkpoints_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("step_10000000", "step_9999999"):
        (tmp_path / name / "training").mkdir(parents=True)
        (tmp_path / name / "training/state.json").touch()
    assert [place.name for place in checkpoints(tmp_path)] == ["step_9999999", "step_10000000"]


def test_the_rate_warms_up_and_falls_along_a_half_cosine() -> None:
    choice = Optimizer(learning_rate=1.0, warmup=3, cosine=True, final_share=0.1)
    options = Train(steps=13, optimizer=choice)
    assert [learning_rate(step, options) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert learning_rate(8, options) == pytest.approx(0.55)  # half way from 3 to 13
    assert learning_rate(13, options) == pytest.approx(0.1)


def test_the_state_holds_no_pickle(finished: Train) -> None:
    files = [path for path in (finished.out / "step_0000006").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert json.loads((finished.out / "step_0000006/training/state.json").read_text())["step"] == 6
