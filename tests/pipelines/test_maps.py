"""Maps at another size."""

import numpy as np
import pytest

from pipelines.stages.maps import enlarged
from recon.scene import Camera, DepthMap


@pytest.mark.parametrize("seed", range(4))
def test_holes_stay_holes_in_a_larger_map(seed: int) -> None:
    depth = np.where(np.random.default_rng(seed).random((32, 32)) < 0.3, 0, 2).astype(np.float32)
    known = depth > 0
    normals = np.where(known[..., None], [0, 0, -1], 0).astype(np.float32)
    small = Camera.from_fov(32, 32, 60.0)
    large = enlarged(DepthMap(small, depth, normals, 0.01 * depth), small.resized(80, 80))  # 2.5 to 1
    assert large.depth.shape == (80, 80)
    assert np.isin(large.depth, [0, 2]).all()
    assert np.array_equal(large.depth > 0, large.sigma > 0)
    assert abs((large.depth > 0).mean() - known.mean()) < 0.1
