"""Which pixels are reconstructed: those inside the mask, without the sky, unless points lie there."""

import numpy as np
import pytest

from lotus import scenes
from lotus.data import TrainingSample
from pipelines.stages import Select, SelectAlone
from recon.scene import SparseDepth

NO_POINTS = SparseDepth(np.zeros((0, 2)), np.zeros(0), np.zeros(0))


@pytest.fixture(scope="module")
def street() -> TrainingSample:
    """A photo of which a quarter or more is sky."""
    seed = 92_000_000
    while True:
        scene = scenes.sample(seed)
        if scene.kind == "outdoors":
            sample = scenes.render(scene, 256, 192)
            if sample.sky.mean() > 0.25:
                return sample
        seed += 1


def points_on(pixels: np.ndarray) -> SparseDepth:
    row, column = np.nonzero(pixels)
    uv = np.stack([column + 0.5, row + 0.5], axis=1)[::7]
    return SparseDepth(uv, np.full(len(uv), 5.0), np.full(len(uv), 0.1))


def test_the_sky_is_left_out_and_the_mask_holds(street: TrainingSample) -> None:
    mask = np.ones(street.sky.shape, bool)
    mask[:, :40] = False
    kept = Select()(image=street.image, mask=mask, points=points_on(~street.sky))
    assert not kept[:, :40].any()
    assert (kept == (mask & ~street.sky)).mean() > 0.95
    alone = SelectAlone()(image=street.image, mask=mask)
    assert np.array_equal(alone, Select()(image=street.image, mask=mask, points=NO_POINTS))


def test_where_points_lie_is_no_sky(street: TrainingSample) -> None:
    mask = np.ones(street.sky.shape, bool)
    kept = Select()(image=street.image, mask=mask, points=points_on(mask))
    assert kept.all()


def test_the_sky_is_kept_on_demand(street: TrainingSample) -> None:
    mask = np.ones(street.sky.shape, bool)
    assert Select(keep_sky=True)(image=street.image, mask=mask, points=NO_POINTS).all()
    assert SelectAlone(keep_sky=True)(image=street.image, mask=mask).all()
