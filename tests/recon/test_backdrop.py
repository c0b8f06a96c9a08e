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
