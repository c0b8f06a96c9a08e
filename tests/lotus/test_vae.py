"""The autoencoder against diffusers', whole and in strips; and where numbers or memory run short."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lotus
import lotus.model
import lotus.vae
from lotus.checkpoints import read_vae
from lotus.vae import LotusVAE, Upsample
from recon.errors import InputError

LAST = "decoder.conv_norm_out"


@pytest.fixture(scope="module")
def vae(lotus_golden: Path) -> LotusVAE:
    return LotusVAE(read_vae(lotus_golden / "checkpoint_d"))


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 75, 101, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_it_equals_diffusers(lotus_golden: Path, vae: LotusVAE, pixels: torch.Tensor) -> None:
    plain = read_vae(lotus_golden / "checkpoint_d")
    with torch.inference_mode():
        mean = plain.encode(pixels).latent_dist.mean
        torch.testing.assert_close(vae.encode(pixels)[:, :4], mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(vae.decode(mean), plain.decode(mean).sample, rtol=0, atol=4e-5)


@pytest.mark.parametrize("strip", [1, 5000, 2**25], ids=["a row", "some rows", "all rows"])
def test_strips_of_any_height_equal_the_whole(
    vae: LotusVAE, pixels: torch.Tensor, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lotus.vae, "STRIP_BYTES", strip)
    with torch.inference_mode():
        moments = vae.encode(pixels)
        mean = moments[:, :4]
        torch.testing.assert_close(vae.encode(pixels, True), moments, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(vae.decode(mean, True), vae.decode(mean), rtol=0, atol=5e-5)


def test_folded_upsampling_equals_convolution_of_the_doubled_map() -> None:
    torch.manual_seed(0)
    convolution, small = torch.nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 4, 7)
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="nearest")
    with torch.no_grad():
        torch.testing.assert_close(Upsample(convolution)(small), convolution(large), rtol=0, atol=1e-5)


def test_attention_a_few_queries_at_a_time_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lotus.vae, "SCORE_BYTES", 4 * 50 * 7)  # 7 queries of 50
    query, key, value = torch.randn(3, 1, 50, 32, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(lotus.vae._attend_in_parts(query, key, value), wanted, rtol=1e-5, atol=1e-6)


def test_strips_are_taken_only_where_memory_is_short(
    lotus_golden: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lotus.load(lotus_golden / "checkpoint_d", "cpu", "float32")
    taken = []
    whole = lotus.vae.convolve_normed
    monkeypatch.setattr(lotus.vae, "convolve_normed", lambda *a, **k: taken.append(1) or whole(*a, **k))
    expected = model.annotate(photo, processing_res=64)
    assert not taken
    monkeypatch.setattr(lotus.model, "free_bytes", lambda device: 1000)
    np.testing.assert_allclose(model.annotate(photo, processing_res=64), expected, rtol=0, atol=1e-4)
    assert taken


def test_free_memory_is_known_on_linux() -> None:
    free = lotus.model.free_bytes(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50


def test_a_decoder_that_overflows_float16_decodes_in_float32(broken: Path, photo: np.ndarray) -> None:
    # the last norm makes numbers of 1e5 and the last convolution takes them back: too large for float16 only
    file = broken / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for name in (f"{LAST}.weight", f"{LAST}.bias"):
        weights[name] = (weights[name] * 3e4).clamp(-6e4, 6e4)
    weights["decoder.conv_out.weight"] = weights["decoder.conv_out.weight"] / 3e4
    save_file(weights, file)
    half, exact = (lotus.load(broken, "cpu", dtype) for dtype in ("float16", "float32"))
    latents = exact.encode(exact.pixels(photo[None], (64, 48)))
    with torch.inference_mode():
        assert not torch.isfinite(half.vae.decode(latents / half.vae.scaling)).all()
    torch.testing.assert_close(half.decode(latents), exact.decode(latents), rtol=0, atol=0.02)


def test_numbers_that_overflow_in_float32_too_are_an_error(broken: Path, photo: np.ndarray) -> None:
    file = broken / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"].fill_(float("inf"))
    save_file(weights, file)
    with pytest.raises(InputError, match=r"not finite in torch\.float16"):
        lotus.load(broken, "cpu", "float16").annotate(photo, processing_res=64)
