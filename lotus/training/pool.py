"""Batches of scenes rendered on the training's own device, drawn from a pool that is renewed meanwhile.

The pool keeps the light that reaches the camera, not the photo: whenever a scene is drawn, its photo is taken
anew, with another exposure, lens, noise and JPEG, and half of them mirrored. So scenes can be drawn several
times while a few processes lay out the next ones.

Batch n is drawn from the rendered batches up to n // reuse, and everything else of it from n: a resumed
training renders its pool again and then sees what an uninterrupted one sees.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float32

from lotus.colours import seen_as
from lotus.sizes import LATENT_FACTOR
from lotus.training.config import Train
from lotus.training.encoding import NORMAL, Batch, Pictures
from lotus.training.loop import batch_count
from lotus.training.networks import Networks
from lotus.training.shards import NORMAL_LEVELS
from lotus.training.targets import HIGH, LOW, RANGE_EPS, SCENE_DEPTH, is_disparity

if TYPE_CHECKING:
    from lotus.scenes import SceneTables

PHOTOS = 4  # different ones of a scene
MOST_LIGHT = 6e4  # that half precision holds
PART = 64  # scenes rendered at once

Layout = tuple["SceneTables", Float32[np.ndarray, "b p k"]]
"""Scenes, and the photos to take of each."""

Window = tuple[slice, slice]


def lay_out(seeds: range) -> list[Layout]:
    """Returns the scenes of seeds in parts, each with `PHOTOS` ways to take its photo."""
    from lotus import scenes

    parts = []
    for first in range(seeds.start, seeds.stop, PART):
        found = [scenes.sample(seed) for seed in range(first, min(first + PART, seeds.stop))]
        photos = []
        for scene in found:
            rng = np.random.default_rng((scene.seed, PHOTOS))
            photos.append(
                scenes.photo_table([scene.photo, *(scenes.draw_photo(rng) for _ in range(PHOTOS - 1))])
            )
        parts.append((scenes.pack_scenes(found), np.stack(photos)))
    return parts


@dataclass
class PooledScenes:
    """Batches of the training by their number."""

    networks: Networks
    options: Train
    waited: float = 0.0
    """Seconds spent on waiting for layouts, so far."""

    _pools: dict[tuple[int, int], dict[str, torch.Tensor]] = field(default_factory=dict)
    _rendered: int = 0
    _processes: ProcessPoolExecutor | None = None
    _ahead: dict[int, "Future[list[Layout]]"] = field(default_factory=dict)

    def __call__(self, number: int) -> Batch:
        """Returns the batch of a number."""
        data, count = self.options.data, self._photos()
        newest = number // data.reuse
        for index in range(max(self._rendered, newest - data.pool + 1), newest + 1):
            self._render(index)
        self._rendered = newest + 1
        rng = np.random.default_rng((self.options.seed, number))
        oldest = max(0, newest - self._slots() * len(data.sizes) + 1)
        turn = int(rng.integers(oldest, newest + 1)) % len(data.sizes)
        filled = len(range(turn, newest + 1, len(data.sizes)))
        rows = rng.permutation(min(filled, self._slots()) * count)[:count]
        return self._draw(self._pools[data.sizes[turn]], rows, rng)

    def _slots(self) -> int:
        """Returns how many rendered batches of each size are kept."""
        return max(1, self.options.data.pool // len(self.options.data.sizes))

    def _photos(self) -> int:
        """Returns how many photos a batch has: each of them draws all tasks."""
        return self.options.batch_size // len(self.options.tasks)

    @torch.no_grad()
    def _render(self, index: int) -> None:
        """Renders the batch of scenes of an index, in the place of the oldest of its size."""
        from lotus import scenes

        data, count, device = self.options.data, self._photos(), self.networks.vae.device
        turn = index % len(data.sizes)
        width, height = data.sizes[turn]
        start = (index // len(data.sizes)) % self._slots() * count
        for tables, photos in self._layouts(index):
            light, depth, normals = scenes.radiance_batch(tables, width, height, device)
            known = depth > 0
            values = torch.where(known, depth, 1)
            values = 1 / values if is_disparity(self.options.loss.norm_type) else values
            found = {
                "light": light.clamp(max=MOST_LIGHT).half(),
                "values": torch.where(known, values, torch.nan).half(),
                "normals": (normals * NORMAL_LEVELS).round().to(torch.int8),
                "limits": value_ranges(values, known, self.options.loss.norm_type),
                "photos": torch.from_numpy(photos).to(device),
            }
            pool = self._pools.setdefault((width, height), {})
            for name, part in found.items():
                if name not in pool:
                    pool[name] = part.new_zeros(self._slots() * count, *part.shape[1:])
                pool[name][start : start + len(part)] = part
            start += len(photos)

    def _layouts(self, index: int) -> list[Layout]:
        data, count = self.options.data, self._photos()

        def seeds(each: int) -> range:
            return range(data.first + each * count, data.first + (each + 1) * count)

        if not data.workers:
            return lay_out(seeds(index))
        began, is_first = time.perf_counter(), self._processes is None
        self._processes = self._processes or ProcessPoolExecutor(data.workers, get_context("spawn"))
        last = min(index + 2 * data.workers, -(-batch_count(self.options) // data.reuse))
        for ahead in range(index, max(last, index + 1)):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._processes.submit(lay_out, seeds(ahead))
        if is_first:
            self._compile()  # while the workers start
        found = self._ahead.pop(index).result()
        self.waited += time.perf_counter() - began
        return found

    def close(self) -> None:
        """Ends the workers, with what they are at."""
        if self._processes:
            self._processes.shutdown(cancel_futures=True)

    def _compile(self) -> None:
        """Has the kernels that render compiled."""
        from lotus import scenes

        scenes.radiance_batch(scenes.pack_scenes([scenes.sample(0)]), 16, 16, self.networks.vae.device)

    @torch.no_grad()
    def _draw(self, pool: dict[str, torch.Tensor], rows: np.ndarray, rng: np.random.Generator) -> Batch:
        """Returns the batch of some rows of a pool: photos taken, all tasks' maps drawn, both encoded."""
        from lotus import scenes

        networks, names, device = self.networks, self.options.tasks, self.networks.vae.device
        chosen = {name: part[_tensor(rows, device)] for name, part in pool.items()}
        every = torch.arange(len(rows), device=device)
        table = chosen["photos"][every, _tensor(rng.integers(PHOTOS, size=len(rows)), device)]
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        images = scenes.develop_batch(chosen["light"].float(), table, generator)
        flips = _tensor(rng.random(len(rows)) < 0.5, device)
        photos = (_mirror(images, flips).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()
        photos = seen_as(photos, networks.colours)
        (depths, normals), known = _pictures(chosen, flips, self.options.loss.norm_type)
        drawn = [(normals, known) if name == NORMAL else (depths, torch.ones_like(known)) for name in names]
        target, counts = (torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*drawn, strict=True))
        tasks = torch.arange(len(names), device=device).repeat(len(rows))
        encoder, is_live = networks.image_encoder, networks.trunk_learns()
        return Batch(
            _latents(networks, photos),
            encoder.features(photos) if encoder is not None and not is_live else (),
            _latents(networks, target),
            _whole_cells(counts)[:, None],
            tasks,
            self._part(target, counts, tasks, rng) if self.options.loss.pixel_rows else None,
            photos if is_live else None,
        )

    def _part(
        self, target: torch.Tensor, counts: torch.Tensor, tasks: torch.Tensor, rng: np.random.Generator
    ) -> Pictures:
        """Returns a random part of the first rows."""
        weights = self.options.loss
        cells = [side // LATENT_FACTOR for side in target.shape[2:]]
        sizes = [min(weights.pixel_crop, side) for side in cells]
        corner = [int(rng.integers(side - size + 1)) for side, size in zip(cells, sizes, strict=True)]
        part = (slice(0, min(weights.pixel_rows, len(target))), *_window(corner, sizes))
        rows, columns = (
            torch.arange(start, start + size, device=target.device)
            for start, size in zip(corner, sizes, strict=True)
        )
        drawn, known = target[part[0], :, *part[1:]], counts[part][:, None]
        names = self.options.tasks
        turned = tasks[part[0]] == (names.index(NORMAL) if NORMAL in names else -1)
        return Pictures(rows, columns, drawn.contiguous(), known.contiguous(), turned)


def value_ranges(
    values: Float32[torch.Tensor, "b h w"], known: Bool[torch.Tensor, "b h w"], norm_type: str
) -> Float32[torch.Tensor, "b 2"]:
    """Returns for each row the values drawn as -1 and 1: `lotus.training.targets.value_range` on a device."""
    flat = torch.where(known, values, torch.nan).flatten(1)
    if norm_type == "perscene_norm":
        return flat.new_tensor([0.0, SCENE_DEPTH - RANGE_EPS]).expand(len(flat), 2)
    ends = (LOW, HIGH) if "trunc" in norm_type else (0.0, 1.0)
    return torch.nanquantile(flat, flat.new_tensor(ends), dim=1).T.nan_to_num(nan=0.0)


def _pictures(
    chosen: dict[str, torch.Tensor], flips: torch.Tensor, norm_type: str
) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
    """Returns depth and normals as Lotus draws them, (b, 3, h, w), and where there are normals."""
    values, limits = _mirror(chosen["values"].float(), flips), chosen["limits"][:, :, None, None]
    depths = ((values - limits[:, 0]) / (limits[:, 1] - limits[:, 0] + RANGE_EPS) - 0.5) * 2
    far = -1.0 if is_disparity(norm_type) else 1.0
    depths = depths.clamp(-1, 1).nan_to_num(nan=far)[:, None].expand(-1, 3, -1, -1)
    normals = _mirror(chosen["normals"], flips).permute(0, 3, 1, 2).float() / NORMAL_LEVELS
    sign = torch.where(flips[:, None], normals.new_tensor([-1.0, 1, 1]), 1)[:, :, None, None]
    return (depths, -normals * sign), (normals != 0).any(dim=1)


def _mirror(maps: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Returns maps (b, h, w, ...), the chosen ones mirrored."""
    return torch.where(flips.reshape(-1, *[1] * (maps.ndim - 1)), maps.flip(2), maps)


def _whole_cells(counts: torch.Tensor) -> torch.Tensor:
    """Returns which latent cells have all of their pixels counted."""
    size = LATENT_FACTOR
    return counts.unfold(1, size, size).unfold(2, size, size).all(dim=-1).all(dim=-1)


def _window(corner: Sequence[int], sizes: Sequence[int]) -> Window:
    rows, columns = (
        slice(start * LATENT_FACTOR, (start + size) * LATENT_FACTOR)
        for start, size in zip(corner, sizes, strict=True)
    )
    return rows, columns


def _latents(networks: Networks, pictures: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = networks.vae.encode(pictures).latent_dist.mode()
    return found * networks.vae.config.scaling_factor


def _tensor(values: np.ndarray, device: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
