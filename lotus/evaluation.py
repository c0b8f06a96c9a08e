"""Lotus against the truth, photo by photo, as its authors measure it (He et al. 2024, section 5).

Depth after Marigold (Ke et al. 2024): scale and shift of every map fitted to the truth in least squares, in
depth or in disparity; metrics per photo, averaged over photos. Normals after DSINE (Bae and Davison 2024):
angles pooled over all pixels of a data set. The maps are the network's raw ones.
"""

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from lotus.datasets import DepthBenchmark, DepthSample, NormalSample
from recon.evaluation.maps import (
    align_depth,
    align_disparity,
    depth_metrics,
    normal_angles,
    normal_metrics,
)

if TYPE_CHECKING:
    from lotus.model import LotusModel

MIN_DEPTH = 1e-6  # m; predictions are clipped here before logarithms, as published
PAD_MULTIPLE = 32  # DSINE's networks want it; kept, for the padding shows in the result
PAD_COLOR = (
    -0.485 / 0.229,
    -0.456 / 0.224,
    -0.406 / 0.225,
)  # ImageNet's black, although pixels are in [-1, 1]
BINS_PER_DEGREE = 100  # of the histogram of angles; the median is found to a part of a bin

Draw = Callable[[Float32[np.ndarray, "h w 3"]], Float32[np.ndarray, "h w 3"]]
"""A network: pixels, nominally in [-1, 1], to its picture in [0, 1] of the same size."""

Row = dict[str, Any]
"""What is kept of one photo: its name and numbers that `depth_summary` or `normal_summary` combines."""


def drawer(model: "LotusModel", seed: int, *, space: str) -> Draw:
    """Returns the network of a checkpoint as the authors' evaluation runs it: at the pixels' own size.

    Args:
        model: Any checkpoint.
        seed: Of the noise of generative ones, the same for every photo; the authors' noise depends on the
            order of the photos.
        space: What a joint checkpoint is to draw: normal, or else its depth or disparity.
    """
    import torch
    import torch.nn.functional as F

    from lotus.model import ANNOTATION, NORMALS, RESAMPLING, draw_noise
    from lotus.sizes import LATENT_FACTOR

    switch = NORMALS if model.is_joint and space == "normal" else ANNOTATION

    def draw(pixels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        with torch.inference_mode():
            batch = torch.tensor(pixels, device=model.device).permute(2, 0, 1)[None].contiguous()
            height, width = batch.shape[2:]
            shape = (1, 4, height // LATENT_FACTOR, width // LATENT_FACTOR)
            noise = draw_noise(shape, seed) if model.is_generative else None
            pictures = (model.decode(model.denoise(model.encode(batch), noise, switch)) / 2 + 0.5).clamp(0, 1)
            if pictures.shape[2:] != (height, width):
                pictures = F.interpolate(pictures, (height, width), **RESAMPLING["nearest"])
            return pictures[0].permute(1, 2, 0).float().cpu().numpy()

    return draw


def score_depth(draw: Draw, sample: DepthSample, benchmark: DepthBenchmark, *, space: str) -> Row:
    """Returns the metrics of one photo.

    Args:
        draw: A network of depth or disparity.
        sample: The photo and its truth.
        benchmark: The data set's rules.
        space: What the network draws, depth or disparity; scale and shift are fitted there.

    Raises:
        InputError: No pixel counts, or the network draws the same value everywhere.
    """
    size = sample.depth.shape
    values = _resized(draw(_pixels(sample.image, benchmark.processing_res)).mean(axis=-1), size)
    align = align_disparity if space == "disparity" else align_depth
    aligned = align(values, sample.depth, sample.mask & alignment_grid(size, benchmark.alignment_max_res))
    depth = np.clip(np.clip(aligned, benchmark.min_depth, benchmark.max_depth), MIN_DEPTH, None)
    return {"photo": sample.name, **asdict(depth_metrics(depth, sample.depth, sample.mask))}


def score_normals(draw: Draw, sample: NormalSample) -> Row:
    """Returns the metrics of one photo, and the histogram of its angles.

    Raises:
        InputError: No pixel counts.
    """
    height, width = sample.mask.shape
    top, bottom, left, right = padding(height, width)
    pixels = np.empty((top + height + bottom, left + width + right, 3), np.float32)
    pixels[:] = PAD_COLOR
    pixels[top : top + height, left : left + width] = _pixels(sample.image, 0)
    picture = draw(pixels)[top : top + height, left : left + width]
    normals = 1 - 2 * picture  # the negative of 2x - 1: left, up, toward the camera become ours
    angles = normal_angles(normals, sample.normals, sample.mask)
    counts = np.bincount((angles * BINS_PER_DEGREE).astype(np.int64), minlength=180 * BINS_PER_DEGREE + 1)
    score = asdict(normal_metrics(normals, sample.normals, sample.mask))
    return {"photo": sample.name, **score, "histogram": pack(counts)}


def depth_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns a data set's metrics: means over photos."""
    names = [name for name in rows[0] if name not in ("photo", "pixels")]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def normal_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns a data set's metrics over the pixels of all photos together, degrees and per cent.

    All are exact but the median, which is interpolated in a bin of 0.01 degrees.
    """
    pixels = np.array([row["pixels"] for row in rows], np.float64)
    share = pixels / pixels.sum()
    names = [name for name in rows[0] if name not in ("photo", "pixels", "histogram")]
    summary = {name: float(share @ np.array([row[name] for row in rows])) for name in names}
    summary["rmse"] = float(np.sqrt(share @ np.array([row["rmse"] for row in rows]) ** 2))
    counts = np.sum([unpack(row["histogram"]) for row in rows], axis=0)
    summary["median"] = _median(counts)
    return summary


def alignment_grid(size: tuple[int, ...], max_res: int) -> Bool[np.ndarray, "h w"]:
    """Returns the pixels that the published reduction to `max_res` keeps; all if it is 0.

    The authors call torch's `Upsample` on maps of shape (1, h, w), which it takes for h signals of length w:
    columns floor(k / factor) remain, and all rows.
    """
    factor = min(max_res / side for side in size) if max_res else 1.0
    if factor >= 1:
        return np.ones(size, bool)
    columns = np.floor(np.arange(int(size[1] * factor), dtype=np.float32) * np.float32(1 / factor)).astype(
        int
    )
    grid = np.zeros(size, bool)
    grid[:, np.minimum(columns, size[1] - 1)] = True
    return grid


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Returns the (top, bottom, left, right) pixels that make both sides multiples of 32."""
    extra = [-side % PAD_MULTIPLE for side in (height, width)]
    return extra[0] // 2, extra[0] - extra[0] // 2, extra[1] // 2, extra[1] - extra[1] // 2


def pack(counts: Int64[np.ndarray, "n"]) -> str:
    """Returns a histogram as text; most of its bins are empty."""
    return base64.b64encode(zlib.compress(counts.astype("<u4").tobytes())).decode("ascii")


def unpack(text: str) -> Int64[np.ndarray, "n"]:
    """Returns the histogram of a text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.int64)


def _median(counts: Int64[np.ndarray, "n"]) -> float:
    """Returns the median of angles in bins, degrees, as if they were spread evenly in each."""
    reached = np.concatenate([[0], np.cumsum(counts)])
    middle = int(np.searchsorted(reached, reached[-1] / 2, side="left"))
    before, here = reached[middle - 1], reached[middle]
    return float((middle - 1 + (reached[-1] / 2 - before) / (here - before)) / BINS_PER_DEGREE)


def _pixels(image: UInt8[np.ndarray, "h w 3"], processing_res: int) -> Float32[np.ndarray, "h2 w2 3"]:
    """Returns a photo in [-1, 1]; where it is resized, rounded to whole numbers first, as published."""
    if processing_res:
        from lotus.model import working_size

        width, height = working_size(image.shape[1], image.shape[0], processing_res)
        return np.rint(_interpolated(image.astype(np.float32), (height, width))) / np.float32(127.5) - 1
    return image.astype(np.float32) / np.float32(127.5) - 1


def _resized(values: Float32[np.ndarray, "_h _w"], size: tuple[int, ...]) -> Float32[np.ndarray, "h w"]:
    return values if values.shape == size else _interpolated(values[..., None], size)[..., 0]


def _interpolated(
    values: Float32[np.ndarray, "_h _w c"], size: tuple[int, ...]
) -> Float32[np.ndarray, "h w c"]:
    import torch
    import torch.nn.functional as F

    from lotus.model import RESAMPLING

    channels = torch.tensor(values).permute(2, 0, 1)[None]
    return F.interpolate(channels, size, **RESAMPLING["bilinear"])[0].permute(1, 2, 0).numpy()
