"""Photos from light for a whole batch at once, on any device: the same camera as `exposure`, in torch.

Only the random numbers of the noise differ, and the last bits of rounding. Nothing waits for the device.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8

from lotus.scenes.description import MAX_BLUR, MAX_MOTION
from lotus.scenes.exposure import CONTRAST_KEPT, TONE_LIMIT, UPPER_TONES
from lotus.scenes.jpeg import jpeg_batch

NOISE_BLUR_PX = 0.8  # standard deviation


def develop_batch(
    light: Float32[torch.Tensor, "b h w 3"],
    table: Float32[torch.Tensor, "b 13"],
    generator: torch.Generator,
) -> UInt8[torch.Tensor, "b h w 3"]:
    """Returns the photos of pictures of light (linear RGB), all of one size.

    Call it outside autocast: half precision is too coarse for JPEG.

    Args:
        light: What reaches the camera, linear RGB.
        table: `exposure.photo_table` of the photos, on the device of the light.
        generator: Source of the noise, on the same device.
    """
    exposure, red, green, blue, contrast, saturation, vignette, blur, motion, angle, shot, read, quality = (
        table.unbind(1)
    )
    width = light.shape[2]
    gain = _gain(light, exposure)[:, None] * torch.stack([red, green, blue], dim=1)  # (b, 3)
    picture = light.permute(0, 3, 1, 2) * gain[..., None, None]
    picture = picture * _vignette(vignette, picture)
    picture = _convolved(picture, _streaks(motion * width, angle, _streak_half(MAX_MOTION * width)))
    picture = _blurred(picture, blur * width, MAX_BLUR * width).clamp(min=0)
    noise = torch.randn(picture.shape, generator=generator, device=light.device)
    noise = 0.6 * noise + _blurred(noise, torch.full_like(blur, NOISE_BLUR_PX), NOISE_BLUR_PX)
    picture = picture + noise * torch.sqrt(_each(shot) ** 2 * picture + _each(read) ** 2)
    picture = _toned(picture)
    grey = picture.mean(dim=1, keepdim=True)
    picture = grey + _each(saturation) * (picture - grey)
    picture = 0.5 + _each(contrast) * (picture - 0.5)
    stored = torch.floor(picture * 255 + 0.5).clamp(0, 255)
    stored = torch.where(_each(quality) >= 100, stored, jpeg_batch(stored, quality))
    return stored.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


def _each(column: Float32[torch.Tensor, "b"]) -> Float32[torch.Tensor, "b 1 1 1"]:
    return column[:, None, None, None]


def _gain(
    light: Float32[torch.Tensor, "b h w 3"], exposure: Float32[torch.Tensor, "b"]
) -> Float32[torch.Tensor, "b"]:
    """Returns the factor that brings the upper tones to the exposure."""
    coarse = light[:, ::3, ::3]
    luminance = 0.3 * coarse[..., 0] + 0.6 * coarse[..., 1] + 0.1 * coarse[..., 2]
    ordered = luminance.flatten(1).sort(dim=1).values
    bright, middle = _quantile(ordered, UPPER_TONES), _quantile(ordered, 0.5)
    return exposure / torch.minimum(bright, CONTRAST_KEPT * middle).clamp(min=1e-4)


def _quantile(ordered: Float32[torch.Tensor, "b n"], share: float) -> Float32[torch.Tensor, "b"]:
    """Returns the quantile of rows in rising order, between two of their values where it falls there.

    `torch.quantile` gives the same, but sorts anew for each share and takes no more than 16 million values.
    """
    place = share * (ordered.shape[1] - 1)
    below = math.floor(place)
    return torch.lerp(ordered[:, below], ordered[:, math.ceil(place)], place - below)


def _vignette(
    share: Float32[torch.Tensor, "b"], picture: Float32[torch.Tensor, "b 3 h w"]
) -> Float32[torch.Tensor, "b 1 h w"]:
    """Returns what is left of the light: less toward the corners."""
    y = torch.linspace(-1, 1, picture.shape[2], device=share.device)[:, None]
    x = torch.linspace(-1, 1, picture.shape[3], device=share.device)
    return 1 - _each(share) * (0.5 * (x * x + y * y))


def _toned(picture: Float32[torch.Tensor, "b 3 h w"]) -> Float32[torch.Tensor, "b 3 h w"]:
    """Returns stored brightness: a soft shoulder, then gamma (`exposure.TONES` without its steps)."""
    picture = picture.clamp(0, TONE_LIMIT)
    shoulder = 0.7 + 0.3 * torch.tanh((picture - 0.7) / 0.3)
    return torch.where(picture > 0.7, shoulder, picture) ** (1 / 2.2)


def _streak_half(length: float) -> int:
    """Returns how far the kernel of a streak (px) reaches from its middle."""
    return math.ceil(length / 2) + 1


def _streaks(
    length: Float32[torch.Tensor, "b"], angle: Float32[torch.Tensor, "b"], half: int
) -> Float32[torch.Tensor, "b k k"]:
    """Returns the kernels of blur along lines; that of a line no longer than a pixel changes nothing."""
    offsets = torch.arange(-half, half + 1, device=length.device, dtype=torch.float32)
    x, y = offsets[None, None, :], offsets[None, :, None]
    length, angle = length[:, None, None], angle[:, None, None]
    along = x * torch.cos(angle) + y * torch.sin(angle)
    across = y * torch.cos(angle) - x * torch.sin(angle)
    kernel = (1 - across.abs()).clamp(0, 1) * (length / 2 + 0.5 - along.abs()).clamp(0, 1)
    kernel = kernel / kernel.sum(dim=(1, 2), keepdim=True)
    return torch.where(length > 1.0, kernel, ((x == 0) & (y == 0)).float())


def _blurred(
    picture: Float32[torch.Tensor, "b 3 h w"], sigma: Float32[torch.Tensor, "b"], largest: float
) -> Float32[torch.Tensor, "b 3 h w"]:
    """Returns pictures under Gaussians of their own sigma (px, at most `largest`), cut at 4 sigma."""
    half = round(8 * largest + 1) // 2
    offsets = torch.arange(-half, half + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)  # (b, k)
    reach = torch.floor(torch.round(8 * sigma + 1) / 2)  # as OpenCV's
    kernel = torch.where(offsets.abs() <= reach[:, None], kernel, 0.0)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    return _convolved(_convolved(picture, kernel[:, None, :]), kernel[:, :, None])


def _convolved(
    picture: Float32[torch.Tensor, "b 3 h w"], kernels: Float32[torch.Tensor, "b m n"]
) -> Float32[torch.Tensor, "b 3 h w"]:
    """Returns each picture under its own symmetric kernel; beyond the edge it is mirrored."""
    batch = len(picture)
    down, across = kernels.shape[1] // 2, kernels.shape[2] // 2
    padded = F.pad(picture, (across, across, down, down), mode="reflect")
    weights = kernels.repeat_interleave(3, dim=0)[:, None]
    return F.conv2d(padded.reshape(1, 3 * batch, *padded.shape[2:]), weights, groups=3 * batch).reshape(
        picture.shape
    )
