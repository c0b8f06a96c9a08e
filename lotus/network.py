"""The UNet of Lotus for inference, made of diffusers' blocks, with all constants folded in.

Timesteps, task vector and prompt never change, so their embeddings are computed once. In half precision the
first and the last layer of each network stay float32: they cost little, and their rounding would be visible
as steps in the map.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from jaxtyping import Float, Float32
from torch import nn

from lotus.norms import convolve_and_add, convolve_norm_silu, norm_silu
from recon.errors import InputError

TIMESTEPS = 1000  # of the training; Lotus works at the last one, index 999
NARROW = 3  # columns, of which one or two come out
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


class Resnet(nn.Module):
    """A residual block of diffusers with the constant embeddings in a bias, and few temporary maps."""

    def __init__(self, block: Any, embeddings: Float32[torch.Tensor, "k e"] | None = None) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.shortcut = block.conv_shortcut
        bias = block.conv1.bias[None]
        if embeddings is not None:
            bias = bias + block.time_emb_proj(F.silu(embeddings))
        self.biases = nn.Parameter(bias, requires_grad=False)  # (k, c); (1, c) without embeddings

    def forward(
        self, hidden: Float[torch.Tensor, "b c h w"], temb: int | None = None
    ) -> Float[torch.Tensor, "b d h w"]:
        """Returns the block's output; `temb`, diffusers' name for the embedding, is its index."""
        inner = norm_silu(hidden, self.norm1)
        inner = convolve_norm_silu(inner, self.conv1.weight, self.biases[temb or 0], self.norm2)
        return convolve_and_add(inner, self.conv2, hidden if self.shortcut is None else self.shortcut(hidden))


class Transformer(nn.Module):
    """The transformer between two residual blocks, keeping the memory format of its input."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = block.norm, block.proj_in, block.proj_out
        self.layers = block.transformer_blocks

    def forward(self, hidden: Float[torch.Tensor, "b c h w"], **_: Any) -> tuple[torch.Tensor]:
        """Returns a tuple of the output, as diffusers' blocks unpack it."""
        normed = norm_silu(hidden, self.norm, is_activated=False)
        tokens = self.proj_in(normed.flatten(2).transpose(1, 2))  # (b, h * w, c)
        for layer in self.layers:
            tokens = layer(tokens)
        update = self.proj_out(tokens).transpose(1, 2).reshape(hidden.shape)
        return (hidden + update,)


class Downsample(nn.Module):
    """Diffusers' halving; one column is made beside a second that is dropped.

    A convolution of stride 2 to a single column reads memory that nobody has written, in bfloat16 on CPUs
    that multiply it (torch 2.13).
    """

    def __init__(self, halve: Downsample2D) -> None:
        super().__init__()
        self.halve = halve

    def forward(self, hidden: Float[torch.Tensor, "b c h w"]) -> Float[torch.Tensor, "b c h2 w2"]:
        """Returns the map at half the size."""
        if hidden.shape[3] > NARROW:
            found: torch.Tensor = self.halve(hidden)
            return found
        wider: torch.Tensor = self.halve(F.pad(hidden, (0, 2)))
        return wider[..., :-1]


class LotusUNet(nn.Module):
    """The UNet with timesteps, task vector and prompt folded in; made of the blocks of diffusers' UNet."""

    def __init__(self, unet: Any, prompt: Float32[torch.Tensor, "2 t"], steps: int = 1) -> None:
        super().__init__()
        self.timesteps = sampling_timesteps(steps)
        if prompt.shape[1] != unet.config.cross_attention_dim:
            raise InputError(
                f"the text encoder has {prompt.shape[1]} channels, "
                f"the UNet's cross_attention_dim is {unet.config.cross_attention_dim}"
            )
        unet.float()  # constants are folded in full precision, whatever the file holds
        self.task_count = int(unet.config.projection_class_embeddings_input_dim) // 2
        self.conv_in, self.conv_norm_out, self.conv_out = unet.conv_in, unet.conv_norm_out, unet.conv_out
        self.down_blocks, self.mid_block, self.up_blocks = unet.down_blocks, unet.mid_block, unet.up_blocks
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock):
                block.add_module("attn2", TwoTokenAttention(block.attn2, prompt))
        fold_blocks(self, _constant_embeddings(unet, self.timesteps))

    def forward(
        self, sample: Float32[torch.Tensor, "b c h w"], switch: int, step: int = 0
    ) -> Float32[torch.Tensor, "b z h w"]:
        """Returns the clean latent of an annotation (switch 0, or 0 and 1), or of the photo (the last)."""
        constants = self.task_count * step + switch
        hidden = self.conv_in(sample).to(number_format(self))
        skips: tuple[torch.Tensor, ...] = (hidden,)
        for block in self.down_blocks:
            hidden, outputs = block(hidden_states=hidden, temb=constants)
            skips += outputs
        hidden = self.mid_block(hidden, constants)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, used = skips[:-count], skips[-count:]
            size = skips[-1].shape[2:] if skips else None  # odd sides were rounded up on the way down
            hidden = block(
                hidden_states=hidden, temb=constants, res_hidden_states_tuple=used, upsample_size=size
            )
        latents: torch.Tensor = self.conv_out(norm_silu(hidden, self.conv_norm_out).float())
        return latents


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
        if parameter.ndim == 4 and dtype != torch.float32:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return module


def sampling_timesteps(steps: int) -> tuple[int, ...]:
    """Returns that many timesteps, evenly spaced down from the last, 999 (Lin et al. 2024, "trailing")."""
    return tuple(round(TIMESTEPS * (steps - k) / steps) - 1 for k in range(steps))


def _constant_embeddings(unet: Any, timesteps: Sequence[int]) -> Float32[torch.Tensor, "k e"]:
    """Returns, for every timestep, its embedding plus that of each task vector [sin s, cos s], s one-hot."""
    tasks = task_vectors(int(unet.config.projection_class_embeddings_input_dim) // 2)
    with torch.inference_mode():
        times = unet.time_embedding(unet.time_proj(torch.tensor(timesteps)))
        embeddings: torch.Tensor = (times[:, None] + unet.class_embedding(tasks)).flatten(0, 1)
    return embeddings.clone()


def task_vectors(count: int) -> Float32[torch.Tensor, "k k2"]:
    """Returns what the task switch gives the UNet, a row per task: [sin s, cos s] of one-hot s."""
    one_hot = torch.eye(count)
    return torch.cat([torch.sin(one_hot), torch.cos(one_hot)], dim=1)


def fold_blocks(network: nn.Module, embeddings: Float32[torch.Tensor, "k e"] | None) -> None:
    """Puts the leaner blocks in the place of diffusers' in a UNet or VAE."""
    for parts in [part for part in network.modules() if isinstance(part, nn.ModuleList)]:
        for index, part in enumerate(parts):
            if isinstance(part, ResnetBlock2D):
                parts[index] = Resnet(part, embeddings)
            elif isinstance(part, Transformer2DModel):
                parts[index] = Transformer(part)
            elif isinstance(part, Downsample2D):
                parts[index] = Downsample(part)


def number_format(network: nn.Module) -> torch.dtype:
    """Returns the dtype that the inner layers of a network compute in."""
    return next(layer.weight.dtype for layer in network.modules() if isinstance(layer, nn.GroupNorm))
