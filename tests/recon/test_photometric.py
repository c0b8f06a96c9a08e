from dataclasses import replace

import numpy as np
import pytest

from recon import synthetic
from recon.errors import InputError
from recon.geometry import invert, look_at, project, transform, unproject
from recon.photometric import Photo, flat_prior, refine
from recon.photometric.cost import INVALID, make_work, take_patch, view_costs
from recon.photometric.fitting import ACCEPTED, NO_PRIOR
from recon.photometric.levels import make_levels
from recon.photometric.reference import plain_costs, plain_score
from recon.photometric.sweep import sweep_rows
from recon.scene import Camera, DepthMap
from recon.synthetic.shapes import rectangle
from recon.synthetic.worlds import CARPET, MARBLE

WIDTH, HEIGHT = 96, 72
GAMMA = 2.2


def photos_of(capture: synthetic.Capture) -> list[Photo]:
    return [Photo(v.camera, v.cam_from_world, capture.images[v.name]) for v in capture.scene.views]


def prior_from(exact: DepthMap, factor: float = 1.0, share: float = 0.02) -> DepthMap:
    depth = (exact.depth * factor).astype(np.float32)
    return replace(exact, depth=depth, sigma=np.float32(share) * depth)


def shifts_px(found: DepthMap, exact: DepthMap, reference: Photo, other: Photo) -> np.ndarray:
    """How far the measured points lie from the true ones in another photo, along their epipolar lines."""
    v, u = np.nonzero((found.depth > 0) & (exact.depth > 0))
    uv = np.stack([u, v], axis=1) + 0.5
    motion = other.cam_from_world @ invert(reference.cam_from_world)
    at = [
        project(other.camera.K, transform(motion, unproject(exact.camera.K, uv, depth[v, u])))
        for depth in (found.depth, exact.depth, exact.depth * 1.01)
    ]
    along = at[2] - at[1]
    return np.einsum("nc,nc->n", at[0] - at[1], along / np.linalg.norm(along, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def slanted() -> tuple[list[Photo], list[DepthMap]]:
    """Photos of a plane seen at 55 degrees, 8 degrees apart."""
    world = replace_size(synthetic.plane(1), 0.25)
    camera = Camera.from_fov(WIDTH, HEIGHT, 30.0)
    angles = np.radians([0, 8, -8, 16, -16])
    centers = [world.center + 2 * np.array([np.sin(a) * 0.82, -np.cos(a) * 0.82, 0.57]) for a in angles]
    cameras = [(camera, look_at(center, world.center, world.down)) for center in centers]
    capture = synthetic.capture(world, cameras, seed=1)
    return photos_of(capture), list(capture.depth_maps.values())


def replace_size(world: synthetic.World, size: float) -> synthetic.World:
    return replace(world, materials=tuple(replace(material, size=size) for material in world.materials))


def test_slanted_plane_has_no_bias(slanted):
    photos, exact = slanted
    found = refine(photos[0], prior_from(exact[0], 1.015), photos[1:])
    off = shifts_px(found.depth_map, exact[0], photos[0], photos[1])
    assert (found.depth_map.depth > 0).mean() > 0.75
    assert abs(off.mean()) < 0.02
    assert np.sqrt(np.mean(off**2)) < 0.15


def test_sigma_holds_two_thirds_of_the_errors(slanted):
    photos, exact = slanted
    found = refine(photos[0], prior_from(exact[0], 1.015), photos[1:], camera_error_px=0.0).depth_map
    known = found.depth > 0
    stretch = np.abs(found.depth - exact[0].depth)[known] / found.sigma[known]
    assert 0.55 < (stretch <= 1).mean() < 0.9
    assert (stretch <= 1.96).mean() > 0.85


def test_normals_that_are_wrong_by_20_degrees_bend_little(slanted):
    photos, exact = slanted
    turned = exact[0].normals + np.float32(0.36) * np.array([1, 0, 0], np.float32)
    turned /= np.linalg.norm(turned, axis=-1, keepdims=True)
    prior = replace(prior_from(exact[0], 0.99), normals=turned)
    off = shifts_px(refine(photos[0], prior, photos[1:]).depth_map, exact[0], photos[0], photos[1])
    assert np.median(np.abs(off)) < 0.1


def test_a_depth_range_alone_is_enough_of_a_prior(slanted):
    photos, exact = slanted
    prior = flat_prior(photos[0].camera, 1.0, 5.0)
    found = refine(photos[0], prior, photos[1:]).depth_map
    known = found.depth > 0
    relative = np.abs(found.depth - exact[0].depth)[known] / exact[0].depth[known]
    assert known.mean() > 0.6
    assert (relative < 0.005).mean() > 0.8


def test_blank_surfaces_give_nothing(slanted):
    photos, exact = slanted
    rng = np.random.default_rng(0)
    blank = [
        replace(photo, image=np.rint(rng.normal(128, 1.2, photo.image.shape)).astype(np.uint8))
        for photo in photos
    ]
    found = refine(blank[0], prior_from(exact[0]), blank[1:])
    assert (found.depth_map.depth > 0).mean() < 0.01


@pytest.mark.parametrize("error_px", [-3.0, 3.0])
def test_the_prior_chooses_among_repeated_texture(error_px):
    camera = Camera(np.array([[100.0, 0, 48], [0, 100, 36], [0, 0, 1]]), WIDTH, HEIGHT)
    photos = [striped_photo(camera, offset) for offset in (0.0, 0.4, -0.4)]  # 20 px of disparity, period 8 px
    wrong = 100 * 0.4 / (20 + error_px)
    prior = replace(
        facing_wall(camera, wrong), sigma=np.full((HEIGHT, WIDTH), wrong * 3 / (20 + error_px), np.float32)
    )
    found = refine(photos[0], prior, photos[1:]).depth_map
    both_see = found.depth[:, 32:-32]
    assert (both_see > 0).mean() > 0.8  # stripes' crests have few taps of their colour, and no texture
    assert (np.abs(100 * 0.4 / both_see[both_see > 0] - 20) < 0.2).mean() > 0.9


def facing_wall(camera: Camera, depth: float) -> DepthMap:
    shape = (camera.height, camera.width)
    normals = np.broadcast_to(np.array([0, 0, -1], np.float32), (*shape, 3)).copy()
    return DepthMap(camera, np.full(shape, depth, np.float32), normals, np.full(shape, 0.01, np.float32))


def striped_photo(camera: Camera, offset: float) -> Photo:
    u = np.arange(camera.width) + 0.5
    position = (u - camera.K[0, 2]) / camera.K[0, 0] * 2.0 + offset
    stripes = 128 + 60 * np.sin(2 * np.pi * position / (8 * 2.0 / 100))
    image = np.broadcast_to(np.rint(stripes)[None, :, None], (camera.height, camera.width, 3))
    cam_from_world = np.eye(4)
    cam_from_world[0, 3] = -offset
    return Photo(camera, cam_from_world, image.astype(np.uint8))


def test_a_depth_edge_stays_sharp():
    near = (rectangle((-0.3, -0.4, 0.3), (0.3, 0.0, 0.0), (0.0, 0.8, 0.0)), replace(MARBLE, size=0.15))
    far = (rectangle((-1.0, -1.0, 0.0), (2.0, 0.0, 0.0), (0.0, 2.0, 0.0)), replace(CARPET, size=0.2))
    lamp = synthetic.Lamp((0.5, 0.5, 1.5), 1.5)
    world = synthetic.build_world([near, far], (lamp,), center=(0.0, 0.0, 0.1))
    camera = Camera.from_fov(WIDTH, HEIGHT, 30.0)
    offsets = [(0, 0), (0.2, 0), (-0.2, 0), (0, 0.2), (0, -0.2)]
    down = np.array([0.0, 1.0, 0.0])
    cameras = [
        (camera, look_at(world.center + np.array([x, y, 1.4]), world.center, down)) for x, y in offsets
    ]
    capture = synthetic.capture(world, cameras, seed=0)
    photos, exact = photos_of(capture), next(iter(capture.depth_maps.values()))
    blurred = np.apply_along_axis(lambda row: np.convolve(row, np.ones(5) / 5, "same"), 1, exact.depth)
    blurred[:, :2], blurred[:, -2:] = exact.depth[:, :2], exact.depth[:, -2:]
    prior = prior_from(replace(exact, depth=blurred.astype(np.float32)))
    found = refine(photos[0], prior, photos[1:]).depth_map
    jump = np.abs(np.diff(exact.depth, axis=1)) > 0.1
    beside = np.zeros_like(jump, shape=exact.depth.shape)
    for shift in (-2, -1, 2, 3):  # the second and third pixel to either side
        rows, columns = np.nonzero(jump)
        beside[rows, np.clip(columns + shift, 0, WIDTH - 1)] = True
    known = beside & (found.depth > 0)
    right = np.abs(found.depth / exact.depth - 1) < 0.01
    right_before = np.abs(prior.depth / exact.depth - 1) < 0.01
    assert known.sum() > 0.6 * beside.sum()
    assert right[known].mean() > 0.75
    assert right_before[known].mean() < 0.6


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_a_stop_of_exposure_changes_next_to_nothing(slanted, gain):
    photos, exact = slanted
    prior = prior_from(exact[0], 1.01)
    others = [exposed(photo, gain if i % 2 else 1.0) for i, photo in enumerate(photos[1:])]
    before, after = (refine(photos[0], prior, those).depth_map for those in (photos[1:], others))
    both = (before.depth > 0) & (after.depth > 0)
    assert both.sum() > 0.95 * (before.depth > 0).sum()
    assert np.median(np.abs(after.depth - before.depth)[both] / before.sigma[both]) < 0.2


def exposed(photo: Photo, gain: float) -> Photo:
    levels = 255 * (photo.image / 255) * gain ** (1 / GAMMA)
    return replace(photo, image=np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def test_hidden_neighbours_do_not_pull(slanted):
    photos, exact = slanted
    prior = prior_from(exact[0], 1.01)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, photos[0].image.shape, np.uint8)
    hidden = [replace(photos[1], image=noise), *photos[2:]]
    before, after = (refine(photos[0], prior, those).depth_map for those in (photos[2:], hidden))
    both = (before.depth > 0) & (after.depth > 0)
    assert both.sum() > 0.95 * (before.depth > 0).sum()
    assert np.percentile(np.abs(after.depth[both] / before.depth[both] - 1), 95) < 1e-3


def test_threads_and_the_order_of_neighbours_change_no_byte(slanted):
    photos, exact = slanted
    prior = prior_from(exact[0], 1.01)
    first = refine(photos[0], prior, photos[1:], threads=1)
    second = refine(photos[0], prior, photos[:0:-1], threads=3)
    for one, other in (
        (first.depth_map.depth, second.depth_map.depth),
        (first.depth_map.sigma, second.depth_map.sigma),
        (first.depth_map.normals, second.depth_map.normals),
        (first.ncc, second.ncc),
        (first.outcome, second.outcome),
    ):
        np.testing.assert_array_equal(one, other)


def test_the_unit_of_the_scene_does_not_matter(slanted):
    photos, exact = slanted
    prior = prior_from(exact[0], 1.01)
    scale = np.float32(1024)  # a power of two, so that nothing rounds differently

    def moved(photo: Photo) -> Photo:
        pose = photo.cam_from_world.copy()
        pose[:3, 3] *= float(scale)
        return replace(photo, cam_from_world=pose)

    large = replace(prior, depth=prior.depth * scale, sigma=prior.sigma * scale)
    one = refine(photos[0], prior, photos[1:]).depth_map
    other = refine(moved(photos[0]), large, [moved(photo) for photo in photos[1:]]).depth_map
    np.testing.assert_allclose(other.depth, one.depth * scale, rtol=1e-5)


def test_kernels_equal_the_reference(slanted):
    photos, exact = slanted
    level = make_levels(photos[0], prior_from(exact[0], 1.01), photos[1:])[0]
    grey, colors, *_ = level.reference()
    pixels, views = level.sources()
    work = make_work(len(views))
    rng = np.random.default_rng(0)
    for row, column in rng.integers([0, 0], [HEIGHT, WIDTH], (60, 2)).tolist():
        plane = level.planes[row, column].astype(np.float64) * [rng.uniform(0.97, 1.03), 1, 1]
        take_patch(grey, colors, row, column, work)
        view_costs(pixels, views, np.array([*plane, column + 0.5, row + 0.5]), work)
        expected = plain_costs(level, row, column, plane)
        np.testing.assert_allclose(
            work[5, : len(views)], expected, atol=2e-3
        )  # float32 squares of grey levels


@pytest.mark.parametrize("descends", [False, True])
def test_the_sweep_finds_the_best_plane_of_the_reference(slanted, descends):
    photos, exact = slanted
    level = make_levels(photos[0], prior_from(exact[0], 1.01), photos[1:])[0]
    shape = level.grey.shape
    state = (
        np.zeros((*shape, 3), np.float32),
        np.full(shape, INVALID, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    band = (level.planes, np.float32(3) * level.bands, np.full(shape, descends))
    sweep_rows(0, HEIGHT, level.reference(), level.sources(), band, state)
    for row, column in (
        np.random.default_rng(1).integers([10, 10], [HEIGHT - 10, WIDTH - 10], (10, 2)).tolist()
    ):
        planes = np.repeat(level.planes[row, column][None].astype(np.float64), 121, axis=0)
        planes[:, 0] += np.linspace(-3, 3, 121) * level.bands[row, column]
        scores = [plain_score(level, row, column, plane) for plane in planes]
        assert state[1][row, column] < min(scores) + 0.03  # steps of 0.8 px miss the bottom by a little
        assert abs(state[0][row, column, 0] - planes[np.argmin(scores), 0]) < 0.35 / state[3][row, column]


def test_without_neighbours_nothing_is_measured(slanted):
    photos, exact = slanted
    assert not refine(photos[0], prior_from(exact[0]), []).depth_map.depth.any()


def test_without_prior_depth_nothing_is_measured(slanted):
    photos, exact = slanted
    empty = replace(exact[0], depth=np.zeros_like(exact[0].depth), sigma=np.zeros_like(exact[0].sigma))
    found = refine(photos[0], empty, photos[1:])
    assert not found.depth_map.depth.any()
    assert (found.outcome == NO_PRIOR).all()


def test_pixels_without_prior_stay_empty_beside_others(slanted):
    photos, exact = slanted
    prior = prior_from(exact[0])
    hole = np.ones(prior.depth.shape, np.float32)
    hole[20:40, 30:60] = 0
    found = refine(photos[0], replace(prior, depth=prior.depth * hole), photos[1:])
    assert not found.depth_map.depth[20:40, 30:60].any()
    assert (found.outcome[45:60] == ACCEPTED).mean() > 0.5


def test_a_neighbour_that_looks_away_changes_nothing(slanted):
    photos, exact = slanted
    away = np.diag([-1.0, 1, -1, 1]) @ photos[0].cam_from_world  # turned about its vertical axis
    prior = prior_from(exact[0])
    one = refine(photos[0], prior, photos[1:])
    other = refine(photos[0], prior, [*photos[1:], replace(photos[0], cam_from_world=away)])
    np.testing.assert_array_equal(one.outcome, other.outcome)
    np.testing.assert_array_equal(one.depth_map.depth, other.depth_map.depth)


def test_neighbours_of_other_sizes_measure_as_well(slanted):
    photos, exact = slanted
    doubled = [
        Photo(
            p.camera.resized(2 * WIDTH, 2 * HEIGHT),
            p.cam_from_world,
            np.kron(p.image, np.ones((2, 2, 1), np.uint8)),
        )
        for p in photos[1:]
    ]
    prior = prior_from(exact[0], 1.01)
    same, larger = (refine(photos[0], prior, those).depth_map for those in (photos[1:], doubled))
    both = (same.depth > 0) & (larger.depth > 0)
    assert both.sum() > 0.95 * (same.depth > 0).sum()
    np.testing.assert_allclose(larger.depth[both], same.depth[both], rtol=1e-3)


def test_a_prior_of_another_size_is_refused(slanted):
    photos, _ = slanted
    small = flat_prior(photos[0].camera.resized(48, 36), 1.0, 2.0)
    with pytest.raises(InputError, match="48x36"):
        refine(photos[0], small, photos[1:])


def test_photos_of_another_shape_are_refused(slanted):
    with pytest.raises(InputError, match="Photo"):
        Photo(slanted[0][0].camera, np.eye(4), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
