"""A look that is known from few photos: their colours, and scenes that are made to look like them.

Twenty photos teach a look, but whoever sees nothing else learns these twenty by heart. So the geometry comes
from rendered scenes, whose photos are given

- the mean and covariance of the colours of a photo, by the linear map of least transport (Pitié and Kokaram
  2007, equation 4),
- the sharpness and noise of all photos: in each band of a Laplacian pyramid the mean energy, by attenuation
  where the scenes have more, and Gaussian noise where they have less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8

from lotus.colours import COLOURS, colour_matrix, showing_matrix
from lotus.data import TrainingSample
from lotus.data.samples import Source
from lotus.training.config import Train
from lotus.training.encoding import encode, make_batch
from lotus.training.networks import build
from lotus.training.shards import pack
from lotus.training.step import batch_loss

BANDS_PX = (0.7, 1.4, 2.8)  # standard deviations of the Gaussians between bands
FLAT = 1.0  # variance of colours, 8-bit levels squared, below which a picture's are not stretched
FIRST_SCENE, SCENES = 30_000_000, 100_000  # seeds apart from those of other trainings and of held-out scenes
COMPARED = 20  # photos that say how colours are seen, and scenes that bands are compared with

Picture = Float32[np.ndarray, "h w 3"]


def fitting_colours(options: Train, photos: Source, device: torch.device) -> str:
    """Returns how the untrained networks err least: the word of `lotus.colours` of the least loss.

    Args:
        options: The training; its networks are those to start from.
        photos: With depth.
        device: Where they are tried.
    """
    networks = build(replace(options, networks=replace(options.networks, colours="")), device)
    samples = [photos[index] for index in range(min(len(photos), COMPARED))]
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
        parts = _bands(recoloured(sample.image.astype(np.float32), like))
        noise = _bands(rng.standard_normal(sample.image.shape, np.float32))
        picture = parts[-1]
        for part, grain, (share, spread) in zip(parts, noise, self._changes, strict=False):
            picture = picture + share * part + grain @ spread
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
    def _changes(self) -> list[tuple[np.float32, Float32[np.ndarray, "3 3"]]]:
        """For each band what is left of a scene's, and the matrix that white noise is multiplied by."""
        rng = np.random.default_rng(0)
        pairs = [
            (self._scene(SCENES + place).image.astype(np.float32), self._seen[place % len(self._seen)])
            for place in range(COMPARED)
        ]
        own = _energies([recoloured(image, like) for image, like in pairs])
        wanted = _energies(self._seen)
        white = _energies([rng.standard_normal(pairs[0][0].shape, np.float32)])
        changes = []
        for have, want, unit in zip(own, wanted, white, strict=True):
            share = min(1.0, float(np.sqrt(np.trace(want) / max(np.trace(have), 1e-6))))
            spread = _root(want - share**2 * have) / np.sqrt(np.trace(unit) / 3)
            changes.append((np.float32(share), spread.astype(np.float32)))
        return changes


def recoloured(picture: Picture, like: Float32[np.ndarray, "_h _w 3"]) -> Picture:
    """Returns a picture with the mean and covariance of the colours of another.

    The least-transport map A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 of covariances A to B.
    """
    own, other = picture.reshape(-1, 3), like.reshape(-1, 3)
    spread = np.cov(own.T) + FLAT * np.eye(3)
    root = _root(spread)
    inverse = np.linalg.inv(root)
    change = inverse @ _root(root @ np.cov(other.T) @ root) @ inverse
    return ((picture - own.mean(axis=0)) @ change + other.mean(axis=0)).astype(np.float32)


def _bands(picture: Picture) -> list[Picture]:
    """Returns a picture's bands, finest first, and what is left; they sum up to it."""
    import cv2

    levels = [picture, *(cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in BANDS_PX)]
    return [*(fine - coarse for fine, coarse in pairwise(levels)), levels[-1]]


def _energies(pictures: Sequence[Picture]) -> Float64[np.ndarray, "k 3 3"]:
    """Returns the mean product of the channels in each band, but not of what is left."""
    products = [
        [part.reshape(-1, 3).T @ part.reshape(-1, 3) / part[..., 0].size for part in _bands(picture)[:-1]]
        for picture in pictures
    ]
    return np.asarray(np.mean(products, axis=0), np.float64)


def _root(matrix: Float[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """Returns the root of the nearest matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    root: np.ndarray = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root
