"""Shift and field of view of one prediction are found from its normals."""

import numpy as np
import pytest

from recon import Camera, DepthMap, Prediction, ViewError, synthetic
from recon.calibration import calibrate
from recon.raycasting import RayCaster


@pytest.fixture(scope="module")
def truth() -> DepthMap:
    world = synthetic.box_room()
    return synthetic.exact_depth(RayCaster(world.mesh), *synthetic.room_cameras(world, 96, 72, 6)[0])


def shape_error(found: DepthMap, truth: DepthMap) -> float:
    """Spread of the ratio of depths: 0 where they differ by a scale only."""
    ratio = found.depth / truth.depth
    return float(ratio.std() / ratio.mean())


@pytest.mark.parametrize("kind", ["affine", "affine_disparity"])
def test_shift_is_found_from_the_normals(truth: DepthMap, kind: str) -> None:
    values = truth.depth if kind == "affine" else 1 / truth.depth
    found = calibrate(Prediction(0.2 * values + np.float32(7), kind, truth.normals), truth.camera)
    assert shape_error(found.depth_map, truth) < 0.005
    assert found.normal_error_deg is not None
    assert found.normal_error_deg < 3


def test_field_of_view_is_found_with_the_shift(truth: DepthMap) -> None:
    true_fov = np.degrees(2 * np.arctan(truth.camera.width / (2 * truth.camera.K[0, 0])))
    guess = Camera.from_fov(truth.camera.width, truth.camera.height, 40.0)
    prediction = Prediction(3 / truth.depth + np.float32(1), "affine_disparity", truth.normals)
    found = calibrate(prediction, guess, fov_known=False)
    assert abs(found.fov_deg - true_fov) < 1.0
    assert shape_error(found.depth_map, truth) < 0.01


def test_normals_that_are_wrong_do_not_tell_the_field_of_view(truth: DepthMap) -> None:
    rng = np.random.default_rng(0)
    true_fov = np.degrees(2 * np.arctan(truth.camera.width / (2 * truth.camera.K[0, 0])))
    blocks = rng.normal(0, 0.3, (6, 8, 3)).repeat(12, 0).repeat(12, 1)  # as a small network errs
    bent = truth.normals + blocks
    bent /= np.linalg.norm(bent, axis=-1, keepdims=True)
    values = 3 / truth.depth + rng.normal(0, 0.05, (6, 8)).repeat(12, 0).repeat(12, 1)
    prediction = Prediction(values.astype(np.float32), "affine_disparity", bent.astype(np.float32))
    found = calibrate(prediction, truth.camera, fov_known=False)
    assert abs(found.fov_deg - true_fov) < 12.0  # alone they say 100 degrees, where the search ends, of 75


def test_metric_prediction_is_taken_as_it_is(truth: DepthMap) -> None:
    found = calibrate(Prediction(truth.depth, "metric", truth.normals), truth.camera)
    assert np.array_equal(found.depth_map.depth, truth.depth)
    assert found.far_over_near is None


def test_without_normals_the_given_ratio_is_used(truth: DepthMap) -> None:
    found = calibrate(Prediction(1 / truth.depth, "affine_disparity"), truth.camera, far_over_near=4.0)
    low, high = np.percentile(found.depth_map.depth, [1, 99])
    assert np.isclose(high / low, 4, rtol=0.02)


def test_pixels_without_prediction_have_no_depth(truth: DepthMap) -> None:
    values = 1 / truth.depth
    values[:5] = np.nan
    found = calibrate(Prediction(values, "affine_disparity", truth.normals), truth.camera)
    assert (found.depth_map.depth[:5] == 0).all()
    assert (found.depth_map.depth[5:] > 0).all()


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_flat_and_empty_predictions_are_refused(truth: DepthMap, value: float) -> None:
    flat = np.full_like(truth.depth, value)
    with pytest.raises(ViewError, match=r"flat|no usable value"):
        calibrate(Prediction(flat, "affine_disparity", truth.normals), truth.camera)
