"""A joint checkpoint that learns one scene: from what its photos told of depth, what they did not tell.

Where other photos show the same point, depth is measured; where walls are blank or things shine, it is not,
and a weak network's guess there is worth little. But the same table, floor and wall are measured elsewhere in
the scene. So the network is trained for a few minutes on the measured pixels of all photos, and then draws
them anew: what it learns of a surface where that was measured, it knows where it was not.

What a photo told is a part of it, so the range that the network would draw is unknown, and depth is compared
after the best scale and shift of the drawn map (least squares on the part, as in Ranftl et al. 2020, arXiv
1907.01341, equation 4), as far things count in relative depth. The rest of the map is held, weakly, where it
was before. Some of what was told is kept from training and shows whether it helped: photos that are blurred
or whose cameras are off tell noise, and a network that learns it is better there by little.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32

from lotus.checkpoints import processing_res_of, tasks_of
from lotus.data import Told
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
MOST_ERROR = 0.1  # relative, of depth that was held out; worse is as bad


@dataclass(frozen=True)
class Learnt:
    """What training on a scene brought, at the known pixels that were held out."""

    before: float
    """Mean relative error of depth, after the best scale and shift of each map, at most 0.1 a pixel, which
    also is that of a map in which near is not drawn near."""

    after: float


@dataclass(frozen=True)
class SceneTraining:
    """How a scene is learnt."""

    steps: int = 120
    batch_size: int = 4
    """Photos per step, each drawn for depth and for normals."""

    rate: float = 4e-4
    held: float = 0.1
    """Weight of what is not known: it stays where it was."""

    seed: int = 0
    device: str = "auto"


def learn_scene(
    source: str | Path,
    told: Sequence[Told],
    out: Path,
    options: SceneTraining | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Learnt | None:
    """Trains a joint checkpoint on one scene and writes it, for `lotus.load` and `LotusPredictor`.

    The trunk of the image encoder and the autoencoder stay as they are. The same input gives the same
    weights on the same machine.

    Args:
        source: A joint checkpoint of disparity and normals (`lotus-tiny`).
        told: Photos of the scene.
        out: Folder to write the checkpoint into.
        options: Of the training.
        progress: Called with steps done and in all.

    Returns:
        What it brought; None where nothing that is known was held out.

    Raises:
        InputError: No photo tells any depth, or the checkpoint is not a joint one.
    """
    options = options or SceneTraining()
    if tasks_of(str(source)) != ("disparity", NORMAL):
        raise InputError(f"{source}: draws {tasks_of(str(source))}, wanted disparity and normal, a joint one")
    told = [each for each in told if ((each.sample.depth > 0) & ~each.held_out).any()]
    if not told:
        raise InputError("no photo tells any depth, wanted some that do")
    device = resolve_device(options.device)
    start = Train(tasks=("disparity", "normal"), networks=NetworkOptions(init=str(source)), seed=options.seed)
    networks = build(start, device)
    groups = [_Photos(networks, part, options) for part in _by_size(told)]
    weights = [part for part in networks.trainable().parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(weights, options.rate, betas=(0.9, 0.99), weight_decay=0.0)
    rng = np.random.default_rng(options.seed)
    before = _mean(each.held_out_errors() for each in groups)
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
    size = processing_res_of(str(source)) or max(told[0].held_out.shape)
    write_networks(networks, out, size, torch.float16)
    after = _mean(each.held_out_errors() for each in groups)
    return None if before is None or after is None else Learnt(before, after)


def _share(step: int, steps: int) -> float:
    """Returns the share of the rate: a short warm-up, then half a cosine."""
    return float(min(1.0, (step + 1) / 5) * 0.5 * (1 + np.cos(np.pi * step / steps)))


def _mean(parts: Iterable[torch.Tensor]) -> float | None:
    """Returns the mean of all values, None without any."""
    values = torch.cat(list(parts))
    return float(values.mean()) if len(values) else None


def _by_size(told: Sequence[Told]) -> list[list[Told]]:
    groups: dict[tuple[int, ...], list[Told]] = {}
    for each in told:
        groups.setdefault(each.held_out.shape, []).append(each)
    return list(groups.values())


class _Photos:
    """Photos of one size as the networks that learn see them."""

    def __init__(self, networks: Networks, told: Sequence[Told], options: SceneTraining) -> None:
        self.networks, self._options = networks, options
        device, samples = networks.vae.device, [each.sample for each in told]
        held_out = torch.from_numpy(np.stack([each.held_out for each in told]))[:, None].to(device)
        depth = torch.from_numpy(np.stack([each.depth for each in samples]))[:, None].to(device)
        normals = _stacked([draw_normals(each.normals) for each in samples]).to(device)
        self._depth, self._normals = depth * ~held_out, normals * ~held_out
        self._held_out = depth * held_out
        photos, features = [], []
        with torch.no_grad():
            for first in range(0, len(samples), options.batch_size):
                part = samples[first : first + options.batch_size]
                pixels = seen_pixels(networks, np.stack([each.image for each in part]))
                photos.append(torch.from_numpy(latents_of(networks, pixels)).float().to(device))
                encoder = networks.image_encoder
                features.append(encoder.features(pixels) if encoder is not None else ())
            self._photos = torch.cat(photos)
            self._features = tuple(torch.cat(maps) for maps in zip(*features, strict=True))
            before = [self._drawn(rows) for rows in self._batches()]
        self._before = [torch.cat(maps) for maps in zip(*before, strict=True)]

    def __len__(self) -> int:
        return len(self._photos)

    def _batches(self) -> Iterator[torch.Tensor]:
        for first in range(0, len(self), self._options.batch_size):
            last = min(first + self._options.batch_size, len(self))
            yield torch.arange(first, last, device=self._photos.device)

    def held_out_errors(self) -> Float32[torch.Tensor, "n"]:
        """Returns relative errors of depth at the known pixels that were held out, at most `MOST_ERROR`.

        The scale and shift of each map are those of the pixels that are trained on, robust.
        """
        found = []
        with torch.no_grad():
            for rows in self._batches():
                drawn, depth = self._drawn(rows)[0], self._held_out[rows]
                fit = fit_of_drawn(drawn, self._depth[rows])
                error = ((fit.disparity + fit.scale * (drawn - fit.drawn)) * depth - 1).abs()
                error = torch.where(fit.fits, error.clamp(max=MOST_ERROR), MOST_ERROR)
                found.append(error[depth > 0])
        return torch.cat(found)

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
        turn = half_angle_sine(normals, torch.where(turned, self._normals[rows], normals_before))
        held = masked_mean((disparity - before).abs(), ~known) + masked_mean(turn, ~turned)
        told = masked_mean(error, known & fits) + masked_mean(turn, turned)
        return told + self._options.held * held


@dataclass(frozen=True)
class Fit:
    """The line that takes drawn disparity to the known one, one for each map."""

    drawn: Float32[torch.Tensor, "b 1 1 1"]
    """Mean of the drawn disparity where it is known."""

    disparity: Float32[torch.Tensor, "b 1 1 1"]
    """Mean of the known one."""

    scale: Float32[torch.Tensor, "b 1 1 1"]
    fits: Bool[torch.Tensor, "b 1 1 1"]
    """Where that makes sense: near is drawn near."""


def fit_of_drawn(drawn: Float32[torch.Tensor, "b 1 h w"], depth: Float32[torch.Tensor, "b 1 h w"]) -> Fit:
    """Returns known disparity as a line of the drawn one, by least squares.

    Args:
        drawn: Disparity as the network draws it.
        depth: 0 where it is not known.
    """
    known = (depth > 0).float()
    count = known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    both = drawn, _disparity(depth)
    means = [(known * maps).sum(dim=(2, 3), keepdim=True) / count for maps in both]
    parts = [known * (maps - mean) for maps, mean in zip(both, means, strict=True)]
    scale = (parts[0] * parts[1]).sum(dim=(2, 3), keepdim=True)
    scale = scale / parts[0].square().sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    fits = scale > 0
    return Fit(means[0], means[1], torch.where(fits, scale, 1), fits)


def range_of_drawn(
    drawn: Float32[torch.Tensor, "b 1 h w"], depth: Float32[torch.Tensor, "b 1 h w"]
) -> tuple[Float32[torch.Tensor, "b 1 h w"], Bool[torch.Tensor, "b 1 1 1"]]:
    """Returns known disparity in the range of the drawn one, and where that makes sense; arguments as above.

    Where depth is not known the result says nothing.
    """
    fit = fit_of_drawn(drawn, depth)
    return fit.drawn + (_disparity(depth) - fit.disparity) / fit.scale, fit.fits


def _disparity(depth: torch.Tensor) -> torch.Tensor:
    return torch.where(depth > 0, 1 / depth.clamp(min=1e-12), 0)


def _stacked(maps: Sequence[Float32[np.ndarray, "h w 3"]]) -> Float32[torch.Tensor, "n 3 h w"]:
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2).contiguous()
