"""The batch of a number: from shards on disk, or of samples made as they are needed.

Everything is drawn from that number, so that a resumed training sees what an uninterrupted one sees. A
training from shards may start while they are still being made: it looks for new ones now and then, and draws
newer ones more often, so that each is seen about as often in the end. Only a folder that is complete from the
start gives the same run twice.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lotus.colours import AS_THEY_ARE
from lotus.data import Folder, Hypersim, Mixture, TrainingSample, VirtualKitti
from lotus.data.samples import Source as Samples
from lotus.data.samples import usable
from lotus.training.config import Train
from lotus.training.encoding import NORMAL, Batch, encode, encoded_file, make_batch, mirror
from lotus.training.looks import RestyledScenes
from lotus.training.loop import own_batches
from lotus.training.networks import Networks
from lotus.training.shards import count_samples, pack, read_all, read_arrays
from recon.errors import InputError

PIXELS = ("disparity", "normals")  # of a shard, for the pixel losses
RESTYLED = "restyled:"  # before the folder of the photos that scenes are to look like
DATA_SETS: dict[str, Any] = {"hypersim": Hypersim, "vkitti": VirtualKitti, "folder": Folder}
REFRESH_BATCHES = 50  # after which new shards are looked for
LOOKED_AT = 200  # photos that scenes are restyled after

Source = Callable[[int], dict[str, np.ndarray]]
"""The arrays of a batch's number, as `lotus.training.shards.pack` makes them."""


def open_source(options: Train) -> Source:
    """Returns the batches of the training's sources, made as they are needed.

    Raises:
        InputError: A source is unknown or empty, or has no normals where these alone are trained.
    """
    data = options.data
    if data.sources == ("scenes",):
        return SceneBatches(options)
    lists = data.lists or ("",) * len(data.sources)
    for what, values in (("sizes", data.sizes), ("lists", lists)):
        if len(values) != len(data.sources):
            raise InputError(f"{len(values)} data.{what}, wanted one for each of {len(data.sources)} sources")
    colours = options.networks.colours or AS_THEY_ARE
    sources = tuple(
        open_set(name, size, colours, listed=listed)
        for name, size, listed in zip(data.sources, data.sizes, lists, strict=True)
    )
    if NORMAL in options.tasks:
        _check_normals(sources, is_alone=len(options.tasks) == 1)
    shares = data.shares or (1.0,) * len(sources)
    return MixtureBatches(Mixture(sources, shares, options.batch_size, options.seed))


def _check_normals(sources: Sequence[Samples], *, is_alone: bool) -> None:
    """Raises where there is nothing to learn normals from: from any source, or if they are learnt alone."""
    without = [source for source in sources if isinstance(source, Folder) and not source.has_normals()]
    if without and (is_alone or len(without) == len(sources)):
        raise InputError(f"{without[0].folder}: no normals in it, wanted normals/NAME.npy or intrinsics.txt")


def open_set(name: str, size: tuple[int, int], colours: str = AS_THEY_ARE, *, listed: str = "") -> Samples:
    """Returns a data set by LAYOUT:FOLDER.

    Args:
        name: LAYOUT:FOLDER.
        size: (width, height) of its samples.
        colours: How the networks see its photos.
        listed: File with the names of the samples to take; "" takes all.

    Raises:
        InputError: The layout is unknown, there are no photos, or not those of the list.
    """
    if name.startswith(RESTYLED):
        photos = open_set(f"folder:{name.removeprefix(RESTYLED)}", size, listed=listed)
        seen = usable(photos, range(min(len(photos), LOOKED_AT)), only_photos=True)
        return RestyledScenes(tuple(sample.image for sample in seen), size, colours)
    layout, _, folder = name.partition(":")
    if layout not in DATA_SETS or not folder:
        choices = ", ".join(f"{each}:FOLDER" for each in (*DATA_SETS, "restyled"))
        raise InputError(f"data source {name!r}, wanted scenes alone, or {choices}")
    frames_list = Path(listed).expanduser() if listed else None
    found: Samples = DATA_SETS[layout](Path(folder).expanduser(), size=size[::-1], frames_list=frames_list)
    return found


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
    _looked: int = -1

    def __call__(self, number: int) -> Batch:
        """Returns the batch of a number.

        Raises:
            InputError: There are no shards, or one is damaged or has too few samples.
        """
        began = time.perf_counter()
        if number // REFRESH_BATCHES != self._looked:
            self._looked = number // REFRESH_BATCHES
            shards = sorted(Path(self.options.data.shards).glob("shard_*.safetensors"))
            self._files = [each for each in shards if encoded_file(each, self.digest, True).is_file()]
        if not self._files:
            raise InputError(
                f"{self.options.data.shards}: no shards encoded for these networks; --part shards makes them"
            )
        rng = np.random.default_rng((self.options.seed, number))
        shard = self._files[int(len(self._files) * rng.random() ** 0.5)]
        count = self.options.batch_size
        size = self.options.data.shard_size
        first = int(rng.integers(max(1, size - count + 1)))
        rows = slice(first, first + count)
        is_mirrored = bool(rng.random() < 0.5)
        file = encoded_file(shard, self.digest, is_mirrored)
        held = count_samples(file, "limits")
        if held < max(size, count):
            raise InputError(f"{file}: {held} samples, data.shard_size is {size} and batch_size {count}")
        encoded = read_all(file, rows)
        pixel = slice(first, first + min(count, max(1, self.options.loss.pixel_rows)))
        arrays = read_arrays(shard, PIXELS, pixel)
        arrays = mirror(arrays) if is_mirrored else arrays
        batch = make_batch(arrays, encoded, self.networks, self.options, rng)
        self.waited += time.perf_counter() - began
        return batch


@dataclass
class StreamBatches:
    """Batches of samples that are made as they are needed, ahead of time if there are workers."""

    networks: Networks
    options: Train
    source: Source
    waited: float = 0.0
    _pool: ProcessPoolExecutor | None = None
    _ahead: dict[int, Future[dict[str, np.ndarray]]] = field(default_factory=dict)

    def __call__(self, number: int) -> Batch:
        """Returns the batch of a number."""
        began = time.perf_counter()
        arrays = self._arrays(number)
        self.waited += time.perf_counter() - began
        encoded = encode(arrays, self.networks, self.options.loss.norm_type)
        rng = np.random.default_rng((self.options.seed, number))
        return make_batch(arrays, encoded, self.networks, self.options, rng)

    def _arrays(self, number: int) -> dict[str, np.ndarray]:
        workers = self.options.data.workers
        if not workers:
            return self.source(number)
        self._pool = self._pool or ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=_keep, initargs=(self.source,)
        )
        for ahead in (number, *islice(own_batches(number + 1, self.options), 2 * workers - 1)):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._pool.submit(_made, ahead)
        return self._ahead.pop(number).result()

    def close(self) -> None:
        """Ends the workers, with what they are at."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


_kept: list[Source] = []  # in a worker: what it makes batches of, with what that remembers between batches


def _keep(source: Source) -> None:
    _kept[:] = [source]


def _made(number: int) -> dict[str, np.ndarray]:
    return _kept[0](number)


@dataclass(frozen=True)
class SceneBatches:
    """Rendered scenes, each seen once, half of them mirrored."""

    options: Train

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a batch's number."""
        data, count = self.options.data, self.options.batch_size
        size = data.sizes[number % len(data.sizes)]
        first = data.first + number * count
        arrays = pack([render_scene(index, size) for index in range(first, first + count)])
        flipped = mirror(arrays)
        chosen = np.random.default_rng((self.options.seed, number, 1)).random(count) < 0.5
        return {
            name: np.where(chosen.reshape(-1, *[1] * (values.ndim - 1)), flipped[name], values)
            for name, values in arrays.items()
        }


@dataclass(frozen=True)
class MixtureBatches:
    """Data sets, mixed and mirrored as `lotus.data.Mixture` does."""

    mixture: Mixture

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a batch's number."""
        return pack(self.mixture[number])


def held_out(options: Train) -> list[TrainingSample]:
    """Returns the held-out samples: of a data set if one is given, else scenes of other seeds, sizes in turn.

    Raises:
        InputError: The data set is unknown, empty, or none of it can be used.
    """
    data = options.data
    if data.validation_set not in ("", "scenes") and data.validation:
        kept = open_set(data.validation_set, data.sizes[0])
        chosen = np.linspace(0, len(kept) - 1, min(data.validation, len(kept))).astype(int)
        return usable(kept, chosen.tolist())
    first = data.validation_first
    return [
        render_scene(first + index, data.sizes[index % len(data.sizes)]) for index in range(data.validation)
    ]
