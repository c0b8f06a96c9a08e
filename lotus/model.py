"""The Lotus network for inference: photo in, annotation out, in one step (He et al. 2024, arXiv 2409.18124).

A Stable Diffusion 2 UNet maps the VAE latent of a photo (Lotus-D; beside Gaussian noise in Lotus-G) to the
latent of its annotation, a depth, disparity or normal map drawn as a picture. Timestep 999, empty prompt, no
guidance, no scheduler step: the output is the clean latent. All that does not depend on the photo is folded
into constants when the model is made. In half precision the first and the last layer of each network stay
float32: they cost little, and their rounding would be visible as steps in the map.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention import BasicTransformerBlock
from jaxtyping import Float, Float32
from torch import nn

from recon.errors import InputError

TIMESTEP = 999  # the only step that Lotus was trained for, index of "t = T"
DEFAULT_RES = 768
LATENT_FACTOR = 8  # pixels per latent cell
SWITCHES = {"annotation": 0, "reconstruction": 1}
POSTERIORS = {"mode": False, "sample": True}
RESAMPLING: Mapping[str, dict[str, Any]] = {
    "bilinear": {"mode": "bilinear", "align_corners": False, "antialias": True},
    "bicubic": {"mode": "bicubic", "align_corners": False, "antialias": True},
    "nearest": {"mode": "nearest-exact"},
}
FLOAT32_LAYERS = ("conv_in", "conv_out", "quant_conv", "post_quant_conv")
VAE_BYTES_PER_PIXEL = 6 * 256 * 4  # six maps of 256 float32 channels live at the widest point of the decoder

Module = TypeVar("Module", bound=nn.Module)
Choice = TypeVar("Choice")


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
        self.register_buffer("switches", _switch_embeddings(unet))  # (2, c)
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock):
                block.attn2 = TwoTokenAttention(block.attn2, prompt)

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


class LotusModel:
    """A Lotus checkpoint ready for inference; `lotus.load` makes it. It never changes."""

    def __init__(self, unet: LotusUNet, vae: AutoencoderKL) -> None:
        self.unet, self.vae = unet, vae
        self.is_generative = unet.in_channels == 8
        self.scaling = float(vae.config.scaling_factor)
        self.device: torch.device = unet.switches.device
        self.dtype: torch.dtype = unet.switches.dtype

    @torch.inference_mode()
    def annotate(  # noqa: PLR0913 - the options of the reference pipeline
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        processing_res: int | None = DEFAULT_RES,
        seed: int | None = None,
        switch: str = "annotation",
        posterior: str = "mode",
        resize_back: str = "nearest",
        resample_method: str = "bilinear",
    ) -> Float32[np.ndarray, "b h w 3"]:
        """Returns the raw annotation of a batch of photos, number-equal to the reference pipeline in float32.

        Depth and disparity are the mean of the channels; normals are 2x - 1 (x left, y up, z to the camera,
        not unit length). `LotusPredictor` converts them; this is for comparisons with the reference.

        Args:
            images: uint8 RGB photos of one size: (B, H, W, 3), a list of (H, W, 3), or one (H, W, 3).
            processing_res: Longer side of the picture that the network sees, px; smaller photos are enlarged.
                0 keeps the photo's size, None is 768.
            seed: Of the noise of Lotus-G, drawn on the CPU as (B, 4, h/8, w/8), and of a sampled posterior.
                None takes torch's global generator, noise first.
            switch: "annotation", or "reconstruction" of the photo.
            posterior: "mode" takes the mean of the VAE's posterior; "sample" draws from it, as the reference.
            resize_back: "nearest" returns to the photo's size as the reference does; also "bilinear",
                "bicubic", or "none" for the decoder's size, 8 * floor(working size / 8).
            resample_method: How the photo is resized: "bilinear", "bicubic" or "nearest".

        Raises:
            InputError: The photos are not a batch of uint8 RGB, or an option is unknown.
        """
        photos = _as_batch(images)
        height, width = photos.shape[1:3]
        resampling = choose(resample_method, RESAMPLING, "resample_method")
        back = choose(resize_back, {**RESAMPLING, "none": None}, "resize_back")
        sampled = choose(posterior, POSTERIORS, "posterior")
        index = choose(switch, SWITCHES, "switch")
        pixels = self.pixels(photos, working_size(width, height, processing_res), resampling)
        shape = (len(photos), 4, pixels.shape[2] // LATENT_FACTOR, pixels.shape[3] // LATENT_FACTOR)
        noise = draw_noise(shape, seed) if self.is_generative else None
        latents = self.encode(pixels, draw_noise(shape, seed) if sampled else None)
        pictures = (self.decode(self.denoise(latents, noise, index)) / 2 + 0.5).clamp(0, 1)
        if back and pictures.shape[2:] != (height, width):
            pictures = F.interpolate(pictures, (height, width), **back)
        return pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def pixels(
        self, photos: np.ndarray, size: tuple[int, int], resampling: Mapping[str, Any] = RESAMPLING["bilinear"]
    ) -> Float32[torch.Tensor, "b 3 h w"]:
        """Returns photos in [-1, 1], resized to `size` = (width, height), on the model's device."""
        pixels = torch.tensor(photos, device=self.device).permute(0, 3, 1, 2).contiguous()
        pixels = pixels.float() / 127.5 - 1
        width, height = size
        if pixels.shape[2:] == (height, width):
            return pixels
        return F.interpolate(pixels, (height, width), **resampling)

    @torch.inference_mode()
    def encode(
        self,
        pixels: Float32[torch.Tensor, "b 3 h w"],
        posterior_noise: Float32[torch.Tensor, "b 4 h8 w8"] | None = None,
    ) -> Float32[torch.Tensor, "b 4 h8 w8"]:
        """Returns the scaled latents of photos: the posterior's mean, or a sample where its noise is given."""
        moments = self._in_parts(lambda part: _encode(self.vae, part), pixels)
        mean, log_variance = moments.chunk(2, dim=1)
        if posterior_noise is not None:
            std = torch.exp(0.5 * log_variance.clamp(-30, 20))  # the bounds are Stable Diffusion's
            mean = mean + std * posterior_noise.to(self.device)
        return mean * self.scaling

    @torch.inference_mode()
    def denoise(
        self,
        latents: Float32[torch.Tensor, "b 4 h w"],
        noise: Float32[torch.Tensor, "b 4 h w"] | None = None,
        switch: int = SWITCHES["annotation"],
    ) -> Float32[torch.Tensor, "b 4 h w"]:
        """Returns the annotation's latents. A generative model needs noise, a discriminative one takes none."""
        sample = latents if noise is None else torch.cat([latents, noise.to(self.device)], dim=1)
        size = 1 if self.device.type == "cpu" else len(sample)
        return torch.cat([self.unet(part, switch) for part in sample.split(size)])

    @torch.inference_mode()
    def decode(self, latents: Float32[torch.Tensor, "b 4 h w"]) -> Float32[torch.Tensor, "b 3 H W"]:
        """Returns the pictures of scaled latents, nominally in [-1, 1], not clamped.

        Raises:
            InputError: The network gives no finite numbers, in float32 either.
        """
        pictures = self._in_parts(lambda part: _decode(self.vae, part), latents / self.scaling, LATENT_FACTOR)
        if torch.isfinite(pictures).all():
            return pictures
        wide = copy.deepcopy(self.vae).float()  # float16 overflowed, or the weights are broken
        pictures = self._in_parts(lambda part: _decode(wide, part), latents / self.scaling, LATENT_FACTOR)
        if not torch.isfinite(pictures).all():
            raise InputError(f"the network's output is not finite in {self.dtype}; try float32, or its weights are bad")
        return pictures

    def _in_parts(
        self, function: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, factor: int = 1
    ) -> torch.Tensor:
        """Applies a VAE half to as many pictures at once as half of the device's free memory holds.

        One at a time on the CPU, where more are no faster; so its results do not depend on the batch.
        """
        size = 1
        if self.device.type == "cuda":
            pixels = batch.shape[2] * batch.shape[3] * factor**2
            free, _ = torch.cuda.mem_get_info(self.device)
            size = max(1, free // 2 // (pixels * VAE_BYTES_PER_PIXEL))
        return torch.cat([function(part) for part in batch.split(size)])


def working_size(width: int, height: int, processing_res: int | None) -> tuple[int, int]:
    """Returns (width, height) of the picture that the network sees, as the reference truncates it.

    Raises:
        InputError: A side would have less than one latent cell.
    """
    longest = DEFAULT_RES if processing_res is None else processing_res
    factor = min(longest / width, longest / height) if longest else 1.0
    size = int(width * factor), int(height * factor)
    if min(size) < LATENT_FACTOR:
        raise InputError(
            f"a {width}x{height} photo at processing_res {processing_res} is {size[0]}x{size[1]} px, "
            f"wanted at least {LATENT_FACTOR} on each side"
        )
    return size


def draw_noise(shape: tuple[int, ...], seed: int | None) -> Float32[torch.Tensor, "..."]:
    """Returns Gaussian noise, drawn on the CPU so that every device gets the same; None: global generator."""
    generator = torch.default_generator if seed is None else torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def place(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """Returns the module on a device in a number format, its first and last layers in float32.

    Weights are copied, so nothing refers to a memory-mapped file any more.
    """
    layers = {name: part for name, part in module.named_modules() if name.split(".")[-1] in FLOAT32_LAYERS}
    outer = {parameter for layer in layers.values() for parameter in layer.parameters()}
    for parameter in module.parameters():
        kind = torch.float32 if parameter in outer else dtype
        parameter.data = parameter.data.to(device, kind, copy=True)
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            setattr(owner, name, buffer.to(device, dtype if buffer.is_floating_point() else None))
    return module.to(memory_format=torch.channels_last) if dtype != torch.float32 else module


def choose(name: str, choices: Mapping[str, Choice], option: str) -> Choice:
    """Returns the choice of a name.

    Raises:
        InputError: The option has no such choice.
    """
    if name not in choices:
        raise InputError(f"{option} {name!r}, wanted one of {', '.join(choices)}")
    return choices[name]


def _as_batch(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    photos = [np.asarray(image) for image in images]
    if photos and photos[0].ndim == 2:
        photos = [np.asarray(images)]
    if not photos:
        raise InputError("no photos")
    for index, photo in enumerate(photos):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise InputError(f"photo {index}: {photo.dtype} {photo.shape}, wanted uint8 (height, width, 3)")
        if photo.shape != photos[0].shape:
            raise InputError(f"photo {index}: {photo.shape}, the first is {photos[0].shape}; a batch has one size")
    return np.stack(photos)


def _switch_embeddings(unet: Any) -> Float32[torch.Tensor, "2 c"]:
    """Returns the embedding of timestep 999 plus that of each task vector [sin s, cos s], s one-hot."""
    one_hot = torch.eye(2)
    tasks = torch.cat([torch.sin(one_hot), torch.cos(one_hot)], dim=1)  # (2, 4): sin s0, sin s1, cos s0, cos s1
    with torch.inference_mode():
        time = unet.time_embedding(unet.time_proj(torch.tensor([TIMESTEP])))
        embeddings: torch.Tensor = time + unet.class_embedding(tasks)
    return embeddings.clone()


def _encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Returns mean and log-variance of the VAE's posterior, float32."""
    encoder = vae.encoder
    hidden = encoder.conv_in(pixels).to(_dtype(encoder.mid_block))
    for block in encoder.down_blocks:
        hidden = block(hidden)
    hidden = F.silu(encoder.conv_norm_out(encoder.mid_block(hidden)))
    moments: torch.Tensor = vae.quant_conv(encoder.conv_out(hidden.float()))
    return moments


def _decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Returns the picture of unscaled latents, float32."""
    decoder = vae.decoder
    hidden = decoder.conv_in(vae.post_quant_conv(latents)).to(_dtype(decoder.mid_block))
    hidden = decoder.mid_block(hidden)
    for block in decoder.up_blocks:
        hidden = block(hidden)
    picture: torch.Tensor = decoder.conv_out(F.silu(decoder.conv_norm_out(hidden)).float())
    return picture


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
