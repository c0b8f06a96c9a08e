"""The error of a prediction at points: how large it is, and whether it grows with depth."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from jaxtyping import Float64

from recon.alignment.points import Points, evenly

GEMAN_MCCLURE_WIDTH = 3.0  # standard deviations; at 3 a point at one deviation keeps 80 % of its weight
MIN_ERROR = 1e-6  # relative; float32 predictions are no better
RELATIVE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ANCHOR_SHARES = (0.0, 0.5, 1.0)  # of the sigma that anchors state; long tracks are better than theirs
MIN_LIKELIER = 1e-6  # of a log likelihood per point, so that rounding decides nothing
MAX_NOISE_POINTS = 3000  # residuals that estimate the noise
NORMAL_MEDIAN = 0.6745  # median of |u|, u standard normal
NOISE_ITERATIONS = 12


@dataclass(frozen=True)
class Noise:
    """Error of the prediction, in y: variance = tau^2 * ((1 - l) * typical^2 + l * unit^2) / confidence.

    The points' own sigma counts by a share: where the residuals cannot tell the two apart, they are the
    prediction's, so that no pixel is called more certain than it is.
    """

    tau: float
    """Relative depth error at the points' typical depth."""

    relative_share: float
    """l: 0 is uniform in y, 1 proportional to depth."""

    typical: float
    """Median of the points' unit."""

    anchor_share: float = 1.0
    """Factor on the points' sigma."""

    def variance(
        self, unit: Float64[np.ndarray, "*shape"], confidence: Float64[np.ndarray, "*shape"]
    ) -> Float64[np.ndarray, "*shape"]:
        """Returns the variance of y where a relative depth error of 1 is `unit`."""
        squared = (1 - self.relative_share) * self.typical**2 + self.relative_share * unit**2
        return self.tau**2 * squared / confidence

    def spread(self, points: Points) -> Float64[np.ndarray, "n"]:
        """Returns the standard deviation of the residual at points: theirs and the prediction's."""
        own = (self.anchor_share * points.sigma) ** 2
        return np.sqrt(self.variance(points.unit, points.confidence) + own)


def estimate_noise(
    residuals: Float64[np.ndarray, "n"], points: Points, shares: tuple[float, ...] = RELATIVE_SHARES
) -> Noise:
    """Returns the noise model under which the inliers' residuals look standard normal.

    For each relative share and anchor share, tau puts the median of |u| over |u| < 3 where a normal
    distribution has it; the shares are those of greatest likelihood, outliers truncated.

    Args:
        residuals: Of the points.
        points: At least one.
        shares: Relative shares to choose from.
    """
    chosen = evenly(len(residuals), MAX_NOISE_POINTS)
    residuals, points = np.abs(residuals[chosen]), points.take(chosen)
    typical = float(np.median(points.unit))
    best, lowest = Noise(MIN_ERROR, 1.0, typical), np.inf
    for share, anchor_share in product(shares, ANCHOR_SHARES):
        noise = _scaled_to(residuals, points, Noise(1.0, share, typical, anchor_share))
        spread = noise.spread(points)
        u = np.minimum(residuals / spread, GEMAN_MCCLURE_WIDTH)
        cost = float(np.mean(np.log(spread) + u**2 / 2))
        if cost < lowest - MIN_LIKELIER:
            best, lowest = noise, cost
    return best


def _scaled_to(residuals: Float64[np.ndarray, "n"], points: Points, noise: Noise) -> Noise:
    for _ in range(NOISE_ITERATIONS):
        u = residuals / noise.spread(points)
        near = u[u < GEMAN_MCCLURE_WIDTH] if (u < GEMAN_MCCLURE_WIDTH).any() else u
        noise = replace(noise, tau=max(noise.tau * float(np.median(near)) / NORMAL_MEDIAN, MIN_ERROR))
    return noise
