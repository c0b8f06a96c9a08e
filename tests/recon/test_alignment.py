"""Scale and shift of a prediction: exact recovery, invariances, guards, calibrated uncertainty."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recon.alignment import Alignment, align
from recon.errors import InputError, ViewError
from recon.geometry import pixel_centers, rays
from recon.scene import Camera, DepthMap, Prediction, SparseDepth

CAMERA = Camera.from_fov(64, 48, 60.0)
KINDS = ("affine_disparity", "affine", "scale")
SCALE, SHIFT = 3.7, 0.08


def wavy_depth() -> np.ndarray:
    u, v = np.moveaxis(pixel_centers(64, 48), -1, 0)
    return 2 + np.sin(u / 15) * np.cos(v / 10) + v / 40


def predict(depth: np.ndarray, kind: str, noise: np.ndarray | float = 0.0) -> Prediction:
    target = 1 / depth if kind == "affine_disparity" else depth
    values = (target * (1 + noise) - (0 if kind == "scale" else SHIFT)) / SCALE
    return Prediction(values.astype(np.float32), kind)


def anchors_of(depth: np.ndarray, count: int, outliers: float, seed: int) -> tuple[SparseDepth, np.ndarray]:
    """Anchors at pixel centres, and which of them are wrong by 20 % to a factor of 4."""
    rng = np.random.default_rng(seed)
    pixels = rng.permutation(depth.size)[:count]
    rows, columns = np.unravel_index(pixels, depth.shape)
    wrong = np.arange(count) < outliers * count
    factor = np.exp(rng.choice([-1, 1], count) * rng.uniform(0.2, 1.4, count))
    z = np.where(wrong, factor, 1) * depth[rows, columns]
    return SparseDepth(np.stack([columns + 0.5, rows + 0.5], axis=1), z, 1e-4 * z), wrong


def aligned(
    kind: str, *, seed: int = 0, noise: float = 0.0, count: int = 150, correct: bool = True
) -> Alignment:
    depth = wavy_depth()
    error = noise * np.random.default_rng(seed + 1).standard_normal(depth.shape)
    return align(predict(depth, kind, error), anchors_of(depth, count, 0.4, seed)[0], CAMERA, correct=correct)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(30, 400))
def test_scale_and_shift_are_exact_with_40_percent_gross_outliers(kind: str, seed: int, count: int) -> None:
    depth = wavy_depth()
    anchors, wrong = anchors_of(depth, count, 0.4, seed)
    result = align(predict(depth, kind), anchors, CAMERA, min_points=10)
    assert result.fit.scale == pytest.approx(SCALE, rel=1e-4)
    assert result.fit.shift == pytest.approx(0 if kind == "scale" else SHIFT, abs=1e-4)
    assert np.allclose(result.depth_map.depth, depth, rtol=1e-4)
    assert not result.fit.inliers[wrong].any()


@pytest.mark.parametrize("kind", KINDS)
def test_sigma_holds_what_it_says_under_noise_and_outliers(kind: str) -> None:
    results = [aligned(kind, seed=seed, noise=0.02, count=600) for seed in range(8)]
    errors = np.stack([np.abs(result.depth_map.depth - wavy_depth()) for result in results])
    sigma = np.stack([result.depth_map.sigma for result in results])
    # one map's coverage varies by 3 points, as the spread of 360 residuals is known to 6 %; eight maps' by 1
    assert np.mean(errors <= sigma) == pytest.approx(0.683, abs=0.04)
    assert np.mean(errors <= 1.96 * sigma) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("kind", ["affine_disparity", "affine"])
def test_errors_of_scale_and_shift_are_what_their_covariance_says(kind: str) -> None:
    depth = wavy_depth()
    prediction = predict(depth, kind)
    squared = []
    for seed in range(30):
        exact, _ = anchors_of(depth, 150, 0.2, seed)
        z = exact.depth * (1 + 0.03 * np.random.default_rng(seed + 1).standard_normal(150))
        fit = align(prediction, SparseDepth(exact.uv, z, 0.01 * z), CAMERA, correct=False).fit
        error = np.array([fit.scale - SCALE, fit.shift - SHIFT])
        squared.append(error @ np.linalg.solve(fit.covariance, error) / 2)
    # chi-squared with 2 * 30 degrees of freedom, over 60: mean 1, standard deviation 0.18
    assert 0.4 < np.mean(squared) < 1.6


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
@example(factor=2.0, seed=43)  # of a scale, the contrast is found wrong there
def test_depth_and_sigma_scale_with_the_scene(kind: str, factor: float, seed: int) -> None:
    depth = wavy_depth()
    prediction = predict(depth, kind, 0.02 * np.random.default_rng(seed).standard_normal(depth.shape))
    anchors, _ = anchors_of(depth, 150, 0.4, seed)
    larger = SparseDepth(anchors.uv, anchors.depth * factor, anchors.sigma * factor)
    once, scaled = align(prediction, anchors, CAMERA), align(prediction, larger, CAMERA)
    assert np.allclose(scaled.depth_map.depth, once.depth_map.depth * factor, rtol=1e-5)
    assert np.allclose(scaled.depth_map.sigma, once.depth_map.sigma * factor, rtol=1e-4)
    assert scaled.fit.space == once.fit.space
    power = {"disparity": -1, "depth": 1, "log": 0}[once.fit.space]  # log depth is shifted by the factor
    assert scaled.fit.scale == pytest.approx(once.fit.scale * factor**power, rel=1e-6)


@pytest.mark.parametrize("kind", ["affine_disparity", "affine"])
@settings(max_examples=6, deadline=None)
@given(stretch=st.floats(0.05, 20), offset=st.floats(-3, 3))
def test_depth_does_not_depend_on_the_units_of_an_affine_prediction(
    kind: str, stretch: float, offset: float
) -> None:
    depth = wavy_depth()
    prediction = predict(depth, kind, 0.02 * np.random.default_rng(0).standard_normal(depth.shape))
    moved = Prediction((prediction.values.astype(np.float64) * stretch + offset).astype(np.float32), kind)
    anchors, _ = anchors_of(depth, 150, 0.4, 0)
    first, second = align(prediction, anchors, CAMERA), align(moved, anchors, CAMERA)
    # float32 with an offset of 3 on a range of 0.05 * 0.2 leaves 2e-5 of it
    assert np.allclose(first.depth_map.depth, second.depth_map.depth, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_anchors_changes_no_bit(kind: str) -> None:
    depth = wavy_depth()
    prediction = predict(depth, kind, 0.02 * np.random.default_rng(0).standard_normal(depth.shape))
    anchors, _ = anchors_of(depth, 200, 0.3, 0)
    shuffled = np.random.default_rng(1).permutation(200)
    other = SparseDepth(anchors.uv[shuffled], anchors.depth[shuffled], anchors.sigma[shuffled])
    first, second = align(prediction, anchors, CAMERA), align(prediction, other, CAMERA)
    assert first.depth_map.depth.tobytes() == second.depth_map.depth.tobytes()
    assert first.depth_map.sigma.tobytes() == second.depth_map.sigma.tobytes()
    assert np.array_equal(first.fit.inliers[shuffled], second.fit.inliers)
    assert np.array_equal(first.fit.predicted[shuffled], second.fit.predicted)


def test_depth_up_to_scale_gets_no_shift_it_does_not_need() -> None:
    fits = [aligned("scale", seed=seed, noise=0.02, correct=False).fit for seed in range(20)]
    assert sum(fit.shift == 0 for fit in fits) >= 12


def test_depth_of_wrong_contrast_is_fitted_in_log_space() -> None:
    depth = wavy_depth()
    anchors, _ = anchors_of(depth, 200, 0.3, 0)
    result = align(Prediction((depth**0.7).astype(np.float32), "metric"), anchors, CAMERA)
    assert result.fit.space == "log"
    assert np.allclose(result.depth_map.depth, depth, rtol=1e-4)


def test_held_out_error_is_the_error_of_the_map() -> None:
    result = aligned("affine_disparity", noise=0.03, count=800, correct=False)
    depth = wavy_depth()
    truth = np.median(np.abs(np.log(result.depth_map.depth / depth)))
    outlier_share = 0.4  # the median over all anchors is the 50 / 60 quantile of the inliers' errors
    assert truth < result.fit.held_out_error < 3 * truth
    assert result.fit.median_error == pytest.approx(truth, rel=0.2)
    assert result.fit.inliers.mean() == pytest.approx(1 - outlier_share, abs=0.05)


def test_smooth_bend_makes_parameters_less_certain_than_white_noise_of_the_same_size() -> None:
    depth = wavy_depth()
    anchors, _ = anchors_of(depth, 600, 0.0, 0)
    u, v = np.moveaxis(pixel_centers(64, 48), -1, 0)
    bend = np.sqrt(2) * 0.03 * np.sin(u / 12 + 1) * np.cos(v / 9)
    white = np.random.default_rng(0).permutation(bend.ravel()).reshape(bend.shape)
    bent = align(predict(depth, "affine", bend), anchors, CAMERA).fit
    noisy = align(predict(depth, "affine", white), anchors, CAMERA).fit
    assert bent.covariance[0, 0] > 3 * noisy.covariance[0, 0]


@pytest.mark.parametrize("kind", ["scale", "metric"])
def test_wall_that_faces_the_camera_keeps_its_normal(kind: str) -> None:
    depth = np.full((48, 64), 2.0)
    anchors, _ = anchors_of(depth, 60, 0.3, 0)
    result = align(Prediction((depth / 5).astype(np.float32), kind), anchors, CAMERA)
    assert np.allclose(result.depth_map.normals, [0, 0, -1], atol=1e-6)
    assert np.allclose(result.depth_map.depth, 2, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_one_depth_for_all_has_a_scale_however_it_is_rounded(seed: int) -> None:
    anchors, _ = anchors_of(wavy_depth(), 200, 0.1, seed)
    uv = np.clip(anchors.uv + np.random.default_rng(seed).uniform(-0.4, 0.4, anchors.uv.shape), 1, [63, 47])
    constant = Prediction(np.full((48, 64), 0.8, np.float32), "scale")
    fit = align(constant, SparseDepth(uv, anchors.depth, anchors.sigma), CAMERA, correct=False).fit
    assert fit.space == "depth"
    assert abs(0.8 * fit.scale / np.median(anchors.depth) - 1) < 0.1
    assert fit.shift == 0


@pytest.mark.parametrize("kind", ["affine", "affine_disparity"])
def test_one_value_for_all_is_an_error_however_it_is_rounded(kind: str) -> None:
    constant = Prediction(np.full((48, 64), 0.8, np.float32), kind)
    for seed in range(10):
        anchors, _ = anchors_of(wavy_depth(), 200, 0.1, seed)
        uv = np.clip(anchors.uv + np.random.default_rng(seed).uniform(-0.4, 0.4, (200, 2)), 1, [63, 47])
        with pytest.raises(ViewError, match="flat"):
            align(constant, SparseDepth(uv, anchors.depth, anchors.sigma), CAMERA)


def test_slanted_plane_in_disparity_is_exact_at_subpixel_anchors() -> None:
    normal = np.array([0.3, -0.5, -0.8])
    depth = -2 / (rays(CAMERA.K, 64, 48) @ normal)
    uv = np.random.default_rng(0).uniform(1, [63, 47], (80, 2))
    z = -2 / (np.concatenate([uv, np.ones((80, 1))], axis=1) @ np.linalg.inv(CAMERA.K).T @ normal)
    result = align(predict(depth, "affine_disparity"), SparseDepth(uv, z, 1e-4 * z), CAMERA)
    assert result.fit.held_out_error < 1e-5
    expected = normal / np.linalg.norm(normal)
    assert np.allclose(result.depth_map.normals[2:-2, 2:-2], expected, atol=1e-2)  # float32 depth


def test_normals_of_the_prediction_are_kept_where_there_is_depth() -> None:
    depth = wavy_depth()
    prediction = predict(depth, "affine")
    prediction.values[:5] = np.nan
    normals = np.broadcast_to(np.float32([0, -0.6, -0.8]), (48, 64, 3)).copy()
    anchors, _ = anchors_of(depth, 150, 0.2, 0)
    result = align(Prediction(prediction.values, "affine", normals), anchors, CAMERA).depth_map
    assert not result.depth[:5].any()
    assert not result.normals[:5].any()
    assert np.array_equal(result.normals[5:], normals[5:])


def test_low_confidence_grows_sigma_and_none_removes_the_pixel() -> None:
    depth = wavy_depth()
    error = 0.02 * np.random.default_rng(0).standard_normal(depth.shape)
    confidence = np.ones((48, 64), np.float32)
    confidence[:, :10], confidence[:, 10:20] = 0, 0.25
    prediction = Prediction(predict(depth, "affine", error).values, "affine", confidence=confidence)
    result = align(prediction, anchors_of(depth, 300, 0.2, 0)[0], CAMERA).depth_map
    assert not result.depth[:, :10].any()
    low, high = result.sigma[:, 10:20] / depth[:, 10:20], result.sigma[:, 20:] / depth[:, 20:]
    assert low.mean() == pytest.approx(2 * high.mean(), rel=0.25)


def test_values_beyond_infinity_get_no_depth() -> None:
    depth = np.linspace(1, 5, 48)[:, None] * np.ones((1, 64))
    prediction = predict(depth, "affine_disparity")
    prediction.values[-3:] = -SHIFT / SCALE - 0.01  # a sky below the disparity of infinity
    rows = pixel_centers(64, 48)[:40].reshape(-1, 2)[::7]
    z = depth[:40].reshape(-1)[::7]
    result = align(prediction, SparseDepth(rows, z, 1e-3 * z), CAMERA).depth_map
    assert not result.depth[-3:].any()
    assert np.allclose(result.depth[:-4], depth[:-4], rtol=1e-4)


def test_anchors_on_a_step_of_the_prediction_are_not_used() -> None:
    depth = np.where(np.arange(64) < 32, 1.0, 3.0)[None] * np.ones((48, 1)) + np.arange(48)[:, None] / 50
    on_step = np.stack([np.full(40, 32.2), np.linspace(2, 46, 40)], axis=1)
    good, _ = anchors_of(depth, 200, 0, 0)
    uv = np.concatenate([good.uv, on_step])
    z = np.concatenate([good.depth, np.full(40, 2.0)])
    fit = align(predict(depth, "affine"), SparseDepth(uv, z, 1e-3 * z), CAMERA).fit
    assert np.isnan(fit.predicted[200:]).all()
    assert fit.held_out_error < 1e-5


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (np.full((48, 64), np.nan), "affine", "no pixel has a value"),
        (np.full((48, 64), -1.0), "scale", "no pixel has a value"),
        (np.full((48, 64), 0.5), "affine", "flat over the 60 anchors"),
        (-wavy_depth(), "affine", "falls where the depth of the 60 anchors rises"),
    ],
)
def test_unusable_prediction_is_an_error_that_names_it(values: np.ndarray, kind: str, message: str) -> None:
    anchors, _ = anchors_of(wavy_depth(), 60, 0, 0)
    with pytest.raises(ViewError, match=message):
        align(Prediction(values.astype(np.float32), kind), anchors, CAMERA)


def test_too_few_anchors_are_counted_in_the_error() -> None:
    depth = wavy_depth()
    anchors, _ = anchors_of(depth, 30, 0, 0)
    outside = SparseDepth(
        anchors.uv + np.where(np.arange(30) < 23, 64, 0)[:, None], anchors.depth, anchors.sigma
    )
    with pytest.raises(ViewError, match="view: 7 anchors inside the photo, at least 20 wanted"):
        align(predict(depth, "affine"), outside, CAMERA)


def test_no_anchors_at_all_is_a_view_error() -> None:
    nothing = SparseDepth(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    with pytest.raises(ViewError, match="0 anchors inside the photo"):
        align(predict(wavy_depth(), "affine"), nothing, CAMERA)


def test_prediction_of_another_size_is_an_input_error() -> None:
    anchors, _ = anchors_of(wavy_depth(), 60, 0, 0)
    with pytest.raises(InputError, match="prediction: 64x48, the camera is 32x24"):
        align(predict(wavy_depth(), "affine"), anchors, CAMERA.resized(32, 24))


def test_result_is_a_depth_map_of_the_camera() -> None:
    result = aligned("affine").depth_map
    assert isinstance(result, DepthMap)
    assert result.camera is CAMERA
