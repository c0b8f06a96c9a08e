"""Figures and pictures of held-out samples, between steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from lotus.colours import seen_as
from lotus.data import TrainingSample
from lotus.training import autoencoder
from lotus.training.config import Train
from lotus.training.encoding import NORMAL, photo_pixels
from lotus.training.networks import Networks
from lotus.training.sampling import sample_latents
from lotus.training.shards import read_arrays
from lotus.training.targets import draw_depth
from recon.errors import InputError
from recon.evaluation.maps import align_depth, align_disparity, depth_metrics, normal_angles
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


@torch.no_grad()
def draw(networks: Networks, image: np.ndarray, options: Train, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns what the networks draw of a photo in one step, by task, (h, w, 3) in [-1, 1] and beyond."""
    device = networks.vae.device
    pixels = torch.from_numpy(photo_pixels(image)).permute(2, 0, 1)[None].contiguous().to(device)
    pixels, scaling = seen_as(pixels, networks.colours), networks.vae.config.scaling_factor
    photo = networks.vae.encode(pixels).latent_dist.mode() * scaling
    condition = (
        photo if networks.image_encoder is None else torch.cat([photo, networks.image_encoder(pixels)], 1)
    )
    count = len(networks.tasks)
    condition, noise = condition.expand(count, -1, -1, -1), None
    if options.generative:
        noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(seed)).to(device)
        noise = noise.expand(count, -1, -1, -1)
    switch = torch.arange(count, device=device)
    latents = sample_latents(networks, condition, noise, switch, prediction=options.loss.prediction)
    drawn = networks.vae.decode(latents / scaling).sample.permute(0, 2, 3, 1).cpu().numpy()
    return dict(zip(networks.tasks, drawn, strict=True))


def check(
    networks: Networks, samples: Sequence[TrainingSample], options: Train, sheet: Path
) -> dict[str, float]:
    """Returns errors on held-out samples and draws some: photo, then what is drawn beside the truth.

    `abs_rel` is the mean of |d' - d| / d over pixels, then over samples, d' fitted in scale and shift (in
    disparity, if that is drawn) and clipped to the range of d; `normal` the mean angle, degrees, likewise.
    """
    networks.unet.eval()
    figures: dict[str, list[float]] = {"abs_rel": [], "delta1": [], "normal": []}
    rows = []
    for sample in samples:
        drawn, known = draw(networks, sample.image, options), sample.depth > 0
        row = [photo_pixels(sample.image)]
        for task, picture in drawn.items():
            height, width = picture.shape[:2]
            if task == NORMAL:
                truth = sample.normals[:height, :width]
                figures["normal"].append(float(normal_angles(-picture, truth).mean()))
                row += [picture, -sample.normals]
            else:
                score = score_depth(picture.mean(axis=-1), sample.depth[:height, :width], task)
                figures["abs_rel"].append(score[0])
                figures["delta1"].append(score[1])
                grey = draw_depth(np.where(known, sample.depth, 0), options.loss.norm_type)
                row += [np.repeat(each[..., None], 3, axis=2) for each in (picture.mean(axis=-1), grey)]
        rows.append(np.concatenate(row, axis=1))
    first = [row for row in rows if row.shape == rows[0].shape][:SHOWN]
    if first:
        write_image(sheet, to_bytes(np.concatenate(first)))
    networks.unet.train()
    return {name: float(np.mean(values)) for name, values in figures.items() if values}


def score_depth(values: np.ndarray, depth: np.ndarray, task: str) -> tuple[float, float]:
    """Returns AbsRel and delta 1 of a drawn map after the fit; (1, 0) where it is constant."""
    known = depth > 0
    shown = values.astype(np.float64) + 2  # align_disparity counts positive values only
    try:
        align = align_disparity if task == "disparity" else align_depth
        aligned = align(shown, depth, known)
    except InputError:
        return 1.0, 0.0
    score = depth_metrics(aligned.clip(depth[known].min(), depth[known].max()), depth, known)
    return score.abs_rel, score.delta1
