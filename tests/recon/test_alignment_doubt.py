"""A thing that the prediction does not show, but the anchors on it do; and wrong anchors anywhere."""

import numpy as np
import pytest

from recon.alignment import doubted
from recon.scene import Camera, DepthMap, SparseDepth

CAMERA = Camera.from_fov(160, 120, 60.0)
DEPTH, RELATIVE_SIGMA = 2.0, 0.002
THING = (slice(40, 80), slice(60, 110))
STANDS_OUT = 0.15


def predicted() -> DepthMap:
    """A wall, and nothing before it."""
    depth = np.full((120, 160), DEPTH, np.float32)
    normals = np.broadcast_to(np.array([0, 0, -1], np.float32), (120, 160, 3)).copy()
    return DepthMap(CAMERA, depth, normals, np.float32(RELATIVE_SIGMA) * depth)


Part = tuple[slice, slice]


def anchors_of(count: int, *, wrong: float, thing: bool, seed: int, where: Part = THING) -> SparseDepth:
    """Points of the wall and of a thing before it; some are wrong by 5 % to a factor of 2, to either side."""
    rng = np.random.default_rng(seed)
    uv = rng.uniform(0, [160, 120], (count, 2))
    depth = np.full(count, DEPTH)
    if thing:
        column, row = uv.astype(int).T
        on = np.zeros((120, 160), bool)
        on[where] = True
        depth[on[row, column]] *= np.exp(-STANDS_OUT)
    off = rng.random(count) < wrong
    depth[off] *= np.exp(rng.choice([-1, 1], off.sum()) * rng.uniform(0.05, 0.7, off.sum()))
    return SparseDepth(uv, depth, 1e-3 * depth)


@pytest.mark.parametrize("wrong", [0.0, 0.1])
@pytest.mark.parametrize("side", [1, -1])
def test_sigma_covers_a_thing_that_the_prediction_does_not_show(wrong: float, side: int) -> None:
    anchors = anchors_of(800, wrong=wrong, thing=True, seed=0)
    anchors = SparseDepth(anchors.uv, DEPTH * (anchors.depth / DEPTH) ** side, anchors.sigma)
    sigma = doubted(predicted(), anchors).sigma / DEPTH
    inner = sigma[THING][6:-6, 6:-6]
    assert (3 * inner > STANDS_OUT).mean() > 0.97
    beside = np.ones(sigma.shape, bool)
    beside[30:90, 50:120] = False
    assert (sigma[beside] > 2 * RELATIVE_SIGMA).mean() < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_few_anchors_that_agree_are_believed_among_those_of_what_lies_around(seed: int) -> None:
    pole = (slice(20, 100), slice(80, 90))  # about as wide as the nearest anchors reach
    sigma = doubted(predicted(), anchors_of(800, wrong=0.1, thing=True, seed=seed, where=pole)).sigma / DEPTH
    assert (3 * sigma[pole][6:-6] > STANDS_OUT).mean() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_wrong_anchors_to_either_side_are_believed_next_to_nowhere(seed: int) -> None:
    before = predicted()
    anchors = anchors_of(800, wrong=0.2, thing=False, seed=seed)
    assert (doubted(before, anchors).sigma > before.sigma).mean() < 0.02


def test_nothing_but_sigma_changes_and_it_only_grows() -> None:
    before = predicted()
    before.sigma[:] *= np.random.default_rng(0).uniform(1, 100, before.sigma.shape)
    after = doubted(before, anchors_of(800, wrong=0.1, thing=True, seed=1))
    assert np.array_equal(after.depth, before.depth)
    assert np.array_equal(after.normals, before.normals)
    assert (after.sigma >= before.sigma).all()


def test_few_anchors_and_those_beside_known_depth_are_not_asked() -> None:
    before = predicted()
    few = anchors_of(40, wrong=0.0, thing=True, seed=0)
    assert doubted(before, few) is before
    before.depth[THING] = 0
    many = anchors_of(800, wrong=0.0, thing=True, seed=0)
    assert np.array_equal(doubted(before, many).sigma, before.sigma)
