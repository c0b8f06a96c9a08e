"""The Lotus network for inference: photo in, annotation out, in one step (He et al. 2024, arXiv 2409.18124).

A Stable Diffusion 2 UNet maps the VAE latent of a photo (Lotus-D; beside Gaussian noise in Lotus-G) to the
latent of its annotation, a depth, disparity or normal map drawn as a picture. Timestep 999, empty prompt, no
guidance, no scheduler step: the output is the clean latent.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32

from lotus.checkpoints.sources import DEFAULT_RES
from lotus.colours import AS_THEY_ARE, seen_as
from lotus.devices import free_bytes
from lotus.image_encoder import ImageEncoder
from lotus.network import TIMESTEPS, LotusUNet, number_format
from lotus.sizes import LATENT_FACTOR
from lotus.vae import LotusVAE
from recon.errors import InputError

ANNOTATION, NORMALS, RECONSTRUCTION = 0, 1, -1  # switches; normals have their own in a joint model only
SWITCHES = {"annotation": ANNOTATION, "normals": NORMALS, "reconstruction": RECONSTRUCTION}
POSTERIORS = {"mode": False, "sample": True}
RESAMPLING: Mapping[str, dict[str, Any]] = {
    "bilinear": {"mode": "bilinear", "align_corners": False, "antialias": True},
    "bicubic": {"mode": "bicubic", "align_corners": False, "antialias": True},
    "nearest": {"mode": "nearest-exact"},
}
VAE_NUMBERS_PER_PIXEL = (
    1100  # in memory at the widest point of the decoder: four maps of 256 channels (measured)
)

Choice = TypeVar("Choice")
Forward = Callable[..., torch.Tensor]


class LotusModel:
    """A Lotus checkpoint ready for inference; `lotus.load` makes it. It never changes."""

    def __init__(
        self,
        unet: LotusUNet,
        vae: LotusVAE,
        image_encoder: ImageEncoder | None = None,
        *,
        is_generative: bool,
        colours: str = AS_THEY_ARE,
        is_compiled: bool = False,
    ) -> None:
        self.unet, self.vae, self.image_encoder, self.colours = unet, vae, image_encoder, colours
        self._denoise: Forward = unet.forward
        self._encode: Forward = vae.encode
        self._decode: Forward = vae.decode
        if is_compiled:  # each size by itself: symbolic sizes take minutes to trace
            self._denoise = torch.compile(unet.forward, dynamic=False)
            self._encode = torch.compile(vae.encode, dynamic=False)
            self._decode = torch.compile(vae.decode, dynamic=False)
        self.is_generative, self.is_joint = is_generative, unet.task_count == 3
        self.device, self.dtype = unet.conv_in.weight.device, number_format(unet)

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
            seed: Of the noise of Lotus-G, drawn on the CPU as (B, z, h/8, w/8), and of a sampled posterior.
                None takes torch's global generator, noise first.
            switch: "annotation", "normals" of a joint model, or "reconstruction" of the photo.
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
        switches = {key: value for key, value in SWITCHES.items() if self.is_joint or key != "normals"}
        index = choose(switch, switches, "switch")
        pixels = self.pixels(photos, working_size(width, height, processing_res), resampling)
        shape = (
            len(photos),
            self.vae.latent_channels,
            pixels.shape[2] // LATENT_FACTOR,
            pixels.shape[3] // LATENT_FACTOR,
        )
        noise = draw_noise(shape, seed) if self.is_generative else None
        latents = self.encode(pixels, draw_noise(shape, seed) if sampled else None)
        pictures = (self.decode(self.denoise(latents, noise, index)) / 2 + 0.5).clamp(0, 1)
        if back and pictures.shape[2:] != (height, width):
            pictures = F.interpolate(pictures, (height, width), **back)
        return pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def pixels(
        self,
        photos: np.ndarray,
        size: tuple[int, int],
        resampling: Mapping[str, Any] = RESAMPLING["bilinear"],
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
        posterior_noise: Float32[torch.Tensor, "b z h8 w8"] | None = None,
    ) -> Float32[torch.Tensor, "b c h8 w8"]:
        """Returns what the UNet sees of photos: scaled latents, then features of the image encoder if any.

        Latents are the posterior's mean, or a sample if its noise is given.
        """
        pixels = seen_as(pixels, self.colours)
        moments = self._in_parts(self._encode, pixels)
        mean, log_variance = moments.chunk(2, dim=1)
        if posterior_noise is not None:
            std = torch.exp(0.5 * log_variance.clamp(-30, 20))  # the bounds are Stable Diffusion's
            mean = mean + std * posterior_noise.to(self.device)
        latents: torch.Tensor = mean * self.vae.scaling
        if self.image_encoder is None:
            return latents
        height, width = (side * LATENT_FACTOR for side in latents.shape[2:])
        return torch.cat([latents, self.image_encoder(pixels[..., :height, :width])], dim=1)

    @torch.inference_mode()
    def denoise(
        self,
        latents: Float32[torch.Tensor, "b c h w"],
        noise: Float32[torch.Tensor, "b z h w"] | None = None,
        switch: int = ANNOTATION,
    ) -> Float32[torch.Tensor, "b z h w"]:
        """Returns the annotation's latents; only a generative model takes noise, and it needs it.

        A model loaded with several steps samples by DDIM (Song et al. 2021, equation 12, no added noise):
        from the clean latent z0 that it predicts at one timestep, z' = sqrt(a') z0 + sqrt(1 - a') e for the
        next, where e = (z - sqrt(a) z0) / sqrt(1 - a). Noise starts as it is, as in the reference.
        """
        size = 1 if self.device.type == "cpu" else len(latents)
        switch %= self.unet.task_count
        if noise is None:
            return torch.cat([self._denoise(part, switch) for part in latents.split(size)])
        noisy = noise.to(self.device)
        shares = [signal_share(timestep) for timestep in self.unet.timesteps]  # a
        for step, share in enumerate(shares):
            sample = torch.cat([latents, noisy], dim=1)
            clean = torch.cat([self._denoise(part, switch, step) for part in sample.split(size)])
            following = shares[step + 1] if step + 1 < len(shares) else 1.0
            error = (noisy - share**0.5 * clean) / (1 - share) ** 0.5
            noisy = following**0.5 * clean + (1 - following) ** 0.5 * error
        return clean

    @torch.inference_mode()
    def decode(self, latents: Float32[torch.Tensor, "b z h w"]) -> Float32[torch.Tensor, "b 3 H W"]:
        """Returns the pictures of scaled latents, nominally in [-1, 1], not clamped.

        Raises:
            InputError: The network gives no finite numbers, in float32 either.
        """
        unscaled = latents / self.vae.scaling
        pictures = self._in_parts(self._decode, unscaled, LATENT_FACTOR)
        if not torch.isfinite(pictures).all():  # float16 overflowed, or the weights are broken
            exact = copy.deepcopy(self.vae).float()
            pictures = self._in_parts(exact.decode, unscaled, LATENT_FACTOR)
        if not torch.isfinite(pictures).all():
            raise InputError(
                f"the network's output is not finite in {self.dtype}: bad weights, or it needs float32"
            )
        return pictures

    def _in_parts(
        self, function: Callable[[torch.Tensor, bool], torch.Tensor], batch: torch.Tensor, factor: int = 1
    ) -> torch.Tensor:
        """Applies a VAE half to as many pictures at once as half of the device's free memory holds.

        One at a time on the CPU, where more are no faster; so its results do not depend on the batch. Where
        not even one fits, it is made in strips.
        """
        pixels = batch.shape[2] * batch.shape[3] * factor**2
        free = free_bytes(self.device)
        fitting = 1 if free is None else free // 2 // (pixels * VAE_NUMBERS_PER_PIXEL * self.dtype.itemsize)
        size = 1 if self.device.type == "cpu" else max(1, fitting)
        return torch.cat([function(part, fitting < 1) for part in batch.split(size)])


def signal_share(timestep: int) -> float:
    """Returns the signal's share of a noisy latent's variance: Stable Diffusion's scaled linear betas."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS) ** 2
    return float(np.prod(1 - betas[: timestep + 1]))


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
            raise InputError(
                f"photo {index}: {photo.shape}, the first is {photos[0].shape}; a batch has one size"
            )
    return np.stack(photos)
