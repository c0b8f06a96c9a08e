"""Stable Diffusion's autoencoder for inference: photo to latent and back, frozen in all of Lotus.

Two things differ from diffusers' forward, and not its numbers beyond rounding. Upsampling is folded into the
convolution behind it. And where memory is short, feature maps are made a few rows at a time: group norms take
the statistics of the whole map and strips overlap by the kernel's reach, so there is nothing to blend.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import nn

from lotus.network import Resnet, fold_blocks, number_format
from lotus.norms import norm_silu

STRIP_BYTES = 2**25  # of a map worked on at once where memory is short
SCORE_BYTES = 2**27  # of queries' products with all keys


class LotusVAE(nn.Module):
    """Encoder and decoder; latents here are unscaled."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        vae.float()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv
        self.scaling, self.latent_channels = float(vae.config.scaling_factor), int(vae.config.latent_channels)
        fold_blocks(self, None)
        for block in self.decoder.up_blocks:
            block.upsamplers = nn.ModuleList(Upsample(each.conv) for each in block.upsamplers or ())
        for half in (self.encoder, self.decoder):
            attentions = half.mid_block.attentions
            half.mid_block.attentions = nn.ModuleList(each and MidAttention(each) for each in attentions)

    def encode(
        self, pixels: Float32[torch.Tensor, "b 3 h w"], in_strips: bool = False
    ) -> Float32[torch.Tensor, "b z2 h8 w8"]:
        """Returns mean and log-variance of the posterior of pictures in [-1, 1].

        Args:
            pixels: The pictures.
            in_strips: Take the least memory, at a little cost of time.
        """
        hidden = self.encoder.conv_in(pixels).to(number_format(self))
        for block in self.encoder.down_blocks:
            for resnet in block.resnets:
                hidden = _resnet_in_strips(resnet, hidden) if in_strips else resnet(hidden)
            for downsample in block.downsamplers or ():
                hidden = downsample(hidden)
        hidden = norm_silu(self.encoder.mid_block(hidden), self.encoder.conv_norm_out)
        moments: torch.Tensor = self.quant_conv(self.encoder.conv_out(hidden.float()))
        return moments

    def decode(
        self, latents: Float32[torch.Tensor, "b z h w"], in_strips: bool = False
    ) -> Float32[torch.Tensor, "b 3 h8 w8"]:
        """Returns pictures, nominally in [-1, 1].

        Args:
            latents: Of the pictures.
            in_strips: Take the least memory, at a little cost of time.
        """
        hidden = self.decoder.conv_in(self.post_quant_conv(latents))
        hidden = self.decoder.mid_block(hidden.to(number_format(self)))
        for block in self.decoder.up_blocks:
            for resnet in block.resnets:
                hidden = _resnet_in_strips(resnet, hidden) if in_strips else resnet(hidden)
            for upsample in block.upsamplers:
                hidden = upsample(hidden, in_strips)
        norm, last = self.decoder.conv_norm_out, self.decoder.conv_out
        if in_strips:
            return convolve_normed(hidden, norm, last.weight, last.bias)
        pictures: torch.Tensor = last(norm_silu(hidden, norm).float())
        return pictures


class MidAttention(nn.Module):
    """Attention with one head, as wide as the map has channels.

    Fused kernels for GPUs want narrower heads; there it is plain products, a few queries at a time.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.norm, self.out = attention.group_norm, attention.to_out[0]
        self.query, self.key, self.value = attention.to_q, attention.to_k, attention.to_v

    def forward(
        self, hidden: Float[torch.Tensor, "b c h w"], temb: None = None
    ) -> Float[torch.Tensor, "b c h w"]:
        """Returns the map with what it attends to added."""
        tokens = norm_silu(hidden, self.norm, is_activated=False).flatten(2).transpose(1, 2)
        query, key, value = self.query(tokens), self.key(tokens), self.value(tokens)
        has_cuda = hidden.is_cuda and torch.version.cuda is not None  # not AMD's
        attend = _attend_in_parts if has_cuda else F.scaled_dot_product_attention
        seen = torch.cat(
            [attend(*(part[None] for part in each)) for each in zip(query, key, value, strict=True)]
        )
        return hidden + self.out(seen).transpose(1, 2).reshape(hidden.shape)


def _attend_in_parts(
    query: Float[torch.Tensor, "1 n c"],
    key: Float[torch.Tensor, "1 n c"],
    value: Float[torch.Tensor, "1 n c"],
) -> Float[torch.Tensor, "1 n c"]:
    """Returns softmax(q k / sqrt(c)) v of one map; what q k takes in memory is bounded."""
    step = max(1, SCORE_BYTES // (4 * key.shape[1]))
    keys = key.transpose(1, 2) * key.shape[2] ** -0.5
    parts = [
        torch.softmax(torch.bmm(part, keys, out_dtype=torch.float32), dim=2).to(value.dtype) @ value
        if part.dtype != torch.float32
        else torch.softmax(part @ keys, dim=2) @ value
        for part in query.split(step, dim=1)
    ]
    return torch.cat(parts, dim=1)


class Upsample(nn.Module):
    """Doubling by nearest neighbour and a 3 x 3 convolution, as four 2 x 2 convolutions of the small map.

    A row of the large map sees two rows of the small one: an even row, with kernel rows (w_0, w_1 + w_2),
    the one above and its own; an odd row, with (w_0 + w_1, w_2), its own and the one below. Columns likewise.
    It takes 4 / 9 of the products.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        taps = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # (parity, small, large)
        kernels = torch.einsum("ocyx,pry,qsx->pqocrs", convolution.weight, taps, taps)
        self.kernels = nn.Parameter(kernels.flatten(0, 2), requires_grad=False)  # (4 d, c, 2, 2)
        assert convolution.bias is not None
        self.biases = nn.Parameter(convolution.bias.repeat(4), requires_grad=False)

    def forward(
        self, hidden: Float[torch.Tensor, "b c h w"], in_strips: bool = False
    ) -> Float[torch.Tensor, "b d h2 w2"]:
        """Returns the map of twice the size."""
        batch, _, height, width = hidden.shape
        channels = len(self.biases) // 4
        outer = _empty_like(hidden, (batch, channels, 2 * height, 2 * width))
        padded = F.pad(hidden, (1, 1, 1, 1))
        for rows in _strips(outer[:, :, ::2]) if in_strips else (slice(0, height),):
            seen = padded[:, :, rows.start : rows.stop + 2]
            parities = F.conv2d(seen, self.kernels, self.biases)  # with a row and a column too many
            large = outer[:, :, 2 * rows.start : 2 * rows.stop]
            for index, part in enumerate(parities.split(channels, dim=1)):
                row, column = divmod(index, 2)
                below = row + rows.stop - rows.start
                large[:, :, row::2, column::2] = part[:, :, row:below, column : column + width]
        return outer


def _resnet_in_strips(
    block: Resnet, hidden: Float[torch.Tensor, "b c h w"]
) -> Float[torch.Tensor, "b d h w"]:
    """Returns a residual block's output; besides it and the input there are only strips in memory."""
    inner = convolve_normed(hidden, block.norm1, block.conv1.weight, block.biases[0])
    outer = convolve_normed(inner, block.norm2, block.conv2.weight, block.conv2.bias, out=inner)
    for rows in _strips(hidden):
        part = hidden[:, :, rows]
        outer[:, :, rows] += part if block.shortcut is None else block.shortcut(part)
    return outer


def convolve_normed(
    hidden: Float[torch.Tensor, "b c h w"],
    norm: nn.GroupNorm,
    kernel: Float[torch.Tensor, "d c 3 3"],
    bias: Float[torch.Tensor, "d"],
    *,
    out: Float[torch.Tensor, "b d h w"] | None = None,
) -> Float[torch.Tensor, "b d h w"]:
    """Returns the convolution of silu(norm(hidden)), strip by strip; `out` may be `hidden` itself."""
    slope, shift = _norm_line(hidden, norm)
    batch, _, height, width = hidden.shape
    if out is None:
        out = _empty_like(hidden, (batch, len(kernel), height, width), kernel.dtype)
    above = hidden.new_zeros(batch, hidden.shape[1], 1, width)  # what the kernel sees beyond the border
    beyond = above
    for rows in _strips(hidden):
        seen = hidden[:, :, rows.start : rows.stop + 1]
        seen = F.silu((seen * slope).add_(shift), inplace=True)
        part = torch.cat([above, seen] if rows.stop < height else [above, seen, beyond], dim=2)
        above = seen[:, :, rows.stop - rows.start - 1 :][:, :, :1].clone()
        out[:, :, rows] = F.conv2d(part.to(kernel.dtype), kernel, bias, padding=(0, 1))
    return out


def _norm_line(
    hidden: Float[torch.Tensor, "b c h w"], norm: nn.GroupNorm
) -> tuple[Float[torch.Tensor, "b c 1 1"], Float[torch.Tensor, "b c 1 1"]]:
    """Returns slope and shift that a group norm applies to each channel, from the whole map."""
    batch, channels = hidden.shape[:2]
    means, squares, weights = [], [], []
    for rows in _strips(hidden):
        part = hidden[:, :, rows].float().reshape(batch, norm.num_groups, -1)
        variance, mean = torch.var_mean(part, dim=2, correction=0)
        means.append(mean)
        squares.append(variance)
        weights.append(float(rows.stop - rows.start))
    share = torch.tensor(weights, device=hidden.device)[:, None, None] / sum(weights)
    mean = (share * torch.stack(means)).sum(0)
    variance = (share * (torch.stack(squares) + (torch.stack(means) - mean) ** 2)).sum(0)
    each = channels // norm.num_groups
    slope = norm.weight * (variance + norm.eps).rsqrt().repeat_interleave(each, dim=1)
    shift = norm.bias - slope * mean.repeat_interleave(each, dim=1)
    return slope[..., None, None].to(hidden.dtype), shift[..., None, None].to(hidden.dtype)


def _strips(hidden: Float[torch.Tensor, "b c h w"]) -> list[slice]:
    height = hidden.shape[2]
    step = max(1, STRIP_BYTES * height // (hidden.numel() * hidden.element_size()))
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]


def _empty_like(
    hidden: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Returns room for another map in the memory format of `hidden`."""
    last = hidden.is_contiguous(memory_format=torch.channels_last) and hidden.shape[1] > 1
    form = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or hidden.dtype, device=hidden.device, memory_format=form)
