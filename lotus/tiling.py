"""Detail beyond the size that the network works at: overlapping tiles, fitted to one prediction of the whole.

A tile is a picture of its own to the network: its range is normalised anew, so each has an unknown scale and
shift. Both come from the prediction of the whole photo, which is coarse but consistent. Windows that fall to
zero at a tile's border leave no seam.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from recon.io.images import resize_map, resize_normals
from recon.scene import Prediction

OVERLAP = 0.25  # of a tile's side, at least
WHOLE_WEIGHT = 0.02  # of the whole photo's prediction; it decides where every tile is clipped


def tile_corners(size: tuple[int, int], tile: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns (left, top) of tiles that cover a picture evenly and overlap by at least `OVERLAP`.

    Args:
        size: (width, height) of the picture.
        tile: (width, height) of every tile, at most that of the picture.
    """
    (width, height), (tile_width, tile_height) = size, tile
    lefts, tops = _starts(width, tile_width), _starts(height, tile_height)
    return [(left, top) for top in tops for left in lefts]


def _starts(length: int, tile: int) -> list[int]:
    count = 1 + int(np.ceil((length - tile) / (tile * (1 - OVERLAP))))
    return np.linspace(0, length - tile, count).round().astype(int).tolist()


def merge(
    whole: Prediction,
    tiles: Sequence[Prediction],
    corners: Sequence[tuple[int, int]],
    size: tuple[int, int],
) -> Prediction:
    """Returns the prediction at `size` = (width, height) that has the tiles' detail in the whole's scale.

    Args:
        whole: Of the whole photo, smaller than `size`.
        tiles: Of each tile, as large as the tile.
        corners: (left, top) of each tile.
        size: Of the result.
    """
    width, height = size
    shares = [_window(tile.values.shape, corner, size) for tile, corner in zip(tiles, corners, strict=True)]
    values, confidence, normals = resize_map(whole.values, width, height), None, None
    if whole.confidence is not None:
        certainty = resize_map(whole.confidence, width, height)
        values, confidence = _merge_values(values, certainty, tiles, shares)
    if whole.normals is not None:
        normals = _merge_normals(resize_normals(whole.normals, width, height), tiles, shares)
    return Prediction(values, whole.kind, normals, confidence)


@dataclass(frozen=True)
class _Window:
    """Where a tile lies in the result, and how much each of its pixels counts."""

    rows: slice
    columns: slice
    share: Float32[np.ndarray, "h w"]


def _window(shape: tuple[int, ...], corner: tuple[int, int], size: tuple[int, int]) -> _Window:
    """Returns the window of a tile: 1 in the middle, near 0 at borders that are not the picture's."""
    (height, width), (left, top) = shape, corner
    rows = _ramp(height, top > 0, top + height < size[1])
    columns = _ramp(width, left > 0, left + width < size[0])
    share = np.outer(rows, columns).astype(np.float32)
    return _Window(slice(top, top + height), slice(left, left + width), share)


def _ramp(length: int, rises: bool, falls: bool) -> Float[np.ndarray, "n"]:
    steps = (np.arange(length) + 0.5) / (OVERLAP * length)
    ramp = np.minimum(steps if rises else 1, steps[::-1] if falls else 1)
    return np.sin(np.clip(ramp, 0, 1) * np.ones(length) * np.pi / 2) ** 2


def _merge_values(
    values: Float32[np.ndarray, "H W"],
    certainty: Float32[np.ndarray, "H W"],
    tiles: Sequence[Prediction],
    windows: Sequence[_Window],
) -> tuple[Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    """Returns mean values and confidence, each tile weighed by its window and its confidence."""
    weight = WHOLE_WEIGHT * certainty
    total, trust = weight * values, weight * certainty
    for tile, window in zip(tiles, windows, strict=True):
        assert tile.confidence is not None  # whatever the whole has, its tiles have
        part = window.rows, window.columns
        share = window.share * tile.confidence
        total[part] += share * fitted(tile.values, values[part], tile.confidence * certainty[part])
        trust[part] += share * tile.confidence
        weight[part] += share
    return (total / weight).astype(np.float32), (trust / weight).astype(np.float32)


def _merge_normals(
    normals: Float32[np.ndarray, "H W 3"], tiles: Sequence[Prediction], windows: Sequence[_Window]
) -> Float32[np.ndarray, "H W 3"]:
    total = WHOLE_WEIGHT * normals
    for tile, window in zip(tiles, windows, strict=True):
        assert tile.normals is not None
        total[window.rows, window.columns] += window.share[..., None] * tile.normals
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    return np.where(length > 0, total / np.where(length > 0, length, 1), 0).astype(np.float32)


def fitted(
    source: Float[np.ndarray, "h w"], target: Float[np.ndarray, "h w"], weights: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Returns scale * source + shift nearest to the target in weighted least squares.

    A constant source becomes the target's mean.
    """
    shares = weights / weights.sum(dtype=np.float64)
    offset, mean = source - (shares * source).sum(), (shares * target).sum()
    variance = (shares * offset**2).sum()
    scale = (shares * offset * (target - mean)).sum() / variance if variance > 0 else 0.0
    return scale * offset + mean
