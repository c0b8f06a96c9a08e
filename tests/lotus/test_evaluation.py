"""The authors' protocol: equal to their numbers, and to numbers that follow from how a map was made."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lotus
from lotus.checkpoints import load
from lotus.datasets import BENCHMARKS, DepthBenchmark, DepthSample, NormalSample
from lotus.evaluation import (
    alignment_grid,
    depth_summary,
    drawer,
    normal_summary,
    pack,
    padding,
    score_depth,
    score_normals,
    unpack,
)
from recon.errors import InputError

NYU = BENCHMARKS["nyuv2"]
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


@pytest.fixture(scope="module")
def published(golden: Path) -> tuple[dict, dict]:
    """The authors' numbers, and the maps that they are of."""
    expected = json.loads((golden / "lotus/metrics/expected.json").read_text())
    with np.load(golden / "lotus/metrics/inputs.npz") as file:
        return expected, dict(file)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.float32)[..., None], 3, axis=-1)


def depth_sample(depth: np.ndarray, mask: np.ndarray | None = None) -> DepthSample:
    mask = depth > 0 if mask is None else mask
    return DepthSample("a.png", np.zeros((*depth.shape, 3), np.uint8), depth.astype(np.float32), mask)


def normal_sample(normals: np.ndarray, mask: np.ndarray | None = None) -> NormalSample:
    mask = np.ones(normals.shape[:2], bool) if mask is None else mask
    return NormalSample("a.png", np.zeros(normals.shape, np.uint8), normals.astype(np.float32), mask)


@pytest.mark.parametrize(
    ("key", "values", "space"),
    [("least_square", "pred_depth", "depth"), ("least_square_disparity", "pred_disparity", "disparity")],
)
def test_depth_metrics_equal_the_authors(published: tuple, key: str, values: str, space: str) -> None:
    expected, maps = published
    sample = depth_sample(maps["gt_depth"], maps["valid"])
    row = score_depth(lambda _: grey(maps[values]), sample, NYU, space=space)
    summary = depth_summary([row])
    for published_name, name in PUBLISHED_NAMES.items():
        assert summary[name] == pytest.approx(expected[key]["metrics"][published_name], rel=2e-5), name


def test_normal_metrics_equal_the_authors(published: tuple) -> None:
    expected, maps = published
    truth = -maps["normal_gt"][0].transpose(1, 2, 0)  # ours are the negative of theirs
    picture = (maps["normal_pred"][0].transpose(1, 2, 0) + 1) / 2

    def draw(pixels: np.ndarray) -> np.ndarray:
        top, bottom, left, right = padding(40, 56)
        assert pixels.shape == (64, 64, 3)
        return np.pad(picture, ((top, bottom), (left, right), (0, 0)))

    row = score_normals(draw, normal_sample(truth, maps["normal_mask"][0, 0]))
    summary = normal_summary([row])
    names = {"mean": "mean", "rmse": "rmse", "a1": "below_5", "a2": "below_7_5", "a3": "below_11_25"}
    for published_name, name in {**names, "a4": "below_22_5", "a5": "below_30"}.items():
        assert summary[name] == pytest.approx(expected["normal"][published_name], rel=1e-5), name
    assert summary["median"] == pytest.approx(expected["normal"]["median"], abs=0.01)  # one bin


def test_padding_equals_the_authors(published: tuple) -> None:
    for size, (left, right, top, bottom) in published[0]["normal_padding_lrtb_by_HxW"].items():
        height, width = map(int, size.split("x"))
        assert padding(height, width) == (top, bottom, left, right)


def test_padding_shows_the_network_the_authors_constants() -> None:
    seen = []

    def draw(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return np.zeros_like(pixels)

    score_normals(draw, normal_sample(np.full((32, 30, 3), (0, 0, -1.0))))
    np.testing.assert_allclose(
        seen[0][:, [0, 31]].reshape(-1, 3), [[-2.1179, -2.0357, -1.8044]] * 64, atol=1e-4
    )
    np.testing.assert_array_equal(seen[0][:, 1:31], -1)


def test_reduced_alignment_equals_the_authors(published: tuple) -> None:
    expected, maps = published
    reduced = replace(NYU, alignment_max_res=28)
    assert isinstance(reduced, DepthBenchmark)
    fit = expected["least_square_max_resolution_28"]
    aligned = fit["scale"] * maps["pred_depth"] + fit["shift"]
    truth, mask = maps["gt_depth"].astype(np.float64), maps["valid"]
    row = score_depth(
        lambda _: grey(maps["pred_depth"]), depth_sample(maps["gt_depth"], mask), reduced, space="depth"
    )
    assert row["abs_rel"] == pytest.approx(np.mean(np.abs(aligned - truth)[mask] / truth[mask]), rel=1e-5)
    assert row["abs_rel"] != pytest.approx(
        expected["least_square"]["metrics"]["abs_relative_difference"], rel=1e-4
    )


@pytest.mark.parametrize("size", [(40, 56), (403, 604), (97, 31), (20, 10)])
def test_the_alignment_grid_is_what_the_authors_call_of_torch_keeps(size: tuple[int, int]) -> None:
    grid = alignment_grid(size, 28)
    factor = min(28 / side for side in size)
    numbers = torch.arange(size[0] * size[1], dtype=torch.float32).reshape(1, *size)
    reduced = torch.nn.Upsample(scale_factor=min(factor, 1.0))(numbers)
    np.testing.assert_array_equal(np.flatnonzero(grid), reduced.numpy().ravel())


def test_wrong_by_a_known_share_where_two_depths_look_the_same() -> None:
    # depth 1 and 3 look the same, so 2 fits best: errors 1 / 1 and 1 / 3; the other half fits exactly
    depth = np.tile([1.0, 3.0, 5.0, 5.0], (8, 2))
    values = np.where(depth > 4, 0.9, 0.2)
    row = score_depth(lambda _: grey(values), depth_sample(depth), NYU, space="depth")
    assert row["abs_rel"] == pytest.approx((1 + 1 / 3 + 0 + 0) / 4)
    assert row["rmse"] == pytest.approx(np.sqrt(0.5))
    assert row["delta1"] == 0.5
    assert row["pixels"] == depth.size


def test_an_exact_disparity_has_no_error_only_in_disparity() -> None:
    depth = np.linspace(1, 8, 48).reshape(6, 8)
    values = 0.7 / depth + 0.05
    right = score_depth(lambda _: grey(values), depth_sample(depth), NYU, space="disparity")
    wrong = score_depth(lambda _: grey(values), depth_sample(depth), NYU, space="depth")
    assert right["abs_rel"] < 1e-5
    assert wrong["abs_rel"] > 0.1


def test_predictions_are_clipped_to_the_range_of_the_benchmark() -> None:
    depth = np.full((4, 10), 9.0)
    depth[:, 5:] = 1.0
    depth[0, 0] = 0  # unknown, and the network says it is much farther
    values = np.where(depth == 9, 0.9, 0.1)
    mask = depth > 0
    mask[0, 0] = True
    values[0, 0] = 5.0
    row = score_depth(lambda _: grey(values), depth_sample(depth, mask & (depth > 0)), NYU, space="depth")
    assert row["abs_rel"] < 1e-6
    near = replace(NYU, max_depth=8.0)
    clipped = score_depth(lambda _: grey(values), depth_sample(depth, depth > 0), near, space="depth")
    assert clipped["abs_rel"] == pytest.approx(19 / 39 / 9)  # 19 of 39 pixels: 8 instead of 9


def test_the_network_sees_the_published_size_and_whole_numbers() -> None:
    sizes = []

    def draw(pixels: np.ndarray) -> np.ndarray:
        sizes.append(pixels.shape[:2])
        numbers = (pixels + 1) * 127.5
        np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-4)
        return (pixels + 1) / 2

    ramp = np.tile(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], (30, 1, 3))  # 40 columns
    truth = 1 + ramp[..., 0] / 255 * 4
    sample = DepthSample("a.png", ramp, truth.astype(np.float32), np.ones((30, 40), bool))
    diode = BENCHMARKS["diode"]
    row = score_depth(draw, sample, diode, space="depth")
    assert sizes == [(480, 640)]
    assert row["abs_rel"] < 0.005  # 8-bit steps and the ends of the ramp


def test_angles_are_pooled_over_pixels_not_photos() -> None:
    wall = np.array([0, 0, -1.0])

    def tilted(degrees: float, height: int) -> NormalSample:
        angle = np.radians(degrees)
        return normal_sample(np.full((height, 32, 3), (np.sin(angle), 0, -np.cos(angle))))

    def draw(pixels: np.ndarray) -> np.ndarray:
        return np.broadcast_to((1 - wall) / 2, pixels.shape).astype(np.float32)

    rows = [score_normals(draw, tilted(10, 96)), score_normals(draw, tilted(30.5, 32))]
    assert [row["mean"] for row in rows] == pytest.approx([10, 30.5], abs=1e-4)
    summary = normal_summary(rows)
    assert summary["mean"] == pytest.approx((3 * 10 + 30.5) / 4, abs=1e-4)
    assert summary["rmse"] == pytest.approx(np.sqrt((3 * 100 + 30.5**2) / 4), abs=1e-3)
    assert summary["below_11_25"] == pytest.approx(75)
    assert summary["median"] == pytest.approx(10, abs=0.011)


def test_the_pooled_median_equals_that_of_all_angles() -> None:
    rng = np.random.default_rng(0)
    rows, angles = [], []
    for spread in (5, 20, 60):
        tilt = np.abs(rng.normal(0, spread, (64, 64))).clip(0, 179)
        radians = np.radians(tilt)
        truth = np.stack([np.sin(radians), 0 * radians, -np.cos(radians)], axis=-1)
        angles.append(tilt)
        rows.append(score_normals(lambda pixels: np.full_like(pixels, [0.5, 0.5, 1]), normal_sample(truth)))
    assert normal_summary(rows)["median"] == pytest.approx(np.median(angles), abs=0.01)


def test_histograms_survive_as_text() -> None:
    counts = np.random.default_rng(0).integers(0, 2**20, 500)
    np.testing.assert_array_equal(unpack(pack(counts)), counts)


@pytest.mark.parametrize("name", ["checkpoint_d", "checkpoint_g"])
def test_the_network_is_run_as_the_reference_does(lotus_golden: Path, photo: np.ndarray, name: str) -> None:
    model = lotus.load(lotus_golden / name, "cpu", "float32")
    image = photo[:101, :75]
    pixels = image.astype(np.float32) / 127.5 - 1
    expected = model.annotate(image, processing_res=0, seed=5)[0]
    np.testing.assert_allclose(drawer(model, 5, space="depth")(pixels), expected, atol=1e-6)


def test_joint_checkpoint_is_drawn_with_the_switch_of_what_is_measured() -> None:
    model = load("lotus-tiny", "cpu", "float32")
    photo = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    pixels = photo.astype(np.float32) / 127.5 - 1
    for space, switch in (("disparity", "annotation"), ("normal", "normals")):
        expected = model.annotate(photo, processing_res=0, switch=switch)[0]
        np.testing.assert_allclose(drawer(model, 0, space=space)(pixels), expected, atol=1e-6)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(InputError, match="alignment: 0 pixels"):
        score_depth(lambda _: grey(np.ones((4, 4))), depth_sample(np.zeros((4, 4))), NYU, space="depth")
    with pytest.raises(InputError, match="none of 1024 pixels can be compared"):
        score_normals(lambda pixels: pixels, normal_sample(np.ones((32, 32, 3)), np.zeros((32, 32), bool)))
