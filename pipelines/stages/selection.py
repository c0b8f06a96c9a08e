"""Which pixels of a photo are reconstructed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, UInt8

from pipelines.executors import one_torch_thread
from recon.scene import SparseDepth


@dataclass(frozen=True)
class SelectAlone:
    """Selects the pixels of a single photo, of which no points were triangulated."""

    keep_sky: bool = False
    """Give depth to what looks like the sky, too."""

    makes: ClassVar[str] = "kept"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def content(self, view: str | None) -> str:
        """Returns what the networks that tell the sky are known by."""
        return _known_as(self.keep_sky)

    def __call__(
        self, *, image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
    ) -> Bool[np.ndarray, "h w"]:
        """Returns True where depth is wanted."""
        return mask if self.keep_sky else mask & ~_sky_of(image)


@dataclass(frozen=True)
class Select:
    """Selects the pixels of a photo that are reconstructed: those inside its mask, without the sky.

    The sky has no depth, but is matched wherever noise or clouds agree, and walls would go on into it. Where
    sparse points lie it is none.
    """

    keep_sky: bool = False
    """Give depth to what looks like the sky, too."""

    makes: ClassVar[str] = "kept"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    dense: ClassVar[float] = 0.5  # share of the density of sparse points elsewhere: that is no sky

    def content(self, view: str | None) -> str:
        """Returns what the networks that tell the sky are known by."""
        return _known_as(self.keep_sky)

    def __call__(
        self, *, image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], points: SparseDepth
    ) -> Bool[np.ndarray, "h w"]:
        """Returns True where depth is wanted."""
        return mask if self.keep_sky else mask & ~self._without_points(_sky_of(image), points)

    def _without_points(self, sky: Bool[np.ndarray, "h w"], points: SparseDepth) -> Bool[np.ndarray, "h w"]:
        """Returns the parts of a sky in which few points were triangulated."""
        from scipy.ndimage import label

        parts, count = label(sky)
        pixels = np.bincount(parts.ravel(), minlength=count + 1)
        density = np.bincount(points.values_of(parts), minlength=count + 1) / np.maximum(pixels, 1)
        is_sky = density <= self.dense * density[0]
        is_sky[0] = False
        return np.asarray(is_sky[parts])


def _sky_of(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    from lotus.sky import find_sky

    with one_torch_thread():
        return find_sky(image)


def _known_as(keep_sky: bool) -> str:
    if keep_sky:
        return ""
    from lotus.sky import weights_digest

    return weights_digest()
