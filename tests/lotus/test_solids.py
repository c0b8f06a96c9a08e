import math

import numpy as np
import pytest

from lotus.scenes.solids import ball, box, placed, rod, turn

MATERIAL = np.zeros(20)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_turn_keeps_its_axis_and_takes_the_next_axis_toward_the_one_after(axis):
    own, following, after = (np.eye(3)[(axis + k) % 3] for k in range(3))

    rotation = turn(0.4, axis)

    assert np.array_equal(rotation @ own, own)
    assert np.array_equal(rotation @ following, math.cos(0.4) * following + math.sin(0.4) * after)
    assert np.array_equal(rotation @ after, math.cos(0.4) * after - math.sin(0.4) * following)


@pytest.mark.parametrize("tilt", [None, turn(0.7, 0)])
def test_a_thing_is_placed_as_its_solids_are(tilt):
    thing = [
        box((1, 2, 3), (1, 1, 1), MATERIAL),
        ball((0, -1, 0.5), (1, 2, 1), MATERIAL),
        rod((0, 0, 0), (1, 2, 3), 0.1, MATERIAL),
    ]

    together = placed(thing, (3, -2, 1), 0.3, tilt)

    for solid, one in zip(thing, together, strict=True):
        alone = placed([solid], (3, -2, 1), 0.3, tilt)[0]
        rotation = turn(0.3) if tilt is None else turn(0.3) @ tilt
        for result in (one, alone):
            assert np.allclose(result.centre, rotation @ solid.centre + (3, -2, 1), rtol=0, atol=1e-14)
            assert np.allclose(result.rotation, rotation @ solid.rotation, rtol=0, atol=1e-14)
