"""The network against the outputs of the authors' pipelines, and its folded parts against diffusers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from PIL import Image

import lotus
from lotus import checkpoints as loading
from lotus.model import working_size
from lotus.network import LotusUNet, TwoTokenAttention, sampling_timesteps
from recon.errors import InputError

CASES = [f"{mode}_{name}" for mode in "gd" for name in ("shapes_res64", "shapes_res96", "texture_res64")]
CASES += [f"{mode}_{name}" for mode in "gd" for name in ("texture_native", "astronaut_default768")]


def read_case(home: Path, manifest: dict[str, Any], name: str) -> tuple[dict[str, Any], np.ndarray, Any]:
    case = next(case for case in manifest["cases"] if case["id"] == name)
    photos = np.stack([np.array(Image.open(home / image).convert("RGB")) for image in case["images"]])
    return case, photos, np.load(home / case["expected"])


def options(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("processing_res", "seed", "resample_method")}


def test_every_case_of_the_manifest_is_tested(manifest: dict[str, Any]) -> None:
    assert sorted([*CASES, "g_wideposterior_res64"]) == sorted(case["id"] for case in manifest["cases"])


@pytest.mark.parametrize("name", CASES)
def test_annotation_equals_the_reference_pipeline(
    lotus_golden: Path, manifest: dict[str, Any], name: str
) -> None:
    case, photos, expected = read_case(lotus_golden, manifest, name)
    model = lotus.load(lotus_golden / case["checkpoint"], "cpu", "float32")
    raw = model.annotate(photos, **options(case))
    tolerance = manifest["tolerance"]
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw, expected["pipeline_output"], rtol=0, atol=tolerance["pipeline_output"])
    np.testing.assert_allclose(
        raw.mean(axis=-1), expected["depth_or_disparity"], rtol=0, atol=tolerance["depth_or_disparity"]
    )


@pytest.mark.parametrize("name", [name for name in CASES if "768" not in name])
def test_every_step_equals_the_reference_pipeline(
    lotus_golden: Path, manifest: dict[str, Any], name: str
) -> None:
    case, photos, expected = read_case(lotus_golden, manifest, name)
    model = lotus.load(lotus_golden / case["checkpoint"], "cpu", "float32")
    pixels = model.pixels(photos, tuple(case["working_size_wh"]))
    latents = model.encode(pixels)
    noise = torch.from_numpy(expected["noise"]) if model.is_generative else None
    denoised = model.denoise(latents, noise)
    decoded = model.decode(denoised)
    tolerance = manifest["tolerance"]
    np.testing.assert_allclose(pixels, expected["rgb_preprocessed"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(latents / 0.18215, expected["vae_mean"], rtol=0, atol=tolerance["vae_mean"])
    np.testing.assert_allclose(denoised, expected["unet_output"], rtol=0, atol=tolerance["unet_output"])
    np.testing.assert_allclose(decoded, expected["decoded"], rtol=0, atol=tolerance["decoded"])


def test_a_sampled_posterior_equals_the_reference_pipeline(
    lotus_golden: Path, manifest: dict[str, Any], checkpoints: Path
) -> None:
    case, photos, expected = read_case(lotus_golden, manifest, "g_wideposterior_res64")
    model = lotus.load(checkpoints / "depth-wide-g", "cpu", "float32")
    raw = model.annotate(photos, posterior="sample", **options(case))
    np.testing.assert_allclose(raw, expected["pipeline_output"], rtol=0, atol=1e-4)


def test_prompt_embedding_equals_the_reference(lotus_golden: Path, manifest: dict[str, Any]) -> None:
    _, _, expected = read_case(lotus_golden, manifest, "g_shapes_res64")
    embedding = loading.embed_empty_prompt(lotus_golden / "checkpoint_g")
    np.testing.assert_allclose(embedding, expected["prompt_embeds"][0], rtol=0, atol=1e-5)


def test_attention_to_two_tokens_equals_softmax_attention() -> None:
    torch.manual_seed(0)
    attention = Attention(query_dim=12, cross_attention_dim=20, heads=3, dim_head=4)
    tokens, queries = torch.randn(2, 20), torch.randn(2, 9, 12)
    with torch.inference_mode():
        expected = attention(queries, encoder_hidden_states=tokens.expand(2, 2, 20))
        folded = TwoTokenAttention(attention, tokens)(queries, encoder_hidden_states=None)
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("switch", [0, 1])
def test_folded_unet_equals_diffusers_forward(lotus_golden: Path, switch: int) -> None:
    folder = lotus_golden / "checkpoint_g"
    plain: UNet2DConditionModel = loading.read_unet(folder)
    prompt = loading.embed_empty_prompt(folder)
    folded = LotusUNet(loading.read_unet(folder), prompt)
    sample = torch.randn(2, 8, 7, 5, generator=torch.Generator().manual_seed(1))
    one_hot = torch.eye(2)[[switch]].expand(2, 2)
    task = torch.cat([one_hot.sin(), one_hot.cos()], dim=1)
    with torch.inference_mode():
        expected = plain(sample, 999, prompt.expand(2, -1, -1), class_labels=task).sample
        result = folded(sample, switch)
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("steps", [2, 5])
def test_several_steps_equal_diffusers_sampler(lotus_golden: Path, photo: np.ndarray, steps: int) -> None:
    folder = lotus_golden / "checkpoint_g"
    plain: UNet2DConditionModel = loading.read_unet(folder)
    prompt = loading.embed_empty_prompt(folder)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    model = lotus.load(folder, "cpu", "float32", steps=steps)
    latents = model.encode(model.pixels(photo[None], (64, 48)))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    task = torch.tensor([[np.sin(1.0), 0.0, np.cos(1.0), 1.0]], dtype=torch.float32)
    noisy = noise
    with torch.inference_mode():
        for timestep in scheduler.timesteps:
            sample = torch.cat([latents, noisy], dim=1)
            clean = plain(sample, timestep, prompt[None], class_labels=task).sample
            noisy = scheduler.step(clean, timestep, noisy).prev_sample
    torch.testing.assert_close(model.denoise(latents, noise), clean, rtol=0, atol=1e-4)


def test_one_step_is_the_default_and_at_timestep_999(lotus_golden: Path) -> None:
    assert lotus.load(lotus_golden / "checkpoint_g", "cpu", "float32").unet.timesteps == (999,)
    assert sampling_timesteps(4) == (999, 749, 499, 249)


def test_networks_are_compiled_only_if_asked_for(
    lotus_golden: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling itself takes half a minute: `lotus_speed --compile` compares its numbers.
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled.append((f.__name__, options)) or f)
    plain = lotus.load(lotus_golden / "checkpoint_d", "cpu", "float32").annotate(photo, processing_res=64)
    assert not compiled
    model = lotus.load(lotus_golden / "checkpoint_d", "cpu", "float32", compile=True)
    assert sorted(compiled) == [(name, {"dynamic": False}) for name in ("decode", "encode", "forward")]
    np.testing.assert_array_equal(model.annotate(photo, processing_res=64), plain)


def test_photos_of_a_batch_do_not_influence_each_other(lotus_golden: Path, photo: np.ndarray) -> None:
    model = lotus.load(lotus_golden / "checkpoint_d", "cpu", "float32")
    both = model.annotate([photo, photo[::-1]], processing_res=64)
    np.testing.assert_array_equal(both[:1], model.annotate(photo, processing_res=64))
    np.testing.assert_array_equal(both[1:], model.annotate(photo[::-1], processing_res=64))


def test_without_a_seed_noise_comes_from_the_global_generator(lotus_golden: Path, photo: np.ndarray) -> None:
    model = lotus.load(lotus_golden / "checkpoint_g", "cpu", "float32")
    torch.manual_seed(5)
    unseeded = model.annotate(photo, processing_res=64)
    np.testing.assert_array_equal(unseeded, model.annotate(photo, processing_res=64, seed=5))


def test_reconstruction_differs_from_annotation(lotus_golden: Path, photo: np.ndarray) -> None:
    model = lotus.load(lotus_golden / "checkpoint_d", "cpu", "float32")
    annotation = model.annotate(photo, processing_res=64)
    assert (
        np.abs(model.annotate(photo, processing_res=64, switch="reconstruction") - annotation).mean() > 0.02
    )


def test_bfloat16_is_as_near_to_float32_as_the_reference_on_a_cpu(
    lotus_golden: Path, manifest: dict[str, Any], photo: np.ndarray
) -> None:
    exact = lotus.load(lotus_golden / "checkpoint_d", "cpu", "float32").annotate(photo, processing_res=96)
    fast = lotus.load(lotus_golden / "checkpoint_d", "cpu", "bfloat16").annotate(photo, processing_res=96)
    of_reference = manifest["low_precision"]["cpu_autocast_bf16"]["d"]["mean"]  # same photo and size
    assert np.abs(fast - exact).mean() < 1.2 * of_reference  # both are noise: 20 % for the luck of one case


def test_working_size_truncates_as_the_reference() -> None:
    assert working_size(160, 112, 64) == (64, 44)
    assert working_size(128, 96, None) == (768, 576)
    assert working_size(75, 101, 0) == (75, 101)
    assert working_size(47, 30, 768) == (767, 490)


def test_options_and_photos_that_do_not_fit_are_named(lotus_golden: Path, photo: np.ndarray) -> None:
    model = lotus.load(lotus_golden / "checkpoint_d", "cpu", "float32")
    with pytest.raises(InputError, match="switch 'depth', wanted one of annotation, reconstruction"):
        model.annotate(photo, switch="depth")
    with pytest.raises(InputError, match=r"photo 0: float32 \(112, 160, 3\), wanted uint8"):
        model.annotate(photo.astype(np.float32))
    with pytest.raises(InputError, match="a batch has one size"):
        model.annotate([photo, photo[:50]])
    with pytest.raises(InputError, match="wanted at least 8 on each side"):
        model.annotate(photo[:10], processing_res=64)
