"""A smooth correction of log depth over the picture: what one scale and one shift leave behind.

With xi_k = log z_k - log z_aff(p_k) at the anchors, s is a Gaussian process over (u, v, log z_aff):

    xi_k = s(u_k, v_k, log z_aff) + e_k,    e_k ~ N(0, v_k / w_k),    v_k = tau^2 / confidence_k + sigma_k^2

The third coordinate lets s differ on the two sides of a jump of the prediction. s is a sum of cosine waves
with independent coefficients, whose variances follow the spectral density of a Matern covariance (Solin and
Saerkkae 2020, with reflecting instead of fixed borders). The waves do not depend on the hyper-parameters, so
a try of these costs one Cholesky factorisation. The w_k are those of Geman and McClure, so that wrong anchors
end with none; tau is sharpened from the size of the affine fit's errors to that of what no wave explains.
Length scales, strength and smoothness maximise the marginal likelihood given the w_k, times weak priors that
matter for a few dozen anchors; the slope of s along log z_aff is bounded, so that detail between the anchors
survives. Away from anchors s returns to 0 and its variance to that of the process.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from recon.alignment.few import DEPTH_LENGTH, Opinion
from recon.alignment.few import SMOOTHNESS as FEW_SMOOTHNESS
from recon.alignment.noise import GEMAN_MCCLURE_WIDTH, Noise, estimate_noise
from recon.alignment.points import FOLDS, Points, evenly, folds
from recon.alignment.waves import Waves

LENGTHS = (0.06, 0.085, 0.12, 0.17, 0.24, 0.34, 0.5, 0.8)  # of the longer side of the picture
DEPTH_LENGTHS = (0.5, 1.0, 2.0, 10.0)  # in log depth; the last all but ignores it
STRENGTHS = tuple(4.0**power for power in range(-3, 9))  # variance of s over tau^2
SMOOTHNESS = (1.5, 2.5, 4.5)  # smoother ones extrapolate with more trust than real errors deserve
GRID = (LENGTHS, DEPTH_LENGTHS, STRENGTHS, SMOOTHNESS)
START = (4, 1, 4, 1)  # indices into GRID
PRIOR_MEAN = np.log([0.25, 1.0, 0.04])  # of both lengths and the deviation of s: a good network's bend
PRIOR_DEVIATION = np.log([1.5, 2.0, 2.0])
# Typical ds / d log z_aff. Near -1, s would put the anchors' own smooth surface in place of the prediction.
MAX_SLOPE = 0.2
STEEPNESS = 1e4  # log likelihood that a typical slope of 1 beyond it costs
MIN_GAIN = 1e-2  # of log likelihood, so that rounding decides nothing
START_ROUNDS, ROUNDS = 3, 6  # reweightings before and after hyper-parameters are chosen
SHARPENING = 0.7  # tau falls by no more per round; faster, a whole object's anchors are lost for good
INVERSIONS = 4  # rounds; each leaves a fifth of the error or less
MAX_POINTS = 2000  # anchors beyond that teach waves this long nothing new
MAX_FREEDOM = 0.8  # share of the anchors that the waves may take up when tau is estimated
# Factors on the deviation of s; none below 1, since anchors tell little of what lies far from them.
CALIBRATIONS = tuple(1.2**power for power in range(7))
CALIBRATION_DEVIATION = 0.15  # of their logarithm, before held-out anchors are asked


@dataclass(frozen=True, eq=False)
class Field:
    """The correction s and how sure it is."""

    waves: Waves
    coefficients: Float64[np.ndarray, "m"]
    root: Float64[np.ndarray, "m m"]
    """R; the coefficients have covariance R^T R."""

    noise: Noise
    """Of the corrected log depth, which no wave explains."""

    amplitude: float
    """Standard deviation of s far from all anchors."""

    residuals: Float64[np.ndarray, "n"]
    """xi - s of the anchors."""

    inliers: Bool[np.ndarray, "n"]
    shared_root: Float64[np.ndarray, "k m"]
    """The same for the part of that covariance that is the anchors' own errors, which other views see too."""

    held_out: Float64[np.ndarray, "n"]
    """s as fields without the fold of each anchor predict it; NaN where there is none."""

    def at(self, log_depth: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
        """Returns s at every pixel, given its log z_aff."""
        return self.waves.total(self.coefficients, log_depth)

    def before(
        self, log_depth: Float64[np.ndarray, "h w"], waves: Waves | None = None
    ) -> Float64[np.ndarray, "h w"]:
        """Returns log z_aff of corrected log depth: the third coordinate of s, far less steep than 1.

        Args:
            log_depth: Corrected.
            waves: The field's in pixels of samples of the picture, if the depth is of these.
        """
        found = log_depth
        for _ in range(INVERSIONS):
            found = log_depth - (waves or self.waves).total(self.coefficients, found)
        return found

    def variance(self, log_depth: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
        """Returns the posterior variance of s at every pixel."""
        return np.maximum(self.waves.summed(self.waves.variance(self.root), log_depth), 0)


def fit_field(
    points: Points,
    uv: Float64[np.ndarray, "n 2"],
    waves: Waves,
    fold_errors: Float64[np.ndarray, "n f"],
    opinion: Opinion | None = None,
) -> Field:
    """Returns the correction through anchors of which up to 40 % may be wrong.

    Args:
        points: At least 1, in an order that does not depend on how they came: x is log z_aff, y is xi, sigma
            that of the logarithm, unit 1.
        uv: Pixels of the points.
        waves: Of the picture.
        fold_errors: xi under the affine fit without each fold; NaN where there is none.
        opinion: What few anchors say of weights and hyper-parameters; None finds them here.
    """
    chosen = evenly(len(uv), MAX_POINTS)
    basis, everywhere = waves.at(uv[chosen], points.x[chosen]), waves.at(uv, points.x)
    fitted = points.take(chosen)
    if opinion is None:
        precision, noise, indices = _reweighted(fitted, basis, waves)
        prior = _prior(waves, indices)
    else:
        noise = opinion.noise
        precision = opinion.weights * (noise.tau / noise.spread(fitted)) ** 2
        shares = waves.shares(opinion.length, DEPTH_LENGTH, FEW_SMOOTHNESS)
        prior = (opinion.amplitude / noise.tau) ** 2 * shares
    posterior = _Problem.of(basis, fitted.y, precision).solve(prior)
    held_out, variance = np.full(len(uv), np.nan), np.full(len(uv), np.nan)
    errors = np.full(len(uv), np.nan)
    spread, fold = noise.spread(points), folds(points.tile)
    for one in range(FOLDS):
        kept, left = fold[chosen] != one, fold == one
        plain = fold_errors[:, one]
        if left.any() and np.isfinite(plain).all():
            without = _Problem.of(basis[kept], plain[chosen[kept]], precision[kept]).solve(prior)
            held_out[left] = everywhere[left] @ without.mean
            variance[left] = noise.tau**2 * np.square(everywhere[left] @ without.root.T).sum(axis=1)
            errors[left] = np.abs(plain[left] - held_out[left])
    residuals = points.y - everywhere @ posterior.mean
    calibration = _calibration(errors, variance, spread)
    gain = (basis * precision[:, None]) @ (posterior.root.T @ posterior.root)  # of the mean over y
    shared = calibration * noise.anchor_share * fitted.sigma[:, None] * gain
    return Field(
        waves=waves,
        coefficients=posterior.mean,
        root=noise.tau * calibration * posterior.root,
        shared_root=np.asarray(np.linalg.qr(shared, mode="r")),
        noise=noise,
        amplitude=noise.tau * np.sqrt(prior @ waves.mean_squares()),
        residuals=residuals,
        inliers=np.abs(residuals) <= GEMAN_MCCLURE_WIDTH * spread,
        held_out=held_out,
    )


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Coefficients in units in which tau is 1."""

    mean: Float64[np.ndarray, "m"]
    root: Float64[np.ndarray, "m m"]
    freedom: float
    """Anchors' worth of data that the coefficients take up."""


@dataclass(frozen=True, eq=False)
class _Problem:
    """Weighted least squares for coefficients with independent priors; variances in units of tau^2."""

    gram: Float64[np.ndarray, "m m"]
    moment: Float64[np.ndarray, "m"]
    square: float
    count: float

    @classmethod
    def of(
        cls,
        basis: Float64[np.ndarray, "n m"],
        target: Float64[np.ndarray, "n"],
        precision: Float64[np.ndarray, "n"],
    ) -> "_Problem":
        weights = np.sqrt(precision)
        weighted, aim = basis * weights[:, None], target * weights
        return cls(weighted.T @ weighted, weighted.T @ aim, float(aim @ aim), float(precision.sum()))

    def evidence(self, prior: Float64[np.ndarray, "m"]) -> float:
        """Returns the log marginal likelihood at the best tau, up to a constant."""
        from scipy.linalg import solve_triangular

        root = np.sqrt(prior)
        factor = self._factor(root)
        explained = solve_triangular(factor, root * self.moment, lower=True, check_finite=False)
        left = max(self.square - explained @ explained, 1e-12 * self.square, np.finfo(float).tiny)
        return float(-0.5 * self.count * np.log(left) - np.log(np.diag(factor)).sum())

    def solve(self, prior: Float64[np.ndarray, "m"]) -> _Posterior:
        from scipy.linalg import solve_triangular

        root = np.sqrt(prior)
        inverse = solve_triangular(self._factor(root), np.eye(len(root)), lower=True, check_finite=False)
        covariance_root = inverse * root
        return _Posterior(
            mean=covariance_root.T @ (covariance_root @ self.moment),
            root=covariance_root,
            freedom=len(root) - float(np.square(inverse).sum()),
        )

    def _factor(self, root: Float64[np.ndarray, "m"]) -> Float64[np.ndarray, "m m"]:
        return np.linalg.cholesky(root[:, None] * self.gram * root + np.eye(len(root)))


def _reweighted(
    points: Points, basis: Float64[np.ndarray, "n m"], waves: Waves
) -> tuple[Float64[np.ndarray, "n"], Noise, tuple[int, ...]]:
    """Returns the precision of each point in units of 1 / tau^2, the noise, and the indices into GRID."""
    noise, mean = estimate_noise(points.y, points, (1.0,)), np.zeros(len(basis))
    indices: tuple[int, ...] = START
    for turn in range(START_ROUNDS + ROUNDS):
        problem = _Problem.of(basis, points.y, _precision(points, mean, noise))
        if turn >= START_ROUNDS:
            indices = _climb(_score_of(problem, waves, noise.tau), indices)
        posterior = problem.solve(_prior(waves, indices))
        mean = basis @ posterior.mean
        noise = _sharpened(points, mean, posterior.freedom, noise)
    return _precision(points, mean, noise), noise, indices


def _precision(points: Points, mean: Float64[np.ndarray, "n"], noise: Noise) -> Float64[np.ndarray, "n"]:
    spread = noise.spread(points)
    return (1 + ((points.y - mean) / (GEMAN_MCCLURE_WIDTH * spread)) ** 2) ** -2 * (noise.tau / spread) ** 2


def _sharpened(points: Points, mean: Float64[np.ndarray, "n"], freedom: float, before: Noise) -> Noise:
    """Returns the noise of the inliers' residuals, grown by the freedom that the field took from them."""
    residuals = points.y - mean
    noise = estimate_noise(residuals, points, (1.0,))
    inliers = max(int((np.abs(residuals) <= GEMAN_MCCLURE_WIDTH * noise.spread(points)).sum()), 1)
    growth = (1 - min(freedom / inliers, MAX_FREEDOM)) ** -0.5
    tau = max(noise.tau * growth, SHARPENING * before.tau)
    return Noise(tau, noise.relative_share, noise.typical, noise.anchor_share)


def _prior(waves: Waves, indices: tuple[int, ...]) -> Float64[np.ndarray, "m"]:
    length, depth_length, strength, nu = (axis[index] for axis, index in zip(GRID, indices, strict=True))
    return strength * waves.shares(length, depth_length, nu)


def _score_of(problem: _Problem, waves: Waves, tau: float) -> Callable[[tuple[int, ...]], float]:
    """Returns the function from indices into GRID to the log posterior of these hyper-parameters."""
    known: dict[tuple[int, ...], float] = {}

    def score(indices: tuple[int, ...]) -> float:
        if indices not in known:
            length, depth_length, strength, _ = (axis[i] for axis, i in zip(GRID, indices, strict=True))
            logs = np.log([length, depth_length, np.sqrt(strength) * tau])
            penalty = 0.5 * np.square((logs - PRIOR_MEAN) / PRIOR_DEVIATION).sum()
            penalty += STEEPNESS * max(np.sqrt(strength) * tau / depth_length - MAX_SLOPE, 0)
            known[indices] = problem.evidence(_prior(waves, indices)) - float(penalty)
        return known[indices]

    return score


def _climb(score: Callable[[tuple[int, ...]], float], start: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the local maximum of a score over GRID that steps along single axes lead to."""
    best, improved = start, True
    while improved:
        improved = False
        for axis in range(len(GRID)):
            for step in (-1, 1):
                other = (*best[:axis], best[axis] + step, *best[axis + 1 :])
                while 0 <= other[axis] < len(GRID[axis]) and score(other) > score(best) + MIN_GAIN:
                    best, improved = other, True
                    other = (*best[:axis], best[axis] + step, *best[axis + 1 :])
    return best


def _calibration(
    errors: Float64[np.ndarray, "n"], variance: Float64[np.ndarray, "n"], spread: Float64[np.ndarray, "n"]
) -> float:
    """Returns the factor on deviations of s under which held-out errors are likeliest; NaN are not asked."""
    judged = np.isfinite(errors)
    best, lowest = 1.0, np.inf
    for factor in CALIBRATIONS:
        total = np.sqrt(factor**2 * variance[judged] + spread[judged] ** 2)
        u = np.minimum(errors[judged] / total, GEMAN_MCCLURE_WIDTH)
        cost = float((np.log(total) + u**2 / 2).sum()) + (np.log(factor) / CALIBRATION_DEVIATION) ** 2 / 2
        if cost < lowest - MIN_GAIN:
            best, lowest = factor, cost
    return best
