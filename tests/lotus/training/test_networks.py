"""Networks taken from a published checkpoint and adapted; small ones from scratch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D

import lotus
from lotus.checkpoints import read_unet
from lotus.training.autoencoder import NOISE
from lotus.training.command import _open_log, parse, train
from lotus.training.config import Data, Loss, Networks, Optimizer, Train, read_config
from lotus.training.linear_encoder import make_linear, skip_silent
from lotus.training.networks import build, build_vae, write_networks
from recon.errors import InputError

CPU = torch.device("cpu")


def started_from(folder: Path, **changes: object) -> Train:
    return replace(Train(networks=Networks(init=str(folder)), device="cpu"), **changes)  # type: ignore[arg-type]


def test_g_from_d_halves_a_repeated_input_kernel(lotus_golden: Path) -> None:
    folder = lotus_golden / "checkpoint_d"
    found = build(started_from(folder, generative=True), CPU).unet
    kernel = read_unet(folder).conv_in.weight
    assert found.config.in_channels == 8
    torch.testing.assert_close(found.conv_in.weight[:, :4], 0.5 * kernel)
    torch.testing.assert_close(found.conv_in.weight[:, 4:], 0.5 * kernel)
    torch.testing.assert_close(found.conv_in.bias, read_unet(folder).conv_in.bias)


def test_the_same_task_count_keeps_the_task_embedding_and_another_starts_afresh(lotus_golden: Path) -> None:
    folder = lotus_golden / "checkpoint_d"
    given = read_unet(folder).class_embedding.linear_1.weight
    same = build(started_from(folder), CPU).unet
    joint = build(started_from(folder, tasks=("disparity", "normal")), CPU).unet
    assert torch.equal(same.class_embedding.linear_1.weight, given)
    assert joint.class_embedding.linear_1.weight.shape == (given.shape[0], 6)


def test_d_from_g_is_refused(lotus_golden: Path) -> None:
    with pytest.raises(InputError, match="takes 8 channels, with noise"):
        build(started_from(lotus_golden / "checkpoint_g"), CPU)


def test_an_untrained_copy_of_a_published_checkpoint_draws_the_same(
    lotus_golden: Path, photo: np.ndarray, tmp_path: Path
) -> None:
    options = started_from(lotus_golden / "checkpoint_d")
    write_networks(build(options, CPU), tmp_path / "copy", 64)
    first = lotus.load(lotus_golden / "checkpoint_d", "cpu").annotate(photo, processing_res=64)
    second = lotus.load(tmp_path / "copy", "cpu").annotate(photo, processing_res=64)
    np.testing.assert_array_equal(first, second)


def test_a_checkpoint_that_gives_noise_is_not_drawn_from(lotus_golden: Path, tmp_path: Path) -> None:
    options = started_from(lotus_golden / "checkpoint_d")
    write_networks(build(options, CPU), tmp_path / "noise", 64, prediction="eps")
    with pytest.raises(InputError, match="was trained to give eps, wanted x0"):
        lotus.load(tmp_path / "noise", "cpu")


def test_a_linear_encoder_is_linear_and_keeps_principal_components() -> None:
    torch.manual_seed(0)
    noise = torch.rand(24, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.avg_pool2d(noise, 9, 1, 4) * 8 - 4
    vae = build_vae(Networks(vae_channels=(8, 16, 32, 64), latent_channels=16, vae_groups=1))
    make_linear(vae, pictures, NOISE)
    with torch.no_grad():
        posterior = vae.encode(pictures).latent_dist
        first, second = posterior.mode()[:12], posterior.mode()[12:]
        mixed = vae.encode(0.3 * pictures[:12] + 0.5 * pictures[12:]).latent_dist.mode()
    torch.testing.assert_close(mixed, 0.3 * first + 0.5 * second, rtol=0, atol=2e-2)
    torch.testing.assert_close(posterior.std, torch.full_like(posterior.std, NOISE))
    codes = posterior.mode().permute(0, 2, 3, 1).flatten(0, 2)
    patches = pictures.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
    left = patches - codes @ torch.linalg.lstsq(codes, patches).solution
    best = torch.linalg.svdvals(patches)[16:].square().sum()  # what 16 true components would leave
    assert left.square().sum() < 1.5 * best


def test_the_start_of_a_decoder_is_each_patch_s_mean_colour() -> None:
    torch.manual_seed(0)
    flat = torch.rand(32, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pictures = flat.expand(-1, -1, 32, 32).contiguous()
    vae = build_vae(Networks())
    make_linear(vae, pictures + 0.05 * torch.randn(pictures.shape), NOISE)
    with torch.no_grad():
        drawn = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
    assert (drawn - pictures).abs().mean() < 0.05


def test_blocks_that_add_nothing_are_skipped_and_others_are_not() -> None:
    torch.manual_seed(0)
    vae = build_vae(Networks(vae_channels=(8, 8, 8, 16), latent_channels=4, vae_groups=4)).eval()
    blocks = [part for part in vae.encoder.modules() if isinstance(part, ResnetBlock2D)]
    for block in blocks[:-1]:
        torch.nn.init.zeros_(block.conv2.weight)
        torch.nn.init.zeros_(block.conv2.bias)
    picture = torch.rand(1, 3, 16, 24)
    worked: list[int] = []
    for index, block in enumerate(blocks):
        block.conv1.register_forward_hook(lambda *_, index=index: worked.append(index))
    with torch.no_grad():
        expected = vae.encode(picture).latent_dist.mode()
        worked.clear()
        skip_silent(vae.encoder)
        found = vae.encode(picture).latent_dist.mode()
    assert torch.equal(found, expected)
    assert worked == [len(blocks) - 1]


def test_a_misspelt_option_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "training.toml"
    file.write_text("[optimizer]\nlerning_rate = 1e-4\n")
    with pytest.raises(InputError, match="no option 'lerning_rate', did you mean learning_rate"):
        read_config(file)
    file.write_text("steps = 'many'\n")
    with pytest.raises(InputError, match="steps is 'many', wanted int"):
        read_config(file)
    file.write_text("steps")
    with pytest.raises(InputError, match=r"training.toml: no TOML \("):
        read_config(file)
    with pytest.raises(InputError, match=r"gone.toml: cannot read \(No such file or directory\)"):
        read_config(tmp_path / "gone.toml")


def test_a_configuration_is_found_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine" / "own.toml"
    file.parent.mkdir()
    file.write_text("steps = 7\n")
    monkeypatch.chdir(tmp_path)
    words: list[list[str]] = [["--config", str(file)], [f"--config={file}"], ["--config", "mine/own.toml"]]
    assert [parse([*each, "--seed", "3"]).steps for each in words] == [7, 7, 7]
    assert parse(["--config", "fine-tune.toml"]).steps == 200
    with pytest.raises(InputError, match=r"mine/gone.toml: cannot read \(No such file or directory\)"):
        parse(["--config", "mine/gone.toml"])


def test_a_network_from_scratch_names_the_parts_that_are_not_there(small: Train, tmp_path: Path) -> None:
    without = replace(small, networks=replace(small.networks, vae=str(tmp_path)))
    with pytest.raises(InputError, match=r"no vae/config\.json there; .* wants --networks\.vae FOLDER"):
        build(without, torch.device("cpu"))
    (tmp_path / "trunk").write_bytes(b"no safetensors")
    damaged = replace(small, networks=replace(small.networks, image_encoder=str(tmp_path / "trunk")))
    with pytest.raises(InputError, match="trunk: not the trunk of the image encoder"):
        build(damaged, torch.device("cpu"))


@pytest.mark.parametrize("below", ["", "/below"])
def test_out_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match=f"out{below}: no folder can be made there"):
        train(["--out", f"{tmp_path}/out{below}"])


def test_a_log_that_is_a_folder_is_refused(small: Train) -> None:
    (small.out / "log.jsonl").mkdir(parents=True)
    with pytest.raises(InputError, match=r"log\.jsonl: cannot be written"):
        _open_log(small.out / "log.jsonl")


def test_a_line_of_the_log_is_there_at_once(tmp_path: Path) -> None:
    with _open_log(tmp_path / "log.jsonl") as journal:
        journal.write("{}\n")
        assert (tmp_path / "log.jsonl").read_text() == "{}\n"


def test_options_that_contradict_each_other_are_said() -> None:
    with pytest.raises(InputError, match="task depth and norm_type trunc_disparity do not go together"):
        Train(tasks=("depth",))
    with pytest.raises(InputError, match="wanted one, or depth or disparity and then normal"):
        Train(tasks=("normal", "disparity"))
    with pytest.raises(InputError, match=r"loss\.norm_type 'a_disparity', wanted one of instnorm"):
        Loss(norm_type="a_disparity")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: Optimizer(learning_rate=0.0), r"optimizer\.learning_rate 0\.0, wanted more than 0"),
        (lambda: Optimizer(betas=(0.9, 1.0)), r"optimizer\.betas 1\.0, wanted at least 0 and below 1"),
        (lambda: Optimizer(ema=1.0), r"optimizer\.ema 1\.0, wanted at least 0 and below 1"),
        (lambda: Train(seed=-1), "seed -1, wanted at least 0"),
        (lambda: Train(minutes=-1.0), r"minutes -1\.0, wanted at least 0"),
        (lambda: Train(minutes=float("nan")), "minutes nan, wanted at least 0"),
        (lambda: Train(processing_res=31), "processing_res 31, wanted at least 32"),
        (lambda: Train(data=Data(workers=-1)), r"data\.workers -1, wanted at least 0"),
        (lambda: Train(data=Data(validation=-1)), r"data\.validation -1, wanted at least 0"),
        (lambda: Train(data=Data(sizes=())), r"data\.sizes is empty"),
        (lambda: Train(loss=Loss(timesteps=0)), r"loss\.timesteps 0, wanted at least 1"),
        (lambda: Train(loss=Loss(timesteps=1001)), r"loss\.timesteps 1001, wanted 1 to 1000"),
        (lambda: Train(loss=Loss(reconstruction_rows=-0.5)), r"reconstruction_rows -0\.5, wanted at least 0"),
        (lambda: Train(loss=Loss(pixel_rows=1, pixel_crop=0)), r"pixel_crop 0, wanted at least 1"),
    ],
)
def test_numbers_out_of_range_are_said(wrong: Callable[[], object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        wrong()


def test_the_shipped_configurations_are_valid() -> None:
    home = Path(lotus.__file__).parent / "training"
    assert {read_config(file).part for file in home.glob("*.toml")} == {"unet", "vae"}
