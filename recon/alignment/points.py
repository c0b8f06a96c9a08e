"""Points of a regression, and the folds of the picture that hold some of them out."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float64, Int64

FOLDS = 5
TILES = 5  # the picture is cut into TILES x TILES tiles for folds and clusters


@dataclass(frozen=True, eq=False)
class Points:
    """A regression problem in a canonical order."""

    x: Float64[np.ndarray, "n"]
    y: Float64[np.ndarray, "n"]
    sigma: Float64[np.ndarray, "n"]
    """Standard deviation of y itself, without the error of x."""

    unit: Float64[np.ndarray, "n"]
    """What a relative depth error of 1 is in y."""

    confidence: Float64[np.ndarray, "n"]
    """In (0, 1]; divides the variance of the error of x."""

    tile: Int64[np.ndarray, "n"]
    """Row-major index in the TILES x TILES tiles of the picture."""

    def take(self, chosen: np.ndarray) -> "Points":
        """Returns the chosen points."""
        return Points(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def folds(tile: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Returns the fold of each point: tiles of one fold share no side and lie all over the picture."""
    return (tile % TILES + 2 * (tile // TILES)) % FOLDS


def tiles(uv: Float64[np.ndarray, "n 2"], width: int, height: int) -> Int64[np.ndarray, "n"]:
    """Returns the tile of each point inside a picture."""
    column, row = (TILES * uv / [width, height]).astype(np.int64).T
    return column + TILES * row


def evenly(count: int, most: int) -> Int64[np.ndarray, "m"]:
    """Returns at most `most` indices, evenly spread over range(count)."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
