"""Maps at another size."""

import numpy as np
import pytest

from pipelines.stages.maps import enlarged, points_inside
from recon.scene import Camera, DepthMap, SparseDepth


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


def test_points_outside_a_mask_or_on_its_last_edge() -> None:
    kept = np.zeros((4, 6), bool)
    kept[2:, 3:] = True
    uv = np.array([[2.9, 2.1], [3.1, 2.1], [3.1, 1.9], [6.0, 4.0], [5.5, 3.5]])
    found = points_inside(SparseDepth(uv, np.arange(5.0) + 1, np.full(5, 0.1)), kept)
    assert found.depth.tolist() == [2, 4, 5]  # the far corner counts as its last pixel
