"""What the kernels of `sweep`, `propagation` and `fitting` do, on a device of torch, many pixels at once.

A step is an operation of torch, in the kernels' order and number formats, so that scores differ in their last
digits; where two planes score alike, a pixel may choose the other one. Pixels are taken CHUNK at a time: what
there is of them on the way fills 0.5 GB of the device (measured with four other views), pictures and maps of
a level 0.13 kB per pixel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from recon.photometric import fitting, propagation, sweep
from recon.photometric.cost import INVALID
from recon.photometric.cost_on_device import (
    Patches,
    fit_parabolas,
    motion_px,
    take_patches,
    taps_at,
    taps_on,
    view_costs,
)
from recon.photometric.fitting import ACCEPTED, AMBIGUOUS, BESIDE, BLANK, FLAT, POOR, UNSEEN
from recon.photometric.slants import POOR_SCORE, VAGUE
from recon.photometric.sweep import UNIQUE, UNTRIED

CHUNK = 1 << 17  # pixels at once: to be told what to do takes a device as long as to do it for so many
DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))


class DeviceMatcher:
    """The best plane of each pixel of a level on a device; to the rest what `matcher.Matcher` is.

    Maps of the level are flat there: a pixel's number is row * width + column.
    """

    def __init__(self, device: torch.device, reference: Any, others: Any, state: Any) -> None:
        """Brings pictures and planes to the device.

        Args:
            device: With float64.
            reference: As for `sweep.sweep_rows`.
            others: As for `sweep.sweep_rows`.
            state: As for `sweep.sweep_rows`; not changed.
        """
        grey, colors, least_spread, prior_planes, prior_bands = reference
        pixels, views = others
        self._device, self._size = device, grey.shape
        self._pictures = torch.cat([self._put(grey)[None], self._put(colors)])
        self._least_spread = float(least_spread)
        self._prior_w, self._prior_bands = self._put(prior_planes[..., 0]), self._put(prior_bands)
        below = np.zeros(int(views[:, 13].max(initial=0)) + 2, np.float32)  # a view of one row has none
        self._others = (self._put(np.concatenate([pixels, below])), views.tolist())
        self._planes, self._scores, self._ratios, self._motions = (self._put(one) for one in state)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Returns planes, scores, ratios and motions, as for `sweep.sweep_rows`, on the host."""
        return tuple(map(self._get, (self._planes, self._scores, self._ratios, self._motions)))

    def sweep(self, centre: Any) -> None:
        """Does what `sweep.sweep_rows` does, in all rows."""
        self._planes, half, alone = (self._put(one) for one in centre)
        self._scores, self._ratios, self._motions = (
            torch.full_like(half, float(value)) for value in (INVALID, UNIQUE, 0)
        )
        w0, half = self._planes[0].double(), half.double()
        motions, half = torch.zeros_like(w0), torch.minimum(half, sweep.MAX_SHARE * w0)
        for at in self._parts(half > 0):
            motions[at] = motion_px(self._others[1], self._planes_at(at))
        sides = _sides(half, motions)
        for chosen, curve_of in ((~alone, self._all_samples), (alone, self._descent)):
            for at in self._parts(chosen & (motions > 0), first=sides):
                steps = half[at] / sides[at]
                band = _Band(at, self._planes_at(at), self._patches(at), motions[at], sides[at], steps)
                self._sweep(band, curve_of)

    def tilt(self, centre: Any) -> None:
        """Does what `slants.tilt_rows` does, in all rows."""
        planes, half = (self._put(one).double() for one in centre[:2])
        motions, wanted = self._motions.double(), (self._scores > POOR_SCORE) & (half >= VAGUE * planes[0])
        half = torch.minimum(half, sweep.MAX_SHARE * planes[0])
        sides = _sides(half, motions)
        for at in self._parts((motions > 0) & wanted, first=sides):
            middles = self._planes_at(at)
            middles[0] = planes[0, at]
            steps = half[at] / sides[at]
            band = _Band(at, middles, self._patches(at), motions[at], sides[at], steps)
            for slant in centre[2].tolist():
                w, scores, ratios = _best(band, self._all_samples(band, slant))
                better = scores < self._scores[at]
                some, w = at[better], w[better]
                self._planes[:, some] = torch.stack([w, slant[0] * w, slant[1] * w]).float()
                self._scores[some], self._ratios[some] = scores[better], ratios[better]

    def propagate(self, color: int) -> None:
        """Does what `propagation.propagate_rows` does, in all rows."""
        rows, columns = self._places(_numbers(self._scores))
        tries = (self._motions > 0) & (self._scores >= propagation.CONTENT)
        for at in self._parts(tries & ((rows + columns) % 2 == color)):
            patches = self._patches(at)
            for direction in DIRECTIONS:
                for distances in (propagation.NEAR, propagation.FAR):
                    planes, wanted = self._planes_along(at, direction, distances)
                    some = _where(wanted)
                    self._keep_better(at[some], planes[:, some], patches.of(some))

    def fit(self) -> None:
        """Does what `propagation.fit_rows` does, in all rows."""
        old = (self._planes.clone(), self._scores.clone())
        for at in self._parts(self._motions > 0):
            planes, wanted = self._fitted_planes(at, *old)
            some = _where(wanted & (planes[0] > 0))
            self._keep_better(at[some], planes[:, some], self._patches(at[some]))

    def measure(
        self, energy: Float32[np.ndarray, "h w"], max_off_centre: float
    ) -> tuple[Float32[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """Does what `fitting.measure_rows` does, in all rows; see `matcher.Matcher.measure`."""
        energies, outcome = self._put(energy), torch.where(self._motions < 0, BLANK, UNSEEN)
        numbers = torch.zeros_like(self._planes)
        for at in self._parts((self._motions > 0) & (self._scores < float(INVALID))):
            planes, patches = self._planes_at(at), self._patches(at)
            cost, costs = view_costs(self._others, planes, patches)
            agrees = costs <= (2 * cost.double() + 0.05).clamp(max=fitting.MAX_COST)
            outcome[at] = POOR
            some = _where(agrees.any(dim=0))
            given = (at[some], agrees[:, some], planes[:, some], patches.of(some))
            numbers[:, at[some]], outcome[at[some]] = self._measured(*given, (energies, max_off_centre))
        return self._get(numbers), self._get(outcome.to(torch.uint8))

    def _put(self, array: np.ndarray) -> Tensor:
        """Returns a copy of a map on the device, flat, channels first."""
        flat = torch.tensor(array, device=self._device)
        return flat.reshape(-1, 3).T.contiguous() if array.ndim == 3 else flat.reshape(-1)

    def _get(self, flat: Tensor) -> np.ndarray:
        """Returns a copy of a map on the host, channels last."""
        array = flat.cpu().numpy()
        return np.array(array.T if array.ndim == 2 else array, order="C").reshape(
            *self._size, *array.shape[:-1]
        )

    def _parts(self, chosen: Tensor, first: Tensor | None = None) -> Iterator[Tensor]:
        """Yields the numbers of chosen pixels, CHUNK at a time; `first` those that have most of something."""
        at = _where(chosen)
        if first is not None:
            at = at[torch.argsort(first[at], descending=True, stable=True)]
        for start in range(0, len(at), CHUNK):
            yield at[start : start + CHUNK]

    def _places(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Returns rows and columns of pixels."""
        return at // self._size[1], at % self._size[1]

    def _beside(self, at: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the numbers of pixels in rows and columns, and which of them are in the picture.

        Of the others it is that of `at`.
        """
        inside = (rows >= 0) & (rows < self._size[0]) & (columns >= 0) & (columns < self._size[1])
        return torch.where(inside, rows * self._size[1] + columns, at), inside

    def _planes_at(self, at: Tensor) -> Tensor:
        """Returns w, wu, wv, u, v of pixels (5, n), float64."""
        rows, columns = self._places(at)
        return torch.cat([self._planes[:, at].double(), torch.stack([columns, rows]) + 0.5])

    def _patches(self, at: Tensor) -> Patches:
        return take_patches(self._pictures, taps_at(self._size, *self._places(at)), at)

    def _score(self, at: Tensor, planes: Tensor, patches: Patches) -> Tensor:
        """Returns what planes cost at pixels, with what the prior adds, float64 (n)."""
        bands = self._prior_bands[at].double()
        away = (planes[0] - self._prior_w[at].double()) / bands
        prior = sweep.PRIOR_WEIGHT * 0.5 * (away * away).clamp(max=sweep.BAND_SIGMAS**2)
        return view_costs(self._others, planes, patches)[0].double() + torch.where(bands > 0, prior, 0)

    def _sweep(self, band: "_Band", curve_of: Callable[["_Band"], Tensor]) -> None:
        """Takes the planes of the best minima of scores along bands."""
        blank = band.patches.rough < self._least_spread
        self._motions[band.at] = torch.where(blank, -1, band.motions).float()
        band = band.of(_where(~blank))
        if not len(band.at):
            return
        w, self._scores[band.at], self._ratios[band.at] = _best(band, curve_of(band))
        self._planes[0, band.at] = w.float()

    def _all_samples(self, band: "_Band", slant: Sequence[float] | None = None) -> Tensor:
        """Returns the scores of all samples (rows, n), centres in the middle row, none in the outer two.

        With a slant planes have its slopes, in shares of their inverse depth.
        """
        most = int(band.sides[0])
        curve = band.steps.new_full((2 * most + 3, len(band.at)), float(UNTRIED))
        counts = (band.sides >= torch.arange(most + 1, device=self._device)[:, None]).sum(dim=1).tolist()
        for offset in range(-most, most + 1):
            some = band.of(slice(counts[abs(offset)]))  # those with wide bands come first
            planes = some.moved(offset)
            if slant is not None:
                planes[1], planes[2] = slant[0] * planes[0], slant[1] * planes[0]
            curve[most + 1 + offset, : len(some.at)] = self._score(some.at, planes, some.patches)
        return curve

    def _descent(self, band: "_Band") -> Tensor:
        """Returns the same, but of the samples around the centres and on the way down from there alone."""
        middle, todo = int(band.sides[0]) + 1, _numbers(band.at)
        curve = band.steps.new_full((2 * middle + 1, len(todo)), float(UNTRIED))
        for offset in (-1, 0, 1):
            curve[middle + offset] = self._score(band.at, band.moved(offset), band.patches)
        first = torch.full_like(todo, middle - 1)
        last = first + 2
        while len(todo):
            low, inner, high = curve[first, todo], curve[first + 1, todo], curve[last, todo]
            best = torch.where(inner < low, first + 1, first)
            best = torch.where(high < torch.minimum(low, inner), last, best)
            sides = band.sides[todo]
            first, last = torch.maximum(best - 1, middle - sides), torch.minimum(best + 1, middle + sides)
            row = torch.where(curve[first, todo] >= float(UNTRIED), first, last)  # one at most is new
            new = _where(curve[row, todo] >= float(UNTRIED))
            todo, first, last, row = todo[new], first[new], last[new], row[new]
            some = band.of(todo)
            curve[row, todo] = self._score(some.at, some.moved(row - middle), some.patches)
        return curve

    def _planes_along(
        self, at: Tensor, direction: tuple[int, int], distances: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Returns what the best pixels along a direction have found (5, n), and where to try it (n)."""
        rows, columns = self._places(at)
        best, found = torch.full_like(self._scores[at], float(INVALID)), at
        for distance in distances:
            there, inside = self._beside(
                at, rows + direction[0] * distance, columns + direction[1] * distance
            )
            better = inside & (self._scores[there] < best)
            best, found = torch.where(better, self._scores[there], best), torch.where(better, there, found)
        planes, (r, c), scores = self._planes_at(at), self._places(found), self._scores[at]
        own = planes[0].clone()
        planes[:3] = self._planes[:, found].double()
        planes[0] += planes[1] * (columns - c) + planes[2] * (rows - r)
        same = (planes[0] - own).abs() * self._motions[at] < propagation.SAME_PX
        return planes, (found != at) & (best <= scores) & (planes[0] > 0) & ~(same & (scores < 1))

    def _keep_better(self, at: Tensor, planes: Tensor, patches: Patches) -> None:
        """Takes over planes at pixels where they score better."""
        scores = self._score(at, planes, patches)
        better = scores < self._scores[at].double() - propagation.GAIN
        self._scores[at[better]] = scores[better].float()
        self._planes[:, at[better]] = planes[:3, better].float()

    def _fitted_planes(self, at: Tensor, old_planes: Tensor, old_scores: Tensor) -> tuple[Tensor, Tensor]:
        """As `propagation.fit_plane`: planes at pixels (5, n), and where enough pixels are around (n)."""
        (rows, columns), own, grey = self._places(at), old_planes[:, at], self._pictures[0]
        wu, wv = own[1].double(), own[2].double()
        sums, radius = wu.new_zeros((9, len(at))), propagation.FIT_RADIUS
        for v, u in product(range(-radius, radius + 1), repeat=2):
            there, inside = self._beside(at, rows + v, columns + u)
            off = (old_planes[0, there] - own[0]).double() - wu * u - wv * v
            away = off * self._motions[at] / propagation.FIT_PX
            step = (grey[there] - grey[at]).double() / propagation.FIT_GREY
            weights = torch.exp(-0.5 * step * step) / (1 + away * away) ** 2
            weights = torch.where(inside & (old_scores[there] <= 0.5), weights, 0)
            terms: tuple[int | Tensor, ...] = (1, u, v, u * u, u * v, v * v, off, u * off, v * off)
            for i, term in enumerate(terms):
                sums[i] += weights * term
        su, sv, suu, suv, svv, sw, suw, svw = sums[1:] / sums[0]
        suu, suv, svv, suw, svw = suu - su * su, suv - su * sv, svv - sv * sv, suw - su * sw, svw - sv * sw
        determinant = suu * svv - suv * suv
        gu, gv = (svv * suw - suv * svw) / determinant, (suu * svw - suv * suw) / determinant
        planes = self._planes_at(at)
        planes[:3] = torch.stack([own[0].double() + sw - gu * su - gv * sv, wu + gu, wv + gv])
        return planes, (sums[0] >= propagation.FIT_LEAST) & (determinant >= 0.25)

    def _measured(
        self, at: Tensor, agrees: Tensor, planes: Tensor, patches: Patches, where: tuple[Tensor, float]
    ) -> tuple[Tensor, Tensor]:
        """Moves planes to where they match best; returns w, cost and variance (3, n), and outcomes (n).

        Args:
            at: Pixels.
            agrees: Views that see the same (views, n), one at least.
            planes: Of the pixels (5, n).
            patches: Of the pixels.
            where: Squared gradients of all pixels, and how far off centre the texture may be, px.
        """
        steps = fitting.STEP_PX / self._motions[at].double()
        w, lowest, curvature = fit_parabolas(self._others, agrees, planes, steps, patches)
        self._planes[0, at] = w.float()
        centres = self._texture_centres(at, where[0], patches)
        beside = (torch.hypot(*centres) > where[1]) | self._are_of_what_is_known(at, centres)
        outcome = torch.where(self._ratios[at] < fitting.MIN_RATIO, AMBIGUOUS, ACCEPTED)
        outcome = torch.where(beside, BESIDE, torch.where(curvature <= 0, FLAT, outcome))
        variance = 2 * lowest.clamp(min=fitting.LEAST_COST) / (patches.taps * agrees.sum(dim=0) * curvature)
        variance = torch.where(outcome == ACCEPTED, variance, 0)
        return torch.stack([w, lowest, variance]).float(), outcome

    def _texture_centres(self, at: Tensor, energies: Tensor, patches: Patches) -> tuple[Tensor, Tensor]:
        """As `fitting.texture_centre`: how far right and below of pixels their texture lies, px."""
        weights = patches.weights * energies[taps_at(self._size, *self._places(at))]
        total, taps = weights.sum(dim=0) + 1e-6, taps_on(self._device)
        return (weights * taps.u).sum(dim=0) / total, (weights * taps.v).sum(dim=0) / total

    def _are_of_what_is_known(self, at: Tensor, centres: tuple[Tensor, Tensor]) -> Tensor:
        """As `fitting.is_of_what_is_known`, for n pixels."""
        rows, columns = self._places(at)
        rows, columns = rows + centres[1].round().long(), columns + centres[0].round().long()
        least = torch.full_like(centres[0], torch.inf)
        for v, u in product((-1, 0, 1), repeat=2):
            there, inside = self._beside(at, rows + v, columns + u)
            known = inside & (self._prior_w[there] > 0)
            shares = torch.where(known, self._prior_bands[there] / self._prior_w[there], torch.inf)
            least = torch.minimum(least, shares)
        w = self._prior_w[at]
        return (w > 0) & (self._prior_bands[at] > (fitting.SURER * least).clamp(min=fitting.VAGUE) * w)


@dataclass(frozen=True, eq=False)
class _Band:
    """What n pixels are swept along."""

    at: Tensor
    """Numbers of the pixels, those with most samples first."""

    planes: Tensor
    """In the middle (5, n)."""

    patches: Patches
    motions: Tensor
    """px per unit of w."""

    sides: Tensor
    """Samples to either side of the middle."""

    steps: Tensor
    """Between samples, w."""

    def of(self, chosen: slice | Tensor) -> "_Band":
        """Returns the bands of some of the pixels."""
        per_pixel = (self.motions[chosen], self.sides[chosen], self.steps[chosen])
        return _Band(self.at[chosen], self.planes[:, chosen], self.patches.of(chosen), *per_pixel)

    def moved(self, samples: int | Tensor) -> Tensor:
        """Returns the planes so many samples from the middle (5, n)."""
        return torch.cat([(self.planes[0] + samples * self.steps)[None], self.planes[1:]])


def _sides(half: Tensor, motions: Tensor) -> Tensor:
    """As `sweep.samples_of`: samples to either side of the middle."""
    return (half * motions / sweep.STEP_PX).ceil().clamp(1, sweep.MAX_SIDE).long()


def _best(band: _Band, curve: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns w (float64), score and ratio to the second of the best minima of curves (n)."""
    bottoms, moves, are_minima = _minima(curve)
    best_at, pixel = torch.where(are_minima, bottoms, torch.inf).argmin(dim=0), _numbers(band.at)
    offsets, middle = _numbers(bottoms)[:, None], len(bottoms) // 2
    apart = (sweep.SECOND_AT_PX / (band.steps * band.motions)).ceil().clamp(min=2)
    others = are_minima & ((offsets - best_at).abs() >= apart) & ((offsets - middle).abs() < band.sides)
    second = torch.where(others, bottoms, torch.inf).amin(dim=0)
    ratios = second / bottoms[best_at, pixel].clamp(min=sweep.LEAST_COST)
    ratios = torch.where(second < float(INVALID), ratios, float(UNIQUE))
    w = band.planes[0] + (best_at - middle + moves[best_at, pixel]) * band.steps
    return w, curve[best_at + 1, pixel].float(), ratios.float()


def _minima(curve: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `sweep.bottom` and `sweep.vertex` of rows of curves, all but the outer two, and the minima.

    Rows that were not tried end a curve as its ends do.
    """
    below, inner, above = curve[:-2], curve[1:-1], curve[2:]
    bend = below + above - 2 * inner
    bent = (below < float(INVALID)) & (above < float(INVALID)) & (bend > 0)
    moves = torch.where(bent, 0.5 * (below - above) / bend, 0)
    return inner - 0.25 * (below - above) * moves, moves, (inner <= below) & (inner <= above)


def _where(chosen: Tensor) -> Tensor:
    """Returns the numbers of what is chosen."""
    return torch.nonzero(chosen)[:, 0]


def _numbers(rows: Tensor) -> Tensor:
    """Returns 0, 1, ... for the rows."""
    return torch.arange(len(rows), device=rows.device)
