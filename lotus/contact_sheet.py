"""Small pictures of many photos on one sheet."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from recon.io.images import resize_image

THUMBNAIL_HEIGHT, MARGIN = 180, 4  # px
MAX_THUMBNAIL_RATIO = 3  # width / height; wider photos are lower on the sheet
SHEET_RATIO = 1.4  # width / height of the contact sheet, about


def strip(pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns small pictures side by side, all of the first one's size, with a white margin."""
    height, width = pictures[0].shape[:2]
    scale = min(THUMBNAIL_HEIGHT / height, MAX_THUMBNAIL_RATIO * THUMBNAIL_HEIGHT / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    row = np.concatenate([resize_image(picture, *size) for picture in pictures], axis=1)
    below = THUMBNAIL_HEIGHT - size[1] + MARGIN
    return np.pad(row, ((MARGIN, below), (MARGIN, MARGIN), (0, 0)), constant_values=255)


def sheet(strips: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns strips in rows on white, in reading order."""
    area = sum(strip.shape[0] * strip.shape[1] for strip in strips)
    width = max(round((area * SHEET_RATIO) ** 0.5), *(strip.shape[1] for strip in strips), 1)
    rows: list[list[np.ndarray]] = [[]]
    for strip in strips:
        if sum(each.shape[1] for each in rows[-1]) + strip.shape[1] > width:
            rows.append([])
        rows[-1].append(strip)
    joined = [np.concatenate(row, axis=1) for row in rows if row]
    widest = max(row.shape[1] for row in joined)
    padded = [
        np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in joined
    ]
    return np.concatenate(padded)
