"""Scenes that break alignment elsewhere, each with what has to happen."""

import numpy as np

from recon.alignment import Alignment, align
from recon.geometry import pixel_centers
from recon.scene import Camera, DepthMap, Prediction, SparseDepth
from recon.synthetic.distortion import smooth_field

WIDTH, HEIGHT = 128, 96
CAMERA = Camera.from_fov(WIDTH, HEIGHT, 60.0)
U, V = np.moveaxis(pixel_centers(WIDTH, HEIGHT), -1, 0)
BEND = 0.05
ANCHOR_NOISE = 0.003
SEEDS = range(4)


def corridor() -> np.ndarray:
    """Depth of a corridor 2 wide and 2 high that ends 8 ahead."""
    K = CAMERA.K
    x, y = np.abs(U - K[0, 2]) / K[0, 0], np.abs(V - K[1, 2]) / K[1, 1]
    return np.minimum(1 / np.maximum(np.maximum(x, y), 1e-9), 8.0)


def floor_and_wall() -> np.ndarray:
    """Depth of a wall 4 ahead on a floor 1 below."""
    y = (V - CAMERA.K[1, 2]) / CAMERA.K[1, 1]
    return np.minimum(1 / np.maximum(y, 1e-9), 4.0)


def predicted(depth: np.ndarray, seed: int, bend: float = BEND) -> Prediction:
    error = bend * smooth_field(depth > 0, np.random.default_rng(seed))
    return Prediction((np.exp(-error) / depth).astype(np.float32) * 0.4 - 0.05, "affine_disparity")


def anchored(depth: np.ndarray, where: np.ndarray, count: int, seed: int) -> SparseDepth:
    """Anchors with noise, at some of the pixels where `where` is true."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(where)
    chosen = rng.permutation(len(rows))[:count]
    rows, columns = rows[chosen], columns[chosen]
    z = depth[rows, columns] * (1 + ANCHOR_NOISE * rng.standard_normal(len(rows)))
    return SparseDepth(np.stack([columns, rows], axis=1) + 0.5, z, ANCHOR_NOISE * z)


def both(first: SparseDepth, second: SparseDepth) -> SparseDepth:
    return SparseDepth(*(np.concatenate([getattr(one, key) for one in (first, second)])
                         for key in ("uv", "depth", "sigma")))  # fmt: skip


def median_error(result: Alignment, depth: np.ndarray, where: np.ndarray) -> float:
    found: DepthMap = result.depth_map
    return float(np.median(np.abs(found.depth[where] / depth[where] - 1)))


def test_textureless_wall_has_depth_whose_sigma_holds_its_error() -> None:
    depth = floor_and_wall()
    wall = V < 40
    off, held = [], []
    for seed in range(8):  # how far a bend goes on where nothing shows it is one draw per seed
        result = align(predicted(depth, seed), anchored(depth, ~wall, 300, seed), CAMERA)
        found = result.depth_map
        assert (found.depth[wall] > 0).mean() > 0.99
        error = np.abs(found.depth - depth)[wall]
        off.append(np.median(error / depth[wall]))
        held.append((error < 2 * found.sigma[wall]).mean())
        floor_sigma = np.median((found.sigma / depth)[~wall])
        assert np.median((found.sigma / depth)[V < 20]) > 2 * floor_sigma  # far from all anchors
    assert np.median(off) < BEND
    assert np.mean(held) > 0.9


def test_points_of_a_repeated_corridor_matched_one_period_off_are_not_followed() -> None:
    depth = corridor()
    for seed in SEEDS:
        side = np.abs(U - 64) > np.abs(V - 48)
        right = anchored(depth, np.ones_like(side), 300, seed)
        shifted = anchored(np.minimum(depth * 1.4, 8), side & (U > 64) & (depth < 4), 75, seed + 50)
        result = align(predicted(depth, seed), both(right, shifted), CAMERA)
        assert median_error(result, depth, side & (U > 64) & (depth < 4)) < 0.015
        assert result.fit.inliers[300:].mean() < 0.1


def test_anchors_behind_a_mirror_do_not_bend_the_wall() -> None:
    depth = floor_and_wall()
    mirror = (np.abs(U - 80) < 20) & (np.abs(V - 25) < 15)
    for seed in SEEDS:
        true = anchored(depth, ~mirror, 300, seed)
        behind = anchored(2 * depth - 1, mirror, 80, seed + 50)
        result = align(predicted(depth, seed), both(true, behind), CAMERA)
        assert median_error(result, depth, mirror) < 0.03
        assert not result.fit.inliers[300:].any()


def test_six_anchors_give_depth_that_knows_how_little_it_knows() -> None:
    depth = floor_and_wall()
    off, held = [], []
    for seed in range(12):
        result = align(predicted(depth, seed), anchored(depth, V > 10, 6, seed), CAMERA, min_points=4)
        found = result.depth_map
        known = found.depth > 0
        assert known.mean() > 0.9
        error = np.abs(found.depth - depth)[known]
        off.append(np.median(error / depth[known]))
        held.append((error < 2 * found.sigma[known]).mean())
    assert np.median(off) < 1.5 * BEND
    assert np.mean(held) > 0.9


def test_thin_pole_keeps_its_distance_to_a_wall_that_holds_all_anchors_near_it() -> None:
    depth = floor_and_wall()
    pole = (np.abs(U - 60) < 1.5) & (depth > 2)
    depth[pole] = 2.0
    beside = np.abs(U - 60) > 4
    for seed in SEEDS:
        result = align(predicted(depth, seed), anchored(depth, beside, 300, seed), CAMERA)
        assert median_error(result, depth, pole) < 2 * BEND
        assert median_error(result, depth, beside) < 0.01


def test_wall_that_holds_all_anchors_says_nothing_of_what_stands_before_it() -> None:
    depth = np.full((HEIGHT, WIDTH), 4.0)
    box = (np.abs(U - 60) < 12) & (np.abs(V - 50) < 12)
    depth[box] = 2.0
    for seed in SEEDS:
        anchors = anchored(depth, (np.abs(U - 60) > 15) | (np.abs(V - 50) > 15), 300, seed)
        found = align(predicted(depth, seed), anchors, CAMERA).depth_map
        known = box & (found.depth > 0)
        assert (np.abs(found.depth - depth)[known] < 3 * found.sigma[known]).sum() >= 0.9 * known.sum()
