"""An encoder that needs no training: principal components of 8 x 8 patches, as weights of an `AutoencoderKL`.

With residual branches silent, that encoder is a chain of linear maps: its stride-2 convolutions see disjoint
2 x 2 blocks (they are padded at the right and bottom only), so each can keep the principal components of its
blocks, a wavelet-like transform with as many channels as the level has. The last normalisation and SiLU stand
in the way: constant channels that outweigh all others make the group norm a constant scale, and each
component goes with its negative, for silu(y) - silu(-y) = y. The decoder starts as the mean colour of each
patch, made in the same way, with the rest of its channels at random. So a small autoencoder's latents are
fixed from the start and only its decoder has to learn; squared errors of latents are squared errors of
pictures, detail enhanced.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

CONSTANT = 60.0  # of the channels that fix the norm, in standard deviations of a component
ANCHOR = 8.0  # the same of the decoder, where 1 is white
UNUSED = 0.3  # of a random weight is left beside copied channels, for the training to use
WHITENING = 0.25  # power of its standard deviation that a component is divided by: between PCA and white


@torch.no_grad()
def make_linear(vae: Any, pictures: Float32[torch.Tensor, "b 3 h w"], noise: float) -> None:
    """Sets the encoder's weights in place from pictures in [-1, 1].

    Args:
        vae: With one residual block per level, one group per norm, 8 channels at the first level, at least as
            many as the latent at the others, and at least 2.5 times as many at the last.
        pictures: A few hundred, of all kinds that will be encoded; sides are multiples of 8.
        noise: Standard deviation that the posterior is to have.
    """
    encoder, latent = vae.encoder, int(vae.config.latent_channels)
    for part in vae.modules():
        if hasattr(part, "conv2") and hasattr(part, "norm2"):  # residual blocks add nothing at first
            part.conv2.weight.zero_()
            part.conv2.bias.zero_()
    _pass_through(encoder.conv_in)
    maps = pictures
    for block in encoder.down_blocks[:-1]:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                _pass_through(resnet.conv_shortcut)
        kernel = block.downsamplers[0].conv
        basis, _ = _components(maps, kernel.weight.shape[0])
        kernel.weight.zero_()
        kernel.bias.zero_()
        kernel.weight[: len(basis), : maps.shape[1], :2, :2] = basis
        maps = torch.nn.functional.conv2d(maps, basis, stride=2)
    _expand(encoder, maps, latent)
    _collapse(vae, latent, noise)
    _start_decoder(vae, pictures)


def _components(
    maps: Float32[torch.Tensor, "b c h w"], most: int
) -> tuple[Float32[torch.Tensor, "k c 2 2"], Float32[torch.Tensor, "k"]]:
    """Returns the principal directions of 2 x 2 blocks about 0, and their root mean squares."""
    blocks = maps.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    values, vectors = np.linalg.eigh((blocks.T @ blocks / len(blocks)).double().numpy())
    order = np.argsort(values)[::-1][:most]
    basis = torch.from_numpy(vectors[:, order].T.copy()).float().reshape(-1, maps.shape[1], 2, 2)
    return basis, torch.from_numpy(values[order].clip(0)).sqrt().float()


def _pass_through(convolution: Any, count: int | None = None, unused: float = 0.0) -> None:
    """Makes a convolution copy its first inputs to its first channels; others keep part of their weights."""
    count = count or min(convolution.weight.shape[:2])
    convolution.weight *= unused
    convolution.bias.zero_()
    convolution.weight[:count] = 0
    middle = convolution.weight.shape[2] // 2
    for channel in range(count):
        convolution.weight[channel, channel, middle, middle] = 1


def _expand(encoder: Any, maps: Float32[torch.Tensor, "b c h w"], latent: int) -> None:
    """Gives each group of the last norm its components, their negatives, and constants of both signs."""
    shortcut, groups = encoder.down_blocks[-1].resnets[0].conv_shortcut, encoder.conv_norm_out.num_groups
    size, own = shortcut.weight.shape[0] // groups, latent // groups
    scale = maps.square().mean(dim=(0, 2, 3)).sqrt()[:latent] ** -WHITENING
    constants = size - 2 * own
    assert constants >= 2, "too few channels at the last level for the latent"
    shortcut.weight.zero_()
    shortcut.bias.zero_()
    for group in range(groups):
        start = group * size
        for index in range(own):
            channel = group * own + index
            shortcut.weight[start + 2 * index, channel] = scale[channel]
            shortcut.weight[start + 2 * index + 1, channel] = -scale[channel]
        signs = torch.tensor([1.0, -1.0]).repeat(constants // 2)
        shortcut.bias[start + 2 * own : start + 2 * own + len(signs)] = CONSTANT * signs
    deviation = CONSTANT * (2 * (constants // 2) / size) ** 0.5
    encoder.conv_norm_out.weight.fill_(deviation)
    encoder.conv_norm_out.bias.zero_()


def _collapse(vae: Any, latent: int, noise: float) -> None:
    """Takes the differences of the pairs as means, and a constant as log-variance."""
    encoder, groups = vae.encoder, vae.encoder.conv_norm_out.num_groups
    size, own = encoder.conv_out.weight.shape[1] // groups, latent // groups
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    for channel in range(latent):
        start = (channel // own) * size + 2 * (channel % own)
        encoder.conv_out.weight[channel, start, 1, 1] = 1
        encoder.conv_out.weight[channel, start + 1, 1, 1] = -1
    encoder.conv_out.bias[latent:] = 2 * float(np.log(noise))
    _pass_through(vae.quant_conv)


def _start_decoder(vae: Any, pictures: Float32[torch.Tensor, "b 3 h w"]) -> None:
    """Makes the decoder draw the mean colour of every patch, as a linear function of the latent."""
    decoder, latent = vae.decoder, int(vae.config.latent_channels)
    _pass_through(vae.post_quant_conv)
    _pass_through(decoder.conv_in, latent, UNUSED)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None and block is not decoder.up_blocks[-1]:
                _pass_through(resnet.conv_shortcut, latent, UNUSED)
        for upsample in block.upsamplers or ():
            _pass_through(upsample.conv, latent, UNUSED)
    codes = vae.encode(pictures).latent_dist.mode().permute(0, 2, 3, 1).flatten(0, 2)
    means = torch.nn.functional.avg_pool2d(pictures, 8).permute(0, 2, 3, 1).flatten(0, 2)
    colours = torch.linalg.lstsq(codes, means).solution.T  # (3, z)
    last, norm = decoder.up_blocks[-1].resnets[0].conv_shortcut, decoder.conv_norm_out
    last.weight.zero_()
    last.bias.zero_()
    last.weight[0:6:2, :latent, 0, 0] = colours
    last.weight[1:6:2, :latent, 0, 0] = -colours
    last.bias[6], last.bias[7] = ANCHOR, -ANCHOR
    norm.weight.fill_(ANCHOR * (2 / len(norm.weight)) ** 0.5)
    norm.bias.zero_()
    decoder.conv_out.weight.zero_()
    decoder.conv_out.bias.zero_()
    for colour in range(3):
        decoder.conv_out.weight[colour, 2 * colour, 1, 1] = 1
        decoder.conv_out.weight[colour, 2 * colour + 1, 1, 1] = -1


def skip_silent(encoder: Any) -> None:
    """Makes an encoder's residual blocks that add nothing cost nothing; in place, its weights stay.

    Args:
        encoder: Of a frozen `AutoencoderKL`.
    """
    from diffusers.models.resnet import ResnetBlock2D

    blocks: list[Any] = [part for part in encoder.modules() if isinstance(part, ResnetBlock2D)]
    for block in blocks:
        if not block.conv2.weight.any() and not block.conv2.bias.any():
            assert block.output_scale_factor == 1
            block.forward = partial(_shortcut, block)


def _shortcut(block: Any, hidden: torch.Tensor, temb: torch.Tensor | None = None) -> torch.Tensor:
    """Returns what goes past a residual block."""
    found: torch.Tensor = hidden if block.conv_shortcut is None else block.conv_shortcut(hidden)
    return found
