"""Normals of measured depth: of planes, beside creases and steps, and together with predicted ones."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from recon.geometry import rays
from recon.photometric import fit_normals, merge_normals
from recon.photometric import normals as photometric_normals
from recon.scene import Camera, DepthMap

WIDTH, HEIGHT = 64, 48
CAMERA = Camera(np.array([[200.0, 0, 30], [0, 220, 26], [0, 0, 1]]), WIDTH, HEIGHT)
LEFT, RIGHT = (np.array(n) / np.linalg.norm(n) for n in ([0.6, 0.1, -0.8], [-0.5, 0.2, -0.9]))


def plane(normal: np.ndarray, distance: float = 2.0) -> np.ndarray:
    """Depth of the plane that meets the optical axis at a distance."""
    return distance * normal[2] / (rays(CAMERA.K, WIDTH, HEIGHT) @ normal)


def noisy(depth: np.ndarray, normals: np.ndarray, relative: float = 1e-3) -> DepthMap:
    """Depth with noise, and normals 11 degrees off, as planes that match have."""
    rng = np.random.default_rng(0)
    found = depth * (1 + relative * rng.standard_normal(depth.shape))
    off = normals + [0, 0.2, 0] * np.ones((*depth.shape, 1))
    off /= np.linalg.norm(off, axis=-1, keepdims=True)
    sigma = (relative * depth).astype(np.float32)
    return DepthMap(CAMERA, found.astype(np.float32), off.astype(np.float32), sigma)


def degrees_off(normals: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((normals * true).sum(axis=-1), -1, 1)))


def test_a_plane_has_one_normal_and_noise_its_sigma() -> None:
    normals, angle = fit_normals(noisy(plane(LEFT), LEFT))
    off = degrees_off(normals, LEFT)
    assert off.max() < 5
    assert (off < 3 * np.degrees(angle)).mean() > 0.97
    assert np.degrees(np.median(angle)) < 1.5


def wide(relief: np.ndarray, sigma: float) -> tuple[DepthMap, np.ndarray]:
    """A wide picture of a plane with relative relief, and its normal."""
    camera = Camera(np.array([[200.0, 0, 80], [0, 220, 60], [0, 0, 1]]), 160, 120)
    depth = 2.0 * LEFT[2] / (rays(camera.K, 160, 120) @ LEFT) * (1 + relief)
    normals = np.broadcast_to(LEFT, (120, 160, 3)).astype(np.float32)
    return DepthMap(camera, depth.astype(np.float32), normals, (sigma * depth).astype(np.float32)), LEFT


def test_a_blank_wall_is_fitted_in_larger_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((120, 160)), 4)
    measured, true = wide(0.01 * noise / noise.std(), 0.01)
    off = np.median(degrees_off(fit_normals(measured)[0], true))
    monkeypatch.setattr(photometric_normals, "SCALES", (1,))
    assert off < 0.3 * np.median(degrees_off(fit_normals(measured)[0], true))


def test_relief_that_sigma_does_not_explain_is_no_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    relief = np.broadcast_to(0.01 * np.sin(np.arange(160) / 4.0), (120, 160))
    measured, _ = wide(relief, 0.002)
    found = fit_normals(measured)[0]
    monkeypatch.setattr(photometric_normals, "SCALES", (1,))
    np.testing.assert_array_equal(found, fit_normals(measured)[0])


def test_more_noise_gives_more_sigma() -> None:
    angles = [
        np.median(fit_normals(noisy(plane(LEFT), LEFT, relative))[1]) for relative in (5e-4, 1e-3, 2e-3)
    ]
    assert np.allclose(np.divide(angles[1:], angles[:-1]), 2, rtol=0.1)


@pytest.mark.parametrize("step", [1.0, 1.1])
def test_each_side_of_a_crease_or_a_step_keeps_its_normal(step: float) -> None:
    is_left = np.arange(WIDTH)[None] < 30  # both meet the axis at column 30
    depth = np.where(is_left, plane(LEFT), plane(RIGHT, 2.0 * step))
    true = np.where(is_left[..., None], LEFT, RIGHT) * np.ones((HEIGHT, 1, 1))
    off = degrees_off(fit_normals(noisy(depth, true, 3e-4))[0], true)
    assert np.median(off) < 0.5
    assert off[:, 20:27].max() < 2
    assert off[:, 34:40].max() < 2


def test_nothing_measured_has_no_normal() -> None:
    measured = noisy(plane(LEFT), LEFT)
    known = np.zeros((HEIGHT, WIDTH), bool)
    known[:, :20] = True
    known[5, 40:] = True  # a line has no plane
    measured = replace(measured, depth=np.where(known, measured.depth, 0).astype(np.float32))
    normals, angle = fit_normals(measured)
    assert normals[:, 2:18].any(axis=-1).all()
    assert not normals[:, 20:].any()
    assert not angle[:, 20:].any()


def merged(predicted: np.ndarray, **options: bool) -> tuple[np.ndarray, np.ndarray]:
    """Normals where the left half of one plane was measured, and their deviation in degrees."""
    measured = noisy(plane(LEFT), LEFT)
    measured.depth[:, WIDTH // 2 :] = 0
    given = replace(measured, depth=plane(LEFT).astype(np.float32), normals=predicted.astype(np.float32))
    found, deviation = merge_normals(given, measured, **options)
    assert found.depth is given.depth
    return found.normals, np.degrees(deviation)


def tilted(degrees: float) -> np.ndarray:
    """The plane's normal, turned another way at each pixel."""
    rng = np.random.default_rng(1)
    turn = np.tan(np.radians(degrees)) * rng.standard_normal((HEIGHT, WIDTH, 3)) / np.sqrt(2)
    normals = LEFT + turn - (turn @ LEFT)[..., None] * LEFT
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def root_mean_square(degrees: np.ndarray) -> float:
    """Of angles, for either direction."""
    return float(np.sqrt(np.square(degrees).mean() / 2))


def test_the_mean_is_better_than_either_and_says_how_good_it_is() -> None:
    predicted = tilted(0.6)
    normals, deviation = merged(predicted)
    own = fit_normals(noisy(plane(LEFT), LEFT))[0]
    inner = np.s_[6:-6, 6:26]
    off, off_predicted, off_own = (degrees_off(n, LEFT)[inner] for n in (normals, predicted, own))
    assert root_mean_square(off) < 0.9 * min(root_mean_square(off_predicted), root_mean_square(off_own))
    assert 0.7 < np.median(deviation[inner]) / root_mean_square(off) < 1.5


def test_predicted_normals_near_the_measured_ones_stay_where_nothing_was_measured() -> None:
    predicted = tilted(4).astype(np.float32)
    normals, deviation = merged(predicted)
    np.testing.assert_allclose(normals[:, 40:], predicted[:, 40:], atol=1e-6)
    assert 0.8 < np.median(deviation[:, 40:]) / (4 / np.sqrt(2)) < 1.2


@pytest.mark.parametrize(("degrees", "use_predicted"), [(12, True), (1, False)])
def test_else_normals_are_those_of_what_was_measured(degrees: float, use_predicted: bool) -> None:
    normals, deviation = merged(tilted(degrees), use_predicted=use_predicted)
    assert degrees_off(normals, LEFT)[4:-4, 4:24].max() < 5
    assert not normals[:, 40:].any()
    assert np.isinf(deviation[:, 40:]).all()


def test_predicted_normals_are_judged_where_they_are() -> None:
    camera = Camera(np.array([[200.0, 0, 100], [0, 220, 60], [0, 0, 1]]), 200, 120)
    depth = 2.0 * LEFT[2] / (rays(camera.K, 200, 120) @ LEFT)
    noise = 1 + 1e-3 * np.random.default_rng(0).standard_normal(depth.shape)
    normals = np.broadcast_to(LEFT, (120, 200, 3)).astype(np.float32)
    sigma = (1e-3 * depth).astype(np.float32)
    measured = DepthMap(camera, (depth * noise).astype(np.float32), normals, sigma)
    is_wrong = np.arange(200) >= 150  # a quarter of the picture: a thing that the network did not see
    predicted = np.where(is_wrong[:, None], RIGHT, LEFT) * np.ones((120, 1, 1))
    found, _ = merge_normals(replace(measured, normals=predicted.astype(np.float32)), measured)
    off, off_own = degrees_off(found.normals, LEFT), degrees_off(fit_normals(measured)[0], LEFT)
    assert root_mean_square(off[:, 170:]) < 1.05 * root_mean_square(off_own[:, 170:])
    assert root_mean_square(off[:, :130]) < 0.8 * root_mean_square(off_own[:, :130])


def test_threads_change_nothing() -> None:
    first, second = (fit_normals(noisy(plane(LEFT), LEFT), threads=threads) for threads in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
