"""The style of pictures: their colours, noise, sharpness and what edges look like, for other pictures.

After Heeger and Bergen (1995, "Pyramid-based texture analysis/synthesis"), who give a noise picture the
histograms of another's pyramid. Here a photo gets them, so that it keeps its layout: a rising curve for each
band of a Laplacian pyramid makes edges weak, blurred or dark lines on white, as they are in the others. What
the others have of noise is added first, since no curve makes noise of nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, Float64

BANDS_PX = (0.7, 1.4, 2.8, 5.6)  # standard deviations of the Gaussians between bands
FLAT = 1.0  # variance of colours, 8-bit levels squared, below which a picture's are not stretched
NORMAL_MEDIAN = 0.6745  # of the size of a normal variable of standard deviation 1
TAIL = (0.0, 0.0001, 0.0003, 0.001, 0.002)
SHARES = np.array([*TAIL, *np.linspace(0.004, 0.996, 249), *(1 - share for share in reversed(TAIL))])

Picture = Float32[np.ndarray, "h w 3"]
Part = Float[np.ndarray, "_h _w 3"]
Curve = tuple[Float64[np.ndarray, "_k"], Float64[np.ndarray, "_k"]]
"""Values, rising, and what becomes of them."""


def recoloured(picture: Picture, like: Float32[np.ndarray, "_h _w 3"]) -> Picture:
    """Returns a picture with the mean and covariance of the colours of another.

    The least-transport map A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 of covariances A to B (Pitié and Kokaram 2007,
    equation 4).
    """
    own, other = picture.reshape(-1, 3), like.reshape(-1, 3)
    spread = np.cov(own.T) + FLAT * np.eye(3)
    root = _root(spread)
    inverse = np.linalg.inv(root)
    change = inverse @ _root(root @ np.cov(other.T) @ root) @ inverse
    return ((picture - own.mean(axis=0)) @ change + other.mean(axis=0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Style:
    """What recoloured pictures are changed by to look like others."""

    axes: Float64[np.ndarray, "3 3"]
    """Columns: colours along which the others vary independently."""

    grain: tuple[Float64[np.ndarray, "3"], ...]
    """Standard deviation of the noise added to each band but the last, along the axes."""

    bands: tuple[tuple[Curve, ...], ...]
    """Of each band, along each axis."""

    levels: tuple[Curve, ...]
    """Of the sum of the bands."""

    @classmethod
    def between(cls, pictures: Sequence[Part], others: Sequence[Part]) -> "Style":
        """Returns the style of others, for pictures that have their colours."""
        rng = np.random.default_rng(0)
        axes = np.linalg.eigh(np.cov(_values(others).T))[1]
        own, wanted = (_by_band([_bands(one @ axes) for one in many]) for many in (pictures, others))
        grain = [_missing_noise(*pair) for pair in zip(own[:-1], wanted[:-1], strict=True)]
        noised = _by_band([_noised(picture @ axes, grain, rng) for picture in pictures])
        bands = tuple(_curves(*pair) for pair in zip(noised, wanted, strict=True))
        summed = [_summed(parts, bands) for parts in zip(*noised, strict=True)]
        return cls(axes, tuple(grain), bands, _curves(summed, [other @ axes for other in others]))

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Returns a recoloured picture in the style."""
        summed = _summed(_noised(picture @ self.axes, self.grain, rng), self.bands)
        return (_mapped(summed, self.levels) @ self.axes.T).astype(np.float32)


def _bands(picture: Part) -> list[Part]:
    """Returns a picture's bands, finest first, and what is left; they sum up to it."""
    import cv2

    levels = [picture, *(cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in BANDS_PX)]
    return [*(fine - coarse for fine, coarse in pairwise(levels)), levels[-1]]


def _by_band(pictures: Sequence[Sequence[Part]]) -> list[tuple[Part, ...]]:
    return list(zip(*pictures, strict=True))


def _missing_noise(parts: Sequence[Part], others: Sequence[Part]) -> Float64[np.ndarray, "3"]:
    """Returns the standard deviation of what parts lack of the noise of others.

    By the median of their size, on which edges have little weight.
    """
    own, wanted = (np.median(np.abs(_values(many)), axis=0) for many in (parts, others))
    return np.sqrt(np.maximum(wanted**2 - own**2, 0)) / NORMAL_MEDIAN


def _noised(picture: Part, grain: Sequence[np.ndarray], rng: np.random.Generator) -> list[Part]:
    """Returns a picture's bands with noise of some standard deviation, white but for that."""
    parts, white = _bands(picture), _bands(rng.standard_normal(picture.shape))
    noise = [spread * part / part.std() for part, spread in zip(white[:-1], grain, strict=True)]
    return [*(part + own for part, own in zip(parts[:-1], noise, strict=True)), parts[-1]]


def _curves(parts: Sequence[Part], others: Sequence[Part]) -> tuple[Curve, ...]:
    """Returns the rising curve along each axis that gives parts the distribution of others."""
    own, wanted = (np.quantile(_values(many), SHARES, axis=0) for many in (parts, others))
    curves = []
    for axis in range(3):
        values, group = np.unique(own[:, axis], return_inverse=True)
        curves.append((values, np.bincount(group, wanted[:, axis]) / np.bincount(group)))
    return tuple(curves)


def _mapped(part: Part, curves: Sequence[Curve]) -> Part:
    return np.stack([np.interp(part[..., axis], *curve) for axis, curve in enumerate(curves)], axis=-1)


def _summed(parts: Sequence[Part], bands: Sequence[Sequence[Curve]]) -> Part:
    total: Part = np.sum([_mapped(*pair) for pair in zip(parts, bands, strict=True)], axis=0)
    return total


def _values(parts: Sequence[Part]) -> Float[np.ndarray, "n 3"]:
    return np.concatenate([part.reshape(-1, 3) for part in parts])


def _root(matrix: Float[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """Returns the root of the nearest matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    root: np.ndarray = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root
