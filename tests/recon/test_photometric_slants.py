"""What matches at a flat angle, and what is texture: noise, shading."""

from dataclasses import replace

import numpy as np
import pytest

from recon import synthetic
from recon.geometry import look_at
from recon.photometric import Photo, flat_prior, refine, refinement
from recon.photometric.cost import PATCH, ROUGH, SPREAD, TAPS_U, TAPS_V, WEIGHTS, make_work, take_patch
from recon.photometric.pictures import MIN_NOISE, noise_of, smoothed
from recon.scene import Camera

SIZE = (192, 144)
NOISE = 1.5  # grey levels


def test_ground_at_a_flat_angle_needs_no_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of a floor from a low eye, side by side, and no more than a range of depth."""
    world = synthetic.plane(1)
    speckled = (replace(material, noise=0.3, blobs=0.0, size=0.1) for material in world.materials)
    world = replace(world, materials=tuple(speckled))
    camera, low = Camera.from_fov(*SIZE, 40.0), np.radians(12)
    eye = world.center + 2 * np.array([0.0, -np.cos(low), np.sin(low)])
    aim = world.center - np.array([0.0, 0.8, 0.0])
    side = np.array([0.5, 0.0, 0.0])
    cameras = [
        (camera, look_at(eye + x * side, aim + x * side / 2, world.down)) for x in (0.0, 1.0, -1.0, 2.0, -2.0)
    ]
    capture = synthetic.capture(world, cameras, seed=1)
    photos = [Photo(v.camera, v.cam_from_world, capture.images[v.name]) for v in capture.scene.views]
    truth = next(iter(capture.depth_maps.values())).depth

    def right() -> float:
        depth = refine(photos[0], flat_prior(camera, 1.0, 20.0), photos[1:]).depth_map.depth
        return float((np.abs(depth / np.maximum(truth, 1e-9) - 1) < 0.02)[truth > 0].mean())

    found = right()
    monkeypatch.setattr(refinement, "slants_of", lambda _: np.zeros((0, 2)))
    assert found > 0.8
    assert found > right() + 0.15


def test_noise_is_told_from_texture_and_shading() -> None:
    rng = np.random.default_rng(0)
    noise = NOISE * rng.standard_normal((240, 320)).astype(np.float32)
    expected = float(smoothed(noise).std())
    rows, columns = np.indices(noise.shape).astype(np.float32)
    coarse = 25 * smoothed(np.repeat(np.repeat(rng.standard_normal((30, 40)), 8, 0), 8, 1).astype(np.float32))
    pictures = {"blank": 0 * rows, "shaded": 0.4 * rows + 0.2 * columns, "textured": coarse}
    for name, picture in pictures.items():
        grey = 100 + picture + noise
        found = noise_of(grey, smoothed(grey)) / expected
        assert 0.65 < found < 1.1, name  # of blank blocks the blankest


def test_a_picture_without_noise_or_smaller_than_a_block_has_the_least() -> None:
    for shape in ((90, 90), (5, 90)):
        grey = np.full(shape, 100, np.float32)
        assert noise_of(grey, smoothed(grey)) == MIN_NOISE


def test_a_ramp_is_no_texture() -> None:
    rows, columns = np.indices((20, 20)).astype(np.float32)
    bumps = 3 * np.sin(rows) * np.cos(1.3 * columns)
    colors, work = np.full((20, 20, 3), 100, np.float32), make_work(1)
    for grey, texture in ((100 + 2 * rows - 3 * columns, 0.0), (100 + 2 * rows - 3 * columns + bumps, 1.0)):
        take_patch(grey.astype(np.float32), colors, 10, 10, work)
        values = grey[10 + TAPS_V.astype(int), 10 + TAPS_U.astype(int)].astype(np.float64)
        weights = np.sqrt(work[WEIGHTS, : len(TAPS_U)].astype(np.float64))
        plane = np.stack([np.ones_like(TAPS_U), TAPS_U, TAPS_V], axis=1) * weights[:, None]
        rest = weights * values - plane @ np.linalg.lstsq(plane, weights * values, rcond=None)[0]
        assert work[PATCH, ROUGH] == pytest.approx(np.sqrt(np.square(rest).sum()), abs=0.02)
        assert (work[PATCH, ROUGH] > 1) == texture
        assert work[PATCH, SPREAD] > 5
