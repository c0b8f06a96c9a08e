import numpy as np
import pytest

from lotus.scenes.draws import Draws

SEVEN = tuple("abcdefg")


@pytest.mark.parametrize("seed", [0, 17, (3, 4)])
def test_draws_are_those_of_numpy(seed):
    ours, theirs = Draws(seed), np.random.default_rng(seed)
    shares = (0.62, 0.08, 0.1, 0.06, 0.04, 0.03, 0.07)

    def drawn(rng):
        return [
            (
                rng.uniform(-0.3, 2.0),
                rng.choice(SEVEN),
                rng.choice([0, 1.5, -2]),
                rng.choice(SEVEN, p=shares),
                rng.random(),
                rng.choice(7, 2, replace=False).tolist(),
                rng.uniform(0.5, 1, 3).tolist(),
                rng.integers(9),
                rng.normal(),
            )
            for _ in range(300)
        ]

    assert drawn(ours) == drawn(theirs)
