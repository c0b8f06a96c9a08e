"""Cosine waves over a picture and its range of log depth: the basis of the smooth correction."""

from collections.abc import Iterator, Sequence
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

        Products of two cosines are sums of cosines: so it is one, of up to twice as many half waves.
        """
        products = self._products()
        covariance = np.zeros([side for along in products for side in along.shape[1:]])
        covariance[self._both] = root.T @ root
        return np.einsum("ijklmn,uij,vkl,wmn->uvw", covariance, *products, optimize=True)

    def gram(
        self, weights: Float64[np.ndarray, "h w"], log_depth: Float64[np.ndarray, "h w"]
    ) -> Float64[np.ndarray, "m m"]:
        """Returns the weighted sum over the pixels of the products of every two waves."""
        products = self._products()
        cosines = self._summed_over(weights, log_depth, [len(along) for along in products])
        return np.einsum("uvw,uij,vkl,wmn->ijklmn", cosines, *products, optimize=True)[self._both]

    def moment(
        self, weights: Float64[np.ndarray, "h w"], log_depth: Float64[np.ndarray, "h w"]
    ) -> Float64[np.ndarray, "m"]:
        """Returns the weighted sum over the pixels of every wave: the transpose of `total`."""
        cosines = self._summed_over(weights, log_depth, [int(most) + 1 for most in self.orders.max(axis=0)])
        return cosines[tuple(self.orders.T)] * np.sqrt(2) ** (self.orders > 0).sum(axis=1)

    def summed(
        self, cosines: Float64[np.ndarray, "nu nv nw"], log_depth: Float64[np.ndarray, "h w"]
    ) -> Float64[np.ndarray, "h w"]:
        """Returns a sum of cosines at every pixel, given the amplitude of each number of half waves."""
        across, down = self._along_picture(cosines.shape)
        total = np.zeros(log_depth.shape)
        for order, wave in enumerate(self._along_depth(log_depth, cosines.shape[2])):
            total += wave * (down @ cosines[:, :, order].T @ across.T)
        return total

    def _summed_over(
        self,
        weights: Float64[np.ndarray, "h w"],
        log_depth: Float64[np.ndarray, "h w"],
        counts: Sequence[int],
    ) -> Float64[np.ndarray, "nu nv nw"]:
        """Returns the weighted sum over the pixels of every cosine: the transpose of `summed`."""
        across, down = self._along_picture(counts)
        waves = self._along_depth(log_depth, counts[2])
        return np.stack([across.T @ (weights * wave).T @ down for wave in waves], axis=2)

    def _along_picture(
        self, counts: Sequence[int]
    ) -> tuple[Float64[np.ndarray, "w nu"], Float64[np.ndarray, "h nv"]]:
        """Returns cosines along u at every column and along v at every row."""
        across, down = (
            _level_cosines((np.arange(side) + 0.5 + MARGIN * max(self.size)) / domain, count)
            for side, domain, count in zip(self.size, self._domain, counts, strict=False)
        )
        return across, down

    def _along_depth(
        self, log_depth: Float64[np.ndarray, "h w"], count: int
    ) -> Iterator[Float64[np.ndarray, "h w"]]:
        """Yields cosines along log depth at every pixel, of 0, 1, 2 ... half waves."""
        cosine = np.cos(np.pi * self._position(log_depth))
        before, wave = cosine, np.ones(log_depth.shape)  # of order -1 and 0
        for _ in range(count):
            yield wave
            before, wave = wave, 2 * cosine * wave - before  # Chebyshev's recurrence

    def _products(self) -> list[Float64[np.ndarray, "_ _ _"]]:
        """Returns `_products` along u, v and log depth."""
        return [_products(int(most)) for most in self.orders.max(axis=0)]

    @property
    def _both(self) -> tuple[np.ndarray, ...]:
        """Where every two waves (m, m) are among products of two along u, along v and along log depth."""
        return tuple(part for order in self.orders.T for part in (order[:, None], order))

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


def _products(most: int) -> Float64[np.ndarray, "n k k"]:
    """Returns how much of each cosine (n) is in the product of every two (k, k) of up to `most` half waves.

    cos a cos b = (cos(a - b) + cos(a + b)) / 2; factors have mean square 1, as in `_cosines`.
    """
    order, number = np.arange(most + 1), np.arange(2 * most + 1)[:, None, None]
    less, more = np.abs(order[:, None] - order), order[:, None] + order
    size = np.where(order > 0, np.sqrt(2), 1)
    return ((number == less).astype(float) + (number == more)) * np.outer(size, size) / 2
