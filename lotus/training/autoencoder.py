"""A small autoencoder for pictures, disparity and normals: one step of its training.

Stable Diffusion's is trained on photos with adversarial losses; this one sees what Lotus draws, too, and
minimises |x - D(z)| + half of the same of differences of pixels one and two apart. z is the encoder's mean
plus noise of fixed size, so that small errors of a UNet in the latent stay small in the picture; a weak
penalty on z^2 keeps an encoder that learns from growing its code away from the noise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from lotus.training.config import Train
from lotus.training.shards import NORMAL_LEVELS, read_arrays
from lotus.training.targets import draw_normals, draw_values, value_range

NOISE = 0.1  # standard deviation added to unscaled latents; the log-variance that is saved says so
PENALTY = 1e-3  # of z^2
CROP = 64  # px
KINDS = ("image", "image", "disparity", "normals")  # half of a batch is photos
STATISTICS_SHARDS, STATISTICS_ROWS, STATISTICS_CROP = 8, 16, 96  # pictures that statistics are made of


def draw_batch(files: Sequence[Path], options: Train, step: int) -> Float32[torch.Tensor, "b 3 h w"]:
    """Returns crops of photos, drawn disparity and normals of shards, in [-1, 1]; chosen by the step."""
    rng = np.random.default_rng((options.seed, step))
    file = files[int(rng.integers(len(files)))]
    count = options.batch_size
    first = int(rng.integers(max(1, options.data.shard_size - count + 1)))
    arrays = read_arrays(file, ("image", "disparity", "normals"), slice(first, first + count))
    crops = []
    for row in range(len(arrays["image"])):
        picture = picture_of({name: values[row] for name, values in arrays.items()}, KINDS[row % len(KINDS)])
        top, left = (int(rng.integers(max(1, side - CROP + 1))) for side in picture.shape[:2])
        crops.append(picture[top : top + CROP, left : left + CROP])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def draw_pictures(files: Sequence[Path]) -> Float32[torch.Tensor, "b 3 h w"]:
    """Returns corners of the first shards' first photos, drawn disparity and normals, in [-1, 1]."""
    crops = []
    for file in files[:STATISTICS_SHARDS]:
        arrays = read_arrays(file, ("image", "disparity", "normals"), slice(0, STATISTICS_ROWS))
        for row in range(len(arrays["image"])):
            picture = picture_of({k: v[row] for k, v in arrays.items()}, KINDS[1 + row % 3])
            crops.append(torch.from_numpy(picture[:STATISTICS_CROP, :STATISTICS_CROP]).permute(2, 0, 1))
    return torch.stack(crops)


def picture_of(sample: dict[str, np.ndarray], kind: str) -> Float32[np.ndarray, "h w 3"]:
    """Returns a photo, or disparity or normals as Lotus draws them."""
    if kind == "image":
        return sample["image"].astype(np.float32) / 127.5 - 1
    if kind == "normals":
        return draw_normals(sample["normals"] / np.float32(NORMAL_LEVELS))
    values = sample["disparity"].astype(np.float32)
    known = values > 0
    limits = value_range(values, known, "trunc_disparity")
    return np.repeat(draw_values(values, known, limits, is_disparity=True)[..., None], 3, axis=2)


def loss(
    vae: Any, pictures: Float32[torch.Tensor, "b 3 h w"], generator: torch.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """Returns the loss of a batch, and its parts."""
    means = vae.encode(pictures).latent_dist.mode()
    noise = torch.randn(means.shape, generator=generator).to(means)
    drawn = vae.decode(means + NOISE * noise).sample
    error = drawn - pictures
    plain = error.abs().mean()
    slopes = sum(
        (error[..., d:, :] - error[..., :-d, :]).abs().mean()
        + (error[..., d:] - error[..., :-d]).abs().mean()
        for d in (1, 2)
    )
    size = means.square().mean()
    total = plain + 0.5 * slopes + PENALTY * size
    return total, {"l1": plain.item(), "slopes": slopes.item(), "size": size.item()}


@torch.no_grad()
def finish(vae: Any, files: Sequence[Path]) -> None:
    """Sets what the published config holds: the latents' scale, and the variance that training used."""
    channels = int(vae.config.latent_channels)
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = 2 * np.log(NOISE)
    latents = vae.encode(draw_pictures(files).to(vae.device)).latent_dist.mode()
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
