"""The energy of `recon.refinement` and its descent by reweighted least squares."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from recon.refinement.multigrid import Multigrid, Stencil, solve

if TYPE_CHECKING:
    from torch import Tensor

    Sides = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]

ROUNDS = 3  # of reweighting; later ones move next to nothing
ITERATIONS = 5  # of conjugate gradients per round: the next round starts from there
TOLERANCE = 1e-3
MAX_LOG_JUMP = 2.0  # of log depth, beyond which a jump counts no more
NO_LINK = 1e6  # squared residual of a link that is none: never the better side
MIN_LINK = 1e-7  # share of its weight that a link keeps, so that every pixel hangs on something


@dataclass(frozen=True, eq=False)
class Energy:
    """E for one view; all tensors float32."""

    start: "Tensor"
    """l0 (h, w), finite everywhere."""

    pull: "Tensor"
    """pi (h, w), positive, in units in which a typical pixel has 1."""

    along_u: "Tensor"
    """g (h, w - 1)."""

    along_v: "Tensor"
    """g (h - 1, w)."""

    weight_u: "Tensor"
    """w of each link, same units; 0 where there is none."""

    weight_v: "Tensor"

    jump: float
    """Residual of log depth from which a link is rather a jump than a slope."""

    amid: "Tensor"
    """Largest residual beside each pixel at the start (h, w): beyond `jump`, the pixel is amid one."""

    cut: float
    """Residual of log depth beyond which a pixel hangs on neither side."""

    def value(self, log_depth: "Tensor", sides: "Sides") -> float:
        """Returns E, given `sides` of the same log depth."""
        total = (self.pull * (log_depth - self.start).square()).double().sum()
        for axis, weight in ((1, self.weight_u), (0, self.weight_v)):
            _, least = sides[axis]
            cost = least / (1 + least / self.cut**2)
            total = total + (self._of_pixels[axis] * cost).double().sum()
            total = total + MIN_LINK * (weight * self.residual(log_depth, axis).square()).double().sum()
        return float(total)

    def residual(self, log_depth: "Tensor", axis: int) -> "Tensor":
        """Returns e of every link along an axis."""
        count = log_depth.shape[axis] - 1
        slope = self.along_u if axis == 1 else self.along_v
        return log_depth.narrow(axis, 1, count) - log_depth.narrow(axis, 0, count) - slope

    def weights(self, sides: "Sides", axis: int) -> "Tensor":
        """Returns the weight of every link's squared residual in the quadratic that touches E from above."""
        weight = self.weight_u if axis == 1 else self.weight_v
        choice, least = sides[axis]
        robust = (1 + least.clamp(min=0) / self.cut**2) ** -2
        count = weight.shape[axis]
        pixels, farther = self._of_pixels[axis] * robust, self._farther[axis]
        ahead = (pixels * choice).narrow(axis, 0, count) / farther
        behind = (pixels * (1 - choice)).narrow(axis, 1, count) * farther
        return (ahead + behind) * (weight > 0) + MIN_LINK * weight

    def sides(self, log_depth: "Tensor") -> "Sides":
        """Returns for both axes how much a pixel's link to the next is the better one, and the soft minimum.

        0 is the link to the pixel before, 1 that to the next; beyond the border there is none. The soft
        minimum of the squared residuals is at least 0 and at most the smaller one.
        """
        import torch

        found, scale = [], self.jump**2
        for axis, weight in ((0, self.weight_v), (1, self.weight_u)):
            farther = self._farther[axis]
            squared = torch.where(weight > 0, self.residual(log_depth, axis).square(), NO_LINK)
            border = torch.full_like(squared.narrow(axis, 0, 1), torch.inf)
            before = torch.cat([border, squared * farther], axis)
            after = torch.cat([squared / farther, border], axis)
            both = torch.logsumexp(torch.stack([-before, -after]) / scale, dim=0)
            found.append((torch.sigmoid((before - after) / scale), -scale * both))
        return found[0], found[1]

    @cached_property
    def _farther(self) -> "tuple[Tensor, Tensor]":
        """How much farther the next pixel is than a pixel along both axes, at the start.

        Times or over it, squared residuals of log depth are those of disparity relative to the one pixel's
        or the other's: predictions blur jumps in disparity, whose steepest place is the jump's.
        """
        import torch

        down, right = (
            torch.exp(self.start.diff(dim=axis).clamp(-MAX_LOG_JUMP, MAX_LOG_JUMP)) for axis in (0, 1)
        )
        return down, right

    @cached_property
    def _of_pixels(self) -> "tuple[Tensor, Tensor]":
        """The smaller weight of the two links of every pixel along both axes; 0 without links."""
        import torch

        found = []
        for axis, weight in ((0, self.weight_v), (1, self.weight_u)):
            links = torch.where(weight > 0, weight, torch.inf)
            border = torch.full_like(links.narrow(axis, 0, 1), torch.inf)
            smaller = torch.minimum(torch.cat([border, links], axis), torch.cat([links, border], axis))
            found.append(torch.where(smaller.isfinite(), smaller, 0))
        return found[0], found[1]


def descend(
    energy: Energy, rounds: int = ROUNDS, start: "Tensor | None" = None
) -> "tuple[Tensor, list[float], Multigrid]":
    """Returns log depth of lower energy, the energies after each round, and the last round's multigrid.

    Args:
        energy: To descend.
        rounds: Of reweighting, at most.
        start: To begin at, if not at the energy's.
    """
    log_depth = energy.start.clone() if start is None else start
    sides = energy.sides(log_depth)
    values = [energy.value(log_depth, sides)]
    for _ in range(rounds):
        weights = [energy.weights(sides, axis) for axis in (1, 0)]
        residuals = [energy.residual(log_depth, axis) for axis in (1, 0)]
        step, multigrid = weighted_step(energy.pull, energy.start - log_depth, weights, residuals)
        moved = log_depth + step
        sides = energy.sides(moved)
        after = energy.value(moved, sides)
        if not after <= values[-1]:  # float32 can go no lower
            break
        log_depth = moved
        values.append(after)
    return log_depth, values, multigrid


def weighted_step(
    pull: "Tensor",
    off: "Tensor",
    weights: "list[Tensor]",
    residuals: "list[Tensor]",
    *,
    iterations: int = ITERATIONS,
) -> "tuple[Tensor, Multigrid]":
    """Returns the step x that about minimises sum pi (x - off)^2 + sum w (e + dx)^2, and its multigrid.

    Args:
        pull: pi (h, w).
        off: What every pixel lacks to what it is pulled to (h, w).
        weights: w of the links along u (h, w - 1), along v (h - 1, w).
        residuals: e of the same links.
        iterations: Of conjugate gradients, at most.
    """
    multigrid = Multigrid(Stencil.from_weights(pull, *weights))
    force = pull * off
    for axis, weight, residual in zip((1, 0), weights, residuals, strict=True):
        count = weight.shape[axis]
        tension = weight * residual
        force.narrow(axis, 0, count).add_(tension)
        force.narrow(axis, 1, count).sub_(tension)
    step, _ = solve(multigrid, force, tolerance=TOLERANCE, most=iterations)
    return step, multigrid
