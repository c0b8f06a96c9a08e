"""Multigrid-preconditioned conjugate gradients for weighted differences on a pixel grid, in torch.

Solves A x = b for the energy

    E(x) = 1/2 sum_p pi_p x_p^2 + 1/2 sum_(p,q) w_pq (x_p - x_q)^2 - sum_p b_p x_p

over the 4-neighbours of a picture. The weights may differ by many orders of magnitude from one pixel to the
next (a surface ends, another begins), so that plain coarse grids fail; the interpolation here follows the
operator, as in black-box multigrid (Dendy 1982): a fine pixel takes its value from coarse ones in proportion
to how strongly it is tied to them, and the coarse operators are P^T A P. These are read off by applying
P^T A P to nine combs of coarse pixels, whose answers do not overlap. One source for CPU and GPU.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

COARSEST = 8  # pixels along the longer side, below which the system is solved directly
DAMPING = 0.9  # of Jacobi smoothing; stable below 1 for any weights
SMOOTHINGS = 2  # before and after each coarse correction
TIED = 1e-3  # share of the diagonal below which a pixel is not tied to its coarse neighbours


@dataclass(frozen=True, eq=False)
class Stencil:
    """A symmetric operator with 9 points: the diagonal and the couplings to four of eight neighbours."""

    center: "Tensor"
    """(h, w), the diagonal."""

    east: "Tensor"
    """(h, w - 1), coupling of (y, x) and (y, x + 1)."""

    south: "Tensor"
    """(h - 1, w), of (y, x) and (y + 1, x)."""

    southeast: "Tensor | None" = None
    """(h - 1, w - 1), of (y, x) and (y + 1, x + 1); None on the finest grid."""

    southwest: "Tensor | None" = None
    """(h - 1, w - 1), of (y, x + 1) and (y + 1, x)."""

    @classmethod
    def from_weights(cls, unary: "Tensor", along_u: "Tensor", along_v: "Tensor") -> "Stencil":
        """Returns the operator of the energy in the module's docstring.

        Args:
            unary: pi (h, w), positive.
            along_u: w between (y, x) and (y, x + 1), (h, w - 1), not negative.
            along_v: w between (y, x) and (y + 1, x), (h - 1, w).
        """
        center = unary.clone()
        center[:, :-1] += along_u
        center[:, 1:] += along_u
        center[:-1] += along_v
        center[1:] += along_v
        return cls(center, -along_u, -along_v)

    def apply(self, x: "Tensor") -> "Tensor":
        """Returns A x for x (..., h, w)."""
        result = self.center * x
        result[..., :-1].addcmul_(self.east, x[..., 1:])
        result[..., 1:].addcmul_(self.east, x[..., :-1])
        result[..., :-1, :].addcmul_(self.south, x[..., 1:, :])
        result[..., 1:, :].addcmul_(self.south, x[..., :-1, :])
        if self.southeast is not None and self.southwest is not None:
            result[..., :-1, :-1].addcmul_(self.southeast, x[..., 1:, 1:])
            result[..., 1:, 1:].addcmul_(self.southeast, x[..., :-1, :-1])
            result[..., :-1, 1:].addcmul_(self.southwest, x[..., 1:, :-1])
            result[..., 1:, :-1].addcmul_(self.southwest, x[..., :-1, 1:])
        return result

    def padded_to_odd(self) -> "Stencil":
        """Returns the operator with sides of odd length; added pixels are tied to nothing."""
        from torch.nn.functional import pad

        height, width = self.center.shape
        down, right = 1 - height % 2, 1 - width % 2
        if not down and not right:
            return self
        diagonals = [
            None if d is None else pad(d, (0, right, 0, down)) for d in (self.southeast, self.southwest)
        ]
        return Stencil(
            pad(self.center, (0, right, 0, down), value=1.0),
            pad(self.east, (0, right, 0, down)),
            pad(self.south, (0, right, 0, down)),
            *diagonals,
        )


@dataclass(frozen=True, eq=False)
class Interpolation:
    """From a coarse grid, which holds every other pixel along u and v, to the fine one."""

    west: "Tensor"
    """Share of the coarse pixel to the west of a fine pixel between two in a row, (hc, wc - 1)."""

    east: "Tensor"
    north: "Tensor"
    """Of the one to the north of a fine pixel between two in a column, (hc - 1, wc)."""

    south: "Tensor"
    corners: "tuple[Tensor, Tensor, Tensor, Tensor]"
    """Of the northwest, northeast, southwest, southeast ones of a pixel amid four, (hc - 1, wc - 1)."""

    @classmethod
    def of(cls, stencil: Stencil) -> "Interpolation":
        """Returns the interpolation that follows an operator with sides of odd length."""
        import torch

        a = _Neighbours(stencil)
        west, east = a.collapsed("u")
        north, south = a.collapsed("v")
        row, column = (slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))
        middle = (slice(1, None, 2), slice(1, None, 2))
        west, east = west[row], east[row]
        north, south = north[column], south[column]
        inverse = 1 / stencil.center[middle]
        toward = {name: -values[middle] * inverse for name, values in a.by_direction.items()}
        corners = (
            toward["nw"] + toward["n"] * west[:-1] + toward["w"] * north[:, :-1],
            toward["ne"] + toward["n"] * east[:-1] + toward["e"] * north[:, 1:],
            toward["sw"] + toward["s"] * west[1:] + toward["w"] * south[:, :-1],
            toward["se"] + toward["s"] * east[1:] + toward["e"] * south[:, 1:],
        )
        west, east, north, south = (torch.clamp(t, 0, 1).contiguous() for t in (west, east, north, south))
        return cls(west, east, north, south, corners)

    def up(self, coarse: "Tensor") -> "Tensor":
        """Returns P x for x (..., hc, wc)."""
        height, width = coarse.shape[-2:]
        fine = coarse.new_empty((*coarse.shape[:-2], 2 * height - 1, 2 * width - 1))
        nw, ne, sw, se = self.corners
        fine[..., ::2, ::2] = coarse
        fine[..., ::2, 1::2] = self.west * coarse[..., :-1] + self.east * coarse[..., 1:]
        fine[..., 1::2, ::2] = self.north * coarse[..., :-1, :] + self.south * coarse[..., 1:, :]
        above, below = coarse[..., :-1, :], coarse[..., 1:, :]
        amid = nw * above[..., :-1]
        amid.addcmul_(ne, above[..., 1:]).addcmul_(sw, below[..., :-1]).addcmul_(se, below[..., 1:])
        fine[..., 1::2, 1::2] = amid
        return fine

    def down(self, fine: "Tensor") -> "Tensor":
        """Returns P^T r for r (..., h, w)."""
        nw, ne, sw, se = self.corners
        coarse = fine[..., ::2, ::2].clone()
        between = fine[..., ::2, 1::2]
        coarse[..., :-1].addcmul_(self.west, between)
        coarse[..., 1:].addcmul_(self.east, between)
        between = fine[..., 1::2, ::2]
        coarse[..., :-1, :].addcmul_(self.north, between)
        coarse[..., 1:, :].addcmul_(self.south, between)
        amid = fine[..., 1::2, 1::2]
        coarse[..., :-1, :-1].addcmul_(nw, amid)
        coarse[..., :-1, 1:].addcmul_(ne, amid)
        coarse[..., 1:, :-1].addcmul_(sw, amid)
        coarse[..., 1:, 1:].addcmul_(se, amid)
        return coarse


class _Neighbours:
    """The couplings of every pixel by direction, (h, w) each, 0 beyond the border."""

    def __init__(self, stencil: Stencil) -> None:
        from torch import zeros_like

        none = zeros_like(stencil.center)
        self.center = stencil.center
        self.by_direction = {name: none.clone() for name in ("n", "s", "w", "e", "nw", "ne", "sw", "se")}
        a = self.by_direction
        a["e"][:, :-1], a["w"][:, 1:] = stencil.east, stencil.east
        a["s"][:-1], a["n"][1:] = stencil.south, stencil.south
        if stencil.southeast is not None and stencil.southwest is not None:
            a["se"][:-1, :-1], a["nw"][1:, 1:] = stencil.southeast, stencil.southeast
            a["sw"][:-1, 1:], a["ne"][1:, :-1] = stencil.southwest, stencil.southwest

    def collapsed(self, axis: str) -> "tuple[Tensor, Tensor]":
        """Returns the shares of both neighbours along an axis, the other axis summed over."""
        import torch

        a = self.by_direction
        across = a["n"] + a["s"] if axis == "u" else a["w"] + a["e"]
        before = a["w"] + a["nw"] + a["sw"] if axis == "u" else a["n"] + a["nw"] + a["ne"]
        after = a["e"] + a["ne"] + a["se"] if axis == "u" else a["s"] + a["sw"] + a["se"]
        middle = self.center + across
        tied = middle > TIED * self.center
        inverse = torch.where(tied, 1 / torch.where(tied, middle, 1), 0)
        return -before * inverse, -after * inverse


@dataclass(frozen=True, eq=False)
class _Level:
    stencil: Stencil
    smoothing: "Tensor"
    """Damping over the diagonal."""

    interpolation: Interpolation


class Multigrid:
    """One V-cycle of an operator: a symmetric positive approximation of its inverse."""

    def __init__(self, stencil: Stencil) -> None:
        """Builds the coarse grids."""
        import torch

        self._size = stencil.center.shape
        self.stencil = stencil.padded_to_odd()
        self._levels: list[_Level] = []
        current = self.stencil
        while max(current.center.shape) > COARSEST:
            interpolation = Interpolation.of(current)
            self._levels.append(_Level(current, DAMPING / current.center, interpolation))
            current = _galerkin(current, interpolation).padded_to_odd()
        count = current.center.numel()
        combs = torch.eye(count, dtype=torch.float64, device=current.center.device)
        dense = _double(current).apply(combs.reshape(count, *current.center.shape)).reshape(count, count)
        self._factor = torch.linalg.cholesky(dense)

    def padded(self, x: "Tensor") -> "Tensor":
        """Returns x (h, w) with zeros added to the operator's odd size."""
        from torch.nn.functional import pad

        height, width = self.stencil.center.shape
        return pad(x, (0, width - self._size[1], 0, height - self._size[0]))

    def cropped(self, x: "Tensor") -> "Tensor":
        """Returns the part of x that belongs to the picture."""
        return x[: self._size[0], : self._size[1]]

    def cycle(self, residual: "Tensor", depth: int = 0) -> "Tensor":
        """Returns about A^-1 r for r of the operator's odd size."""
        if depth == len(self._levels):
            return self._solve_coarsest(residual)
        level = self._levels[depth]
        x = level.smoothing * residual
        for _ in range(SMOOTHINGS - 1):
            x.addcmul_(level.smoothing, residual - level.stencil.apply(x))
        coarse = level.interpolation.down(residual - level.stencil.apply(x))
        below = self._levels[depth + 1].stencil if depth + 1 < len(self._levels) else None
        x += level.interpolation.up(self._coarse_cycle(coarse, below, depth + 1))
        for _ in range(SMOOTHINGS):
            x.addcmul_(level.smoothing, residual - level.stencil.apply(x))
        return x

    def _coarse_cycle(self, coarse: "Tensor", below: Stencil | None, depth: int) -> "Tensor":
        from torch.nn.functional import pad

        height, width = coarse.shape
        wanted = below.center.shape if below is not None else self._coarsest_shape(height, width)
        solved = self.cycle(pad(coarse, (0, wanted[1] - width, 0, wanted[0] - height)), depth)
        return solved[:height, :width]

    @staticmethod
    def _coarsest_shape(height: int, width: int) -> tuple[int, int]:
        return height + 1 - height % 2, width + 1 - width % 2

    def _solve_coarsest(self, residual: "Tensor") -> "Tensor":
        import torch

        right = residual.to(torch.float64).reshape(-1, 1)
        return torch.cholesky_solve(right, self._factor).reshape(residual.shape).to(residual.dtype)


def _double(stencil: Stencil) -> Stencil:
    parts = (stencil.center, stencil.east, stencil.south, stencil.southeast, stencil.southwest)
    return Stencil(*(None if part is None else part.double() for part in parts))  # type: ignore[arg-type]


def _galerkin(stencil: Stencil, interpolation: Interpolation) -> Stencil:
    """Returns P^T A P, whose 9 points are read off its answers to 9 combs with teeth 3 pixels apart."""
    height, width = (side // 2 + 1 for side in stencil.center.shape)
    combs = stencil.center.new_zeros((3, 3, height, width))
    for row in range(3):
        for column in range(3):
            combs[row, column, row::3, column::3] = 1
    answers = interpolation.down(stencil.apply(interpolation.up(combs)))
    parts = {
        (0, 0): stencil.center.new_zeros((height, width)),
        (0, 1): stencil.center.new_zeros((height, width - 1)),
        (1, 0): stencil.center.new_zeros((height - 1, width)),
        (1, 1): stencil.center.new_zeros((height - 1, width - 1)),
        (1, -1): stencil.center.new_zeros((height - 1, width - 1)),
    }
    for (down, right), part in parts.items():
        left = 1 if right < 0 else 0  # the first pixel that has a neighbour to the southwest
        for row in range(3):
            for column in range(3):
                seen = answers[(row + down) % 3, (column + left + right) % 3, row::3, column + left :: 3]
                tall, wide = part[row::3, column::3].shape
                part[row::3, column::3] = seen[:tall, :wide]
    return Stencil(parts[0, 0], parts[0, 1], parts[1, 0], parts[1, 1], parts[1, -1])


def solve(
    multigrid: Multigrid,
    right: "Tensor",
    start: "Tensor | None" = None,
    *,
    tolerance: float = 1e-4,
    most: int = 100,
) -> "tuple[Tensor, int]":
    """Returns x with |A x - b| <= tolerance * |b| in the norm of the V-cycle, and the iterations it took.

    Flexible conjugate gradients, so that rounding in the V-cycle does no harm; the energy falls with every
    iteration.

    Args:
        multigrid: Of A.
        right: b (h, w).
        start: x to begin with (h, w); 0 if not given.
        tolerance: Relative.
        most: Iterations.
    """
    import torch

    stencil = multigrid.stencil
    b = multigrid.padded(right)
    x = torch.zeros_like(b) if start is None else multigrid.padded(start).clone()
    residual, of_right = b - stencil.apply(x), multigrid.cycle(b)
    scale = float(torch.sum(b * of_right))
    direction = torch.zeros_like(x)
    before, rho_before = torch.zeros_like(x), 1.0
    for iteration in range(most):
        step = of_right if start is None and not iteration else multigrid.cycle(residual)
        rho = float(torch.sum(residual * step))
        if not rho > tolerance**2 * scale:
            return multigrid.cropped(x), iteration
        beta = float(torch.sum((residual - before) * step)) / rho_before if iteration else 0.0
        direction = step + beta * direction
        moved = stencil.apply(direction)
        curvature = float(torch.sum(direction * moved))
        if not curvature > 0:  # rounding; x is as good as it gets
            return multigrid.cropped(x), iteration
        alpha = rho / curvature
        x = x.add_(direction, alpha=alpha)
        before, rho_before = residual, rho
        residual = residual - alpha * moved
    return multigrid.cropped(x), most
