"""Depth refined by normals: exact on known surfaces, sharp at jumps, filled where clipped, never harmed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from recon.errors import InputError
from recon.geometry import rays
from recon.refinement import integrate, refine
from recon.refinement.balance import balance
from recon.refinement.slopes import slopes_from_normals
from recon.scene import Camera, DepthMap, SparseDepth

CAMERA = Camera(np.array([[90.0, 0, 47.0], [0, 75.0, 37.5], [0, 0, 1]]), 96, 72)  # pixels are not square
RAYS = rays(CAMERA.K, 96, 72)
NOISE = 0.004


def plane(normal: tuple[float, float, float], distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth (h, w) and normals (h, w, 3) of the plane n . X = -distance."""
    n = np.array(normal) / np.linalg.norm(normal)
    return -distance / (RAYS @ n), np.broadcast_to(n, RAYS.shape).copy()


def sphere(
    directions: np.ndarray = RAYS, center: tuple[float, float, float] = (0, 0, 3), radius: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and normals of a sphere, 0 beside it."""
    squared, along = (directions**2).sum(-1), directions @ center
    root = along**2 - squared * (np.dot(center, center) - radius**2)
    depth = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / squared, 0)
    normals = (directions * depth[..., None] - center) / radius
    return depth, np.where(depth[..., None] > 0, normals, 0)


def depth_map(depth: np.ndarray, normals: np.ndarray, sigma: float | np.ndarray = NOISE) -> DepthMap:
    return DepthMap(
        CAMERA,
        depth.astype(np.float32),
        normals.astype(np.float32),
        (sigma * depth).astype(np.float32),
    )


def noisy(depth: np.ndarray, seed: int = 0) -> np.ndarray:
    return depth * np.exp(NOISE * np.random.default_rng(seed).standard_normal(depth.shape))


def error(found: DepthMap, depth: np.ndarray) -> np.ndarray:
    return np.abs(found.depth[depth > 0] / depth[depth > 0] - 1)


def anchors_of(depth: np.ndarray, count: int = 80, seed: int = 0) -> SparseDepth:
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(depth > 0)
    chosen = rng.permutation(len(rows))[:count]
    z = depth[rows[chosen], columns[chosen]]
    return SparseDepth(np.stack([columns[chosen] + 0.5, rows[chosen] + 0.5], 1), z, 1e-3 * z)


def two_walls() -> tuple[np.ndarray, np.ndarray]:
    """A wall at 2 before one at 4, the edge at column 40."""
    left, normals = plane((0.2, 0, -1), 2.0)
    right, others = plane((-0.1, 0.1, -1), 4.0)
    near = np.arange(96) < 40
    return np.where(near, left, right), np.where(near[:, None], normals, others)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.4, -0.3, -1), (0.0, -1.0, -0.55)])
def test_slopes_of_planes_are_exact(normal: tuple[float, float, float]) -> None:
    depth, normals = plane(normal, 2.0)
    slopes = slopes_from_normals(CAMERA, np.where(depth[..., None] > 0, normals, 0).astype(np.float32))
    known = slopes.along_v.isfinite().numpy()
    wanted = np.diff(np.log(np.where(depth > 0, depth, 1)), axis=0)
    assert known.mean() > 0.4
    assert np.abs(slopes.along_v.numpy() - wanted)[known].max() < 1e-5


def test_slopes_of_a_sphere_are_exact_to_third_order() -> None:
    errors = []
    for scale in (1, 2):
        camera = CAMERA.resized(96 * scale, 72 * scale)
        depth, normals = sphere(directions=rays(camera.K, camera.width, camera.height))
        slopes = slopes_from_normals(camera, normals.astype(np.float32)).along_u.numpy()
        inner = (np.linalg.norm(normals[..., :2], axis=-1) < 0.6) & (depth > 0)
        both = inner[:, 1:] & inner[:, :-1]
        wanted = np.diff(np.log(np.where(depth > 0, depth, 1)), axis=1)
        errors.append(np.abs(slopes - wanted)[both].max())
    assert errors[0] < 1e-4  # one tangent plane alone: 1e-3
    assert errors[1] < errors[0] / 6


@pytest.mark.parametrize("surface", [plane((0.3, -0.2, -1), 2.0), sphere()])
def test_noise_is_smoothed_away_along_the_surface(surface: tuple[np.ndarray, np.ndarray]) -> None:
    depth, normals = surface
    result = refine(depth_map(noisy(depth), normals))
    assert result.is_used
    assert np.median(error(result.depth_map, depth)) < 0.25 * np.median(
        error(depth_map(noisy(depth), normals), depth)
    )


def test_energy_never_rises() -> None:
    depth, normals = two_walls()
    energies = refine(depth_map(noisy(depth), normals)).energies
    assert len(energies) > 1
    assert all(b <= a + 1e-6 * abs(a) for a, b in itertools.pairwise(energies))  # float32


def test_scaling_the_scene_scales_the_result() -> None:
    depth, normals = two_walls()
    one = refine(depth_map(noisy(depth), normals)).depth_map
    ten = refine(depth_map(10 * noisy(depth), normals)).depth_map
    assert np.allclose(ten.depth, 10 * one.depth, rtol=2e-4)


def test_blurred_edge_becomes_sharp() -> None:
    from scipy.ndimage import gaussian_filter1d

    depth, normals = two_walls()
    blurred = 1 / gaussian_filter1d(1 / depth, 1.5, axis=1, mode="nearest")
    result = refine(depth_map(blurred, normals)).depth_map
    beside = slice(35, 45)
    before = np.abs(blurred / depth - 1)[:, beside]
    after = np.abs(result.depth / depth - 1)[:, beside]
    assert (before > 0.02).mean() > 0.4
    assert (after > 0.02).mean() < 0.1


def test_thin_pole_stays_before_its_wall() -> None:
    depth, normals = plane((0, 0, -1), 4.0)
    depth[:, 50:52] = 2.0
    result = refine(depth_map(noisy(depth), normals)).depth_map
    assert np.abs(result.depth[:, 50:52] / 2.0 - 1).max() < 0.02
    assert np.abs(result.depth[:, [48, 49, 52, 53]] / 4.0 - 1).max() < 0.02


def test_clipped_depth_is_filled_along_its_normals() -> None:
    depth, normals = plane((0.0, -1.0, -0.9), 2.0)
    clipped = np.maximum(depth, np.quantile(depth, 0.2))
    is_clipped = clipped > depth
    sigma = np.where(is_clipped, 0.3, NOISE)
    result = refine(depth_map(noisy(clipped), normals, sigma)).depth_map
    before = np.abs(clipped / depth - 1)[is_clipped]
    after = np.abs(result.depth / depth - 1)[is_clipped]
    assert before.mean() > 0.05
    assert after.mean() < 0.01
    assert np.median((result.sigma / result.depth)[is_clipped]) < 0.1


def test_wrong_normals_change_nothing() -> None:
    depth, normals = two_walls()
    turned = normals * [-1, -1, 1]  # another convention
    start = depth_map(depth, turned)
    result = refine(start, anchors_of(depth))
    assert np.median(error(result.depth_map, depth)) < 1e-3


def test_depth_that_anchors_prefer_stays() -> None:
    depth, _ = plane((0.3, 0, -1), 2.0)
    start = depth_map(depth, plane((0, 0, -1), 2.0)[1], np.where(np.arange(96) < 30, 0.002, 0.5))
    result = refine(start, anchors_of(depth))
    assert not result.is_used
    assert result.depth_map is start


def test_anchors_less_sure_than_depth_do_not_object() -> None:
    depth, normals = plane((0.3, -0.2, -1), 2.0)
    noise = np.exp(0.01 * np.random.default_rng(3).standard_normal(depth.shape))
    anchors = anchors_of(depth * noise, 300)  # of the same noise as depth has
    start = depth_map(depth * noise, normals, 0.01)
    assert not refine(start, replace(anchors, sigma=0.009 * anchors.depth)).is_used
    vague = refine(start, replace(anchors, sigma=0.011 * anchors.depth))
    assert vague.is_used
    assert np.median(error(vague.depth_map, depth)) < 0.2 * np.median(error(start, depth))


def test_vague_normals_pull_less() -> None:
    depth, normals = plane((0.3, -0.2, -1), 2.0)
    wrong = np.arange(96) >= 78
    turned = np.where(wrong[:, None], plane((0.2, -0.1, -1), 2.0)[1], normals)
    start = depth_map(np.sqrt(depth * noisy(depth)), turned, NOISE / 2)
    vague = np.where(wrong, 0.4, 0.01) * np.ones((72, 1))
    told = refine(start, normal_sigma=vague.astype(np.float32)).depth_map
    untold = refine(start, normal_sigma=np.full((72, 96), 0.01, np.float32)).depth_map
    off, off_untold = (error(found, depth).reshape(72, 96) for found in (told, untold))
    assert off[:, wrong].mean() < 0.6 * off_untold[:, wrong].mean()
    assert np.median(off[:, ~wrong]) < 1.1 * np.median(off_untold[:, ~wrong])
    np.testing.assert_array_equal(untold.depth, refine(start).depth_map.depth)


def test_holes_stay_holes_and_harm_nobody() -> None:
    depth, normals = plane((0.3, -0.2, -1), 2.0)
    holed = noisy(depth)
    holed[20:40, 30:60] = 0
    result = refine(depth_map(holed, normals)).depth_map
    assert np.array_equal(result.depth > 0, holed > 0)
    assert np.abs(result.depth / depth - 1)[holed > 0].max() < 2 * NOISE


@pytest.mark.parametrize("case", ["empty", "no normals", "tiny"])
def test_nothing_to_refine_gives_the_map_back(case: str) -> None:
    depth, normals = plane((0, 0, -1), 2.0)
    start = depth_map(depth, normals)
    if case == "empty":
        start = depth_map(0 * depth, 0 * normals)
    if case == "no normals":
        start = depth_map(depth, 0 * normals)
    if case == "tiny":
        camera = Camera(np.eye(3), 2, 2)
        start = DepthMap(camera, start.depth[:2, :2], start.normals[:2, :2], start.sigma[:2, :2])
    result = refine(start)
    assert not result.is_used
    assert result.depth_map is start


def test_anchors_pull_depth_between_noise() -> None:
    depth, normals = plane((0.3, -0.2, -1), 2.0)
    off = depth_map(1.01 * noisy(depth), normals, 0.02)
    anchors = anchors_of(depth, 600)
    exact = replace(anchors, sigma=1e-4 * anchors.depth)
    with_anchors = refine(off, exact).depth_map
    assert np.median(error(with_anchors, depth)) < 0.9 * np.median(error(refine(off).depth_map, depth))


def test_sigma_falls_with_the_noise_that_normals_remove() -> None:
    depth, normals = plane((0.2, 0.1, -1), 2.0)
    tilted = normals + 0.02 * np.random.default_rng(1).standard_normal(normals.shape)
    tilted /= np.linalg.norm(tilted, axis=-1, keepdims=True)
    result = refine(depth_map(noisy(depth), tilted)).depth_map
    assert np.median(result.sigma / depth) < 0.5 * NOISE
    assert (error(result, depth) < (result.sigma / depth).ravel()).mean() > 0.65


def test_sigma_that_all_pixels_share_stays() -> None:
    depth, normals = plane((0.2, 0.1, -1), 2.0)
    result = refine(depth_map(1.02 * noisy(depth), normals, np.hypot(NOISE, 0.02)))
    assert np.median(result.depth_map.sigma / depth) > 0.015


def test_sigma_holds_most_errors() -> None:
    depth, normals = sphere()
    tilted = normals + 0.05 * np.random.default_rng(3).standard_normal(normals.shape)
    tilted = np.where(depth[..., None] > 0, tilted / np.linalg.norm(tilted, axis=-1, keepdims=True), 0)
    result = refine(depth_map(noisy(depth), tilted)).depth_map
    sigma = result.sigma[depth > 0] / depth[depth > 0]
    assert (error(result, depth) <= 1.96 * sigma).mean() > 0.85


def test_balance_tells_noise_of_depth_from_errors_of_normals() -> None:
    depth, normals = plane((0.2, 0.1, -1), 2.0)
    log_depth = torch.from_numpy(np.log(noisy(depth)).astype(np.float32))
    good = balance(log_depth, slopes_from_normals(CAMERA, normals.astype(np.float32)))
    assert good.depth_noise == pytest.approx(NOISE, rel=0.3)
    tilt = normals + np.array([0.2, 0.0, 0.0])
    tilt /= np.linalg.norm(tilt, axis=-1, keepdims=True)
    bad = balance(log_depth, slopes_from_normals(CAMERA, tilt.astype(np.float32)))
    assert bad.slope_error > 3 * good.slope_error
    assert bad.smoothing < good.smoothing


def spread(found: np.ndarray, depth: np.ndarray, where: np.ndarray) -> float:
    """How far found depth is from the true one anywhere, after one scale."""
    ratio = found[where] / depth[where]
    return float(np.abs(ratio / np.median(ratio) - 1).max())


def stairs() -> tuple[np.ndarray, np.ndarray]:
    """Four risers 0.25 apart in depth, and the treads between them as seen from above."""
    down = np.maximum(RAYS[..., 1], 1e-6)
    depth, is_tread = np.full(down.shape, 1.5), np.zeros(down.shape, bool)
    for step in range(3):
        tread, riser = (0.55 - 0.15 * step) / down, 1.75 + 0.25 * step
        is_past = tread > riser - 0.25  # the riser below
        depth = np.where(is_past, np.minimum(tread, riser), depth)
        is_tread = np.where(is_past, tread < riser, is_tread)
    return depth, np.where(is_tread[..., None], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0])


def test_normals_alone_give_a_sphere_up_to_scale() -> None:
    depth, normals = sphere()
    mask = normals[..., 2] < -0.6
    found = integrate(CAMERA, normals.astype(np.float32), mask)
    assert spread(found, depth, mask) < 2e-3
    assert not found[~mask].any()


def test_normals_alone_keep_the_shape_of_a_ball_and_of_one_behind_it() -> None:
    near, near_normals = sphere(center=(-0.3, 0.1, 2.2), radius=0.5)
    far, far_normals = sphere(center=(0.4, 0, 4), radius=1.3)
    before = near > 0
    depth = np.where(before, near, far)
    normals = np.where(before[..., None], near_normals, far_normals)
    mask = -(normals * RAYS).sum(-1) > 0.15
    found = integrate(CAMERA, normals.astype(np.float32), mask)
    assert spread(found, depth, mask & ~before) < 1e-2
    assert spread(found, depth, mask & before & (near_normals[..., 2] < -0.5)) < 1e-2


def test_normals_alone_climb_stairs() -> None:
    depth, normals = stairs()
    found = integrate(CAMERA, normals.astype(np.float32))
    assert spread(found, depth, depth > 0) < 0.06  # half a row at every fold; one torn step is 0.16


def test_normals_alone_do_not_smear_over_a_jump() -> None:
    _, normals = sphere()
    ball = normals[..., 2] < -0.6
    normals = np.where(ball[..., None], normals, np.float32([0, 0, -1]))
    found = integrate(CAMERA, normals.astype(np.float32))
    assert np.ptp(found[~ball]) < 5e-3 * np.median(found)


def test_integration_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no pixel"):
        integrate(CAMERA, np.zeros((72, 96, 3), np.float32))


def test_a_pixel_that_moves_beyond_all_measure_stays() -> None:
    depth, normals = plane((0.2, 0, -1), 3.0)
    given = depth_map(noisy(depth), normals)
    lone = np.zeros(depth.shape, bool)
    lone[30:32, 40:42] = True
    for factor, is_mended in ((0.3, True), (0.01, False)):
        changed = replace(
            given,
            depth=np.where(lone, np.float32(factor) * given.depth, given.depth),
            sigma=np.where(lone, np.float32(0.004) * given.depth, np.float32(1e-6) * given.depth),
        )
        found = refine(changed).depth_map.depth
        assert (np.abs(found / depth - 1)[lone] < 0.1).all() == is_mended
        assert np.abs(np.log(found / changed.depth)).max() < 3
