import json

import numpy as np
import pytest

from recon.errors import InputError
from recon.evaluation import (
    align_depth,
    align_disparity,
    calibration_metrics,
    depth_metrics,
    normal_metrics,
)


@pytest.fixture
def truth():
    return np.random.default_rng(0).uniform(1, 5, (24, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def published(golden):
    expected = json.loads((golden / "lotus/metrics/expected.json").read_text())
    with np.load(golden / "lotus/metrics/inputs.npz") as file:
        return expected, dict(file)


PUBLISHED_NAMES = {
    "abs_relative_difference": "abs_rel",
    "squared_relative_difference": "sq_rel",
    "rmse_linear": "rmse",
    "rmse_log": "rmse_log",
    "log10": "log10",
    "delta1_acc": "delta1",
    "delta2_acc": "delta2",
    "delta3_acc": "delta3",
    "i_rmse": "i_rmse",
    "silog_rmse": "silog",
}


def test_depth_ten_percent_too_far_has_known_errors(truth):
    score = depth_metrics(1.1 * truth, truth)
    assert score.pixels == truth.size
    assert score.abs_rel == pytest.approx(0.1, rel=1e-5)
    assert score.rmse == pytest.approx(0.1 * np.sqrt(np.mean(truth.astype(float) ** 2)), rel=1e-5)
    assert score.rmse_log == pytest.approx(np.log(1.1), rel=1e-5)
    assert score.log10 == pytest.approx(np.log10(1.1), rel=1e-5)
    assert score.silog < 1e-4
    assert score.delta1 == 1


def test_deltas_are_shares_below_powers_of_one_and_a_quarter(truth):
    factors = np.repeat([1.2, 1.4, 1.8, 2.2], truth.size // 4).reshape(truth.shape)
    score = depth_metrics(truth * factors, truth)
    assert (score.delta1, score.delta2, score.delta3) == (0.25, 0.5, 0.75)


def test_alignment_undoes_scale_and_shift(truth):
    everywhere = np.ones(truth.shape, bool)
    np.testing.assert_allclose(align_depth((truth - 0.7) / 3, truth, everywhere), truth, rtol=1e-5)
    disparity = (1 / truth + 0.2) / 5
    np.testing.assert_allclose(align_disparity(disparity, truth, everywhere), truth, rtol=1e-5)


def test_pixels_without_depth_do_not_count(truth):
    holes = truth.copy()
    holes[:12] = 0
    holes[12] = np.nan
    assert depth_metrics(truth, holes).pixels == 11 * 32
    assert depth_metrics(truth, truth, mask=holes > 0).pixels == 11 * 32


def test_depth_scores_are_those_of_the_published_code(published):
    expected, arrays = published
    depth = align_depth(arrays["pred_depth"], arrays["gt_depth"], arrays["valid"])
    score = depth_metrics(depth, arrays["gt_depth"], arrays["valid"])
    for theirs, ours in PUBLISHED_NAMES.items():
        want = expected["least_square"]["metrics"][theirs]
        assert getattr(score, ours) == pytest.approx(want, rel=1e-4), theirs


def test_disparity_scores_are_those_of_the_published_code(published):
    expected, arrays = published
    depth = align_disparity(arrays["pred_disparity"], arrays["gt_depth"], arrays["valid"])
    score = depth_metrics(depth, arrays["gt_depth"], arrays["valid"])
    for theirs, ours in PUBLISHED_NAMES.items():
        want = expected["least_square_disparity"]["metrics"][theirs]
        assert getattr(score, ours) == pytest.approx(want, rel=1e-4), theirs


def test_normal_scores_are_those_of_the_published_code(published):
    expected, arrays = published
    normals, truth = (arrays[name][0].transpose(1, 2, 0) for name in ("normal_pred", "normal_gt"))
    score = normal_metrics(normals, truth, arrays["normal_mask"][0, 0])
    names = ("mean", "median", "rmse", "below_5", "below_7_5", "below_11_25", "below_22_5", "below_30")
    published_names = ("mean", "median", "rmse", "a1", "a2", "a3", "a4", "a5")
    for ours, theirs in zip(names, published_names, strict=True):
        assert getattr(score, ours) == pytest.approx(expected["normal"][theirs], rel=1e-4), theirs


def test_normals_turned_by_a_known_angle_have_that_error():
    truth = np.broadcast_to([0.0, 0.0, -1.0], (4, 6, 3))
    turned = np.broadcast_to([0.0, np.sin(np.radians(20)), -np.cos(np.radians(20))], (4, 6, 3))
    score = normal_metrics(3 * turned, truth)
    assert (score.mean, score.median, score.rmse) == pytest.approx((20, 20, 20))
    assert (score.below_11_25, score.below_22_5) == (0, 100)


def test_calibration_of_gaussian_errors_is_gaussian():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.1, 2, (200, 300))
    error = sigma * rng.normal(size=sigma.shape)
    score = calibration_metrics(error, sigma)
    assert score.within_1_sigma == pytest.approx(0.683, abs=0.01)
    assert score.within_2_sigma == pytest.approx(0.954, abs=0.01)
    assert score.rms_z == pytest.approx(1, abs=0.01)
    assert calibration_metrics(error, sigma / 2).rms_z == pytest.approx(2 * score.rms_z)


def test_nothing_to_compare_is_an_input_error(truth):
    with pytest.raises(InputError, match="none of 768 pixels"):
        depth_metrics(truth, np.zeros_like(truth))
    with pytest.raises(InputError, match="at least 2 with different values"):
        align_depth(np.ones_like(truth), truth, np.ones(truth.shape, bool))
