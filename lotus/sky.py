"""Which pixels of a photo show the sky: it has no depth, and what is matched or filled in there is junk.

A perceptron with one hidden layer tells it from the features of lotus-tiny's image encoder, at an eighth of
256 px; it was trained on made-up scenes (`lotus.training.sky`). The colours around tell the outline. It
serves with any predictor, and with none.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from lotus.checkpoints import EMBEDDED_NAMES, IMAGE_ENCODER, find_checkpoint, read_image_encoder
from lotus.sizes import map_size
from recon.errors import InputError
from recon.io.images import resize_image, resize_map

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lotus.image_encoder import ImageEncoder


MODEL, WEIGHTS = EMBEDDED_NAMES[0], "sky.safetensors"
HIDDEN = 32
SIZE = 256  # px, longer side of what the network sees
LARGEST = 2048  # px, longer side of what the outline is found on: it takes 50 bytes a pixel
GUIDE_SIZE = 512  # px, longer side of the picture whose colours are counted
AROUND_PX = 12.0  # of these, standard deviation of the window: cells of the network are 16 wide
COLOUR_NOISE = 0.02  # of 1
LEAST_CHANCE = 0.02  # of sky or of anything else: the network may be wrong
SURE = 0.7  # a part is sky if some of it surely is
CAUTION = 2.0  # a hole in a wall is so many times worse than a piece of sky
LEAST_SHARE = 0.002  # of the photo; smaller parts are reflections, panes, blue things


def find_sky(photo: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Returns True where a photo shows the sky, clouds included.

    Of rooms, of closer things and of photos from above that is nowhere.
    """
    from scipy.ndimage import label, maximum

    height, width = photo.shape[:2]
    if max(height, width) > LARGEST:
        factor = LARGEST / max(height, width)
        rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
        small = find_sky(resize_image(photo, columns, rows))
        return small[np.arange(height) * rows // height][:, np.arange(width) * columns // width]
    chance = sky_chance(photo)
    if chance.max() < SURE:
        return np.zeros((height, width), bool)
    chance = _outlined(photo, chance)
    parts, count = label(chance > 0.5)
    shares = np.bincount(parts.ravel(), minlength=count + 1) / parts.size
    surest = np.append(0, maximum(chance, parts, np.arange(1, count + 1))) if count else np.zeros(1)
    is_sky = (surest >= SURE) & (shares >= LEAST_SHARE)
    is_sky[0] = False
    return is_sky[parts]


def sky_chance(photo: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h8 w8"]:
    """Returns the probability of sky in cells of 8 px of the photo at 256 px."""
    import torch

    size = map_size(photo.shape[1], photo.shape[0], SIZE)
    encoder, head = _networks()
    with torch.inference_mode():
        found = torch.sigmoid(head(trunk_features(encoder, resize_image(photo, *size))))
    return found[0, 0].numpy()


def weights_digest() -> str:
    """Returns what the networks' weights are known by; it changes when they are trained anew."""
    stats = [path.stat() for path in (_weights(), find_checkpoint(MODEL) / IMAGE_ENCODER)]
    return f"sky-{[(stat.st_size, stat.st_mtime_ns) for stat in stats]}"


def trunk_features(
    encoder: "ImageEncoder", photo: UInt8[np.ndarray, "h w 3"]
) -> "Float32[torch.Tensor, '1 c h8 w8']":
    """Returns the trunk's maps of a photo whose sides are multiples of 8, all at stride 8."""
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    first, *others = encoder.features(pixels)
    enlarged = [F.interpolate(each, first.shape[2:], mode="bilinear") for each in others]
    return torch.cat([first, *enlarged], dim=1)


def new_head(channels: int) -> "nn.Sequential":
    """Returns the perceptron, untrained: features to a logit."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(channels, HIDDEN, 1), nn.ReLU(), nn.Conv2d(HIDDEN, 1, 1))


def embedded_encoder() -> "ImageEncoder":
    """Returns the image encoder of lotus-tiny, in float32 on the CPU."""
    encoder = read_image_encoder(find_checkpoint(MODEL))
    assert encoder is not None
    return encoder.eval()


def _weights() -> Path:
    path = find_checkpoint(MODEL) / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: not there; the installation is damaged")
    return path


@lru_cache(maxsize=1)
def _networks() -> "tuple[ImageEncoder, nn.Module]":
    from safetensors.torch import load_file

    weights = {name: weight.float() for name, weight in load_file(_weights()).items()}
    head = new_head(weights["0.weight"].shape[1])
    head.load_state_dict(weights)
    return embedded_encoder(), head.eval()


def _outlined(
    photo: UInt8[np.ndarray, "h w 3"], chance: Float32[np.ndarray, "h8 w8"]
) -> Float32[np.ndarray, "h w"]:
    """Returns the probability at the size of the photo, given the colours of sky and of the rest around.

    Either has a normal distribution around each pixel; what is not sky may also have any colour.
    """
    height, width = photo.shape[:2]
    factor = min(1.0, GUIDE_SIZE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = resize_image(photo, *size).astype(np.float32) / 255
    coarse = np.clip(resize_map(chance, *size), 0, 1)
    colours = photo.astype(np.float32) / 255
    like_sky = _likelihood(colours, *_distribution(small, np.maximum(2 * coarse - 1, 0)))
    like_rest = _likelihood(colours, *_distribution(small, np.maximum(1 - 2 * coarse, 0)))
    odds = np.clip(resize_map(chance, width, height), LEAST_CHANCE, 1 - LEAST_CHANCE)
    sky, rest = odds * like_sky, CAUTION * (1 - odds) * 0.5 * (like_rest + 1)
    return sky / (sky + rest)


def _distribution(
    colours: Float32[np.ndarray, "h w 3"], weights: Float32[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w 3"]]:
    """Returns mean and variance of the weighted colours around each pixel."""
    from scipy.ndimage import gaussian_filter

    def blur(values: np.ndarray) -> np.ndarray:
        sigma = (AROUND_PX,) * 2 + (0,) * (values.ndim - 2)
        return np.asarray(gaussian_filter(values, sigma, mode="nearest", truncate=3.0))

    weight = blur(weights)[..., None] + np.float32(1e-6)
    mean = (blur(weights[..., None] * colours) + np.float32(0.5e-6)) / weight
    squares = (blur(weights[..., None] * colours**2) + np.float32(0.5e-6)) / weight
    return mean, np.maximum(squares - mean**2, 0) + np.float32(COLOUR_NOISE**2)


def _likelihood(
    colours: Float32[np.ndarray, "h w 3"],
    mean: Float32[np.ndarray, "h2 w2 3"],
    variance: Float32[np.ndarray, "h2 w2 3"],
) -> Float32[np.ndarray, "h w"]:
    """Returns the density of each pixel's colour, of distributions on a smaller grid."""
    height, width = colours.shape[:2]
    log = np.zeros((height, width), np.float32)
    for channel in range(3):
        middle, spread = (
            resize_map(np.ascontiguousarray(each[..., channel]), width, height) for each in (mean, variance)
        )
        log -= 0.5 * ((colours[..., channel] - middle) ** 2 / spread + np.log(2 * np.pi * spread))
    return np.exp(log)
