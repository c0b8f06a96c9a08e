"""The loss of a step against its formula, worked out with plain diffusers calls or by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lotus.training.config import Loss, Train
from lotus.training.encoding import Batch, Pictures, encode, make_batch
from lotus.training.networks import Networks, build
from lotus.training.shards import pack
from lotus.training.step import (
    Noised,
    batch_loss,
    clean_from,
    draw_timesteps,
    masked_mean,
    pixel_losses,
    signal_shares,
)
from tests.lotus.training.conftest import SIZE, picture_of_a_plane


def batch_of(options: Train, count: int = 4) -> tuple[Networks, Batch]:
    networks = build(options, torch.device("cpu"))
    arrays = pack([picture_of_a_plane(index, SIZE) for index in range(count)])
    encoded = encode(arrays, networks, options.loss.norm_type)
    return networks, make_batch(arrays, encoded, networks, options, np.random.default_rng(0))


def test_masked_mean_by_hand() -> None:
    error = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2)
    assert masked_mean(error, torch.tensor([[[[True, False]]]])) == 2.0
    assert masked_mean(error, torch.zeros(1, 1, 1, 2, dtype=torch.bool)) == 0.0


def test_loss_of_d_is_two_means_of_plain_unet_calls(small: Train) -> None:
    options = replace(small, tasks=("disparity",), loss=Loss(reconstruction=0.5))
    networks, batch = batch_of(options)
    batch.valid[0, 0, 0] = False
    total, parts = batch_loss(networks, batch, options, torch.Generator().manual_seed(0))
    prompt, time = networks.prompt[None].expand(4, -1, -1), torch.tensor(999)
    annotate = torch.tensor([[0.84147098, 0.0, 0.54030231, 1.0]]).expand(4, -1)
    reconstruct = torch.tensor([[0.0, 0.84147098, 1.0, 0.54030231]]).expand(4, -1)
    drawn = networks.unet(batch.photo, time, prompt, class_labels=annotate).sample
    again = networks.unet(batch.photo, time, prompt, class_labels=reconstruct).sample
    error = (drawn - batch.targets).square()[batch.valid.expand(-1, 4, -1, -1)]
    assert parts["annotation"] == pytest.approx(error.mean().item(), rel=1e-5)
    assert parts["reconstruction"] == pytest.approx(
        0.5 * (again - batch.photo).square().mean().item(), rel=1e-5
    )
    assert total.item() == pytest.approx(sum(parts.values()), rel=1e-6)


def test_g_sees_6_8_percent_of_the_target_beside_noise(small: Train) -> None:
    assert signal_shares()[999].sqrt().item() == pytest.approx(0.0682649, rel=1e-5)
    clean, noise = torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), -1.0)
    noised = Noised(clean, noise, signal_shares()[999].reshape(1, 1, 1, 1))
    assert noised.noisy()[0, 0, 0, 0].item() == pytest.approx(2 * 0.0682649 - 0.9976673, rel=1e-5)


@pytest.mark.parametrize("prediction", ["x0", "v", "eps"])
def test_each_prediction_gives_the_clean_latent_back(prediction: str) -> None:
    clean, noise = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    noised = Noised(clean, noise, signal_shares()[[400, 700]].reshape(2, 1, 1, 1))
    found = clean_from(noised.target(prediction), noised.noisy(), noised.share, prediction)
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-4)


def test_one_timestep_is_the_last_and_several_are_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    assert draw_timesteps(5, 1, generator).tolist() == [999] * 5
    assert set(draw_timesteps(200, 4, generator).tolist()) == {249, 499, 749, 999}


def test_a_joint_model_draws_tasks_in_turn_behind_three_switches(small: Train) -> None:
    networks, batch = batch_of(small)
    assert sorted(batch.tasks.tolist()) == [0, 0, 1, 1]
    arrays = pack([picture_of_a_plane(index, SIZE) for index in range(4)])
    encoded = encode(arrays, networks, "trunc_disparity")
    for row, task in enumerate(batch.tasks.tolist()):
        expected = torch.from_numpy(encoded[("disparity", "normal")[task]][row]).float()
        torch.testing.assert_close(batch.targets[row], expected)
    assert networks.unet.config.projection_class_embeddings_input_dim == 6


def test_pixel_losses_vanish_on_what_the_decoder_draws(small: Train) -> None:
    options = replace(small, loss=Loss(pixel_rows=4, pixel_crop=2))
    networks, batch = batch_of(options)
    assert batch.pictures is not None
    assert len(batch.pictures.rows) == len(batch.pictures.columns) == 2
    part = batch.targets[:, :, batch.pictures.rows][..., batch.pictures.columns]
    with torch.no_grad():
        drawn = networks.vae.decode(part).sample
    same = batch.pictures._replace(drawn=drawn)
    parts = pixel_losses(networks, same, batch.targets, options.loss)
    assert {name: pytest.approx(0, abs=1e-5) for name in ("pixel", "slope", "normal")} == parts


@pytest.mark.parametrize(("angle", "expected"), [(0, 0.0), (60, 0.495), (180, 0.995)])
def test_normals_count_by_the_sine_of_half_their_angle(angle: float, expected: float) -> None:
    turned = torch.tensor([math.sin(math.radians(angle)), 0, math.cos(math.radians(angle))])
    pictures = Pictures(
        *(torch.arange(2), torch.arange(2)),
        turned[None, :, None, None].expand(1, 3, 16, 16),
        torch.ones(1, 1, 16, 16, dtype=torch.bool),
        torch.ones(1, dtype=torch.bool),
    )
    along_z = torch.tensor([0.0, 0, 2])[None, :, None, None].expand(1, 3, 16, 16)
    vae = SimpleNamespace(
        config=SimpleNamespace(scaling_factor=1.0), decode=lambda _: SimpleNamespace(sample=along_z)
    )
    networks = Networks(None, vae, None, torch.zeros(2, 1), None, ("normal",))
    parts = pixel_losses(networks, pictures, torch.zeros(1, 4, 2, 2), Loss(normal=3.0))
    assert parts == {"normal": pytest.approx(3 * expected, abs=1e-4)}


def test_loss_falls_on_a_few_pictures(small: Train) -> None:
    networks, batch = batch_of(small)
    optimizer = torch.optim.AdamW(networks.unet.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss, _ = batch_loss(networks, batch, small, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
