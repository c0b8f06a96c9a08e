"""UNet and VAE of Lotus for inference, made of diffusers' blocks, with all constants folded in.

Timestep, task vector and prompt never change, so their embeddings are computed once. In half precision the
first and the last layer of each network stay float32: they cost little, and their rounding would be visible
as steps in the map.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from jaxtyping import Float, Float32
from torch import nn

from recon.errors import InputError

TIMESTEP = 999  # the only step that Lotus was trained for, index of "t = T"
FLOAT32_LAYERS = ("conv_in", "conv_out", "quant_conv", "post_quant_conv")

Module = TypeVar("Module", bound=nn.Module)


class TwoTokenAttention(nn.Module):
    """Cross-attention to two constant tokens, as two small matrices.

    With two keys the softmax is a sigmoid of a linear function of the query: per head h, with
    a_h = scale * W_q,h^T (k_0 - k_1) and p_h = sigmoid(a_h . x), the layer is
    y = W_o v_1 + b_o + sum_h p_h W_o,h (v_0 - v_1). It equals the original up to rounding, without its four
    projections.
    """

    def __init__(self, attention: Any, tokens: Float[torch.Tensor, "2 t"]) -> None:
        super().__init__()
        heads, output = attention.heads, attention.to_out[0]
        keys, values = attention.to_k(tokens), attention.to_v(tokens)  # (2, heads * size)
        size = keys.shape[1] // heads
        queries = attention.to_q.weight.reshape(heads, size, -1)
        difference = (keys[0] - keys[1]).reshape(heads, size)
        weight = torch.einsum("hsc,hs->hc", queries, difference) * attention.scale
        outputs = output.weight.reshape(-1, heads, size)
        directions = torch.einsum("chs,hs->ch", outputs, (values[0] - values[1]).reshape(heads, size))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.directions = nn.Parameter(directions, requires_grad=False)
        self.origin = nn.Parameter(output(values[1]), requires_grad=False)

    def forward(self, hidden_states: Float[torch.Tensor, "b n c"], **_: Any) -> Float[torch.Tensor, "b n c"]:
        """Returns the attention's output; diffusers' other arguments have no effect with constant tokens."""
        share = torch.sigmoid(F.linear(hidden_states, self.weight))
        return F.linear(share, self.directions, self.origin)


class LotusUNet(nn.Module):
    """The UNet with timestep, task vector and prompt folded in; made of the blocks of diffusers' UNet."""

    def __init__(self, unet: Any, prompt: Float32[torch.Tensor, "2 t"]) -> None:
        super().__init__()
        if prompt.shape[1] != unet.config.cross_attention_dim:
            raise InputError(
                f"the text encoder has {prompt.shape[1]} channels, "
                f"the UNet's cross_attention_dim is {unet.config.cross_attention_dim}"
            )
        unet.float()  # constants are folded in full precision, whatever the file holds
        self.in_channels = int(unet.config.in_channels)
        self.conv_in, self.conv_norm_out, self.conv_out = unet.conv_in, unet.conv_norm_out, unet.conv_out
        self.down_blocks, self.mid_block, self.up_blocks = unet.down_blocks, unet.mid_block, unet.up_blocks
        self.switches = nn.Buffer(_switch_embeddings(unet))  # (2, c)
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock):
                block.add_module("attn2", TwoTokenAttention(block.attn2, prompt))

    def forward(
        self, sample: Float32[torch.Tensor, "b c h w"], switch: int
    ) -> Float32[torch.Tensor, "b 4 h w"]:
        """Returns the clean latent of the annotation (switch 0) or of the photo itself (switch 1)."""
        embedding = self.switches[switch][None]
        hidden = self.conv_in(sample).to(embedding.dtype)
        skips: tuple[torch.Tensor, ...] = (hidden,)
        for block in self.down_blocks:
            hidden, outputs = block(hidden_states=hidden, temb=embedding)
            skips += outputs
        hidden = self.mid_block(hidden, embedding)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, used = skips[:-count], skips[-count:]
            size = skips[-1].shape[2:] if skips else None  # odd sides were rounded up on the way down
            hidden = block(
                hidden_states=hidden, temb=embedding, res_hidden_states_tuple=used, upsample_size=size
            )
        latents: torch.Tensor = self.conv_out(F.silu(self.conv_norm_out(hidden)).float())
        return latents


class LotusVAE(nn.Module):
    """Stable Diffusion's autoencoder, frozen in all of Lotus; latents here are unscaled."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv
        self.scaling = float(vae.config.scaling_factor)

    def encode(self, pixels: Float32[torch.Tensor, "b 3 h w"]) -> Float32[torch.Tensor, "b 8 h8 w8"]:
        """Returns mean and log-variance of the posterior of pictures in [-1, 1]."""
        hidden = self.encoder.conv_in(pixels).to(_dtype(self.encoder.mid_block))
        for block in self.encoder.down_blocks:
            hidden = block(hidden)
        hidden = F.silu(self.encoder.conv_norm_out(self.encoder.mid_block(hidden)))
        moments: torch.Tensor = self.quant_conv(self.encoder.conv_out(hidden.float()))
        return moments

    def decode(self, latents: Float32[torch.Tensor, "b 4 h w"]) -> Float32[torch.Tensor, "b 3 h8 w8"]:
        """Returns pictures, nominally in [-1, 1]."""
        hidden = self.decoder.conv_in(self.post_quant_conv(latents))
        hidden = self.decoder.mid_block(hidden.to(_dtype(self.decoder.mid_block)))
        for block in self.decoder.up_blocks:
            hidden = block(hidden)
        pictures: torch.Tensor = self.decoder.conv_out(F.silu(self.decoder.conv_norm_out(hidden)).float())
        return pictures


def place(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """Returns the module on a device in a number format, its first and last layers in float32.

    Weights are copied, so nothing refers to a memory-mapped file any more. Convolutions work channels-last
    in half precision, where that is faster; in float32 torch's channels-last group norm is 400 times less
    exact than the other.
    """
    layers = {name: part for name, part in module.named_modules() if name.split(".")[-1] in FLOAT32_LAYERS}
    outer = {parameter for layer in layers.values() for parameter in layer.parameters()}
    for parameter in module.parameters():
        kind = torch.float32 if parameter in outer else dtype
        parameter.data = parameter.data.to(device, kind, copy=True)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            setattr(owner, name, buffer.to(device, dtype if buffer.is_floating_point() else None))
        for weight in owner.parameters(recurse=False):
            if weight.ndim == 4 and dtype != torch.float32:
                weight.data = weight.data.to(memory_format=torch.channels_last)
    return module


def _switch_embeddings(unet: Any) -> Float32[torch.Tensor, "2 c"]:
    """Returns the embedding of timestep 999 plus that of each task vector [sin s, cos s], s one-hot."""
    one_hot = torch.eye(2)
    tasks = torch.cat([torch.sin(one_hot), torch.cos(one_hot)], dim=1)  # (2, 4)
    with torch.inference_mode():
        time = unet.time_embedding(unet.time_proj(torch.tensor([TIMESTEP])))
        embeddings: torch.Tensor = time + unet.class_embedding(tasks)
    return embeddings.clone()


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
