"""Cosine waves over a picture and its range of log depth: the basis of the smooth correction."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

MOST_ALONG_PICTURE = 10  # half waves in a longer side; networks' bends have 1 to 4
MOST_ALONG_DEPTH = 3
MARGIN = 0.1  # of the waves' domain beyond the picture, in longer sides
TAIL = 1.0  # percent of the pixels beyond either end of the range of log depth; clamped to it
MIN_RANGE = 1e-3  # of log depth, below which it is no coordinate


@dataclass(frozen=True, eq=False)
class Waves:
    """Products of cosines with 0, 1, 2 ... half waves along u, v and log depth, of mean square 1 each.

    They reach beyond the picture: at the border of what they fill all of them are level.
    """

    size: tuple[int, int]
    """Width and height of the picture, px."""

    low: float
    """Log depth where the waves begin; values below are taken for it."""

    high: float
    orders: Int64[np.ndarray, "m 3"]
    """Half waves along u, v and log depth."""

    @classmethod
    def filling(cls, width: int, height: int, log_depth: Float64[np.ndarray, "n"]) -> "Waves":
        """Returns the waves of a picture whose pixels have these log depths."""
        low, high = np.percentile(log_depth, [TAIL, 100 - TAIL])
        along_depth = MOST_ALONG_DEPTH if high - low > MIN_RANGE else 0
        most = (np.array([width, height]) / max(width, height) + 2 * MARGIN) * MOST_ALONG_PICTURE
        most = np.append(most, along_depth)
        orders = np.indices(tuple(int(limit) + 1 for limit in most)).reshape(3, -1).T
        short = np.square(orders / np.maximum(most, 1)).sum(axis=1) <= 1
        return cls((width, height), float(low), float(high), orders[short])

    def at(
        self, uv: Float64[np.ndarray, "n 2"], log_depth: Float64[np.ndarray, "n"]
    ) -> Float64[np.ndarray, "n m"]:
        """Returns the value of every wave at points."""
        position = (*self._place(uv).T, self._position(log_depth))
        values = np.ones((len(uv), len(self.orders)))
        for along, order in zip(position, self.orders.T, strict=True):
            values *= _cosines(along, int(order.max()) + 1)[:, order]
        return values

    def shares(self, length: float, depth_length: float, nu: float) -> Float64[np.ndarray, "m"]:
        """Returns the variance of each wave in a process with a Matern covariance, mean variance 1.

        Proportional to the spectral density (Rasmussen and Williams 2006, equation 4.15) at the wave's
        frequency.

        Args:
            length: Length scale over the picture, in longer sides.
            depth_length: Length scale over log depth.
            nu: Smoothness.
        """
        extent = np.array([*self._domain / max(self.size), max(self.high - self.low, MIN_RANGE)])
        squared = np.square(np.pi * self.orders / extent * [length, length, depth_length]).sum(axis=1)
        density = (1 + squared / (2 * nu)) ** -(nu + 1.5)
        return density / (density @ self.mean_squares())

    def total(
        self, coefficients: Float64[np.ndarray, "m"], log_depth: Float64[np.ndarray, "h w"]
    ) -> Float64[np.ndarray, "h w"]:
        """Returns the sum of the waves times their coefficients at every pixel."""
        cosines = np.zeros(self.orders.max(axis=0) + 1)
        cosines[tuple(self.orders.T)] = coefficients * np.sqrt(2) ** (self.orders > 0).sum(axis=1)
        return self.summed(cosines, log_depth)

    def variance(self, root: Float64[np.ndarray, "k m"]) -> Float64[np.ndarray, "nu nv nw"]:
        """Returns the variance of `total` if the coefficients have covariance root^T root, for `summed`.

        Products of two cosines are sums of cosines: so it is one, of up to twice as many half waves, and as
        many nodes tell its coefficients exactly.
        """
        counts = [2 * int(most) + 1 for most in self.orders.max(axis=0)]
        at_nodes = [_level_cosines(np.linspace(0, 1, count), count) for count in counts]
        place = np.indices(tuple(counts)).reshape(3, -1)
        waves = np.ones((place.shape[1], len(self.orders)))
        for values, nodes, order in zip(at_nodes, place, self.orders.T, strict=True):
            waves *= (values[:, order] * np.where(order > 0, np.sqrt(2), 1))[nodes]
        found = np.square(waves @ root.T).sum(axis=1).reshape(counts)
        for values in at_nodes:  # each axis in turn, which comes back as the last
            found = np.moveaxis(np.tensordot(np.linalg.inv(values), found, axes=(1, 0)), 0, -1)
        return found

    def summed(
        self, cosines: Float64[np.ndarray, "nu nv nw"], log_depth: Float64[np.ndarray, "h w"]
    ) -> Float64[np.ndarray, "h w"]:
        """Returns a sum of cosines at every pixel, given the amplitude of each number of half waves."""
        across, down = (
            _level_cosines((np.arange(side) + 0.5 + MARGIN * max(self.size)) / domain, count)
            for side, domain, count in zip(self.size, self._domain, cosines.shape, strict=False)
        )
        cosine = np.cos(np.pi * self._position(log_depth))
        before, wave = cosine, np.ones(log_depth.shape)  # of order -1 and 0
        total = down @ cosines[:, :, 0].T @ across.T
        for order in range(1, cosines.shape[2]):
            before, wave = wave, 2 * cosine * wave - before  # Chebyshev's recurrence
            total += wave * (down @ cosines[:, :, order].T @ across.T)
        return total

    def mean_squares(self) -> Float64[np.ndarray, "m"]:
        """Returns the mean square of every wave over the picture, where the domain's borders are not."""
        means = np.ones(len(self.orders))
        for side, domain, order in zip(self.size, self._domain, self.orders.T, strict=False):
            share = side / domain
            means *= 1 + (order > 0) * np.sinc(order * share) * (-1.0) ** order
        return means

    @property
    def _domain(self) -> Float64[np.ndarray, "2"]:
        """Width and height of what the waves fill, px."""
        return np.array(self.size) + 2 * MARGIN * max(self.size)

    def _place(self, uv: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        return (uv + MARGIN * max(self.size)) / self._domain

    def _position(self, log_depth: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        return np.clip((log_depth - self.low) / max(self.high - self.low, MIN_RANGE), 0, 1)


def _cosines(position: Float64[np.ndarray, "n"], count: int) -> Float64[np.ndarray, "n count"]:
    """Returns cosines of mean square 1."""
    values = np.sqrt(2) * _level_cosines(position, count)
    values[:, 0] = 1
    return values


def _level_cosines(position: Float64[np.ndarray, "n"], count: int) -> Float64[np.ndarray, "n count"]:
    return np.cos(np.pi * position[:, None] * np.arange(count))
