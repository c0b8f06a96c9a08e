"""The order in which samples are trained on, the same however often it is resumed.

As the reference of Lotus draws them: every batch comes from one source, chosen with its probability; an epoch
is one pass over the first source's length; each source is gone through in a new random order each time, and
begins anew with the epoch. Half of the samples are mirrored.

All is a function of (seed, number of the batch), so a run that goes on at batch n, and any number of workers,
meet the same samples in the same order:

    mixture = Mixture((hypersim, kitti), (0.9, 0.1), batch_size=16, seed=0)
    loader = torch.utils.data.DataLoader(mixture, batch_size=None, sampler=range(n, total), num_workers=4)
"""

import logging
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from lotus.data.samples import Source, TrainingSample, mirrored, with_depth
from recon.errors import InputError, ReconError

MAX_TRIES = 20  # samples in a row that cannot be used: then it is the source that is broken
CHOICE, ORDER, MIRROR, SUBSTITUTE = range(4)  # what a random stream is for

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draw:
    """One place in a batch."""

    source: int
    item: int
    """Index in the source."""

    is_mirrored: bool


@dataclass(frozen=True)
class Mixture:
    """Batches of samples by their number: 0, 1, ... without end."""

    sources: tuple[Source, ...]
    probabilities: tuple[float, ...]
    """Of a batch from each source, relative to each other."""

    batch_size: int
    seed: int
    mirror_probability: float = 0.5

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.probabilities) or not self.sources:
            raise InputError(
                f"{len(self.probabilities)} probabilities for {len(self.sources)} sources, wanted one each"
            )
        if (
            min(self.probabilities) < 0
            or not np.isfinite(self.probabilities).all()
            or not sum(self.probabilities)
        ):
            raise InputError(f"probabilities {self.probabilities}, wanted none below 0 and one above")
        if self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size}, wanted at least 1")
        empty = [number for number, source in enumerate(self.sources) if not len(source)]
        if empty:
            raise InputError(f"source {empty[0]} of the mixture has no samples")

    @property
    def epoch_batches(self) -> int:
        """Batches that the first source fills, the last perhaps with samples of a second pass."""
        return -(-len(self.sources[0]) // self.batch_size)

    def draws(self, index: int) -> list[Draw]:
        """Returns what batch `index` is made of, without reading it."""
        epoch, step = divmod(index, self.epoch_batches)
        chosen = _choices(self.seed, epoch, self.epoch_batches, self.probabilities)
        source = int(chosen[step])
        first = int((chosen[:step] == source).sum()) * self.batch_size  # place in this epoch's passes
        length = len(self.sources[source])
        flips = _rng(self.seed, MIRROR, index).random(self.batch_size) < self.mirror_probability
        return [
            Draw(
                source,
                int(_order(self.seed, epoch, source, place // length, length)[place % length]),
                bool(flip),
            )
            for place, flip in zip(range(first, first + self.batch_size), flips, strict=True)
        ]

    def __getitem__(self, index: int) -> list[TrainingSample]:
        """Returns batch `index`. A sample that cannot be used is replaced by one drawn from the same source.

        Raises:
            InputError: Of one source, `MAX_TRIES` samples in a row cannot be used.
        """
        return [self._read(draw, index, place) for place, draw in enumerate(self.draws(index))]

    def _read(self, draw: Draw, index: int, place: int) -> TrainingSample:
        source, item = self.sources[draw.source], draw.item
        others = _rng(self.seed, SUBSTITUTE, index, place).integers(len(source), size=MAX_TRIES)
        reasons = []
        for other in others:
            try:
                sample = with_depth(source[item])
                return mirrored(sample) if draw.is_mirrored else sample
            except ReconError as error:
                logger.info("left out: %s", error)
                reasons.append(error)
                item = int(other)
        raise InputError(
            f"{MAX_TRIES} samples in a row cannot be used (see `lotus verify`); the last: {reasons[-1]}"
        ) from reasons[-1]


def _rng(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, *numbers])


@lru_cache(maxsize=2)
def _choices(
    seed: int, epoch: int, count: int, probabilities: tuple[float, ...]
) -> Int64[np.ndarray, "count"]:
    """Returns the source of every batch of an epoch."""
    shares = np.array(probabilities) / sum(probabilities)
    return _rng(seed, CHOICE, epoch).choice(len(shares), size=count, p=shares)


@lru_cache(maxsize=16)
def _order(seed: int, epoch: int, source: int, turn: int, length: int) -> Int64[np.ndarray, "length"]:
    """Returns the order of a source in one pass of an epoch."""
    return _rng(seed, ORDER, epoch, source, turn).permutation(length)
