"""Figures and pictures of held-out samples, between steps."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from lotus.training import autoencoder
from lotus.training.shards import read_arrays
from recon.io.images import write_image

SHOWN = 12  # pictures on a sheet


@torch.no_grad()
def check_autoencoder(vae: Any, file: Path, sheet: Path) -> dict[str, float]:
    """Returns mean absolute errors of a shard's first samples after the autoencoder, by kind; draws some."""
    arrays = read_arrays(file, ("image", "disparity", "normals"), slice(0, SHOWN))
    rows, figures = [], {}
    for kind in ("image", "disparity", "normals"):
        pictures = np.stack(
            [
                autoencoder.picture_of({k: v[row] for k, v in arrays.items()}, kind)
                for row in range(len(arrays["image"]))
            ]
        )
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(vae.device)
        drawn = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.permute(0, 2, 3, 1).cpu().numpy()
        figures[kind] = float(np.abs(drawn - pictures).mean())
        rows += [np.concatenate(list(each), axis=1) for each in (pictures, drawn)]
    write_image(sheet, to_bytes(np.concatenate(rows)))
    return figures


def to_bytes(pictures: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Returns pictures in [-1, 1] as 8 bits."""
    values: np.ndarray = np.rint((pictures.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return values
