"""Tiles of unknown scale and shift give the whole's scale, their own detail, and no seam."""

from pathlib import Path

import numpy as np
import pytest

from lotus import LotusPredictor
from lotus.tiling import fitted, merge, tile_corners
from recon.io.images import resize_map
from recon.scene import Prediction

SIZE, TILE = (160, 96), (64, 40)


def surface(width: int, height: int) -> np.ndarray:
    """A ramp with ripples that are too fine for a quarter of the size."""
    v, u = np.mgrid[:height, :width] + 0.5
    return (0.2 + 0.5 * u / width + 0.1 * v / height + 0.02 * np.sin(u) * np.cos(v)).astype(np.float32)


def cut(values: np.ndarray, corner: tuple[int, int], scale: float, shift: float) -> Prediction:
    left, top = corner
    tile = scale * values[top : top + TILE[1], left : left + TILE[0]] + shift
    normals = np.broadcast_to(np.array([0, 0, -1], np.float32), (*tile.shape, 3)).copy()
    return Prediction(tile.astype(np.float32), "affine", normals, np.ones(tile.shape, np.float32))


@pytest.fixture
def merged() -> tuple[Prediction, np.ndarray]:
    truth = surface(*SIZE)
    rng = np.random.default_rng(0)
    corners = tile_corners(SIZE, TILE)
    tiles = [cut(truth, corner, rng.uniform(0.5, 2), rng.uniform(-1, 1)) for corner in corners]
    coarse = resize_map(truth, *TILE)
    normals = np.broadcast_to(np.array([0.6, 0, -0.8], np.float32), (*coarse.shape, 3)).copy()
    whole = Prediction(coarse, "affine", normals, np.ones(coarse.shape, np.float32))
    return merge(whole, tiles, corners, SIZE), truth


def test_tiles_cover_the_picture_and_overlap_by_a_quarter() -> None:
    corners = tile_corners(SIZE, TILE)
    lefts, tops = sorted({left for left, _ in corners}), sorted({top for _, top in corners})
    assert (lefts[0], lefts[-1], tops[0], tops[-1]) == (0, SIZE[0] - TILE[0], 0, SIZE[1] - TILE[1])
    assert max(np.diff(lefts)) <= 0.75 * TILE[0] + 1
    assert max(np.diff(tops)) <= 0.75 * TILE[1] + 1


def test_one_tile_covers_a_picture_of_its_size() -> None:
    assert tile_corners(TILE, TILE) == [(0, 0)]


def test_tiles_of_any_scale_and_shift_merge_to_the_truth(merged: tuple[Prediction, np.ndarray]) -> None:
    result, truth = merged
    coarse = resize_map(resize_map(truth, *TILE), *SIZE)
    error, error_of_whole = np.abs(result.values - truth), np.abs(coarse - truth)
    assert error.mean() < 0.2 * error_of_whole.mean()
    assert error.max() < 0.01


def test_there_is_no_seam(merged: tuple[Prediction, np.ndarray]) -> None:
    # A seam would be a step of the error between neighbours; ripples are 0.02 high.
    result, truth = merged
    error = result.values - truth
    assert max(np.abs(np.diff(error, axis=axis)).max() for axis in (0, 1)) < 0.003


def test_normals_and_confidence_follow_the_tiles(merged: tuple[Prediction, np.ndarray]) -> None:
    result, _ = merged
    np.testing.assert_allclose(np.linalg.norm(result.normals, axis=-1), 1, atol=1e-5)
    assert result.normals[..., 2].max() < -0.99
    np.testing.assert_allclose(result.confidence, 1, atol=1e-5)


def test_a_clipped_tile_gives_way_to_the_whole() -> None:
    truth = surface(*SIZE)
    corners = tile_corners(SIZE, TILE)
    tiles = [cut(truth, corner, 1, 0) for corner in corners]
    spoiled = tiles[0].values.copy()
    spoiled[:10, :10], tiles[0].confidence[:10, :10] = 5, 0.001
    tiles[0] = Prediction(spoiled, "affine", None, tiles[0].confidence)
    whole = Prediction(resize_map(truth, *TILE), "affine", None, np.ones(TILE[::-1], np.float32))
    result = merge(whole, tiles, corners, SIZE)
    assert np.abs(result.values - truth)[:10, :10].max() < 0.3


def test_a_constant_becomes_the_mean_of_its_target() -> None:
    target = np.array([[1.0, 3.0]])
    np.testing.assert_allclose(fitted(np.full((1, 2), 7.0), target, np.ones((1, 2))), [[2.0, 2.0]])


def test_detail_enlarges_the_maps_up_to_the_photo(checkpoints: Path, photo: np.ndarray) -> None:
    names = str(checkpoints / "depth-d"), str(checkpoints / "normal-g")
    shapes = {}
    for detail in (1, 2, 9):
        predictor = LotusPredictor(*names, processing_res=64, detail=detail, device="cpu", dtype="float32")
        (prediction,) = predictor([photo])
        shapes[detail] = prediction.values.shape
        np.testing.assert_array_less(0, prediction.confidence)
        np.testing.assert_allclose(np.linalg.norm(prediction.normals, axis=-1).max(), 1, atol=1e-5)
    assert shapes == {1: (48, 64), 2: (88, 128), 9: (112, 160)}
