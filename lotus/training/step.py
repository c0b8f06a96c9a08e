"""One step of Lotus's training: the loss of a batch (He et al. 2024, section 4; `train_lotus_g.py`).

At one fixed timestep the UNet maps the photo's latent (beside the noisy target, for G) to the clean latent of
the annotation; behind another switch it gives the photo's own latent back (the detail preserver):

    L = w mean_valid |f(x, annotate) - z_annotation|^2 + w_r mean |f(x, reconstruct) - z_photo|^2

For the paper's ablations the target can be the noise (eps) or the velocity v = sqrt(a) eps - sqrt(1 - a) z,
and the timestep drawn. For a small model whose decoder is cheap, the decoded maps can be compared as well.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64

from lotus.model import signal_share
from lotus.network import TIMESTEPS, sampling_timesteps, task_vectors
from lotus.training.config import Loss, Train
from lotus.training.encoding import NORMAL, Batch, Pictures
from lotus.training.networks import Networks

NORMAL_FLOOR = 0.005  # of the sine of half the angle of normals: it has no slope at 0

Numbers = dict[str, float]


@dataclass(frozen=True)
class Noised:
    """Clean latents and, for G, what the UNet sees of them."""

    clean: Float32[torch.Tensor, "b z h w"]
    noise: Float32[torch.Tensor, "b z h w"] | None
    share: Float32[torch.Tensor, "b 1 1 1"]
    """The signal's share of the variance, a."""

    def noisy(self) -> Float32[torch.Tensor, "b z h w"]:
        """Returns sqrt(a) z + sqrt(1 - a) eps."""
        assert self.noise is not None
        return self.share.sqrt() * self.clean + (1 - self.share).sqrt() * self.noise

    def target(self, prediction: str) -> Float32[torch.Tensor, "b z h w"]:
        """Returns what the UNet's output is compared with."""
        if prediction == "x0":
            return self.clean
        assert self.noise is not None
        if prediction == "eps":
            return self.noise
        return self.share.sqrt() * self.noise - (1 - self.share).sqrt() * self.clean


def clean_from(
    output: Float32[torch.Tensor, "b z h w"],
    noisy: Float32[torch.Tensor, "b z h w"] | None,
    share: Float32[torch.Tensor, "b 1 1 1"],
    prediction: str,
) -> Float32[torch.Tensor, "b z h w"]:
    """Returns the clean latent that an output means: the inverse of `Noised.target`."""
    if prediction == "x0":
        return output
    assert noisy is not None
    if prediction == "eps":
        return (noisy - (1 - share).sqrt() * output) / share.sqrt()
    return share.sqrt() * noisy - (1 - share).sqrt() * output


class Feed(NamedTuple):
    """What the loss of a batch reads: tensors on one device, of the same shapes in every batch of a size."""

    photo: Float32[torch.Tensor, "b z h w"]
    targets: Float32[torch.Tensor, "a z h w"]
    """Of rows that annotate: one per photo, or the same number for each, one photo after the other."""

    valid: Bool[torch.Tensor, "a 1 h w"]
    switch: Float32[torch.Tensor, "r s"]
    """Class vector of each row; rows after the first a reconstruct the first photos."""

    timesteps: Int64[torch.Tensor, "r"]
    share: Float32[torch.Tensor, "r 1 1 1"]
    noise: Float32[torch.Tensor, "r z h w"] | None
    features: tuple[torch.Tensor, ...]
    pixels: Float32[torch.Tensor, "b 3 h8 w8"] | None
    pictures: Pictures | None


def feed_of(networks: Networks, batch: Batch, options: Train, generator: torch.Generator) -> Feed:
    """Returns what the loss of a batch reads, with noise and timesteps drawn.

    Args:
        networks: Which are trained.
        batch: Rows that annotate; the first of them reconstruct, too.
        options: The training.
        generator: On the CPU, so that every device draws the same noise and timesteps.
    """
    weights, count, device = options.loss, len(batch.targets), batch.photo.device
    again = min(len(batch.photo), round(count * weights.reconstruction_rows)) if weights.reconstruction else 0
    switch = torch.cat([batch.tasks, batch.tasks.new_full((again,), len(networks.tasks))])
    timesteps = draw_timesteps(len(switch), weights.timesteps, generator)
    shape = (len(switch), *batch.targets.shape[1:])
    return Feed(
        batch.photo,
        batch.targets,
        batch.valid,
        task_vectors(len(networks.tasks) + 1).to(device)[switch],
        timesteps.to(device),
        signal_shares()[timesteps][:, None, None, None].to(device),
        torch.randn(shape, generator=generator).to(device) if options.generative else None,
        batch.features,
        batch.pixels,
        batch.pictures,
    )


def batch_loss(
    networks: Networks, batch: Batch, options: Train, generator: torch.Generator
) -> tuple[torch.Tensor, Numbers]:
    """Returns the loss of a batch and its parts; arguments as of `feed_of`."""
    names, parts = stacked_parts(networks, feed_of(networks, batch, options, generator), options)
    return parts.sum(), dict(zip(names, parts.tolist(), strict=True))


def stacked_parts(
    networks: Networks, feed: Feed, options: Train
) -> tuple[tuple[str, ...], Float32[torch.Tensor, "k"]]:
    """Returns the names of `loss_parts` and their values."""
    parts = loss_parts(networks, feed, options)
    return tuple(parts), torch.stack(list(parts.values()))


def loss_parts(networks: Networks, feed: Feed, options: Train) -> dict[str, torch.Tensor]:
    """Returns the parts of a batch's loss, which is their sum; never waits for the device."""
    weights, count = options.loss, len(feed.targets)
    again = len(feed.switch) - count
    noised = Noised(torch.cat([feed.targets, feed.photo[:again]]), feed.noise, feed.share)
    kind = feed.photo.device.type
    with torch.autocast(
        kind, _dtype(options), enabled=options.precision != "float32", cache_enabled=kind != "cuda"
    ):
        condition = condition_of(networks, feed)
        rows = condition.repeat_interleave(count // len(condition), dim=0)
        condition = torch.cat([rows, condition[:again]])
        sample = torch.cat([condition, noised.noisy()], dim=1) if options.generative else condition
        output = forward(networks, sample, feed.switch, feed.timesteps)
    output = output.float()
    error = (output - noised.target(weights.prediction)).square()
    parts = {"annotation": weights.latent * masked_mean(error[:count], feed.valid)}
    if again:
        parts["reconstruction"] = weights.reconstruction * error[count:].mean()
    if feed.pictures is not None:
        first = slice(0, len(feed.pictures.drawn))
        noisy = noised.noisy()[first] if options.generative else None
        found = clean_from(output[first], noisy, feed.share[first], weights.prediction)
        parts |= pixel_losses(networks, feed.pictures, found, weights)
    return parts


def condition_of(networks: Networks, batch: Batch | Feed) -> Float[torch.Tensor, "b c h w"]:
    """Returns what the UNet sees of the photos: latents, and projected features if there are any."""
    if networks.image_encoder is None:
        return batch.photo
    features = batch.features
    if batch.pixels is not None:
        features = networks.image_encoder.features(batch.pixels)
    return torch.cat([batch.photo, networks.image_encoder.project(features)], dim=1)


def forward(
    networks: Networks,
    sample: Float[torch.Tensor, "b c h w"],
    switch: Float32[torch.Tensor, "b s"],
    timesteps: Int64[torch.Tensor, "b"],
) -> Float[torch.Tensor, "b z h w"]:
    """Returns the UNet's output, behind the switch of each row, with the empty prompt."""
    prompt = networks.prompt[None].expand(len(sample), -1, -1)
    output: torch.Tensor = networks.unet(
        sample, timesteps, encoder_hidden_states=prompt, class_labels=switch
    ).sample
    return output


def masked_mean(
    error: Float32[torch.Tensor, "b z h w"], valid: Bool[torch.Tensor, "b 1 h w"]
) -> Float32[torch.Tensor, ""]:
    """Returns the mean over the cells that count, in all channels; 0 if none does."""
    weight = valid.to(error.dtype)
    return (error * weight).sum() / (weight.sum() * error.shape[1]).clamp(min=1)


def pixel_losses(
    networks: Networks, pictures: Pictures, latents: Float32[torch.Tensor, "p z h w"], weights: Loss
) -> dict[str, torch.Tensor]:
    """Returns errors of the decoded maps: L1 and L1 of slopes of depth, sine of half the angle of normals.

    The sine of half the angle is nearly the angle itself, whose mean it brings down; 1 - cosine, nearly its
    square, has edges drawn as means of both sides.
    """
    drawn, known, turned = pictures.drawn, pictures.known, pictures.turned[:, None, None, None]
    part = latents.index_select(2, pictures.rows).index_select(3, pictures.columns)
    found = networks.vae.decode(part / networks.vae.config.scaling_factor).sample
    parts = {}
    if networks.tasks != (NORMAL,):
        true, counts = drawn.mean(dim=1, keepdim=True), known & ~turned
        error = found.mean(dim=1, keepdim=True) - true
        parts["pixel"] = weights.pixel * masked_mean(
            error.abs() * relative_weight(true, weights.pixel_floor), counts
        )
        down = masked_mean((error[:, :, 1:] - error[:, :, :-1]).abs(), counts[:, :, 1:] & counts[:, :, :-1])
        right = masked_mean((error[..., 1:] - error[..., :-1]).abs(), counts[..., 1:] & counts[..., :-1])
        parts["slope"] = weights.pixel_gradient * (down + right)
    if NORMAL in networks.tasks:
        parts["normal"] = weights.normal * masked_mean(half_angle_sine(found, drawn), known & turned)
    return parts


def half_angle_sine(
    found: Float32[torch.Tensor, "p 3 h w"], drawn: Float32[torch.Tensor, "p 3 h w"]
) -> Float32[torch.Tensor, "p 1 h w"]:
    """Returns the sine of half the angle between drawn normals, rounded off near 0."""
    cosine = F.cosine_similarity(found, drawn, dim=1)[:, None]
    return ((1 - cosine).clamp(min=0) / 2 + NORMAL_FLOOR**2).sqrt() - NORMAL_FLOOR


def relative_weight(drawn: Float32[torch.Tensor, "p 1 h w"], floor: float) -> Float32[torch.Tensor, "..."]:
    """Returns the weight of each pixel of drawn disparity, 1 / (disparity + floor) with a mean of 1."""
    if not floor:
        return drawn.new_ones(())
    return 1 / (0.5 * (drawn + 1) + floor) / math.log((1 + floor) / floor)


def draw_timesteps(count: int, trained: int, generator: torch.Generator) -> Int64[torch.Tensor, "b"]:
    """Returns a trained timestep per row: always the last if only one is trained."""
    choices = torch.tensor(sampling_timesteps(trained))
    return choices[torch.randint(trained, (count,), generator=generator)]


@lru_cache(maxsize=1)
def signal_shares() -> Float32[torch.Tensor, "t"]:
    """Returns a of every timestep."""
    return torch.tensor([signal_share(timestep) for timestep in range(TIMESTEPS)], dtype=torch.float32)


def _dtype(options: Train) -> torch.dtype:
    found: torch.dtype = getattr(torch, options.precision)
    return found
