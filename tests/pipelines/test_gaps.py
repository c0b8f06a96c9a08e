"""What nobody measured: filled from around it, unless the prior knows better or others look through it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.stages.gaps import (
    fill_gaps,
    going_on,
    is_between,
    says_how_far,
    shown_around,
    trust_of,
    try_prior,
    without_refuted,
)
from recon.geometry import rays
from recon.scene import Camera, DepthMap

WIDTH, HEIGHT = 240, 180
CAMERA = Camera(np.array([[200.0, 0, 120], [0, 200, 90], [0, 0, 1]]), WIDTH, HEIGHT)
NORMAL = np.array([0.3, 0.2, -0.9]) / np.linalg.norm([0.3, 0.2, -0.9])
TRUE = (2.0 * NORMAL[2] / (rays(CAMERA.K, WIDTH, HEIGHT) @ NORMAL)).astype(np.float32)
HERE = np.eye(4)
GAP = (slice(60, 100), slice(90, 130))


def map_of(depth: np.ndarray, relative_sigma: float) -> DepthMap:
    known = depth > 0
    normals = np.where(known[..., None], NORMAL, 0).astype(np.float32)
    return DepthMap(CAMERA, depth.astype(np.float32), normals, (relative_sigma * depth).astype(np.float32))


def filled_gaps(prior: DepthMap, measured: DepthMap, others: Sequence = (), **options: Any) -> DepthMap:
    """As `Settle` fills them; the prior itself where it is left alone."""
    trial, trust = try_prior(prior, measured), options.pop("trust", 1.0)
    if trial is None:
        return prior
    if trial.is_enough:
        return trial.prior
    return without_refuted(fill_gaps(trial.prior, measured, trial, **options), HERE, others, trust)


@pytest.fixture(scope="module")
def measured() -> DepthMap:
    """A slanted wall, measured to 0.1 % but for a hole in it."""
    noise = 1e-3 * np.random.default_rng(0).standard_normal(TRUE.shape)
    depth = TRUE * (1 + noise)
    depth[GAP] = 0
    return map_of(depth, 1e-3)


def relative_error(depth_map: DepthMap) -> np.ndarray:
    return np.abs(depth_map.depth / TRUE - 1)


def test_a_hole_in_a_wall_is_closed_with_the_wall(measured: DepthMap) -> None:
    filled = filled_gaps(map_of(1.05 * TRUE, 0.03), measured)
    assert relative_error(filled)[GAP].max() < 0.01
    sigma = filled.sigma[GAP] / filled.depth[GAP]
    assert sigma[20, 20] > 5 * sigma[0].mean()  # farther from what was measured
    assert (relative_error(filled)[GAP] < 2 * sigma).mean() > 0.9


def test_no_prior_is_filled_too(measured: DepthMap) -> None:
    filled = filled_gaps(map_of(np.zeros_like(TRUE), 0.0), measured)
    assert relative_error(filled)[GAP].max() < 0.01


def test_a_prior_that_fits_keeps_what_stands_in_the_gap(measured: DepthMap) -> None:
    known = TRUE.copy()
    known[70:90, 100:120] = 1.5
    prior = map_of(known, 2e-3)
    assert filled_gaps(prior, measured) is prior


@pytest.mark.parametrize("spots", [4, 40])
def test_a_prior_is_not_believed_for_what_it_knows_in_a_few_spots(measured: DepthMap, spots: int) -> None:
    depth = measured.depth.copy()
    rows, columns = np.meshgrid([*range(0, 32, 8), *range(96, 128, 8)], range(192, 232, 8), indexing="ij")
    for row, column in list(zip(rows.ravel(), columns.ravel(), strict=True))[:: 40 // spots]:
        depth[row : row + 8, column : column + 8] *= 0.8
    bumpy, prior = map_of(depth, 1e-3), map_of(1.003 * np.where(depth > 0, depth, TRUE), 0.03)
    trial = try_prior(prior, bumpy)
    assert trial is not None
    assert trial.is_enough == (spots == 40)


def test_a_weak_prior_is_drawn_through_what_was_measured_around_it(measured: DepthMap) -> None:
    step = np.where(np.indices(TRUE.shape)[1] < 110, 1, 1.5)  # in the gap: a thing before a wall
    depth = (measured.depth * step).astype(np.float32)
    prior = map_of(TRUE * step * np.where(step > 1, 0.9, 1.1), 0.2)
    trial = try_prior(prior, map_of(depth, 1e-3))
    assert trial is not None
    off = np.abs(trial.prior.depth / (TRUE * step) - 1)[GAP]
    assert np.median(off) < 0.02
    assert np.percentile(off, 90) < 0.05
    assert (trial.prior.depth == prior.depth)[depth > 0].all()


def test_a_prior_that_tells_more_than_a_field_fills_gaps_with_its_shape() -> None:
    row, column = np.indices(TRUE.shape)
    waves = 1 + 0.05 * np.sin(column / 9) * np.sin(row / 9)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(TRUE.shape)
    depth = (TRUE * waves * (1 + noise)).astype(np.float32)
    depth[GAP] = 0
    bent = map_of(TRUE * waves * (0.96 + 0.08 * column / WIDTH), 0.1)
    trial = try_prior(bent, map_of(depth, 1e-3))
    assert trial is not None
    assert trial.drawn is not None
    filled = fill_gaps(trial.prior, map_of(depth, 1e-3), trial)
    off = np.abs(filled.depth / (TRUE * waves) - 1)[GAP]
    assert off.mean() < 0.006  # a field 0.02
    trial = try_prior(map_of(1.05 * TRUE, 0.03), map_of(depth, 1e-3), is_predicted=False)
    assert trial is not None
    assert trial.drawn is None


def test_a_prior_that_is_hardly_off_keeps_its_shape(measured: DepthMap) -> None:
    prior = map_of(1.005 * TRUE, 0.03)
    trial = try_prior(prior, measured)
    assert trial is not None
    assert trial.prior is prior


def test_a_field_is_not_drawn_through_anything(measured: DepthMap) -> None:
    prior = map_of(1.05 * TRUE, 0.03)
    trial = try_prior(prior, measured, is_predicted=False)
    assert trial is not None
    assert trial.prior is prior


def test_measurements_that_do_not_tell_a_factor_leave_the_prior_alone(measured: DepthMap) -> None:
    noise = np.exp(0.05 * np.random.default_rng(1).choice([-1, 1], TRUE.shape))
    trial = try_prior(map_of(TRUE, 0.2), map_of(measured.depth * noise, 0.05))
    assert trial is not None
    assert (trial.prior.depth == TRUE).all()


def test_surer_pixels_of_the_prior_stay(measured: DepthMap) -> None:
    prior = map_of(1.05 * TRUE, 0.03)
    prior.sigma[80, 110] = 1e-6
    assert filled_gaps(prior, measured).depth[80, 110] == prior.depth[80, 110]


def test_what_another_view_looks_through_is_left_out(measured: DepthMap) -> None:
    behind = map_of(1.2 * TRUE, 1e-3)
    behind.depth[:76] = 0  # half a window of votes below what it does not see
    filled = filled_gaps(map_of(1.05 * TRUE, 0.03), measured, [(behind, HERE)])
    assert not filled.depth[76:100, 90:130].any()
    assert filled.depth[60:68, 90:130].all()


def test_votes_on_single_pixels_that_their_neighbours_contradict_count_for_nothing(
    measured: DepthMap,
) -> None:
    behind, same = map_of(1.2 * TRUE, 1e-3), map_of(TRUE, 1e-3)
    speckled = replace(same, depth=np.where(np.indices(TRUE.shape).sum(0) % 3, same.depth, behind.depth))
    filled = filled_gaps(map_of(1.05 * TRUE, 0.03), measured, [(speckled, HERE)])
    assert filled.depth[GAP].all()


def test_measurements_of_which_most_are_wrong_refute_what_nearly_all_look_through_only(
    measured: DepthMap,
) -> None:
    behind, same = map_of(1.2 * TRUE, 1e-3), map_of(TRUE, 1e-3)
    others = [(behind, HERE)] * 3 + [(same, HERE)] * 2
    prior = map_of(1.05 * TRUE, 0.03)
    assert not filled_gaps(prior, measured, others, trust=0.9).depth[72:100, 90:130].any()
    assert filled_gaps(prior, measured, others, trust=0.2).depth[72:100, 90:130].all()
    assert not filled_gaps(prior, measured, others[:3], trust=0.2).depth[72:100, 90:130].any()


def test_on_walls_what_nobody_confirms_refutes_nothing(measured: DepthMap) -> None:
    behind, prior = map_of(1.2 * TRUE, 1e-3), map_of(1.05 * TRUE, 0.03)
    walls = map_of(TRUE, 1e-3)
    walls.depth[:, 110:] = 0
    taken = np.ones(TRUE.shape, bool)
    trust = trust_of(taken, np.indices(TRUE.shape).sum(0) % 20 == 0, walls)  # one of twenty
    filled = filled_gaps(prior, measured, [(behind, HERE)], trust=np.where(walls.depth > 0, trust, 0.9))
    assert filled.depth[72:100, 90:110].all()
    assert not filled.depth[72:100, 110:130].any()


def test_trust_is_the_share_that_is_confirmed_around_each_pixel_of_a_prediction() -> None:
    taken = np.zeros((HEIGHT, WIDTH), bool)
    taken[:, :160] = True
    confirmed = taken.copy()
    confirmed[:, :80:4] = False  # three of four on the left
    share = confirmed.sum() / taken.sum()
    assert np.allclose(trust_of(taken, confirmed, None), share)
    walls = map_of(TRUE, 1e-3)
    walls.depth[100:] = 0
    trust = trust_of(taken, confirmed, walls)
    assert trust[150, 35] == pytest.approx((0.75 - 0.1) / 0.9, abs=0.01)
    assert trust[150, 115] == share  # all here, but less in the whole view
    assert trust[50, 35] == pytest.approx((0.75 - 0.1) / 0.9 / 2, abs=0.01)
    assert trust[50, 115] == pytest.approx(0.5, abs=0.01)
    assert trust[50, 230] == 0.5  # nothing was measured


def test_the_sky_is_not_between_what_stands_before_it() -> None:
    known = np.zeros((181, 243), bool)
    known[90:] = True  # the ground
    known[60:90, 110:130] = True  # on which something stands
    known[120:150, 40:90] = False  # and has a blank patch
    between = is_between(known)
    assert between.shape == known.shape
    assert not between[:60].any()
    assert not between[:90, :105].any()
    assert between[96:].all()


def test_beyond_what_was_measured_a_prior_that_tells_less_is_left_out(measured: DepthMap) -> None:
    allowed = np.ones(TRUE.shape, bool)
    allowed[70:90, 100:120] = False
    filled = filled_gaps(map_of(1.05 * TRUE, 0.03), measured, allowed=allowed)
    assert not filled.depth[~allowed].any()
    assert relative_error(filled)[GAP][0].max() < 0.01


def test_what_nobody_confirms_around_refutes_little(measured: DepthMap) -> None:
    """A glossy cabinet: what is measured of reflections lies behind it, and no other view confirms it."""
    behind, prior = map_of(1.2 * TRUE, 1e-3), map_of(1.02 * TRUE, 0.03)
    confirmed = measured.depth > 0
    confirmed[50:110, 80:140] = False
    none = map_of(np.zeros_like(TRUE), 0.0)
    for walls, kept in ((none, True), (None, False)):
        trust = trust_of(np.ones(TRUE.shape, bool), confirmed, walls)
        found = filled_gaps(prior, measured, [(behind, HERE), (map_of(TRUE, 1e-3), HERE)] * 2, trust=trust)
        assert found.depth[GAP].all()
        found = filled_gaps(
            prior, measured, [(behind, HERE)] * 3 + [(map_of(TRUE, 1e-3), HERE)] * 2, trust=trust
        )
        assert found.depth[78:82, 108:112].all() == kept


def test_a_prior_that_tells_goes_on_where_the_photos_show_something(measured: DepthMap) -> None:
    textured, blank = np.ones(TRUE.shape, bool), np.zeros(TRUE.shape, bool)
    textured[:, :60], blank[:, :60] = False, True  # a backdrop
    textured[:, 120:200] = False  # seen by no other photo
    confirmed = textured.copy()
    confirmed[:, :100] = False
    shown = shown_around(textured, blank, confirmed)
    trial = try_prior(map_of(1.02 * TRUE, 1e-3), measured, is_predicted=False)
    assert trial is not None
    assert trial.error == pytest.approx(np.log(1.02), abs=2e-3)
    prior, allowed = going_on(trial, shown, confirmed)
    assert allowed[:, 80:150].all()
    assert not allowed[:, :60].any()
    assert not allowed[:, 60:65].any()  # beside its outline
    assert not allowed[:, 155:165].any()  # as most beyond is blank
    sigma = prior.sigma / prior.depth
    assert sigma[confirmed].max() < 2e-3
    assert sigma[~confirmed] == pytest.approx(3 * trial.error, rel=0.1)
    few = blank & (np.arange(WIDTH) < 10)
    assert going_on(trial, shown_around(textured, few, confirmed), confirmed)[1][:, 80:].all()
    far_off = try_prior(map_of(1.08 * TRUE, 1e-3), measured, is_predicted=False)
    assert far_off is not None
    assert np.array_equal(going_on(far_off, shown, confirmed)[1], confirmed)


def test_walls_go_before_what_lies_around(measured: DepthMap) -> None:
    walls = map_of(np.zeros_like(TRUE), 0.0)
    walls.depth[70:90, 100:120], walls.sigma[70:90, 100:120] = 2.5, 0.01
    filled = filled_gaps(map_of(1.05 * TRUE, 0.03), measured, walls=walls)
    assert (filled.depth[70:90, 100:120] == 2.5).all()
    assert relative_error(filled)[60:70, 90:130].max() < 0.01


def test_next_to_nothing_measured_changes_nothing(measured: DepthMap) -> None:
    few = measured.depth.copy()
    few[20:] = 0
    few[:, 30:] = 0
    prior = map_of(1.05 * TRUE, 0.03)
    assert filled_gaps(prior, map_of(few, 1e-3)) is prior


def test_sizes_and_units_do_not_matter(measured: DepthMap) -> None:
    prior = map_of(1.05 * TRUE, 0.03)
    larger = [replace(m, depth=64 * m.depth, sigma=64 * m.sigma) for m in (prior, measured)]
    once, scaled = filled_gaps(prior, measured), filled_gaps(*larger)
    assert np.allclose(scaled.depth, 64 * once.depth, rtol=1e-4)


@pytest.mark.parametrize(
    ("share", "error", "says"),
    [
        (0.5, 0.02, True),  # the ground, seen from above
        (0.5, 0.2, False),  # things before a backdrop
        (0.1, 0.02, False),  # beside one
    ],
)
def test_what_a_network_clips_is_a_backdrop_unless_it_was_measured_there(
    measured: DepthMap, share: float, error: float, says: bool
) -> None:
    clipped = np.zeros(TRUE.shape, bool)
    clipped[:, 120:] = True
    seen = np.ones(TRUE.shape, bool)
    seen[:, 120 + round(share * 120) :] = False
    prior = map_of(TRUE * np.where(clipped, 1 + error, 1), 0.01)
    prior = replace(prior, sigma=np.where(clipped, np.float32(0.3) * prior.depth, prior.sigma))
    found = says_how_far(prior, map_of(np.where(seen, measured.depth, 0), 1e-3))
    assert found[:, :120].all()
    assert (found[:, 120:] == says).all()
