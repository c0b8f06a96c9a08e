"""The smooth correction of log depth: bends removed, jumps kept, certainty as it says, no harm done."""

import numpy as np
import pytest

from recon.alignment import Alignment, align
from recon.alignment.waves import Waves
from recon.geometry import pixel_centers
from recon.scene import Camera, Prediction, SparseDepth

CAMERA = Camera.from_fov(64, 48, 60.0)
U, V = np.moveaxis(pixel_centers(64, 48), -1, 0)
DEPTH = 2 + np.sin(U / 15) * np.cos(V / 10) + V / 40


def bend_of(seed: int, rms: float = 0.05) -> np.ndarray:
    """A smooth field of mean 0 with up to about 1.5 cycles over the picture."""
    rng = np.random.default_rng(seed)
    field = np.zeros(DEPTH.shape)
    for _ in range(5):
        angle, cycles, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.5), rng.uniform(0, 2 * np.pi)
        field += np.sin(2 * np.pi * cycles * (U * np.cos(angle) + V * np.sin(angle)) / 64 + phase)
    field -= field.mean()
    return rms * field / field.std()


def anchors_of(depth: np.ndarray, count: int, outliers: float, seed: int) -> tuple[SparseDepth, np.ndarray]:
    """Anchors at pixel centres, and which of them are wrong by 15 % to a factor of 3."""
    rng = np.random.default_rng(seed)
    rows, columns = np.unravel_index(rng.permutation(depth.size)[:count], depth.shape)
    wrong = np.arange(count) < outliers * count
    factor = np.exp(rng.choice([-1, 1], count) * rng.uniform(0.15, 1.1, count))
    z = np.where(wrong, factor, 1) * depth[rows, columns]
    return SparseDepth(np.stack([columns + 0.5, rows + 0.5], axis=1), z, 1e-3 * z), wrong


def predict(log_error: np.ndarray, depth: np.ndarray = DEPTH) -> Prediction:
    values = (np.exp(-log_error) / depth - 0.08) / 3.7
    return Prediction(values.astype(np.float32), "affine_disparity")


def bent(seed: int, count: int, outliers: float = 0.0, noise: float = 0.003, **options: bool) -> Alignment:
    error = bend_of(seed) + noise * np.random.default_rng(seed + 100).standard_normal(DEPTH.shape)
    return align(predict(error), anchors_of(DEPTH, count, outliers, seed)[0], CAMERA, **options)


def error_of(result: Alignment, depth: np.ndarray = DEPTH) -> np.ndarray:
    return np.abs(result.depth_map.depth / depth - 1)


@pytest.mark.parametrize("outliers", [0.0, 0.2, 0.4])
def test_smooth_bend_is_removed(outliers: float) -> None:
    for seed in range(3):
        plain = np.median(error_of(bent(seed, 400, outliers, correct=False)))
        result = bent(seed, 400, outliers)
        assert result.fit.corrected
        assert np.median(error_of(result)) < min(0.006, plain / 4)


def test_bend_is_removed_at_the_border_as_in_the_middle() -> None:
    beside = np.minimum(np.minimum(U, 64 - U), np.minimum(V, 48 - V)) < 4
    errors = np.mean([error_of(bent(seed, 600, noise=0.001)) for seed in range(4)], axis=0)
    assert errors[beside].mean() < 1.4 * errors[~beside].mean()


def test_anchors_are_judged_after_the_correction() -> None:
    result = bent(0, 400, 0.3)
    wrong = anchors_of(DEPTH, 400, 0.3, 0)[1]
    assert not result.fit.inliers[wrong].any()
    assert result.fit.inliers[~wrong & np.isfinite(result.fit.predicted)].mean() > 0.95
    assert result.fit.median_error < 0.005
    assert result.fit.held_out_error < result.fit.plain_held_out_error / 2


def test_two_sides_of_a_jump_are_corrected_differently() -> None:
    near, middle = (np.abs(U - 20) < 10) & (np.abs(V - 24) < 14), U > 44
    depth = np.where(near, 1.0, np.where(middle, 2.0, 4.0)) * (1 + V / 200)
    error = np.where(near, 0.05, np.where(middle, -0.06, 0.05))
    anchors = anchors_of(depth, 400, 0.1, 0)[0]
    plain = align(predict(error, depth), anchors, CAMERA, correct=False)
    result = align(predict(error, depth), anchors, CAMERA)
    beside = (np.abs(np.abs(U - 20) - 10) < 2) & (np.abs(V - 24) < 14)
    assert np.mean(error_of(plain, depth)) > 0.02
    assert np.mean(error_of(result, depth)) < 0.004
    assert np.mean(error_of(result, depth)[beside]) < 0.01


def test_sigma_of_corrected_depth_holds_what_it_says() -> None:
    results = [bent(seed, count, 0.2, 0.01) for seed in range(6) for count in (100, 300)]
    stretch = np.stack([np.abs(one.depth_map.depth - DEPTH) / one.depth_map.sigma for one in results])
    assert all(one.fit.corrected for one in results)
    assert np.mean(stretch <= 1) == pytest.approx(0.683, abs=0.05)
    assert np.mean(stretch <= 1.96) == pytest.approx(0.95, abs=0.05)


def test_sigma_grows_away_from_anchors_and_depth_there_is_no_worse_than_plain() -> None:
    errors = []
    for seed in range(4):
        anchors, _ = anchors_of(DEPTH, 900, 0.0, seed)
        left = anchors.uv[:, 0] < 24
        anchors = SparseDepth(anchors.uv[left], anchors.depth[left], anchors.sigma[left])
        plain = align(predict(bend_of(seed)), anchors, CAMERA, correct=False)
        result = align(predict(bend_of(seed)), anchors, CAMERA)
        relative = result.depth_map.sigma / result.depth_map.depth
        assert relative[:, 56:].mean() > 5 * relative[:, :20].mean()
        errors.append([error_of(one)[:, 40:].mean() for one in (result, plain)])
    assert np.mean(errors, axis=0)[0] < np.mean(errors, axis=0)[1]


def test_more_anchors_make_depth_better_and_more_certain() -> None:
    few, many = ([bent(seed, count, 0.2) for seed in range(4)] for count in (60, 600))
    error_few, error_many = (np.mean([error_of(one) for one in ones]) for ones in (few, many))
    sigma_few, sigma_many = (np.mean([one.depth_map.sigma for one in ones]) for ones in (few, many))
    assert error_many < 0.6 * error_few  # the prediction's own noise of 0.3 % stays
    assert sigma_many < 0.8 * sigma_few


def test_detail_between_anchors_survives() -> None:
    depth = DEPTH.copy()
    depth[20:26, 30:36] *= 0.8  # a box without any anchor, before a smooth wall full of them
    anchors, _ = anchors_of(depth, 900, 0.0, 0)
    on_box = (np.abs(anchors.uv - [33, 23]) < 5).all(axis=1)
    anchors = SparseDepth(anchors.uv[~on_box], anchors.depth[~on_box], anchors.sigma[~on_box])
    result = align(predict(bend_of(2), depth), anchors, CAMERA)
    assert result.fit.corrected
    assert error_of(result, depth)[20:26, 30:36].max() < 0.04


@pytest.mark.parametrize("count", [20, 60, 300])
def test_correction_does_no_harm_where_there_is_nothing_to_correct(count: int) -> None:
    ratios = []
    for seed in range(5):
        prediction = predict(0.01 * np.random.default_rng(seed).standard_normal(DEPTH.shape))
        anchors = anchors_of(DEPTH, count, 0.2, seed)[0]
        plain, result = (align(prediction, anchors, CAMERA, min_points=10, correct=c) for c in (False, True))
        ratios.append(error_of(result).mean() / error_of(plain).mean())
    assert max(ratios) < 1.1
    assert np.mean(ratios) < 1.03


@pytest.mark.parametrize("seed", range(4))
def test_twenty_anchors_are_not_made_worse(seed: int) -> None:
    plain, result = bent(seed, 20, 0.1, correct=False), bent(seed, 20, 0.1)
    assert error_of(result).mean() < 1.05 * error_of(plain).mean()


def test_corrected_depth_scales_with_the_scene() -> None:
    anchors, _ = anchors_of(DEPTH, 300, 0.2, 1)
    larger = SparseDepth(anchors.uv, 40 * anchors.depth, 40 * anchors.sigma)
    once, scaled = (align(predict(bend_of(1)), one, CAMERA) for one in (anchors, larger))
    assert once.fit.corrected
    assert np.allclose(scaled.depth_map.depth, 40 * once.depth_map.depth, rtol=1e-5)
    assert np.allclose(scaled.depth_map.sigma, 40 * once.depth_map.sigma, rtol=1e-4)


def test_order_of_anchors_changes_no_bit_of_corrected_depth() -> None:
    anchors, _ = anchors_of(DEPTH, 300, 0.2, 1)
    order = np.random.default_rng(0).permutation(300)
    other = SparseDepth(anchors.uv[order], anchors.depth[order], anchors.sigma[order])
    first, second = (align(predict(bend_of(1)), one, CAMERA) for one in (anchors, other))
    assert first.fit.corrected
    assert first.depth_map.depth.tobytes() == second.depth_map.depth.tobytes()
    assert first.depth_map.sigma.tobytes() == second.depth_map.sigma.tobytes()
    assert np.array_equal(first.fit.inliers[order], second.fit.inliers)


def test_waves_at_points_and_over_the_picture_agree() -> None:
    waves = Waves.filling(64, 48, np.log(DEPTH).ravel())
    coefficients = np.random.default_rng(0).standard_normal(len(waves.orders))
    at_points = waves.at(np.stack([U.ravel(), V.ravel()], axis=1), np.log(DEPTH).ravel()) @ coefficients
    assert np.allclose(waves.total(coefficients, np.log(DEPTH)).ravel(), at_points, atol=1e-9)


def test_variance_of_waves_before_any_anchor_is_that_of_the_process() -> None:
    waves = Waves.filling(64, 48, np.log(DEPTH).ravel())
    root = np.diag(np.sqrt(waves.shares(0.12, 0.5, 2.5)))
    log_depth = np.random.default_rng(0).uniform(waves.low, waves.high, DEPTH.shape)
    assert waves.summed(waves.variance(root), log_depth).mean() == pytest.approx(1, abs=0.05)


def test_variance_of_waves_over_the_picture_is_exact() -> None:
    waves = Waves.filling(64, 48, np.log(DEPTH).ravel())
    root = np.random.default_rng(0).standard_normal((9, len(waves.orders)))
    log_depth = np.random.default_rng(1).uniform(waves.low, waves.high, DEPTH.shape)
    at_points = waves.at(np.stack([U.ravel(), V.ravel()], axis=1), log_depth.ravel())
    found = waves.summed(waves.variance(root), log_depth)
    assert np.allclose(found.ravel(), np.square(at_points @ root.T).sum(axis=1), rtol=1e-9)


def test_sums_over_the_picture_of_waves_and_of_their_products_are_exact() -> None:
    waves = Waves.filling(64, 48, np.log(DEPTH).ravel())
    rng = np.random.default_rng(0)
    weights, log_depth = rng.uniform(0, 1, DEPTH.shape), rng.uniform(waves.low, waves.high, DEPTH.shape)
    at_points = waves.at(np.stack([U.ravel(), V.ravel()], axis=1), log_depth.ravel())
    weighted = at_points * weights.ravel()[:, None]
    assert np.allclose(waves.moment(weights, log_depth), weighted.sum(axis=0), atol=1e-9)
    assert np.allclose(waves.gram(weights, log_depth), weighted.T @ at_points, atol=1e-9)


def test_flat_prediction_has_no_waves_along_depth() -> None:
    assert Waves.filling(64, 48, np.zeros(10)).orders[:, 2].max() == 0


def test_thirty_anchors_remove_most_of_a_bend_despite_outliers() -> None:
    ratios = []
    for seed in range(6):
        plain, result = bent(seed, 30, 0.2, correct=False), bent(seed, 30, 0.2)
        ratios.append(np.median(error_of(result)) / np.median(error_of(plain)))
    assert np.median(ratios) < 0.6


def test_ten_anchors_remove_some_of_a_slight_bend_though_held_out_ones_can_hardly_tell() -> None:
    ratios = []
    for seed in range(24):
        prediction = predict(
            bend_of(seed, 0.02) + 0.003 * np.random.default_rng(seed).standard_normal(DEPTH.shape)
        )
        anchors = anchors_of(DEPTH, 10, 0.2, seed)[0]
        plain, result = (align(prediction, anchors, CAMERA, min_points=4, correct=c) for c in (False, True))
        ratios.append(np.median(error_of(result)) / np.median(error_of(plain)))
    assert np.exp(np.log(ratios).mean()) < 0.64


def test_scene_of_less_depth_than_the_bend_has_depth_though_its_prediction_falls() -> None:
    depth = 2 + 0.02 * (U / 64)
    prediction = predict(0.06 * (U / 64 - 0.5), depth)  # disparity falls by 1 % in truth, seen to fall by 7 %
    falling = Prediction(1 - prediction.values, "affine_disparity")
    anchors = anchors_of(depth, 100, 0.2, 0)[0]
    assert np.median(error_of(align(falling, anchors, CAMERA), depth)) < 0.01
