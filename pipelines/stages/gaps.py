"""Depth where the photos say nothing: between measured pixels, and not where others look through it.

Blank walls, and ground between its joints: a smooth field through the surest pixel of each cell
(`recon.interpolation`). How far it may be trusted is tried on blocks of measured pixels that are held out:
their errors grow with the distance to what is left, and sigma is that growth times the distance to the
nearest measured pixel. It knows nothing of what is blank and stands before something else; a prediction that
fits the scene does, and shows it at the same pixels. A weak one knows shapes: it is drawn through what was
measured (`recon.completion`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from pipelines.stages.maps import masked
from recon.completion import complete
from recon.geometry import normals_from_depth, sample_depth
from recon.interpolation import (
    MIN_FIELD_POINTS,
    interpolate_points,
    openness,
    predict_held_out,
    to_depth_map,
)
from recon.photometric import count_witnesses
from recon.scene import Camera, DepthMap, SparseDepth

VOTING = 15  # px, odd: window whose votes refute its middle
TRUST_WINDOW = 63  # px
LEAST_MEASURED = 0.01  # of them
CONFIRMED_BY_CHANCE = 0.1  # share of what is measured where there is nothing to measure
SHOWN = 0.6  # of a window, that has texture: backdrops and what lies beside outlines have less
GOES_ON = 0.05  # error of a prior up to which it tells what was not measured
VAGUER = 3.0  # times as unsure there as at held-out pixels, which have others nearer
CLIPPED = 0.25  # relative sigma from which a prediction says no more than near or far
LEAST_TRIED = 0.2  # of clipped pixels: measured ones that say whether they hide anything
CELL = 8  # px, of which the surest measured pixel speaks
BLOCK = 32  # px, side of what is held out
HELD_OUT = 3  # one of so many blocks along either side
TRIED_SIZE = 320  # px, longer side of the map that is tried
MIN_TRIED = 30  # pixels that are held out
MOST_ERROR = 0.1  # worse is as bad
CLEARLY_BETTER = 0.7  # share of the field's error
NO_ERROR = 1.5  # times the measured pixels' own sigma: less is none
KEEPS_SHAPE = 0.01  # error of a prior up to which measurements do not bend it
SURER = 0.25  # of the typical sigma: what is surer stays
WITHIN_SIGMA = 80  # percent of the held-out errors: what is blank has more edges than what was measured
LEAST_KNOWN = 0.25  # share of a cell's pixels: fewer are luck
MIN_LINES = 3  # of four
LEAST_GROWTH = 1e-5  # of relative sigma, per px


@dataclass(frozen=True, eq=False)
class Trial:
    """What held-out measured pixels say of a prior, which may not know what stands in the gaps."""

    prior: DepthMap
    """Drawn through what was measured, if it is far off and that tells held-out pixels better."""

    is_enough: bool
    """Whether the prior, as it was, tells them clearly better than a field through the others, or as well as
    they are known, so that it knows what stands in a gap."""

    points: SparseDepth
    """What was measured, a pixel of each cell."""

    growth: float
    """Relative error of a field through the others, per pixel of the distance to them."""

    error: float
    """Mean |log depth - log true| of the prior at held-out pixels, at most 0.1."""

    drawn: DepthMap | None = None
    """The prior drawn through all that was measured, if that tells held-out pixels better than such a field
    does: what stands in its place."""


def try_prior(
    prior: DepthMap, measured: DepthMap, *, is_predicted: bool = True, has_own_normals: bool = True
) -> Trial | None:
    """Returns how a prior and a field through what was measured tell pixels held out of it.

    None where too few were measured. What is better is so by a standard error.

    Args:
        prior: What was known, predicted or interpolated, without the measurements.
        measured: Of the same size, checked against other views; depth 0 where nothing was measured.
        is_predicted: Whether a network drew the prior: a field has no shape that is worth bending.
        has_own_normals: Whether the prior's normals are not those of its depth.
    """
    from scipy.spatial import cKDTree

    points = _surest(measured)
    held_out = (points.uv // BLOCK % HELD_OUT == 0).all(axis=1)
    if held_out.sum() < MIN_TRIED or (~held_out).sum() < MIN_FIELD_POINTS:
        return None
    told = _predicted(points, held_out, measured.camera)
    known = told > 0
    if known.sum() < MIN_TRIED:
        return None
    at, true = points.uv[held_out], points.depth[held_out]
    errors, own_errors = (_log_errors(each, true) for each in (told, sample_depth(prior.depth, at)))
    noise = (points.sigma / points.depth)[held_out][known].mean()
    is_enough = (
        _is_better(own_errors[known], CLEARLY_BETTER * errors[known])
        or own_errors[known].mean() <= NO_ERROR * noise
    )
    distance = cKDTree(points.uv[~held_out]).query(at)[0]
    growth = float(np.percentile(errors / distance, WITHIN_SIGMA))
    if is_predicted and own_errors.mean() > KEEPS_SHAPE:
        rest = complete(
            prior.depth, np.where(held_out_blocks(measured.camera), np.float32(0), measured.depth)
        )
        drawn_errors = _log_errors(sample_depth(rest, at), true)
        if _is_better(drawn_errors, own_errors):
            through = _drawn_through(prior, measured, has_own_normals)
            stays, error = _stays(prior, through, measured), float(drawn_errors.mean())
            better = _is_better(drawn_errors[known], errors[known])
            return Trial(stays, is_enough, points, growth, error, through if better else None)
    return Trial(prior, is_enough, points, growth, float(own_errors.mean()))


def _is_better(errors: Float64[np.ndarray, "n"], others: Float64[np.ndarray, "n"]) -> bool:
    """Returns whether errors are smaller than others at the same places, by a standard error."""
    gain = others - errors
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))


def held_out_blocks(camera: Camera) -> Bool[np.ndarray, "h w"]:
    """Returns which pixels lie in blocks that are held out of what a prior is tried with."""
    rows, columns = (np.arange(side) // BLOCK % HELD_OUT == 0 for side in (camera.height, camera.width))
    return rows[:, None] & columns


def _drawn_through(prior: DepthMap, measured: DepthMap, has_own_normals: bool) -> DepthMap:
    """Returns a prior drawn through what was measured, as sure as it was."""
    depth = complete(prior.depth, measured.depth)
    normals = prior.normals if has_own_normals else normals_from_depth(prior.camera.K, depth)
    sigma = prior.sigma / np.where(prior.depth > 0, prior.depth, 1) * depth
    told = np.isfinite(normals).all(axis=-1)
    return _chosen(told, DepthMap(prior.camera, depth, np.where(told[..., None], normals, 0), sigma), prior)


def _stays(prior: DepthMap, drawn: DepthMap, measured: DepthMap) -> DepthMap:
    """Returns the drawn prior, but the prior where it was measured, or is much surer than where it was."""
    relative = prior.sigma / np.where(prior.depth > 0, prior.depth, 1)
    tried = (measured.depth > 0) & (prior.depth > 0)
    new = (measured.depth <= 0) & (relative > SURER * np.median(relative[tried]))
    return _chosen(new, drawn, prior)


def says_how_far(prior: DepthMap, measured: DepthMap) -> Bool[np.ndarray, "h w"]:
    """Returns where a prediction says how far things are.

    What a network clips may be a backdrop; but where a fair share of that was measured as far as it says, to
    5 %, it is what was farthest: the ground, seen from above.

    Args:
        prior: A network's.
        measured: Of the same size, checked against other views; depth 0 where nothing was measured.
    """
    known = prior.depth > 0
    clear = known & (prior.sigma < CLIPPED * prior.depth)
    clipped = known & ~clear
    tried = clipped & (measured.depth > 0)
    if tried.sum() < max(MIN_TRIED, LEAST_TRIED * clipped.sum()):
        return clear
    errors = _log_errors(prior.depth[tried], measured.depth[tried])
    return known if errors.mean() <= GOES_ON else clear


def going_on(
    trial: Trial, shown: Float64[np.ndarray, "h w"], between: Bool[np.ndarray, "h w"]
) -> tuple[DepthMap, Bool[np.ndarray, "h w"]]:
    """Returns the prior, and where it may fill: between measured pixels, and beyond.

    Beyond, the photo has to show something: a backdrop is blank, a wall is so in few places. Only a prior
    that tells held-out pixels goes on, three times as unsure as it was and as it told them.

    Args:
        trial: Of the prior.
        shown: As of `shown_around`.
        between: Pixels that are confirmed, or between such.
    """
    if trial.error > GOES_ON:
        return trial.prior, between
    prior = trial.prior
    vague = np.float32(VAGUER) * np.maximum(prior.sigma, np.float32(trial.error) * prior.depth)
    sigma = np.where(between, prior.sigma, vague)
    return replace(prior, sigma=sigma), between | (shown > SHOWN)


def shown_around(
    textured: Bool[np.ndarray, "h w"], blank: Bool[np.ndarray, "h w"], between: Bool[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Returns the share of the pixels around each that have texture, of those that have or are blank.

    Where neither is known, since no other photo sees the place, it is that of all pixels beyond what is
    known.

    Args:
        textured: Pixels that have.
        blank: Pixels that have none.
        between: Pixels that are confirmed, or between such.
    """
    beyond = (textured | blank) & ~between
    everywhere = float((textured & beyond).sum() / max(beyond.sum(), 1))
    near, around = _share(textured), _share(textured | blank)
    shown: np.ndarray = (near + LEAST_MEASURED * everywhere) / (around + LEAST_MEASURED)
    return shown


def fill_gaps(
    prior: DepthMap,
    measured: DepthMap,
    trial: Trial,
    *,
    allowed: Bool[np.ndarray, "h w"] | None = None,
    walls: DepthMap | None = None,
) -> DepthMap:
    """Returns the prior, with depth between measured pixels where that is surer, and walls where they are.

    Where nothing may be filled the prior is left out: it has not shown that it knows what lies beyond what
    was measured, and a backdrop would become a sheet.

    Args:
        prior: What was known.
        measured: Of the same size.
        trial: Of both.
        allowed: Pixels that may be filled from around; all if not given.
        walls: Depth of planes that gaps lie on, 0 elsewhere.
    """
    from scipy.ndimage import distance_transform_edt

    field = interpolate_points(trial.points, prior.camera)
    assert field.normals is not None
    distance = np.maximum(distance_transform_edt(measured.depth <= 0), 1)
    confidence = openness(field.normals, prior.camera) / np.square(distance)
    field = replace(field, confidence=confidence.astype(np.float32))
    between = to_depth_map(field, prior.camera, max(trial.growth, LEAST_GROWTH))
    surer = (between.depth > 0) & ((prior.depth <= 0) | (between.sigma < prior.sigma))
    if trial.drawn is not None:  # at least as sure as the field is
        both = (trial.drawn.depth > 0) & (between.depth > 0)
        sigma = np.where(both, between.sigma, trial.drawn.sigma)
        between = _chosen(both, replace(trial.drawn, sigma=sigma), between)
    found = _chosen(surer if allowed is None else surer & allowed, between, prior)
    if allowed is not None:
        found = masked(found, allowed | (measured.depth > 0))
    return found if walls is None else _chosen(walls.depth > 0, walls, found)


def without_refuted(
    depth_map: DepthMap,
    cam_from_world: Float64[np.ndarray, "4 4"],
    others: Sequence[tuple[DepthMap, Float64[np.ndarray, "4 4"]]],
    trust: float | Float64[np.ndarray, "h w"] = 1.0,
) -> DepthMap:
    """Returns depth without what more of the others' measurements look through than confirm.

    Counted in the window around each pixel, and more than would by chance.

    Args:
        depth_map: Of the view.
        cam_from_world: Its pose.
        others: What other views measured, and their poses.
        trust: Share of the measurements that are right, of all or around each pixel; where most are wrong,
            they refute little.
    """
    agree, against = (_around(votes) for votes in count_witnesses(depth_map, cam_from_world, others))
    by_chance = np.maximum(1 - 2 * np.asarray(trust), 0) * (agree + against)
    return masked(depth_map, against <= agree + by_chance)


def trust_of(
    measured: Bool[np.ndarray, "h w"], confirmed: Bool[np.ndarray, "h w"], walls: DepthMap | None
) -> Float64[np.ndarray, "h w"]:
    """Returns the share of what was measured that other views confirm, which is how far it refutes.

    Of the whole view; around each pixel, without what chance confirms, where a prediction is refuted and that
    is less: reflections and noise are confirmed by none. On walls it is that, halved: there noise is matched
    with noise, before and behind.
    """
    trust = np.full(measured.shape, confirmed.sum() / max(measured.sum(), 1))
    if walls is None:
        return trust
    near, right = _share(measured), _share(confirmed)
    share = np.where(near > LEAST_MEASURED, right / np.maximum(near, LEAST_MEASURED), 1)
    beyond_chance = np.maximum(share - CONFIRMED_BY_CHANCE, 0) / (1 - CONFIRMED_BY_CHANCE)
    return np.where(walls.depth > 0, beyond_chance / 2, np.minimum(trust, beyond_chance))


def _share(mask: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Returns the share of a mask in the window of trust around each pixel."""
    from scipy.ndimage import uniform_filter

    found: np.ndarray = uniform_filter(mask.astype(np.float64), TRUST_WINDOW)
    return found


def _around(votes: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Returns the sum of the votes in a window: where measurements are noisy, those on one pixel are luck."""
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(votes.astype(np.float64), VOTING, mode="nearest")
    return np.rint(mean * VOTING**2).astype(np.float32)


def is_between(known: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns whether pixels are known, or have known ones on both sides along enough of four lines.

    Beyond the last known pixels the ground may go on, or the sky begin.
    """
    height, width = known.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    padded = np.pad(known, ((0, rows * CELL - height), (0, columns * CELL - width)), mode="edge")
    cells = padded.reshape(rows, CELL, columns, CELL).mean(axis=(1, 3)) >= LEAST_KNOWN
    known = known & np.repeat(np.repeat(cells, CELL, 0), CELL, 1)[:height, :width]
    lines = _has_both(known).astype(np.uint8) + _has_both(known.T).T
    row, column = np.indices(known.shape)
    for mirrored in (False, True):
        turned = known[:, ::-1] if mirrored else known
        sheared = np.zeros((height, height + width), np.bool_)  # diagonals of the picture are its columns
        sheared[row, row + column] = turned
        both = _has_both(sheared.T).T[row, row + column]
        lines += both[:, ::-1] if mirrored else both
    return lines >= MIN_LINES


def _has_both(known: Bool[np.ndarray, "n m"]) -> Bool[np.ndarray, "n m"]:
    """Returns whether a pixel, or one before it and one behind it in its row, is known."""
    before, behind = np.logical_or.accumulate(known, 1), np.logical_or.accumulate(known[:, ::-1], 1)[:, ::-1]
    return before & behind


def _chosen(first: Bool[np.ndarray, "h w"], one: DepthMap, other: DepthMap) -> DepthMap:
    """Returns one map's pixels where `first`, else the other's."""
    maps = (
        np.where(first[..., None] if a.ndim == 3 else first, a, b)
        for a, b in zip(_maps(one), _maps(other), strict=True)
    )
    return DepthMap(other.camera, *maps)


def _maps(depth_map: DepthMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return depth_map.depth, depth_map.normals, depth_map.sigma


def _surest(measured: DepthMap) -> SparseDepth:
    """Returns the pixel of least relative sigma of every cell."""
    known = measured.depth > 0
    height, width = known.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    relative = np.full((rows * CELL, columns * CELL), np.inf, np.float32)
    relative[:height, :width][known] = measured.sigma[known] / measured.depth[known]
    cells = relative.reshape(rows, CELL, columns, CELL).swapaxes(1, 2).reshape(rows * columns, -1)
    cell = np.flatnonzero(np.isfinite(cells).any(axis=1))
    row, column = np.divmod(cells[cell].argmin(axis=1), CELL)
    v, u = cell // columns * CELL + row, cell % columns * CELL + column
    uv = np.stack([u + 0.5, v + 0.5], axis=1)
    return SparseDepth(uv, measured.depth[v, u].astype(np.float64), measured.sigma[v, u].astype(np.float64))


def _predicted(
    points: SparseDepth, held_out: Bool[np.ndarray, "n"], camera: Camera
) -> Float64[np.ndarray, "m"]:
    """Returns depth of the field through the other points at those held out; 0 where it does not reach."""
    small = camera.fitted(TRIED_SIZE)
    predicted = predict_held_out(points.resized(camera, small), small, np.where(held_out, 0, -1))
    return np.nan_to_num(predicted[held_out])


def _log_errors(depth: Float64[np.ndarray, "m"], true: Float64[np.ndarray, "m"]) -> Float64[np.ndarray, "m"]:
    """Returns |log depth - log true|, at most MOST_ERROR, which also is that of no depth."""
    return np.minimum(np.abs(np.log(np.where(depth > 0, depth, 1e-9) / true)), MOST_ERROR)
