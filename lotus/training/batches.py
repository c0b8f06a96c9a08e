"""The batch of a step's number: from shards on disk, or of samples made as they are needed.

Everything is drawn from the step's number, so that a resumed training sees what an uninterrupted one sees. A
training from shards may start while they are still being made: it looks for new ones now and then, and draws
newer ones more often, so that each is seen about as often in the end. Only a folder that is complete from the
start gives the same run twice.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lotus.scenes import TrainingSample
from lotus.training.config import Data, Train
from lotus.training.encoding import Batch, encode, encoded_file, make_batch, mirror
from lotus.training.networks import Networks
from lotus.training.shards import Render, pack, read_all, read_arrays
from recon.errors import InputError

REFRESH_STEPS = 50  # after which new shards are looked for

Batches = Callable[[int, int], Batch]
"""The batch of a step and its number among those of the step."""


def open_source(data: Data) -> Render:
    """Returns the function that makes samples: an index and a size (width, height) to a sample.

    Raises:
        InputError: There is no such source.
    """
    if data.source == "scenes":
        return render_scene
    raise InputError(f"data.source {data.source!r}, wanted scenes")


def render_scene(index: int, size: tuple[int, int]) -> TrainingSample:
    """Returns the rendered scene whose seed is the index."""
    from lotus import scenes

    return scenes.render(scenes.sample(index), *size)


@dataclass
class ShardBatches:
    """Batches from encoded shards; a batch's rows are neighbours in one shard."""

    networks: Networks
    options: Train
    digest: str
    waited: float = 0.0
    """Seconds spent on reading, so far."""

    _files: list[Path] = field(default_factory=list)

    def __call__(self, step: int, index: int) -> Batch:
        """Returns the batch of a step.

        Raises:
            InputError: There are no shards, or one is damaged.
        """
        began = time.perf_counter()
        if not self._files or step % REFRESH_STEPS == 0:
            shards = sorted(Path(self.options.data.shards).glob("shard_*.safetensors"))
            self._files = [each for each in shards if encoded_file(each, self.digest, True).is_file()]
        if not self._files:
            raise InputError(
                f"{self.options.data.shards}: no shards encoded for these networks; make them with --part shards"
            )
        rng = np.random.default_rng((self.options.seed, step, index))
        shard = self._files[int(len(self._files) * rng.random() ** 0.5)]
        count = self.options.batch_size
        first = int(rng.integers(max(1, self.options.data.shard_size - count + 1)))
        rows = slice(first, first + count)
        is_mirrored = bool(rng.random() < 0.5)
        encoded = read_all(encoded_file(shard, self.digest, is_mirrored), rows)
        pixel = slice(first, first + min(count, max(1, self.options.loss.pixel_rows)))
        arrays = read_arrays(shard, ("disparity", "normals"), pixel)
        arrays = mirror(arrays) if is_mirrored else arrays
        batch = make_batch(arrays, encoded, self.networks, self.options, rng)
        self.waited += time.perf_counter() - began
        return batch


@dataclass
class StreamBatches:
    """Batches of samples that are made as they are needed, ahead of time if there are workers."""

    networks: Networks
    options: Train
    source: Render
    waited: float = 0.0
    _pool: ProcessPoolExecutor | None = None
    _ahead: dict[int, Future[dict[str, np.ndarray]]] = field(default_factory=dict)

    def __call__(self, step: int, index: int) -> Batch:
        """Returns the batch of a step."""
        began = time.perf_counter()
        number = step * self.options.accumulate + index
        arrays = self._arrays(number)
        self.waited += time.perf_counter() - began
        encoded = encode(arrays, self.networks, self.options.loss.norm_type)
        rng = np.random.default_rng((self.options.seed, step, index))
        return make_batch(arrays, encoded, self.networks, self.options, rng)

    def _arrays(self, number: int) -> dict[str, np.ndarray]:
        workers = self.options.data.workers
        if not workers:
            return draw(self.source, self.options, number)
        self._pool = self._pool or ProcessPoolExecutor(workers)
        for ahead in range(number, number + 2 * workers):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._pool.submit(draw, self.source, self.options, ahead)
        return self._ahead.pop(number).result()


def draw(source: Render, options: Train, number: int) -> dict[str, np.ndarray]:
    """Returns the samples of a batch's number, half of them mirrored by chance."""
    data, count = options.data, options.batch_size
    rng = np.random.default_rng((options.seed, number, 1))
    size = data.sizes[number % len(data.sizes)]
    arrays = pack([source(data.first + index, size) for index in range(number * count, (number + 1) * count)])
    flipped, chosen = mirror(arrays), rng.random(count) < 0.5
    return {
        name: np.where(chosen[:, *[None] * (values.ndim - 1)], flipped[name], values)
        for name, values in arrays.items()
    }


def held_out(source: Render, data: Data) -> list[TrainingSample]:
    """Returns the held-out samples, sizes in turn."""
    sizes: Sequence[tuple[int, int]] = data.sizes
    first = data.validation_first
    return [source(first + index, sizes[index % len(sizes)]) for index in range(data.validation)]
