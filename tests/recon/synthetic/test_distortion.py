import numpy as np
import pytest

from recon import synthetic
from recon.errors import InputError
from recon.geometry import depth_edges
from recon.raycasting import RayCaster
from recon.scene import DepthMap
from recon.synthetic import EXACT, FineErrors, distort


@pytest.fixture(scope="module")
def depth_map():
    world = synthetic.room()
    return synthetic.exact_depth(RayCaster(world.mesh), *synthetic.room_cameras(world, 160, 120, 8)[2])


def angles_deg(first, second):
    return np.degrees(np.arccos(np.clip(np.einsum("hwc,hwc->hw", first, second), -1, 1)))


def test_without_errors_metric_is_the_truth(depth_map):
    prediction = distort(depth_map, seed=0, kind="metric", bend=0.0, edge_blur_px=0.0, fine=EXACT)
    np.testing.assert_allclose(prediction.values, depth_map.depth, rtol=1e-6)
    np.testing.assert_allclose(prediction.normals, depth_map.normals, atol=1e-6)


@pytest.mark.parametrize(("kind", "power"), [("affine", 1), ("affine_disparity", -1), ("scale", 1)])
def test_without_errors_the_rest_is_affine_in_its_space(depth_map, kind, power):
    values = distort(depth_map, seed=0, kind=kind, bend=0.0, edge_blur_px=0.0, fine=EXACT).values
    correlation = np.corrcoef(values.ravel(), depth_map.depth.ravel().astype(np.float64) ** power)[0, 1]
    assert correlation == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("bend", [0.02, 0.1])
def test_bend_has_the_rms_asked_for_and_is_smooth(depth_map, bend):
    values = distort(depth_map, seed=4, kind="metric", bend=bend, edge_blur_px=0.0, fine=EXACT).values
    log_error = np.log(values / depth_map.depth)
    assert log_error.std() == pytest.approx(bend, rel=1e-3)
    assert np.abs(np.diff(log_error, axis=1)).max() < 0.2 * bend


def test_noise_has_the_rms_asked_for(depth_map):
    fine = FineErrors(noise=0.01, normal_tilt_deg=0.0, normal_noise_deg=0.0)
    values = distort(depth_map, seed=4, kind="metric", bend=0.0, edge_blur_px=0.0, fine=fine).values
    assert np.log(values / depth_map.depth).std() == pytest.approx(0.01, rel=1e-3)


def test_normals_are_tilted_by_the_angle_asked_for(depth_map):
    fine = FineErrors(noise=0.0, normal_tilt_deg=4.0, normal_noise_deg=3.0)
    normals = distort(depth_map, seed=4, bend=0.0, edge_blur_px=0.0, fine=fine).normals
    rms = np.sqrt(np.mean(angles_deg(normals, depth_map.normals) ** 2))
    assert rms == pytest.approx(5.0, rel=0.1)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)


def test_edges_are_mixed_and_the_rest_is_left_alone(depth_map):
    values = distort(depth_map, seed=4, kind="metric", bend=0.0, edge_blur_px=1.0, fine=EXACT).values
    changed = np.abs(values / depth_map.depth - 1) > 1e-4
    grown = synthetic.distortion.near_edges(depth_edges(depth_map.depth), 1.0) > 0
    assert changed.any()
    assert not (changed & ~grown).any()


def test_disparity_saturates_at_the_percentiles_as_lotus_does(depth_map):
    values = distort(depth_map, seed=4).values
    assert values.min() == 0
    assert values.max() == 1
    assert (values == 0).mean() == pytest.approx(0.02, abs=0.005)
    assert (values == 1).mean() == pytest.approx(0.02, abs=0.005)


def test_seeds_give_different_bends_and_equal_seeds_equal_bytes(depth_map):
    first, again, other = (distort(depth_map, seed=seed) for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(first.values, again.values)
    assert np.corrcoef(first.values.ravel(), other.values.ravel())[0, 1] < 0.999


def test_sky_is_infinitely_far_in_disparity_and_unknown_in_depth():
    world = synthetic.tabletop()
    camera = synthetic.tabletop_cameras(world, 64, 48, 4)[1]
    depth_map = synthetic.exact_depth(RayCaster(world.mesh), *camera)
    sky = depth_map.depth == 0
    assert sky.any()
    np.testing.assert_array_equal(distort(depth_map, seed=0, edge_blur_px=0.0).values[sky], 0)
    assert np.isnan(distort(depth_map, seed=0, kind="scale").values[sky]).all()


def test_written_predictions_hold_what_the_format_asks_for(depth_map, tmp_path):
    prediction = distort(depth_map, seed=0)
    synthetic.write_predictions({"view_000.png": prediction}, tmp_path)
    with np.load(tmp_path / "view_000.npz", allow_pickle=False) as file:
        assert set(file) == {"values", "kind", "normals"}
        assert str(file["kind"]) == "affine_disparity"
        np.testing.assert_array_equal(file["values"], prediction.values)
        np.testing.assert_array_equal(file["normals"], prediction.normals)


def test_an_unknown_kind_is_an_input_error(depth_map):
    with pytest.raises(InputError, match="kind 'disparity'"):
        distort(depth_map, seed=0, kind="disparity")


def test_an_empty_depth_map_is_an_input_error(depth_map):
    nothing = np.zeros_like(depth_map.depth)
    with pytest.raises(InputError, match="empty"):
        distort(DepthMap(depth_map.camera, nothing, np.zeros_like(depth_map.normals), nothing), seed=0)
