"""What a shard says of pixels without depth."""

from dataclasses import replace

import numpy as np

from lotus import scenes
from lotus.training.shards import pack
from tests.lotus.training.conftest import SIZE, picture_of_a_plane


def test_only_what_is_neither_known_nor_sky_does_not_count() -> None:
    sample = picture_of_a_plane(0, SIZE)
    depth, sky = sample.depth.copy(), sample.sky.copy()
    depth[:4] = 0
    sky[:2] = True
    counts = pack([sample, replace(sample, depth=depth, sky=sky)])["counts"]
    assert counts[0].all()
    np.testing.assert_array_equal(np.flatnonzero(~counts[1].all(axis=1)), [2, 3])


def test_a_rendered_scene_counts_everywhere_without_saying_so() -> None:
    sample = scenes.render(scenes.sample(0), 32, 24)
    arrays = pack([sample])
    assert "counts" not in arrays
    np.testing.assert_array_equal(arrays["disparity"][0] == 0, sample.sky)
