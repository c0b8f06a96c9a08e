"""The whole measurement of one view: coarse to fine, and at each size a sweep, a propagation and a fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Union

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from recon.photometric.cost import INVALID
from recon.photometric.fitting import ACCEPTED, BESIDE, BLANK, FLAT, MAX_OFF_CENTRE_PX, NO_PRIOR, UNSEEN
from recon.photometric.levels import Level, enlarged, make_levels, parents
from recon.photometric.matcher import MakeMatcher, Matcher
from recon.photometric.outlines import beyond_texture
from recon.photometric.pictures import Photo
from recon.photometric.planes import normals_of
from recon.photometric.slants import POOR_SCORE, slants_of
from recon.photometric.sweep import BAND_SIGMAS
from recon.scene import Camera, DepthMap

if TYPE_CHECKING:
    from recon.photometric.on_device import DeviceMatcher

SIGMA_FACTOR = 1.8  # measured: errors over what the curvature says; taps are not independent
FLOOR_PX = 0.06  # of any match, px of the view that moves most: measured where cameras are exact
MAX_RELATIVE_SIGMA = 0.2  # of depth: vaguer is no measurement
FINER_BAND_PX = 1.6  # half width of the band around what a coarser level found
ALONE = 2.0  # times the cost of a coarser level's best has its second: here is but one minimum
ROUNDS = 2  # of propagation per level
SAME_COLOR = 16.0  # levels of 255, all channels together: coarser pixels on a silhouette are farther off
TINY = np.float32(1e-12)  # px per unit of inverse depth; its square still is a number


@dataclass(frozen=True, eq=False)
class Measurement:
    """What the photos say about the depth of one view."""

    depth_map: DepthMap
    """Depth, its standard deviation, and the normals of the planes that match; zeros where the photos say
    nothing. Errors of pixels closer than a patch (9 pixels) are correlated."""

    ncc: Float32[np.ndarray, "h w"]
    """Correlation of the match in the views that agree, 0 where there is none."""

    outcome: UInt8[np.ndarray, "h w"]
    """What became of each pixel: the numbers of `fitting`, ACCEPTED = 0."""

    @property
    def is_blank(self) -> Bool[np.ndarray, "h w"]:
        """Where the photo shows nothing to compare."""
        return self.outcome == BLANK

    @property
    def is_textured(self) -> Bool[np.ndarray, "h w"]:
        """Where it does, and other photos see the place, whatever they say of it."""
        return ~np.isin(self.outcome, (BLANK, UNSEEN, NO_PRIOR))


@dataclass(frozen=True, eq=False)
class _State:
    """The best plane of each pixel of a level so far."""

    planes: Float32[np.ndarray, "h w 3"]
    scores: Float32[np.ndarray, "h w"]
    ratios: Float32[np.ndarray, "h w"]
    motions: Float32[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class _Found:
    """What a level measured: planes, costs, variances of w, and what became of the pixels."""

    planes: Float32[np.ndarray, "h w 3"]
    costs: Float32[np.ndarray, "h w"]
    variances: Float32[np.ndarray, "h w"]
    outcome: UInt8[np.ndarray, "h w"]


def measure(
    reference: Photo,
    prior: DepthMap,
    neighbours: Sequence[Photo],
    camera_error_px: float,
    make_matcher: MakeMatcher,
) -> Measurement:
    """Returns what `tiles.refine` does, all at once."""
    levels = make_levels(reference, prior, sorted(neighbours, key=_order))
    state, coarser, colors = None, None, None
    for level in reversed(levels):
        photo = level.reference()
        matcher = make_matcher(photo, level.sources(), _nothing(level.grey.shape))
        _match(matcher, _centres(level, state), slants_of(level.camera) if state is None else None)
        energy = np.sum(np.square(np.gradient(photo[0])), axis=0)
        numbers, outcome = matcher.measure(energy, np.inf if level is levels[0] else MAX_OFF_CENTRE_PX)
        state, colors = _State(*matcher.arrays()), photo[1]
        floor_px = np.hypot(FLOOR_PX, camera_error_px * level.camera.width / prior.camera.width)
        found = _found(level, state, numbers, outcome, float(floor_px))
        coarser = (level, found if coarser is None else _filled(level, found, *coarser))
    assert coarser is not None
    assert colors is not None
    found = coarser[1]
    beyond = beyond_texture(colors, found.outcome == ACCEPTED)
    found = replace(found, outcome=np.where(beyond, np.uint8(BESIDE), found.outcome))
    return _measurement(found, prior.camera)


def _order(photo: Photo) -> tuple[float, ...]:
    """Sums over the views are taken in an order that the caller's does not change."""
    return (*photo.cam_from_world.ravel(), *photo.camera.K.ravel())


def _nothing(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Returns the state, as for `sweep.sweep_rows`, before the first sweep."""
    scores = np.full(shape, INVALID, np.float32)
    return np.zeros((*shape, 3), np.float32), scores, np.zeros(shape, np.float32), np.zeros(shape, np.float32)


def _match(
    matcher: Union[Matcher, "DeviceMatcher"],
    centres: tuple[np.ndarray, ...],
    slants: Float64[np.ndarray, "s 2"] | None,
) -> None:
    """Sweeps, then propagates."""
    matcher.sweep(centres)
    if slants is not None:
        matcher.tilt((*centres[:2], slants))
    for _ in range(ROUNDS):
        for color in (0, 1):
            matcher.propagate(color)
    matcher.fit()


def _centres(
    level: Level, coarser: _State | None
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Returns planes to sweep around, half the widths of their bands, and where these have one minimum."""
    half = np.float32(BAND_SIGMAS) * level.bands
    if coarser is None:
        return level.planes, half, np.zeros(half.shape, np.bool_)
    at = parents(half.shape, coarser.scores.shape)
    found = enlarged(coarser.planes, half.shape)
    narrow = np.float32(FINER_BAND_PX) / np.maximum(2 * coarser.motions[at], TINY)
    good = (coarser.scores[at] < POOR_SCORE) & (coarser.motions[at] > 0) & (found[..., 0] > 0)
    good &= (narrow < half) & (level.planes[..., 0] > 0)
    alone = good & (coarser.ratios[at] > ALONE)
    return np.where(good[..., None], found, level.planes), np.where(good, narrow, half), alone


def _found(
    level: Level,
    state: _State,
    numbers: Float32[np.ndarray, "h w 3"],
    outcome: UInt8[np.ndarray, "h w"],
    floor_px: float,
) -> _Found:
    outcome = np.where(level.planes[..., 0] > 0, outcome, np.uint8(NO_PRIOR))
    floor = np.float32(floor_px) / np.maximum(state.motions, TINY)
    variances = np.float32(SIGMA_FACTOR**2) * numbers[..., 2] + np.square(floor)
    return _Found(state.planes, numbers[..., 1], variances, outcome)


def _filled(level: Level, found: _Found, coarser_level: Level, coarser: _Found) -> _Found:
    """Takes over what a coarser level measured where a level has no texture, not across an edge of colour."""
    at = parents(found.outcome.shape, coarser.outcome.shape)
    off = np.square(level.colors - coarser_level.colors[at]).sum(axis=-1)
    use = (found.outcome == BLANK) & (coarser.outcome[at] == ACCEPTED) & (off <= SAME_COLOR**2)
    return _Found(
        planes=np.where(use[..., None], enlarged(coarser.planes, use.shape), found.planes),
        costs=np.where(use, coarser.costs[at], found.costs),
        variances=np.where(use, coarser.variances[at], found.variances),
        outcome=np.where(use, np.uint8(ACCEPTED), found.outcome),
    )


def _measurement(found: _Found, camera: Camera) -> Measurement:
    w = found.planes[..., 0]
    vague = (found.outcome == ACCEPTED) & ~((w > 0) & (np.sqrt(found.variances) <= MAX_RELATIVE_SIGMA * w))
    outcome = np.where(vague, FLAT, found.outcome).astype(np.uint8)
    accepted = outcome == ACCEPTED
    depth = np.where(accepted, 1 / np.where(accepted, w, 1).astype(np.float64), 0)
    normals = np.where(accepted[..., None], normals_of(found.planes, camera), 0)
    sigma = np.where(accepted, np.sqrt(found.variances) * depth**2, 0)
    depth_map = DepthMap(
        camera, depth.astype(np.float32), normals.astype(np.float32), sigma.astype(np.float32)
    )
    ncc = np.where(accepted, 1 - found.costs, 0).astype(np.float32)
    return Measurement(depth_map, ncc, outcome)
