"""From photos to predictions: the one place where Lotus's range, sign and space become ours.

Lotus draws depth (0 near, 1 far) or disparity (1 near, 0 far) between the 2 % and 98 % quantiles of the
photo, clipped there, and normals with x left, y up, z toward the camera. Two models of one photo share its
resizing and, where their VAEs are the same, its encoding and one decoding batch. Maps keep the working size:
its sides are multiples of 8, because the VAE drops what is left over and the reference then stretches the map
over the photo, up to 7 px out of place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, UInt8

from lotus.model import ANNOTATION, NORMALS, LotusModel, draw_noise
from lotus.sizes import LATENT_FACTOR, map_size
from recon.scene import Prediction

CLIPPED_MARGIN = 0.02  # of the range; nearer to its ends a value may be any that was clipped
CLIPPED_CONFIDENCE = 0.1  # a clipped pixel still says "nearest" or "farthest"
ERROR_FLOOR = 0.02  # of the range: about the error of a clear pixel, which all passes share (paper, table 1)
SPREAD_WINDOW = 7  # px, odd: the neighbourhood that two passes, which tell little of a pixel, need
WINDOW_PASSES = 4  # what the neighbourhood's variance counts for, in passes
MIN_NORMAL_LENGTH = 0.1  # shorter is a mean of opposite directions


@dataclass(frozen=True)
class Pass:
    """One run of the networks over a photo; several make an ensemble."""

    seed: int
    is_flipped: bool
    scale: float = 1.0


def ensemble(seed: int, seeds: int, flip: bool, scales: Sequence[float] = (1.0,)) -> tuple[Pass, ...]:
    """Returns the passes of an ensemble: each seed at each size, as it is and, if wanted, mirrored."""
    choices = product(range(seed, seed + seeds), scales, (False, True)[: 1 + flip])
    return tuple(Pass(each, mirrored, scale) for each, scale, mirrored in choices)


def predict(
    photos: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    size: tuple[int, int],
    passes: Sequence[Pass],
    *,
    depth: tuple[LotusModel, str] | None,
    normals: LotusModel | None,
) -> list[Prediction]:
    """Returns the predictions of a batch of photos, each at `size` = (width, height).

    Args:
        photos: RGB, any sizes of about the ratio of `size`.
        size: Of the maps, multiples of 8.
        passes: One, or an ensemble. Photos see the same noise, so neighbouring views tend to agree.
        depth: The model of depth or disparity, and the prediction's kind; None leaves the values NaN.
        normals: The model of normals, or None.

    Raises:
        InputError: The networks give no finite numbers.
    """
    models = [(depth[0], ANNOTATION)] if depth else []
    if normals is not None:
        models.append((normals, NORMALS if normals.is_joint else ANNOTATION))
    drawn = [_draw(models, photos, size, each) for each in passes]  # per pass, per model: (b, 3, h, w)
    raw = torch.stack([torch.stack(pictures) for pictures in drawn]).movedim(3, -1)
    mirrored = torch.tensor([each.is_flipped for each in passes], device=raw.device)
    predictions = []
    for photo in raw.permute(2, 1, 0, 3, 4, 5):  # (models, passes, h, w, 3)
        values, confidence, kind = np.full(tuple(photo.shape[2:4]), np.nan, np.float32), None, "affine"
        if depth:
            values, confidence = (part.cpu().numpy() for part in values_from_raw(photo[0]))
            kind = depth[1]
        directions = normals_from_raw(photo[-1], mirrored).cpu().numpy() if normals else None
        predictions.append(Prediction(values, kind, directions, confidence))
    return predictions


def values_from_raw(
    raw: Float32[torch.Tensor, "p h w 3"],
) -> tuple[Float32[torch.Tensor, "h w"], Float32[torch.Tensor, "h w"]]:
    """Returns depth or disparity in [0, 1] (nearly, if several passes), and its confidence.

    Passes differ by scale and shift, so all take the first one's mean and deviation before the mean. A
    confidence c says that the mean square error expected of a value is `ERROR_FLOOR`^2 / c, in units of the
    range; so the alignment takes it. The floor is what passes have in common, which their spread cannot show:

        c = floor^2 / (floor^2 + variance of the mean of the passes)

    It is low at both ends of the range, where values were clipped (sky and the farthest 2 % at one, the
    nearest 2 % at the other).

    Args:
        raw: What the network drew in each pass, in [-1, 1] and somewhat beyond.
    """
    drawn = raw / 2 + 0.5
    maps = list(drawn.clamp(0, 1).mean(dim=-1))  # p of (h, w); clamped before the mean, as the reference
    aligned = torch.stack([_in_range_of(maps[0], each) for each in maps])
    mean = drawn.mean(dim=(0, 3))
    inside = (torch.minimum(mean, 1 - mean) / CLIPPED_MARGIN).clamp(CLIPPED_CONFIDENCE, 1)
    certainty = ERROR_FLOOR**2 / (ERROR_FLOOR**2 + variance_of_mean(aligned))
    return aligned.mean(dim=0), inside * certainty


def _in_range_of(
    first: Float32[torch.Tensor, "h w"], other: Float32[torch.Tensor, "h w"]
) -> Float32[torch.Tensor, "h w"]:
    """Returns another pass with the mean and deviation of the first.

    Least squares would shrink its range, for the first is no truth but as noisy as itself.
    """
    if other is first:
        return first
    own = other.std(correction=0)
    scale = torch.where(own > 0, first.std(correction=0) / own, 0.0)
    return scale * (other - other.mean()) + first.mean()


def variance_of_mean(maps: Float32[torch.Tensor, "p h w"]) -> Float32[torch.Tensor, "h w"]:
    """Returns the variance of the mean of maps whose errors are independent; 0 for one map.

    A pixel's sample variance is shrunk toward its neighbourhood's: with few passes it is mostly luck
    (moderated variances, Smyth 2004, with a prior of fixed weight).
    """
    if len(maps) == 1:
        return torch.zeros_like(maps[0])
    own = maps.var(dim=0, correction=1)[None, None]
    reach = SPREAD_WINDOW // 2
    around = F.avg_pool2d(own, SPREAD_WINDOW, stride=1, padding=reach, count_include_pad=False)
    share = WINDOW_PASSES / (WINDOW_PASSES + len(maps) - 1)
    return (share * around + (1 - share) * own)[0, 0] / len(maps)


def normals_from_raw(
    raw: Float32[torch.Tensor, "p h w 3"], mirrored: Bool[torch.Tensor, "p"]
) -> Float32[torch.Tensor, "h w 3"]:
    """Returns unit normals in the OpenCV camera frame; (0, 0, 0) where the network gives no direction.

    Lotus's axes are left, up and toward the camera: all three opposite to right, down, forward. A mirrored
    photo's normals have a mirrored x.

    Args:
        raw: What the network drew in each pass, in [-1, 1] and somewhat beyond.
        mirrored: Which passes saw the photo mirrored.
    """
    signs = torch.ones(len(raw), 1, 1, 3, device=raw.device)
    signs[mirrored, ..., 0] = -1
    mean = -(raw.clamp(-1, 1) * signs).mean(dim=0)
    length = mean.norm(dim=-1, keepdim=True)
    return torch.where(length >= MIN_NORMAL_LENGTH, mean / length.clamp(min=MIN_NORMAL_LENGTH), 0.0)


def _draw(
    models: Sequence[tuple[LotusModel, int]], photos: Sequence[np.ndarray], size: tuple[int, int], each: Pass
) -> list[torch.Tensor]:
    """Returns the raw pictures of one pass, by model and switch, in [-1, 1], at `size`, as the photos lie."""
    width, height = size
    seen_size = map_size(width, height, round(max(size) * each.scale))
    seen = torch.cat([models[0][0].pixels(photo[None], seen_size) for photo in photos])
    seen = seen.flip(-1) if each.is_flipped else seen
    encoded = {_eyes(model): model.encode(seen) for model, _ in models}
    latents = [
        model.denoise(encoded[_eyes(model)], _common_noise(model, seen, each), switch)
        for model, switch in models
    ]
    if len({model.vae for model, _ in models}) == 1:
        pictures = list(models[0][0].decode(torch.cat(latents)).chunk(len(models)))
    else:
        pictures = [model.decode(latent) for (model, _), latent in zip(models, latents, strict=True)]
    pictures = [picture.flip(-1) for picture in pictures] if each.is_flipped else pictures
    return pictures if seen_size == size else [_resized(picture, size) for picture in pictures]


def _eyes(model: LotusModel) -> tuple[object, ...]:
    """Returns what makes the UNet's input of a photo; models that share it share the input."""
    return model.vae, model.image_encoder, model.colours


def _resized(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    width, height = size
    return F.interpolate(pictures, (height, width), mode="bilinear", antialias=True)


def _common_noise(model: LotusModel, pixels: torch.Tensor, each: Pass) -> torch.Tensor | None:
    """Returns the same noise for every photo: drawn for one, so that a photo's result is its own."""
    if not model.is_generative:
        return None
    height, width = (side // LATENT_FACTOR for side in pixels.shape[2:])
    return draw_noise((1, model.vae.latent_channels, height, width), each.seed).expand(
        len(pixels), -1, -1, -1
    )
