"""What `cost.py` computes, for many pixels at once with torch: patches, and what they cost on planes.

The order of the operations is the kernels'. Only where these add and multiply in one step, or sum in another
order, may last digits differ. What there is of each tap is (25, n): what neighbouring pixels need lies side
by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from recon.photometric.cost import CORNERS, FALL, INVALID, LEAST_SHAPE, NEARNESS, RADIUS, TAPS_U, TAPS_V
from recon.photometric.fitting import ROUNDS

LEAST_VARIANCE = 0.01  # grey levels squared, of a patch in another view: no texture

View = Sequence[float]
"""A row by row and b of `planes.pair_geometry`; start among the pixels of all views, width, height."""

Others = tuple[Tensor, Sequence[View]]
"""Smoothed grey levels of all other views, one behind the other, and a row more; the views, one at least."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of n pixels of the reference, as `cost.take_patch` writes them."""

    values: Tensor
    """Grey levels less their mean, times the weights (25, n)."""

    weights: Tensor
    """Of sum 1 (25, n)."""

    mean: Tensor
    spread: Tensor
    rough: Tensor
    """Spread about the plane of grey levels."""

    taps: Tensor
    """Effective number of taps (n)."""

    def of(self, chosen: slice | Tensor) -> "Patches":
        """Returns the patches of some of the pixels."""
        per_pixel = (self.mean[chosen], self.spread[chosen], self.rough[chosen], self.taps[chosen])
        return Patches(self.values[:, chosen], self.weights[:, chosen], *per_pixel)


class Taps(NamedTuple):
    """The numbers of `cost` that there is one of per tap (25, 1)."""

    u: Tensor
    v: Tensor
    nearness: Tensor


@cache
def taps_on(device: torch.device) -> Taps:
    """Returns the taps on a device, brought there once."""
    return Taps(*(torch.tensor(numbers, device=device)[:, None] for numbers in (TAPS_U, TAPS_V, NEARNESS)))


def taps_at(size: tuple[int, int], rows: Tensor, columns: Tensor) -> Tensor:
    """Returns where the taps of pixels are in a flat picture of a size (height, width): (25, n)."""
    (height, width), taps = size, taps_on(rows.device)
    v, u = rows + taps.v.long(), columns + taps.u.long()
    return v.clamp(0, height - 1) * width + u.clamp(0, width - 1)


def take_patches(pictures: Tensor, taps: Tensor, middles: Tensor) -> Patches:
    """Returns the patches of pixels.

    Args:
        pictures: Grey levels and three colours, smoothed (4, pixels).
        taps: Of `taps_at`.
        middles: Numbers of the pixels themselves (n).
    """
    values = pictures[0, taps]
    r, g, b = (color[taps] - color[middles] for color in pictures[1:])
    fall = (1 - (r * r + g * g + b * b) * float(FALL)).clamp(min=0)
    for _ in range(8):
        fall = fall * fall
    weights = taps_on(values.device).nearness * fall
    total, squares = weights.sum(dim=0), (weights * weights).sum(dim=0)
    mean = (weights * values).sum(dim=0) / total
    weights, values = weights / total, values - mean
    weighted = weights * values
    variance = (weighted * values).sum(dim=0)
    rough = torch.sqrt((variance - _ramp(weights, weighted)).clamp(min=0))
    return Patches(weighted, weights, mean, torch.sqrt(variance), rough, total * total / squares)


def _ramp(weights: Tensor, weighted: Tensor) -> Tensor:
    """Returns the variance of the planes of grey levels through patches."""
    taps = taps_on(weights.device)
    u, v = taps.u, taps.v
    gu, gv, su, sv = ((by * along).sum(dim=0) for by in (weighted, weights) for along in (u, v))
    uu, uv, vv = ((weights * along).sum(dim=0) for along in (u * u, u * v, v * v))
    uu, uv, vv = uu - su * su, uv - su * sv, vv - sv * sv
    shape = (uu * vv - uv * uv).clamp(min=float(LEAST_SHAPE))
    return (vv * gu * gu - 2 * uv * gu * gv + uu * gv * gv) / shape


def motion_px(views: Sequence[View], planes: Tensor) -> Tensor:
    """As `sweep.motion_px`, for n planes (5, n)."""
    w, _, _, u, v = planes
    largest = torch.zeros_like(w)
    for a in views:
        x, y, z = (a[i] * u + a[i + 1] * v + a[i + 2] + w * b for i, b in _rows(a))
        x, y = x / z, y / z
        sees = (z > 0) & (x >= 0) & (y >= 0) & (x <= a[13]) & (y <= a[14])
        motion = torch.hypot(a[9] - x * a[11], a[10] - y * a[11]) / z
        largest = torch.where(sees, torch.maximum(largest, motion), largest)
    return largest


def view_costs(others: Others, planes: Tensor, patches: Patches) -> tuple[Tensor, Tensor]:
    """Returns mean costs (n) in the better half of the views that see a plane, and all costs (views, n).

    The half is rounded up; INVALID where none sees it.

    Args:
        others: Views.
        planes: w, wu, wv, u, v of each pixel (5, n), float64.
        patches: Of the pixels.
    """
    costs = pair_costs(others, planes, patches)
    wanted = ((costs < float(INVALID)).sum(dim=0) + 1) // 2
    ranks = torch.arange(len(costs), device=costs.device)[:, None]
    total = torch.where(ranks < wanted, costs.sort(dim=0).values, 0).sum(dim=0)
    return torch.where(wanted > 0, total / wanted, float(INVALID)), costs


def pair_costs(others: Others, planes: Tensor, patches: Patches) -> Tensor:
    """Returns the costs of planes in each view (views, n); INVALID where it does not see the patch."""
    pixels, views = others
    return torch.stack([_pair_cost(pixels, view, planes, patches) for view in views])


def _pair_cost(pixels: Tensor, view: View, planes: Tensor, patches: Patches) -> Tensor:
    x, y, sees = _places(view, planes)
    start, width, height = (int(number) for number in view[12:])
    column, row = x.clamp(max=max(width - 2, 0)).long(), y.clamp(max=max(height - 2, 0)).long()
    x, y = x - column, y - row
    at = start + row * width + column
    top, low = (torch.lerp(pixels[i], pixels[i + 1], x) for i in (at, at + width))
    values = torch.lerp(top, low, y) - patches.mean  # near 0, so that the squares keep their digits
    weighted = patches.weights * values
    mean, square = weighted.sum(dim=0), (weighted * values).sum(dim=0)
    variance = square - mean * mean
    ncc = (patches.values * values).sum(dim=0) / (patches.spread * torch.sqrt(variance))
    return torch.where(sees & (variance > LEAST_VARIANCE), 1 - ncc, float(INVALID))


def _places(view: View, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns where taps lie, px from the middle of a view's first pixel, and which patches it sees.

    Both (25, n), 0 for patches that it does not see, and (n).
    """
    w, wu, wv, u, v = planes
    middle = [(view[i] * u + view[i + 1] * v + view[i + 2] + w * b).float() for i, b in _rows(view)]
    along_u = [(view[i] + wu * b).float() for i, b in _rows(view)]
    along_v = [(view[i + 1] + wv * b).float() for i, b in _rows(view)]
    sees = middle[2] - float(RADIUS) * (along_u[2].abs() + along_v[2].abs()) > 0
    taps = taps_on(planes.device)
    x, y, z = (a + taps.u * b + taps.v * c for a, b, c in zip(middle, along_u, along_v, strict=True))
    inverse = 1 / z
    x, y = x * inverse - 0.5, y * inverse - 0.5
    for corner in CORNERS:  # the patch is convex, so these tell
        sees &= (x[corner] >= 0) & (x[corner] < view[13] - 1) & (y[corner] >= 0) & (y[corner] < view[14] - 1)
    return torch.where(sees, x, 0), torch.where(sees, y, 0), sees


def _rows(view: View) -> tuple[tuple[int, float], ...]:
    """Returns where the rows of A begin, each with its number of b."""
    return (0, view[9]), (3, view[10]), (6, view[11])


def fit_parabolas(
    others: Others, agrees: Tensor, planes: Tensor, steps: Tensor, patches: Patches
) -> tuple[Tensor, Tensor, Tensor]:
    """As `fitting.fit_parabola`, for n pixels: w, cost and second derivative at the vertices, float64.

    Args:
        others: Views.
        agrees: Which views count for each pixel (views, n), one at least.
        planes: To start from (5, n).
        steps: Between the samples of the parabolas, w (n).
        patches: Of the pixels.
    """
    w, todo = planes[0].clone(), torch.arange(planes.shape[1], device=planes.device)
    lowest, curvature = _agreeing_cost(others, agrees, planes, patches), torch.zeros_like(w)
    for _ in range(ROUNDS):
        step, middle, some = steps[todo], lowest[todo], (agrees[:, todo], planes[1:, todo], patches.of(todo))
        below, above = (
            _agreeing_cost(others, some[0], torch.cat([end[None], some[1]]), some[2])
            for end in (w[todo] - step, w[todo] + step)
        )
        bend, seen = below + above - 2 * middle, (below < float(INVALID)) & (above < float(INVALID))
        move = 0.5 * (below - above) / bend
        ends = seen & (bend > 0) & (move.abs() <= 1)
        goes_on = seen & ~ends
        on = torch.where(goes_on, torch.where(above < below, step, -step), 0)
        w[todo] += torch.where(ends, move * step, on)
        lower = torch.where(goes_on, torch.minimum(below, above), middle)
        lowest[todo] = torch.where(ends, middle - 0.25 * (below - above) * move, lower)
        curvature[todo] = torch.where(ends, bend / (step * step), 0)
        todo = todo[goes_on]
    return w, lowest, curvature


def _agreeing_cost(others: Others, agrees: Tensor, planes: Tensor, patches: Patches) -> Tensor:
    """As `fitting.agreeing_cost`, for n pixels, float64."""
    costs = pair_costs(others, planes, patches)
    unseen = (agrees & (costs >= float(INVALID))).any(dim=0)
    mean = torch.where(agrees, costs, 0).sum(dim=0) / agrees.sum(dim=0)
    return torch.where(unseen, float(INVALID), mean).double()
