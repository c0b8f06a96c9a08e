"""The sampler of networks in training, against a network that is always right and against inference."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import lotus
from lotus.training.config import Train
from lotus.training.networks import build, write_networks
from lotus.training.sampling import sample_latents
from lotus.training.step import Noised, signal_shares


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("prediction", ["x0", "v", "eps"])
def test_a_network_that_is_always_right_gives_the_clean_latent(
    small: Train, prediction: str, steps: int
) -> None:
    clean, noise, condition = torch.randn(3, 2, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    visited = []

    def answer(sample: torch.Tensor, timesteps: torch.Tensor, **_: Any) -> SimpleNamespace:
        visited.append(timesteps.tolist())
        torch.testing.assert_close(sample[:, :4], condition)
        share = signal_shares()[timesteps][:, None, None, None]
        error = (sample[:, 4:] - share.sqrt() * clean) / (1 - share).sqrt()
        return SimpleNamespace(sample=Noised(clean, error, share).target(prediction))

    networks = replace(build(small, torch.device("cpu")), unet=answer)
    switch = torch.zeros(2, dtype=torch.int64)
    found = sample_latents(networks, condition, noise, switch, prediction=prediction, steps=steps)
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)
    assert visited == [[999, 999], [749, 749], [499, 499], [249, 249]][:: 4 // steps][:steps]


def test_several_steps_of_an_x0_network_equal_inference(small: Train, tmp_path: Path) -> None:
    networks = build(replace(small, generative=True), torch.device("cpu"))
    write_networks(networks, tmp_path / "checkpoint", 64)
    model = lotus.load(tmp_path / "checkpoint", "cpu", "float32", steps=3)
    condition, noise = torch.randn(2, 2, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    switch = torch.ones(2, dtype=torch.int64)
    found = sample_latents(networks, condition, noise, switch, prediction="x0", steps=3)
    torch.testing.assert_close(found, model.denoise(condition, noise, 1), rtol=0, atol=1e-4)
