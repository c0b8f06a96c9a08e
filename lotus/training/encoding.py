"""From samples to what the UNet is trained on: latents of photo and annotations, features, masks.

The autoencoder and the image encoder are frozen, so this is done once per sample: beforehand for shards, or
as samples come. Latents are the posterior's mean, scaled; the reference draws from the posterior.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, UInt8

from lotus.colours import seen_as
from lotus.sizes import LATENT_FACTOR
from lotus.training.config import Train
from lotus.training.networks import Networks
from lotus.training.shards import NORMAL_LEVELS, read_arrays, write_arrays
from lotus.training.targets import (
    draw_normals,
    draw_values,
    is_disparity,
    value_range,
    whole_cells,
)

PART = 8  # pictures encoded at once
NORMAL = "normal"
RAW = ("image", "disparity", "normals")

Arrays = Mapping[str, np.ndarray]


class Pictures(NamedTuple):
    """The part of some rows that is compared as pictures: their true maps, drawn in [-1, 1]."""

    rows: Int64[torch.Tensor, "r"]
    columns: Int64[torch.Tensor, "c"]
    """Which latent cells the part has."""

    drawn: Float32[torch.Tensor, "p 3 h w"]
    known: Bool[torch.Tensor, "p 1 h w"]
    turned: Bool[torch.Tensor, "p"]
    """Which rows draw normals."""


@dataclass(frozen=True)
class Batch:
    """Rows that annotate."""

    photo: Float32[torch.Tensor, "b z h w"]
    features: tuple[torch.Tensor, ...]
    """The image encoder's maps; none without one, or if its trunk is trained."""

    targets: Float32[torch.Tensor, "a z h w"]
    """Latents of the annotation that a row draws: one row per photo, or as many for each, photo by photo."""

    valid: Bool[torch.Tensor, "a 1 h w"]
    """Cells that count."""

    tasks: Int64[torch.Tensor, "a"]
    """Index of the row's task."""

    pictures: Pictures | None
    pixels: Float32[torch.Tensor, "b 3 h8 w8"] | None = None
    """The photos in [-1, 1], if the image encoder's trunk is trained."""


@torch.no_grad()
def encode(arrays: Arrays, networks: Networks, norm_type: str) -> dict[str, np.ndarray]:
    """Returns the encoded arrays of a shard's: half-precision latents and features, masks, drawn ranges.

    Args:
        arrays: `image`, `disparity` and `normals` as in `lotus.training.shards`.
        networks: With the frozen encoders; a trunk that is trained gives no features here.
        norm_type: How depth is drawn.
    """
    known, values = arrays["disparity"] > 0, depth_values(arrays["disparity"], norm_type)
    limits = np.array([value_range(*pair, norm_type) for pair in zip(values, known, strict=True)], np.float32)
    encoded: dict[str, np.ndarray] = {"limits": limits}
    depth_task, normal = _depth_task(networks.tasks), NORMAL in networks.tasks
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(values), PART):
        rows = slice(start, start + PART)
        photos = seen_pixels(networks, arrays["image"][rows])
        part = {"photo": latents_of(networks, photos)}
        if depth_task:
            drawn = draw_depths(values[rows], known[rows], limits[rows], norm_type)
            part[depth_task] = latents_of(networks, _pixels(networks, np.repeat(drawn[..., None], 3, axis=3)))
        if normal:
            turned = draw_normals(arrays["normals"][rows] / np.float32(NORMAL_LEVELS))
            part[NORMAL] = latents_of(networks, _pixels(networks, turned))
        if networks.image_encoder is not None and not networks.trunk_learns():
            features = networks.image_encoder.features(photos)
            part |= {f"feature_{i}": each.half().cpu().numpy() for i, each in enumerate(features)}
        parts.append(part)
    encoded |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if depth_task:
        encoded[f"{depth_task}_valid"] = whole_cells(arrays.get("counts", np.ones(known.shape, bool)))
    if normal:
        encoded[f"{NORMAL}_valid"] = whole_cells((arrays["normals"] != 0).any(axis=-1))
    return encoded


def encoded_file(shard: Path, digest: str, is_mirrored: bool = False) -> Path:
    """Returns where a shard's encoding is kept; encodings by other networks are other files."""
    return shard.parent / f"encoded_{digest}" / f"{'mirrored_' * is_mirrored}{shard.name}"


def encode_shard(shard: Path, networks: Networks, options: Train, digest: str) -> None:
    """Encodes a shard on disk, and its mirror image, unless that is done."""
    arrays = read_arrays(shard, RAW)
    for is_mirrored in (False, True):
        file = encoded_file(shard, digest, is_mirrored)
        if not file.is_file():
            encoded = encode(mirror(arrays) if is_mirrored else arrays, networks, options.loss.norm_type)
            write_arrays(file, {k: v.astype(np.uint8) if v.dtype == bool else v for k, v in encoded.items()})


def mirror(arrays: Arrays) -> dict[str, np.ndarray]:
    """Returns a shard's arrays of the mirrored photos: x of normals is negated."""
    flipped = {name: values[:, :, ::-1] for name, values in arrays.items()}
    if "normals" in flipped:
        flipped["normals"] = flipped["normals"] * np.array([-1, 1, 1], np.int8)
    return {name: np.ascontiguousarray(values) for name, values in flipped.items()}


def encoder_digest(networks: Networks, options: Train) -> str:
    """Returns a digest of what an encoding depends on: frozen weights, colours, tasks, how depth is drawn."""
    digest = sha256(repr((networks.tasks, networks.colours, options.loss.norm_type)).encode())
    encoder = ("encoder.", "quant_conv.")
    frozen = {name: part for name, part in networks.vae.named_parameters() if name.startswith(encoder)}
    if networks.image_encoder is not None:
        trunk = networks.image_encoder.named_parameters()
        frozen |= {name: part for name, part in trunk if not name.startswith("projections")}
    for name in sorted(frozen):
        digest.update(frozen[name].detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def make_batch(
    arrays: Arrays, encoded: Arrays, networks: Networks, options: Train, rng: np.random.Generator
) -> Batch:
    """Returns the batch of some samples; the generator says which task each row draws.

    Args:
        arrays: `disparity` and `normals` of the first rows at least, for the pixel losses; `image`, if the
            trunk is trained.
        encoded: As `encode` makes them.
        networks: Their device is where the batch lies.
        options: The training.
        rng: Of this batch.
    """
    device, count = networks.vae.device, len(encoded["photo"])
    tasks = (np.arange(count) + rng.integers(len(networks.tasks))) % len(networks.tasks)
    choose = {
        key: np.stack([encoded[networks.tasks[task] + key][row] for row, task in enumerate(tasks)])
        for key in ("", "_valid")
    }
    features = [encoded[name] for name in sorted(encoded) if name.startswith("feature_")]
    return Batch(
        _tensor(encoded["photo"], device),
        tuple(_tensor(each, device) for each in features),
        _tensor(choose[""], device),
        torch.from_numpy(choose["_valid"].astype(bool)[:, None]).to(device),
        torch.from_numpy(tasks).to(device),
        _draw_pictures(arrays, encoded["limits"], tasks, options, rng, device)
        if options.loss.pixel_rows
        else None,
        seen_pixels(networks, arrays["image"]) if networks.trunk_learns() else None,
    )


def _draw_pictures(
    arrays: Arrays,
    limits: np.ndarray,
    tasks: np.ndarray,
    options: Train,
    rng: np.random.Generator,
    device: torch.device,
) -> Pictures:
    """Returns a random part of the true maps of the first rows."""
    height, width = (side // LATENT_FACTOR for side in arrays["disparity"].shape[1:3])
    rows, columns = (min(options.loss.pixel_crop, side) for side in (height, width))
    top, left = (int(rng.integers(n + 1)) for n in (height - rows, width - columns))
    window = (
        slice(top * LATENT_FACTOR, (top + rows) * LATENT_FACTOR),
        slice(left * LATENT_FACTOR, (left + columns) * LATENT_FACTOR),
    )
    drawn, known = [], []
    for row in range(min(options.loss.pixel_rows, len(tasks))):
        disparity = arrays["disparity"][row][window]
        if options.tasks[tasks[row]] == NORMAL:
            normals = arrays["normals"][row][window] / np.float32(NORMAL_LEVELS)
            drawn.append(draw_normals(normals))
            known.append((normals != 0).any(axis=-1))
        else:
            values = depth_values(disparity[None], options.loss.norm_type)
            norm_type = options.loss.norm_type
            picture = draw_depths(values, disparity[None] > 0, limits[row : row + 1], norm_type)[0]
            drawn.append(np.repeat(picture[..., None], 3, axis=2))
            known.append(
                arrays["counts"][row][window] if "counts" in arrays else np.ones(picture.shape, bool)
            )
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    turned = np.array([options.tasks[task] == NORMAL for task in tasks[: len(drawn)]])
    parts = (pixels, torch.from_numpy(np.stack(known))[:, None], torch.from_numpy(turned))
    cells = torch.arange(top, top + rows), torch.arange(left, left + columns)
    return Pictures(*(part.to(device) for part in (*cells, *parts)))


def depth_values(disparity: np.ndarray, norm_type: str) -> Float32[np.ndarray, "n h w"]:
    """Returns the values that a norm_type draws, of a shard's disparity."""
    values = disparity.astype(np.float32)
    if is_disparity(norm_type):
        return values
    return np.where(values > 0, 1 / np.where(values > 0, values, 1), 0).astype(np.float32)


def draw_depths(
    values: np.ndarray, known: np.ndarray, limits: np.ndarray, norm_type: str
) -> Float32[np.ndarray, "n h w"]:
    """Returns the drawn maps of several samples."""
    near = is_disparity(norm_type)
    each = zip(values, known, limits, strict=True)
    return np.stack([draw_values(v, k, (float(r[0]), float(r[1])), is_disparity=near) for v, k, r in each])


def photo_pixels(images: UInt8[np.ndarray, "*n h w 3"]) -> Float32[np.ndarray, "*n h w 3"]:
    """Returns photos in [-1, 1]."""
    pixels: np.ndarray = images.astype(np.float32) / 127.5 - 1
    return pixels


def _depth_task(tasks: tuple[str, ...]) -> str | None:
    return next((task for task in tasks if task != NORMAL), None)


def latents_of(networks: Networks, pixels: torch.Tensor) -> Float16[np.ndarray, "n z h8 w8"]:
    """Returns the latents of pictures in [-1, 1], in half precision."""
    latents = networks.vae.encode(pixels).latent_dist.mode() * networks.vae.config.scaling_factor
    half: np.ndarray = latents.half().cpu().numpy()
    return half


def _pixels(networks: Networks, pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(networks.vae.device)


def seen_pixels(networks: Networks, images: UInt8[np.ndarray, "n h w 3"]) -> torch.Tensor:
    """Returns photos in [-1, 1] as the networks see their colours, on their device."""
    return seen_as(_pixels(networks, photo_pixels(images)), networks.colours)


def _tensor(values: np.ndarray, device: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device).float()
