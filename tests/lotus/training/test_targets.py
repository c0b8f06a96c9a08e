"""Depth and normals drawn as the reference draws them: values by hand from its definition."""

import numpy as np
import pytest

from lotus.training.targets import draw_depth, draw_normals, whole_cells
from recon.errors import InputError

DEPTH = np.array([[1, 2, 4], [5, 8, 10]], np.float32)


def test_instnorm_is_linear_between_the_extremes() -> None:
    expected = 2 * (DEPTH - 1) / 9 - 1
    np.testing.assert_allclose(draw_depth(DEPTH, "instnorm"), expected, atol=1e-5)


def test_disparity_is_linear_in_1_over_depth_with_near_at_1() -> None:
    expected = 2 * (1 / DEPTH - 0.1) / 0.9 - 1
    np.testing.assert_allclose(draw_depth(DEPTH, "disparity"), expected, atol=1e-4)


@pytest.mark.parametrize(("norm_type", "values"), [("truncnorm", 1.0), ("trunc_disparity", -1.0)])
def test_truncated_types_clip_at_the_2_and_98_percent_quantiles(norm_type: str, values: float) -> None:
    depth = np.linspace(1, 2, 101, dtype=np.float32)[:, None] ** values
    drawn = draw_depth(depth, norm_type)[:, 0]
    known = np.sort(depth[:, 0] ** values)  # either depth or disparity runs from 1 to 2 in steps of 0.01
    expected = np.clip(2 * (known - 1.02) / 0.96 - 1, -1, 1)
    np.testing.assert_allclose(np.sort(drawn), expected, atol=1e-4)
    assert (np.abs(drawn) >= 1 - 1e-4).sum() == 6


def test_perscene_norm_divides_by_the_scene_depth() -> None:
    np.testing.assert_allclose(draw_depth(DEPTH, "perscene_norm"), 2 * DEPTH / 65 - 1, atol=1e-5)
    drawn = draw_depth(DEPTH, "perscene_norm", scene_depth=8.0)
    np.testing.assert_allclose(drawn, np.minimum(2 * DEPTH / 8 - 1, 1), atol=1e-5)


@pytest.mark.parametrize(("norm_type", "far"), [("trunc_disparity", -1), ("truncnorm", 1)])
def test_sky_is_as_far_as_can_be_drawn_and_does_not_count(norm_type: str, far: float) -> None:
    with_sky = np.where(DEPTH == 4, 0, DEPTH)
    drawn = draw_depth(with_sky, norm_type)
    assert drawn[0, 2] == far
    without = draw_depth(with_sky[with_sky > 0][None], norm_type)
    np.testing.assert_allclose(drawn[with_sky > 0], without[0])


def test_a_wall_that_faces_the_camera_is_drawn_blue() -> None:
    wall = np.broadcast_to(np.float32([0, 0, -1]), (2, 2, 3))
    np.testing.assert_array_equal(draw_normals(wall), np.broadcast_to([0, 0, 1], (2, 2, 3)))


def test_a_cell_counts_only_if_all_of_its_pixels_do() -> None:
    valid = np.ones((16, 26), bool)  # two columns are beyond the last cell
    valid[3, 9] = valid[:, 24:] = False
    np.testing.assert_array_equal(whole_cells(valid), [[True, False, True], [True, True, True]])


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(InputError, match="without any depth"):
        draw_depth(np.zeros((2, 2), np.float32), "trunc_disparity")
    with pytest.raises(InputError, match="norm_type 'log', wanted one of instnorm"):
        draw_depth(DEPTH, "log")
