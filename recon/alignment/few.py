"""What a few dozen anchors say of a smooth error, when some of them are wrong and none can be spared.

Model, with xi_k = log z_k - log z_aff(p_k) as in `field.py`: an anchor is right with probability
1 - OUTLIERS, and then

    xi = B c + J d + e,    c ~ N(0, a^2 S),    d ~ N(0, LINE_DEVIATION^2),    e_k ~ N(0, tau^2 + sigma_k^2)

else xi_k is anything within one unit. B are the waves, S their shares; J is how scale and shift move log z:
they are fitted anew, given that errors of neighbours agree (generalised least squares), so that a cluster of
anchors counts as little as it knows. The probability that an anchor is right comes from what all others
predict at it, by the closed form of leave-one-out (Rasmussen and Williams 2006, equation 5.12): a field
that bends to a wrong anchor would hide it. The length and deviation of the field and tau maximise the
marginal likelihood times priors that say what networks do; with ten anchors the priors decide.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64

from recon.alignment.noise import Noise
from recon.alignment.points import FOLDS, Points
from recon.alignment.waves import Waves

MOST = 200  # anchors; more choose their hyper-parameters better by `field.py`, and this grows with the cube
OUTLIERS = 0.15
SURE = 0.1  # relative error under the robust line up to which an anchor is taken for right at first
LENGTHS = (0.17, 0.24, 0.34, 0.5)  # of the longer side of the picture
AMPLITUDES = tuple(0.01 * 2.0**power for power in range(-2, 5))
TAUS = tuple(0.01 * 2.0**power for power in range(-3, 3))
START = (2, 4, 2)  # indices of length, amplitude and tau
DEPTH_LENGTH, SMOOTHNESS = 1.0, 2.5  # in log depth; too few anchors tell others
PRIOR_MEAN = np.log([0.3, 0.06, 0.007])  # of length, amplitude and tau: a good network's
PRIOR_DEVIATION = np.log([1.5, 3.0, 2.0])
LINE_DEVIATION = 0.3  # relative; leaves scale and shift all but free
ROUNDS, ROUNDS_PER_CHOICE = 15, 3
LEAST_WEIGHT = 1e-6  # keeps variances finite
MIN_GAIN = 1e-2  # of log likelihood, so that rounding decides nothing


@dataclass(frozen=True, eq=False)
class Opinion:
    """What the anchors say."""

    weights: Float64[np.ndarray, "n"]
    """Probability of being right."""

    noise: Noise
    length: float
    amplitude: float
    change: Float64[np.ndarray, "p"]
    """d, by which the line is off."""

    covariance: Float64[np.ndarray, "p p"]
    fold_changes: Float64[np.ndarray, "f p"]
    """d without each fold."""


@dataclass(frozen=True, eq=False)
class _Problem:
    points: Points
    basis: Float64[np.ndarray, "n m"]
    jacobian: Float64[np.ndarray, "n p"]
    waves: Waves

    @cached_property
    def kernels(self) -> tuple[Float64[np.ndarray, "n n"], ...]:
        """B S B^T for every length."""
        shares = (self.waves.shares(length, DEPTH_LENGTH, SMOOTHNESS) for length in LENGTHS)
        return tuple((self.basis * share) @ self.basis.T for share in shares)

    def variance(self, tau: float) -> Float64[np.ndarray, "n"]:
        return tau**2 / self.points.confidence + self.points.sigma**2

    def covariance(
        self, chosen: tuple[int, int, int], weights: Float64[np.ndarray, "n"]
    ) -> Float64[np.ndarray, "n n"]:
        length, amplitude, tau = chosen
        smooth = AMPLITUDES[amplitude] ** 2 * self.kernels[length]
        line = LINE_DEVIATION**2 * self.jacobian @ self.jacobian.T
        return smooth + line + np.diag(self.variance(TAUS[tau]) / weights)


def listen(
    points: Points,
    basis: Float64[np.ndarray, "n m"],
    jacobian: Float64[np.ndarray, "n p"],
    waves: Waves,
    fold: Int64[np.ndarray, "n"],
) -> Opinion:
    """Returns the weights of a few anchors, the field's hyper-parameters and the change of the line.

    Args:
        points: As for `fit_field`, at most MOST.
        basis: The waves at the points.
        jacobian: Derivatives of log z by the line's parameters, each of size about 1.
        waves: Of the basis.
        fold: Of each point.
    """
    problem = _Problem(points, basis, jacobian, waves)
    weights = np.where(np.abs(points.y) < SURE, 1.0, LEAST_WEIGHT)
    chosen = START
    for turn in range(ROUNDS):
        if turn and turn % ROUNDS_PER_CHOICE == 0:
            chosen = _chosen(problem, weights, chosen)
        weights = 0.5 * (weights + _right(problem, weights, chosen))
    covariance = problem.covariance(chosen, weights)
    change, of_change = _change(problem, covariance, np.ones(len(fold), bool))
    without = [_change(problem, covariance, fold != one)[0] for one in range(FOLDS)]
    return Opinion(
        weights=weights,
        noise=Noise(TAUS[chosen[2]], 1.0, 1.0),
        length=LENGTHS[chosen[0]],
        amplitude=AMPLITUDES[chosen[1]],
        change=change,
        covariance=of_change,
        fold_changes=np.stack(without),
    )


def _right(
    problem: _Problem, weights: Float64[np.ndarray, "n"], chosen: tuple[int, int, int]
) -> Float64[np.ndarray, "n"]:
    """Returns the probability of each anchor to be right, as all others see it."""
    own = problem.variance(TAUS[chosen[2]])
    inverse = np.linalg.inv(problem.covariance(chosen, weights))
    precision = np.diag(inverse)
    error = inverse @ problem.points.y / precision
    variance = np.maximum(1 / precision - own / weights, 0) + own
    right = (1 - OUTLIERS) * np.exp(-0.5 * error**2 / variance) / np.sqrt(2 * np.pi * variance)
    return np.maximum(right / (right + OUTLIERS), LEAST_WEIGHT)


def _chosen(
    problem: _Problem, weights: Float64[np.ndarray, "n"], start: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Returns the indices of length, amplitude and tau that steps along single axes lead to."""
    sizes = (len(LENGTHS), len(AMPLITUDES), len(TAUS))
    best, highest, improved = start, _score(problem, weights, start), True
    while improved:
        improved = False
        for axis in range(len(sizes)):
            for step in (-1, 1):
                length, amplitude, tau = (index + step * (axis == i) for i, index in enumerate(best))
                other = (length, amplitude, tau)
                if 0 <= other[axis] < sizes[axis]:
                    score = _score(problem, weights, other)
                    if score > highest + MIN_GAIN:
                        best, highest, improved = other, score, True
    return best


def _score(problem: _Problem, weights: Float64[np.ndarray, "n"], chosen: tuple[int, int, int]) -> float:
    """Returns the log posterior of hyper-parameters; an anchor of weight w counts as w anchors."""
    factor = np.linalg.cholesky(problem.covariance(chosen, weights))
    whitened = np.linalg.solve(factor, problem.points.y)
    of_weights = np.log(np.sqrt(1 / weights)) + 0.5 * (1 - weights) * np.log(
        problem.variance(TAUS[chosen[2]])
    )
    logs = np.log([LENGTHS[chosen[0]], AMPLITUDES[chosen[1]], TAUS[chosen[2]]])
    penalty = 0.5 * np.square((logs - PRIOR_MEAN) / PRIOR_DEVIATION).sum()
    return float(-0.5 * whitened @ whitened - np.log(np.diag(factor)).sum() + of_weights.sum() - penalty)


def _change(
    problem: _Problem, covariance: Float64[np.ndarray, "n n"], kept: np.ndarray
) -> tuple[Float64[np.ndarray, "p"], Float64[np.ndarray, "p p"]]:
    """Returns the mean and the covariance of d, given some of the anchors."""
    jacobian = LINE_DEVIATION**2 * problem.jacobian[kept]
    gain = np.linalg.solve(covariance[np.ix_(kept, kept)], jacobian)  # (k, p)
    size = jacobian.shape[1]
    return gain.T @ problem.points.y[kept], LINE_DEVIATION**2 * np.eye(size) - gain.T @ jacobian
