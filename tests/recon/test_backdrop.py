"""Black backdrops of photos."""

import numpy as np
import pytest

from recon.backdrop import black_backdrop


def before_black(rng, margin=40, size=(200, 240)):
    """A grey, noisy thing that leaves a margin of noisy black; and where it is."""
    photo = rng.integers(0, 8, (*size, 3)).astype(np.uint8)
    thing = np.zeros(size, bool)
    thing[margin:-margin, margin:-margin] = True
    photo[thing] = rng.integers(60, 200, (thing.sum(), 3))
    return photo, thing


def test_what_is_black_around_a_thing_and_behind_its_gaps_is_backdrop():
    photo, thing = before_black(np.random.default_rng(0))
    photo[80:100, 100:140], thing[80:100, 100:140] = 3, False  # a gap
    photo[110:114, 100:104] = 3  # a shadow, a thousandth of a third of the photo
    found = black_backdrop(photo)
    near = np.abs(np.gradient(thing.astype(float))).max(axis=0) > 0  # half a pixel of blur
    assert (found == ~thing)[~near].mean() > 0.999
    assert not found[110:114, 100:104].any()


@pytest.mark.parametrize("shown", ["dark floor", "screen", "underexposed", "dark cloth"])
def test_other_dark_photos_have_no_backdrop(shown):
    rng = np.random.default_rng(1)
    photo = rng.integers(60, 200, (200, 240, 3)).astype(np.uint8)
    if shown == "dark floor":
        photo[170:] = 5
    elif shown == "screen":
        photo[40:160, 40:200] = 5
    elif shown == "underexposed":
        photo //= 4
    else:
        photo, thing = before_black(rng)
        photo[~thing] += 20
    assert not black_backdrop(photo).any()


def on_lit_cloth(rng):
    """A thing on cloth that is lit beside it and fades into black; where the cloth is; a point per 200 px."""
    photo, thing = before_black(rng)
    cloth = ~thing
    cloth[:, :60] = cloth[140:] = cloth[:20] = cloth[:, 220:] = False
    photo[cloth] = rng.integers(25, 50, (cloth.sum(), 1))
    row, column = np.nonzero(thing)
    some = rng.choice(len(row), len(row) // 200, replace=False)
    return photo, thing, cloth, np.stack([column[some], row[some]], axis=1) + 0.5


def test_dim_cloth_without_points_is_backdrop_and_the_thing_is_not():
    photo, thing, cloth, points = on_lit_cloth(np.random.default_rng(2))
    assert not black_backdrop(photo)[cloth].any()
    found = black_backdrop(photo, points)
    edges = np.abs(np.gradient(thing + 2.0 * cloth)).max(axis=0) > 0  # half a pixel of blur
    assert found[cloth & ~edges].all()
    assert not found[thing & ~edges].any()


def test_a_dark_thing_is_kept_by_the_points_on_it_and_where_few_are_known():
    rng = np.random.default_rng(3)
    photo, _, cloth, points = on_lit_cloth(rng)
    row, column = np.nonzero(cloth)
    some = rng.choice(len(row), len(row) // 400, replace=False)
    own = np.stack([column[some], row[some]], axis=1) + 0.5
    assert not black_backdrop(photo, np.concatenate([points, own]))[cloth].any()
    assert not black_backdrop(photo, points[:5])[cloth].any()
    outside = np.array([[-3.0, 5.0], [240.0, 5.0], [5.0, np.inf]])
    assert np.array_equal(
        black_backdrop(photo, np.concatenate([points, outside])), black_backdrop(photo, points)
    )


def test_dim_cloth_in_the_corner_of_a_photo_is_backdrop():
    rng = np.random.default_rng(5)
    photo, _, _, points = on_lit_cloth(rng)
    photo[:60, 180:] = rng.integers(25, 50, (60, 60, 1))
    assert black_backdrop(photo, points[points[:, 0] < 180])[:38, 202:].all()


def test_crevices_of_a_thing_are_not_backdrop():
    photo, thing, _, points = on_lit_cloth(np.random.default_rng(4))
    photo[60:140, 100:102] = 40
    photo[60:100, 110:112] = photo[40:60, 110:112] = 40  # joined to the cloth
    assert not black_backdrop(photo, points)[60:140, 98:114].any()
    assert thing[60:140, 98:114].all()
