"""A joint checkpoint that learns one scene: from what its photos told of depth, what they did not tell.

Where other photos show the same point, depth is measured; where walls are blank or things shine, it is not,
and a weak network's guess there is worth little. But the same table, floor and wall are measured elsewhere in
the scene. So the network is trained for a few minutes on the measured pixels of all photos, and then draws
them anew: what it learns of a surface where that was measured, it knows where it was not.

What a photo told is a part of it, so the range that the network would draw is unknown, and depth is compared
after the best scale and shift of the drawn map (least squares on the part, as in Ranftl et al. 2020, arXiv
1907.01341, equation 4), as far things count in relative depth. The rest of the map is held, weakly, where it
was before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32

from lotus.checkpoints import processing_res_of, tasks_of
from lotus.data import TrainingSample
from lotus.devices import resolve_device, resolve_dtype
from lotus.network import sampling_timesteps, task_vectors
from lotus.training.config import Networks as NetworkOptions
from lotus.training.config import Train
from lotus.training.encoding import NORMAL, latents_of, seen_pixels
from lotus.training.networks import Networks, build, write_networks
from lotus.training.step import forward, half_angle_sine, masked_mean, relative_weight
from lotus.training.targets import draw_normals
from recon.errors import InputError

FLOOR = 0.2  # of `relative_weight`: as `lotus-tiny` was trained
OUTLIER = 0.5  # of weighed disparity; errors beyond hardly count: what was measured may be a reflection
BEYOND = 0.05  # share that they count


@dataclass(frozen=True)
class SceneTraining:
    """How a scene is learnt."""

    steps: int = 120
    batch_size: int = 8
    """Photos per step, each drawn for depth and for normals."""

    rate: float = 4e-4
    held: float = 0.1
    """Weight of what is not known: it stays where it was."""

    seed: int = 0
    device: str = "auto"


def learn_scene(
    source: str | Path,
    told: Sequence[TrainingSample],
    out: Path,
    options: SceneTraining | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Trains a joint checkpoint on one scene and writes it, for `lotus.load` and `LotusPredictor`.

    The trunk of the image encoder and the autoencoder stay as they are. The same input gives the same
    weights on the same machine.

    Args:
        source: A joint checkpoint of disparity and normals (`lotus-tiny`).
        told: Photos of the scene with what is known of their depth, sides multiples of 8 px; no sky.
        out: Folder to write the checkpoint into.
        options: Of the training.
        progress: Called with steps done and in all.

    Raises:
        InputError: No photo tells any depth, or the checkpoint is not a joint one.
    """
    options = options or SceneTraining()
    if tasks_of(str(source)) != ("disparity", NORMAL):
        raise InputError(f"{source}: draws {tasks_of(str(source))}, wanted disparity and normal, a joint one")
    told = [each for each in told if (each.depth > 0).any()]
    if not told:
        raise InputError("no photo tells any depth, wanted some that do")
    device = resolve_device(options.device)
    start = Train(tasks=("disparity", "normal"), networks=NetworkOptions(init=str(source)), seed=options.seed)
    networks = build(start, device)
    groups = [_Photos(networks, part, options) for part in _by_size(told)]
    weights = [part for part in networks.trainable().parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(weights, options.rate, betas=(0.9, 0.99), weight_decay=0.0)
    rng = np.random.default_rng(options.seed)
    for step in range(options.steps):
        group = groups[rng.choice(len(groups), p=[len(each) / len(told) for each in groups])]
        chosen = rng.choice(len(group), min(options.batch_size, len(group)), replace=False)
        loss = group.loss(torch.from_numpy(np.sort(chosen)).to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for settings in optimizer.param_groups:
            settings["lr"] = options.rate * _share(step, options.steps)
        optimizer.step()
        progress(step + 1, options.steps)
    size = processing_res_of(str(source)) or max(told[0].depth.shape)
    write_networks(networks, out, size, torch.float16)


def _share(step: int, steps: int) -> float:
    """Returns the share of the rate: a short warm-up, then half a cosine."""
    return float(min(1.0, (step + 1) / 5) * 0.5 * (1 + np.cos(np.pi * step / steps)))


def _by_size(told: Sequence[TrainingSample]) -> list[list[TrainingSample]]:
    groups: dict[tuple[int, ...], list[TrainingSample]] = {}
    for each in told:
        groups.setdefault(each.depth.shape, []).append(each)
    return list(groups.values())


class _Photos:
    """Photos of one size as the networks that learn see them."""

    def __init__(self, networks: Networks, told: Sequence[TrainingSample], options: SceneTraining) -> None:
        self.networks, self._options = networks, options
        device = networks.vae.device
        self._depth = torch.from_numpy(np.stack([each.depth for each in told]))[:, None].to(device)
        self._normals = _stacked([draw_normals(each.normals) for each in told]).to(device)
        photos, features, before = [], [], []
        with torch.no_grad():
            for first in range(0, len(told), options.batch_size):
                part = told[first : first + options.batch_size]
                pixels = seen_pixels(networks, np.stack([each.image for each in part]))
                photos.append(torch.from_numpy(latents_of(networks, pixels)).float().to(device))
                encoder = networks.image_encoder
                features.append(encoder.features(pixels) if encoder is not None else ())
            self._photos = torch.cat(photos)
            self._features = tuple(torch.cat(maps) for maps in zip(*features, strict=True))
            for first in range(0, len(told), options.batch_size):
                rows = torch.arange(first, min(first + options.batch_size, len(told)), device=device)
                before.append(self._drawn(rows))
        self._before = [torch.cat(maps) for maps in zip(*before, strict=True)]

    def __len__(self) -> int:
        return len(self._photos)

    def _drawn(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what the networks draw of some photos: disparity (b, 1, h, w) and normals (b, 3, h, w)."""
        networks, count = self.networks, len(rows)
        vectors = task_vectors(len(networks.tasks) + 1).to(rows.device)
        switch = vectors[torch.arange(2, device=rows.device).repeat_interleave(count)]
        timesteps = torch.full((2 * count,), sampling_timesteps(1)[0], device=rows.device)
        is_fast = resolve_dtype("auto", rows.device) != torch.float32
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=is_fast):
            condition = self._photos[rows]
            if networks.image_encoder is not None:
                projected = networks.image_encoder.project(tuple(maps[rows] for maps in self._features))
                condition = torch.cat([condition, projected], dim=1)
            latents = forward(networks, condition.repeat(2, 1, 1, 1), switch, timesteps)
            drawn = networks.vae.decode(latents / networks.vae.config.scaling_factor).sample.float()
        return drawn[:count].mean(dim=1, keepdim=True), drawn[count:]

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns the error of what is drawn of some photos."""
        disparity, normals = self._drawn(rows)
        known = self._depth[rows] > 0
        wanted, fits = range_of_drawn(disparity.detach(), self._depth[rows])
        error = (disparity - wanted).abs() * relative_weight(wanted.clamp(-1, 1), FLOOR)
        error = torch.minimum(error, BEYOND * error + (1 - BEYOND) * OUTLIER)
        turned = (self._normals[rows] != 0).any(dim=1, keepdim=True)
        before, normals_before = (maps[rows] for maps in self._before)
        held = masked_mean((disparity - before).abs(), ~known)
        held = held + masked_mean(half_angle_sine(normals, normals_before), ~turned)
        told = masked_mean(error, known & fits) + masked_mean(
            half_angle_sine(normals, self._normals[rows]), turned
        )
        return told + self._options.held * held


def range_of_drawn(
    drawn: Float32[torch.Tensor, "b 1 h w"], depth: Float32[torch.Tensor, "b 1 h w"]
) -> tuple[Float32[torch.Tensor, "b 1 h w"], Bool[torch.Tensor, "b 1 1 1"]]:
    """Returns known disparity in the range of the drawn one, by least squares, and where that makes sense.

    Args:
        drawn: Disparity as the network draws it.
        depth: 0 where it is not known; there the result says nothing.
    """
    known = (depth > 0).float()
    disparity = torch.where(depth > 0, 1 / depth.clamp(min=1e-12), 0)
    count = known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    means = [(known * maps).sum(dim=(2, 3), keepdim=True) / count for maps in (drawn, disparity)]
    parts = [known * (maps - mean) for maps, mean in zip((drawn, disparity), means, strict=True)]
    scale = (parts[0] * parts[1]).sum(dim=(2, 3), keepdim=True)
    scale = scale / parts[0].square().sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    fits = scale > 0
    return means[0] + (disparity - means[1]) / torch.where(fits, scale, 1), fits


def _stacked(maps: Sequence[Float32[np.ndarray, "h w 3"]]) -> Float32[torch.Tensor, "n 3 h w"]:
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).contiguous()
