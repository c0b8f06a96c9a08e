"""What JPEG does to pictures, for a whole batch at once on any device: the losses, no bytes.

As libjpeg stores and reads by default: YCbCr with halved chroma (4:2:0), cosine transform of 8 x 8 blocks,
rounding to multiples of the tables of ITU T.81 (annex K) scaled by quality, and back with smooth chroma.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float32

BLOCK = 8  # px
MACRO_BLOCK = 16  # px, one block of chroma
HALF = 0.5 + 1e-4  # counts halfway are rounded away from zero, whatever float32 left of them
# fmt: off
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # ITU T.81, table K.1
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # ITU T.81, table K.2
# fmt: on


def jpeg_batch(
    rgb: Float32[torch.Tensor, "b 3 h w"], quality: Float32[torch.Tensor, "b"]
) -> Float32[torch.Tensor, "b 3 h w"]:
    """Returns pictures (whole numbers, 0 to 255) as JPEG of this quality (1 to 100 each) gives them back."""
    height, width = rgb.shape[2:]
    right, below = -width % MACRO_BLOCK, -height % MACRO_BLOCK
    red, green, blue = F.pad(rgb, (0, right, 0, below), mode="replicate").unbind(1)
    luma = torch.round(0.299 * red + 0.587 * green + 0.114 * blue)
    chroma = torch.stack(
        [
            torch.round(-0.168735892 * red - 0.331264108 * green + 0.5 * blue + 128),
            torch.round(0.5 * red - 0.418687589 * green - 0.081312411 * blue + 128),
        ],
        dim=1,
    )  # (b, 2, H, W)
    steps = _steps(quality, rgb.device)  # (2, b, 8, 8)
    luma = _quantised(luma[:, None], steps[0])[:, 0, :height, :width]
    chroma = _quantised(_halved(chroma), steps[1])
    chroma = chroma[..., : (height + 1) // 2, : (width + 1) // 2]
    chroma = torch.round(F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False))
    b, r = (chroma[..., :height, :width] - 128).unbind(1)
    decoded = [luma + 1.402 * r, luma - 0.344136286 * b - 0.714136286 * r, luma + 1.772 * b]
    return torch.stack(decoded, dim=1).round().clamp(0, 255)


@lru_cache(maxsize=8)  # one small copy per device; sending them each time would make the device wait
def _tables(device: torch.device) -> tuple[Float32[torch.Tensor, "2 1 8 8"], Float32[torch.Tensor, "8 8"]]:
    """Returns the steps at quality 50, and the orthonormal cosine transform, frequency by place."""
    steps = torch.tensor((LUMA, CHROMA), dtype=torch.float32).reshape(2, 1, BLOCK, BLOCK)
    k = torch.arange(BLOCK, dtype=torch.float64)
    cosines = 0.5 * torch.cos(math.pi / BLOCK * k[:, None] * (k + 0.5))
    cosines[0] *= math.sqrt(0.5)
    return steps.to(device), cosines.float().to(device)


def _steps(quality: Float32[torch.Tensor, "b"], device: torch.device) -> Float32[torch.Tensor, "2 b 8 8"]:
    """Returns what coefficients are rounded to multiples of: percent of the tables, as libjpeg counts it."""
    percent = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)
    scaled = torch.floor((_tables(device)[0] * percent[:, None, None] + 50) / 100)
    return scaled.clamp(1, 255)


def _halved(planes: Float32[torch.Tensor, "b c h w"]) -> Float32[torch.Tensor, "b c h/2 w/2"]:
    """Returns means of 2 x 2 in whole numbers; halves go down and up in turn, as in libjpeg."""
    means = F.avg_pool2d(planes, 2)
    column = torch.arange(means.shape[3], device=planes.device)
    return torch.floor(means + 0.25 + 0.25 * (column % 2))


def _quantised(
    planes: Float32[torch.Tensor, "b c h w"], steps: Float32[torch.Tensor, "b 8 8"]
) -> Float32[torch.Tensor, "b c h w"]:
    """Returns planes (0 to 255) after their blocks' cosine transform was rounded to multiples of steps."""
    batch, count, height, width = planes.shape
    cosines = _tables(planes.device)[1]
    tall, wide = (batch, count, height // BLOCK, BLOCK, width), (batch, count, height, width // BLOCK, BLOCK)
    blocks = (batch, count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    rows = (planes - 128).reshape(wide) @ cosines.T
    coefficients = (cosines @ rows.reshape(tall)).reshape(blocks)
    each = steps[:, None, None, :, None, :]
    counts = torch.floor((coefficients / each).abs() + HALF)
    coefficients = torch.copysign(counts, coefficients) * each
    columns = cosines.T @ coefficients.reshape(tall)
    return ((columns.reshape(wide) @ cosines).reshape(planes.shape) + 128).round().clamp(0, 255)
