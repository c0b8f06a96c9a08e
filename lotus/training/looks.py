"""A look that is known from few photos: their colours, and scenes that are made to look like them.

Twenty photos teach a look, but whoever sees nothing else learns these twenty by heart. So the geometry comes
from rendered scenes, whose photos are given the colours of one of the photos and the style of all
(`lotus.training.style`).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8

from lotus.colours import COLOURS, colour_matrix, showing_matrix
from lotus.data import TrainingSample
from lotus.data.samples import Source, usable
from lotus.training.config import Train
from lotus.training.encoding import encode, make_batch
from lotus.training.networks import build
from lotus.training.shards import pack
from lotus.training.step import batch_loss
from lotus.training.style import Picture, Style, recoloured

FIRST_SCENE, SCENES = 30_000_000, 100_000  # seeds apart from those of other trainings and of held-out scenes
COMPARED = 20  # photos that say how colours are seen, and scenes that are compared with them


def fitting_colours(options: Train, photos: Source, device: torch.device) -> str:
    """Returns how the untrained networks err least: the word of `lotus.colours` of the least loss.

    Args:
        options: The training; its networks are those to start from.
        photos: With depth.
        device: Where they are tried.

    Raises:
        InputError: None of the photos tried can be used.
    """
    networks = build(replace(options, networks=replace(options.networks, colours="")), device)
    samples = usable(photos, range(min(len(photos), COMPARED)))
    losses = {}
    for colours in COLOURS:
        tried, total = replace(networks, colours=colours), 0.0
        for first in range(0, len(samples), options.batch_size):
            arrays = pack(samples[first : first + options.batch_size])
            batch = make_batch(
                arrays,
                encode(arrays, tried, options.loss.norm_type),
                tried,
                options,
                np.random.default_rng((options.seed, first)),
            )
            with torch.no_grad():
                parts = batch_loss(tried, batch, options, torch.Generator().manual_seed(options.seed))[1]
            total += sum(value for name, value in parts.items() if name != "reconstruction")
        losses[colours] = total
    return min(losses, key=losses.__getitem__)


@dataclass(frozen=True)
class RestyledScenes:
    """Rendered scenes with the look of some photos."""

    photos: tuple[UInt8[np.ndarray, "_h _w 3"], ...]
    size: tuple[int, int]
    """(width, height), px."""

    colours: str
    """As a word of `lotus.colours`: in these the photos are most like the scenes' own."""

    def __len__(self) -> int:
        return SCENES

    def __getitem__(self, index: int) -> TrainingSample:
        """Returns the scene of an index."""
        sample, rng = self._scene(index), np.random.default_rng(index)
        like = self._seen[int(rng.integers(len(self._seen)))]
        picture = self._style(recoloured(sample.image.astype(np.float32), like), rng)
        shown = (picture - 127.5) @ showing_matrix(self.colours).T.numpy() + 128
        return replace(sample, image=shown.clip(0, 255).astype(np.uint8))

    def _scene(self, index: int) -> TrainingSample:
        from lotus import scenes

        return scenes.render(scenes.sample(FIRST_SCENE + index), *self.size)

    @cached_property
    def _seen(self) -> list[Picture]:
        matrix = colour_matrix(self.colours).T.numpy()
        return [(photo.astype(np.float32) - 127.5) @ matrix + 127.5 for photo in self.photos]

    @cached_property
    def _style(self) -> Style:
        pairs = [
            (self._scene(SCENES + place).image.astype(np.float32), self._seen[place % len(self._seen)])
            for place in range(COMPARED)
        ]
        return Style.between([recoloured(image, like) for image, like in pairs], self._seen)
