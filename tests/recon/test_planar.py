"""Blank walls: found from what was measured of them, told apart by predicted normals."""

from dataclasses import replace

import numpy as np
import pytest

from recon import planar
from recon.geometry import invert, look_at, rays, rotate
from recon.planar.filling import fill_planes
from recon.planar.finding import LEAST_STEP, grid_points, patch_normals
from recon.scene import Camera, DepthMap, SparseDepth

WIDTH, HEIGHT = 320, 240
CAMERA = Camera(np.array([[260.0, 0, 160], [0, 260, 120], [0, 0, 1]]), WIDTH, HEIGHT)
DOWN = np.array([0.0, 0, -1])
CENTER = np.array([-1.0, -1.2, 1.4])
POSE = look_at(CENTER, np.array([1.8, 1.5, 1.0]), DOWN)
ROOM = np.array([[-1.0, 0, 0, -2.0], [0, -1.0, 0, -1.8], [0, 0, 1.0, 0.0]])  # walls x = 2, y = 1.8, floor
BOARD = 0.25  # m, height of what is measured of the walls
NOISE = 1e-3


def seen(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, the plane seen and world points of each pixel of a convex room."""
    toward = rotate(invert(POSE), rays(CAMERA.K, WIDTH, HEIGHT))
    center = invert(POSE)[:3, 3]
    along = toward @ planes[:, :3].T
    depth = np.where(
        along < 0, (planes[:, 3] - planes[:, :3] @ center) / np.where(along < 0, along, -1), np.inf
    )
    plane = depth.argmin(axis=-1)
    depth = depth.min(axis=-1)
    return depth, plane, center + depth[..., None] * toward


def map_of(depth: np.ndarray, normals: np.ndarray, relative_sigma: float) -> DepthMap:
    known = depth > 0
    return DepthMap(
        CAMERA,
        depth.astype(np.float32),
        np.where(known[..., None], normals, 0).astype(np.float32),
        (relative_sigma * depth).astype(np.float32),
    )


def measured_of(planes: np.ndarray, board: float = BOARD) -> DepthMap:
    """The floor and a board around it: the walls above are blank."""
    depth, plane, points = seen(planes)
    told = points[..., 2] < board
    noisy = depth * (1 + NOISE * np.random.default_rng(0).standard_normal(depth.shape))
    return map_of(np.where(told, noisy, 0), rotate(POSE, planes[plane, :3]), NOISE)


def prior_of(planes: np.ndarray, off: float = 0.12, tilt_deg: float = 8.0) -> DepthMap:
    """Depth that leans by `off`, normals tilted at random, alike over 20 px and more."""
    depth, plane, _ = seen(planes)
    normals = rotate(POSE, planes[plane, :3])
    coarse = np.random.default_rng(1).standard_normal((HEIGHT // 20, WIDTH // 20, 3))
    normals = normals + np.tan(np.radians(tilt_deg)) * np.repeat(np.repeat(coarse, 20, 0), 20, 1) / np.sqrt(2)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return map_of(depth * (1 + off * np.linspace(0.5, 1, WIDTH)), normals, 0.02)


def filled_of(planes: np.ndarray, prior: DepthMap, board: float = BOARD) -> DepthMap:
    measured = measured_of(planes, board)
    found = planar.find_planes([(measured, POSE)])
    return fill_planes(found, prior, measured, (POSE, []), np.ones((HEIGHT, WIDTH), bool))


def test_patches_have_the_normals_of_their_planes() -> None:
    depth, plane, points = seen(ROOM)
    depth_map = map_of(depth, rotate(POSE, ROOM[plane, :3]), NOISE)
    found, normals = grid_points(depth_map), patch_normals(depth_map)
    assert len(found) == (HEIGHT // LEAST_STEP) * (WIDTH // LEAST_STEP)
    flat = normals.any(axis=1)
    grid = (slice(LEAST_STEP // 2, None, LEAST_STEP),) * 2
    true = rotate(POSE, ROOM[plane, :3])[grid].reshape(-1, 3)
    cosines = np.einsum("nc,nc->n", normals[flat], true[flat])
    assert np.median(cosines) > 1 - 1e-9
    assert flat.mean() > 0.8
    assert np.allclose(points[grid].reshape(-1, 3), _in_world(found), atol=1e-4)


def _in_world(points: np.ndarray) -> np.ndarray:
    world_from_cam = invert(POSE)
    return points @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]


def test_planes_are_found_that_little_was_measured_of() -> None:
    found = planar.find_planes([(measured_of(ROOM), POSE)])
    for plane in ROOM:
        off = [
            max(np.degrees(np.arccos(min(abs(n @ plane[:3]), 1))) / 1.0, abs(abs(d) - abs(plane[3])) / 0.01)
            for n, d in zip(found.normals, found.offsets, strict=True)
        ]
        assert min(off) < 1  # a degree, a centimetre


def test_walls_that_do_not_stand_at_right_angles_keep_their_own() -> None:
    turn = np.radians(70.0)
    room = np.array([[-1.0, 0, 0, -2.0], [-np.cos(turn), -np.sin(turn), 0, -2.2], [0, 0, 1.0, 0.0]])
    found = planar.find_planes([(measured_of(room, 0.5), POSE)])
    assert max(abs(found.normals @ room[1, :3])) > np.cos(np.radians(1.0))
    filled, (depth, plane, points) = filled_of(room, prior_of(room), 0.5), seen(room)
    blank = (points[..., 2] > 0.55) & (plane == 1)
    assert (filled.depth[blank] > 0).mean() > 0.95
    assert np.median(np.abs(filled.depth / depth - 1)[blank]) < 0.01


def test_blank_walls_are_the_planes_of_what_was_measured_of_them() -> None:
    prior, (depth, plane, points) = prior_of(ROOM), seen(ROOM)
    filled = filled_of(ROOM, prior)
    blank = points[..., 2] > BOARD + 0.05
    assert (filled.depth[blank] > 0).mean() > 0.97
    error = np.abs(filled.depth / depth - 1)[blank & (filled.depth > 0)]
    assert np.median(np.abs(prior.depth / depth - 1)[blank]) > 0.08
    assert np.median(error) < 0.003
    assert np.percentile(error, 99) < 0.01  # the corner too: there two planes meet in their line
    cosines = np.einsum("hwc,hwc->hw", filled.normals, rotate(POSE, ROOM[plane, :3]))
    assert np.percentile(cosines[blank & (filled.depth > 0)], 1) > np.cos(np.radians(1.0))


def test_what_was_measured_well_stays() -> None:
    filled = filled_of(ROOM, prior_of(ROOM))
    assert not filled.depth[measured_of(ROOM).depth > 0].any()


def test_noise_on_a_wall_is_flattened() -> None:
    depth, plane, points = seen(ROOM)
    measured = measured_of(ROOM)
    high = points[..., 2] > 0.7
    rough = np.random.default_rng(3).standard_normal(depth.shape)
    noisy = replace(
        measured,
        depth=np.where(high, depth * (1 + 0.015 * rough), measured.depth).astype(np.float32),
        normals=rotate(POSE, ROOM[plane, :3]).astype(np.float32),
        sigma=np.where(high, 0.015 * depth, measured.sigma).astype(np.float32),
    )
    found = planar.find_planes([(noisy, POSE)])
    filled = fill_planes(found, prior_of(ROOM), noisy, (POSE, []), np.ones(depth.shape, bool))
    known = high & (filled.depth > 0)
    assert known.sum() > 0.9 * high.sum()
    assert np.median(np.abs(filled.depth / depth - 1)[known]) < 0.005


def test_what_bends_is_no_wall() -> None:
    _, plane, points = seen(ROOM)
    prior = prior_of(ROOM, tilt_deg=2.0)
    blank = points[..., 2] > BOARD
    angle = np.linspace(-np.pi / 2, np.pi / 2, WIDTH) * np.ones((HEIGHT, 1))
    around = np.stack([np.sin(angle), 0 * angle, -np.cos(angle)], axis=-1)
    prior = replace(prior, normals=np.where(blank[..., None], around, prior.normals).astype(np.float32))
    filled = filled_of(ROOM, prior)
    assert (filled.depth[blank] > 0).mean() < 0.5
    walls = rotate(POSE, ROOM[plane, :3])
    far = np.einsum("hwc,hwc->hw", around, walls) < np.cos(np.radians(35.0))
    assert (filled.depth[blank & far] > 0).mean() < 0.15


@pytest.mark.parametrize("reason", ["no_normals", "too_far_off", "not_allowed"])
def test_nothing_is_filled_without_a_reason(reason: str) -> None:
    prior, measured = prior_of(ROOM), measured_of(ROOM)
    allowed = np.ones((HEIGHT, WIDTH), bool)
    if reason == "no_normals":
        prior = replace(prior, normals=np.zeros_like(prior.normals))
    elif reason == "too_far_off":
        prior = replace(prior, depth=2 * prior.depth)
    else:
        allowed[:] = False
    found = planar.find_planes([(measured, POSE)])
    assert not fill_planes(found, prior, measured, (POSE, []), allowed).depth.any()


def test_a_plane_with_much_behind_it_does_not_go_on() -> None:
    """A board stands before the wall: only what other views saw above it tells that it ends there."""
    depth, plane, points = seen(ROOM)
    before = ROOM.copy()
    before[0, 3] = -1.4  # the wall x = 2 has a board at x = 1.4
    near, near_plane, near_points = seen(before)
    on_board = (near_plane == 0) & (near_points[..., 2] < 0.6)
    shown = np.where(on_board, near, np.where(points[..., 2] < 0.02, depth, 0))
    measured = map_of(shown, rotate(POSE, ROOM[plane, :3]), NOISE)
    gap = ~on_board & (near_plane == 0) & (plane == 0)
    spots = map_of(
        np.where(gap & (np.indices(depth.shape).sum(0) % 3 == 0), depth, 0), measured.normals, NOISE
    )
    found = planar.find_planes([(measured, POSE)])
    prior = map_of(1.05 * near, rotate(POSE, ROOM[plane, :3]), 0.02)
    everywhere = np.ones(depth.shape, bool)
    alone = fill_planes(found, prior, measured, (POSE, []), everywhere)
    known = fill_planes(found, prior, measured, (POSE, [(spots, POSE)]), everywhere)
    wrong = [np.abs(m.depth / np.maximum(near, 1e-9) - 1)[gap] < 0.01 for m in (alone, known)]
    assert wrong[0].mean() > 0.5
    assert wrong[1].mean() < 0.05


def test_a_wall_lies_behind_its_skirting_board() -> None:
    """The board is 4 cm nearer, as depth is predicted, and has more points than a few spots on the wall."""
    depth, plane, points = seen(ROOM)
    boards = ROOM.copy()
    boards[:2, 3] += 0.04
    rows, columns = np.indices(depth.shape)
    spots = (rows % 40 < 8) & (columns % 40 < 8)
    shown = np.where(points[..., 2] < BOARD, seen(boards)[0], np.where(spots, depth, 0))
    measured = map_of(np.where(plane == 2, depth, shown), rotate(POSE, ROOM[plane, :3]), NOISE)
    found, prior = planar.find_planes([(measured, POSE)]), prior_of(ROOM, -0.12)
    filled = fill_planes(found, prior, measured, (POSE, []), np.ones(depth.shape, bool))
    blank = (points[..., 2] > BOARD + 0.05) & ~spots
    assert (filled.depth[blank] > 0).mean() > 0.8
    assert np.percentile(np.abs(filled.depth / depth - 1)[blank & (filled.depth > 0)], 90) < 0.005


def test_a_table_ends_where_what_was_measured_of_it_ends() -> None:
    """Behind a table stands a blank backdrop that the network takes for more of the table."""
    floor = ROOM[2:]
    depth, _, points = seen(floor)
    table = (np.abs(points[..., :2] - [1.8, 1.6]) < [1.0, 0.9]).all(axis=-1)
    hole = (np.abs(points[..., :2] - [1.8, 1.6]) < 0.4).all(axis=-1)
    noisy = depth * (1 + NOISE * np.random.default_rng(0).standard_normal(depth.shape))
    normals = rotate(POSE, np.broadcast_to(floor[0, :3], points.shape))
    measured = map_of(np.where(table & ~hole, noisy, 0), normals, NOISE)
    prior = map_of(np.where(np.isfinite(depth), depth, 0), normals, 0.1)
    found = planar.find_planes([(measured, POSE)])
    filled = fill_planes(found, prior, measured, (POSE, []), np.ones(depth.shape, bool)).depth > 0
    assert filled[hole].mean() > 0.95
    assert filled[~table].mean() < 0.02


def test_a_plane_ends_around_sparse_points_that_are_not_on_it() -> None:
    depth, plane, points = seen(ROOM)
    walls, blank = filled_of(ROOM, prior_of(ROOM)), (points[..., 2] > BOARD + 0.2) & (plane == 0)
    row, column = (int(np.median(each)) for each in np.nonzero(blank))

    def filled(share: float, sigma: float) -> np.ndarray:
        true = depth[row, column]
        point = SparseDepth(
            np.array([[column + 0.5, row + 0.5]]), np.array([share * true]), np.array([sigma * true])
        )
        return planar.without_contradicted(walls, point, measured_of(ROOM)).depth > 0

    without = walls.depth > 0
    v, u = np.indices(depth.shape)
    away = np.hypot(v - row, u - column)
    before = filled(0.7, 0.02)
    assert without[away < 12].all()
    assert not before[away < 9].any()
    assert (before == without)[away > 11].all()
    assert (filled(1.3, 0.02) == before).all()
    assert (filled(1.01, 0.002) == without).all()  # as good as on it
    assert (filled(0.7, 0.15) == without).all()  # too unsure to say so


@pytest.mark.parametrize(
    ("nearer", "noise", "share", "goes_on"),
    [
        (0.8, 0.03, 0.6, False),
        (1.2, 0.03, 0.6, False),
        (0.98, 0.01, 0.6, True),  # as good as on it
        (0.8, 0.3, 0.6, True),  # noise
        (0.8, 0.03, 0.1, True),  # of too few
    ],
)
def test_a_plane_ends_where_photos_measure_something_else(
    nearer: float, noise: float, share: float, goes_on: bool
) -> None:
    rng, (depth, plane, points) = np.random.default_rng(0), seen(ROOM)
    walls, blank = filled_of(ROOM, prior_of(ROOM)), (points[..., 2] > BOARD + 0.2) & (plane == 0)
    row, column = (int(np.median(each)) for each in np.nonzero(blank))
    v, u = np.indices(depth.shape)
    away = np.maximum(np.abs(v - row), np.abs(u - column))
    told = (away < 30) & (rng.random(depth.shape) < share)
    found = np.where(told, nearer * depth * np.exp(noise * rng.standard_normal(depth.shape)), 0)
    nobody = SparseDepth(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    left = planar.without_contradicted(walls, nobody, map_of(found, 0 * walls.normals, 0.01)).depth > 0
    assert (walls.depth > 0)[away < 30].all()
    assert (left[away < 13] == goes_on).all()
    assert (left == (walls.depth > 0))[away > 46].all()


def test_planes_know_how_far_they_reach_in_any_frame() -> None:
    found = planar.find_planes([(measured_of(ROOM), POSE)])
    near = found.seen_from(POSE)
    told = grid_points(measured_of(ROOM))
    for index in range(len(found)):
        np.testing.assert_allclose(near.widths(index), found.widths(index))
        np.testing.assert_allclose(near.along[index] @ near.normals[index], 0, atol=1e-12)
        on = np.abs(told @ near.normals[index] - near.offsets[index]) < 0.005
        outside = (told[on] @ near.along[index].T > near.reach[index] + 0.05).any(axis=1)
        assert outside.sum() <= 32 * 10


def test_noise_behind_a_plane_does_not_refuse_it() -> None:
    """Blank walls are measured anywhere; where no view confirms what is measured, that says nothing."""
    depth, _, points = seen(ROOM)
    measured, blank = measured_of(ROOM), points[..., 2] > BOARD
    behind = 1 + 0.6 * np.random.default_rng(5).random(depth.shape)
    noise = map_of(np.where(blank, depth * behind, 0), measured.normals, 0.01)
    found, prior = planar.find_planes([(measured, POSE)]), prior_of(ROOM)
    prior = replace(prior, depth=np.zeros_like(prior.depth))
    everywhere, others = np.ones(depth.shape, bool), [(noise, POSE)]
    refused = fill_planes(found, prior, measured, (POSE, others), everywhere)
    filled = fill_planes(found, prior, measured, (POSE, others), everywhere, blank)
    assert (refused.depth[blank] > 0).mean() < 0.5
    assert (filled.depth[blank] > 0).mean() > 0.95
    assert np.median(np.abs(filled.depth / depth - 1)[blank & (filled.depth > 0)]) < 0.005


def test_normals_alone_tell_a_wall_whose_depth_is_not_known() -> None:
    prior, (depth, _, points) = prior_of(ROOM), seen(ROOM)
    blank = points[..., 2] > BOARD + 0.05
    filled = filled_of(ROOM, replace(prior, depth=np.zeros_like(prior.depth)))
    assert (filled.depth[blank] > 0).mean() > 0.95
    assert np.median(np.abs(filled.depth / depth - 1)[blank & (filled.depth > 0)]) < 0.005


def test_nothing_measured_has_no_planes() -> None:
    nothing = map_of(np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH, 3)), NOISE)
    assert len(planar.find_planes([])) == len(planar.find_planes([(nothing, POSE)])) == 0


def test_the_unit_does_not_matter_and_again_is_the_same() -> None:
    measured = measured_of(ROOM)
    once, again = planar.find_planes([(measured, POSE)]), planar.find_planes([(measured, POSE)])
    assert np.array_equal(once.normals, again.normals)
    larger = replace(measured, depth=64 * measured.depth, sigma=64 * measured.sigma)
    pose = POSE.copy()
    pose[:3, 3] *= 64
    scaled = planar.find_planes([(larger, pose)])
    assert np.allclose(scaled.offsets, 64 * once.offsets, rtol=1e-4, atol=1e-3)


def test_planes_seen_from_a_camera_face_it() -> None:
    found = planar.find_planes([(measured_of(ROOM), POSE)]).seen_from(POSE)
    assert (found.offsets < 0).all()
