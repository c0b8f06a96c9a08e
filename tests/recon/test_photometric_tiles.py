"""Large photos in tiles: the same depth as at once, without seams."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from recon import synthetic
from recon.photometric import Measurement, Photo, refine, tiles
from recon.scene import DepthMap

SIZE = (320, 240)


@cache
def seen() -> tuple[Photo, DepthMap, DepthMap, list[Photo]]:
    """A view of a room, its true depth, a prior 1 % off, and other photos."""
    world = synthetic.room(2)
    cameras = synthetic.room_cameras(world, *SIZE, count=12)[:4]
    capture = synthetic.capture(world, cameras, seed=2, supersample=1)
    photos = [Photo(v.camera, v.cam_from_world, capture.images[v.name]) for v in capture.scene.views]
    exact = next(iter(capture.depth_maps.values()))
    depth = (1.01 * exact.depth).astype(np.float32)
    return photos[0], exact, replace(exact, depth=depth, sigma=np.float32(0.01) * depth), photos[1:]


@cache
def at_once() -> Measurement:
    photo, _, prior, others = seen()
    return refine(photo, prior, others)


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Measurement:
    monkeypatch.setattr(tiles, "WHOLE", 100)
    monkeypatch.setattr(tiles, "TILE", 112)
    photo, _, prior, others = seen()
    return refine(photo, prior, others)


def test_depth_is_the_same_in_tiles(tiled: Measurement) -> None:
    both = (tiled.depth_map.depth > 0) & (at_once().depth_map.depth > 0)
    either = (tiled.depth_map.depth > 0) | (at_once().depth_map.depth > 0)
    assert both.sum() > 0.95 * either.sum()
    off = np.abs(tiled.depth_map.depth[both] / at_once().depth_map.depth[both] - 1)
    assert (off < 1e-4).mean() > 0.95


def test_borders_of_tiles_are_measured_like_the_rest(tiled: Measurement) -> None:
    _, exact, _, _ = seen()
    near = np.zeros(exact.depth.shape, bool)
    for axis, size in enumerate((SIZE[1], SIZE[0])):
        for border in tiles._borders(size)[1:-1]:
            near[(slice(None),) * axis + (slice(border - 6, border + 6),)] = True
    assert 0.1 < near.mean() < 0.5

    def gained(where: np.ndarray) -> tuple[float, float]:
        one, other = (m.depth_map.depth[where] for m in (tiled, at_once()))
        wrong = [(np.abs(d[d > 0] / exact.depth[where][d > 0] - 1) > 0.005).mean() for d in (one, other)]
        return float((one > 0).mean() / (other > 0).mean()), float(wrong[0] - wrong[1])

    assert gained(near)[0] == pytest.approx(1, abs=0.02)
    assert gained(near)[1] < 0.01


@pytest.mark.parametrize("size", [1, 1280, 1281, 1921, 4000, 12345])
def test_tiles_fill_a_picture_and_are_small(size: int) -> None:
    borders = np.array(tiles._borders(size))
    assert (borders[0], borders[-1]) == (0, size)
    assert (np.diff(borders) > 0).all()
    assert np.diff(borders).max() <= tiles.TILE + tiles.ALIGNED
    assert (borders[:-1] % tiles.ALIGNED == 0).all()


def test_photos_that_see_nothing_of_a_tile_are_left_out() -> None:
    photo, _, prior, others = seen()
    away = replace(others[0], cam_from_world=np.diag([-1.0, 1, -1, 1]) @ photo.cam_from_world)
    assert len(tiles._seen_parts(photo, prior, [*others, away])) == len(others)


def test_what_a_tile_needs_of_other_photos_is_a_part_of_them() -> None:
    photo, _, prior, others = seen()
    corner = (0, 0, 64, 64)
    parts = tiles._seen_parts(tiles._cut(photo, corner), tiles._cut_map(prior, corner), others)
    assert parts
    assert all(one.image.size < 0.8 * photo.image.size for one in parts)
