import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import BSpline

from lotus import scenes
from lotus.scenes import materials, tracing
from lotus.scenes.description import FORM_SIZE, MAX_LIGHTS, Photo, Shape
from lotus.scenes.intersection import first_hit, outward
from lotus.scenes.sampling import is_good_view
from lotus.scenes.solids import Solid, box, placed, table_of, turn

PHOTO = Photo(1.0, (1.0, 1.0, 1.0), 1.0, 1.0, 0.0, 0.0, (0.0, 0.0), 0.0, 0.0, 100)
AIR = np.array([0.5] * 9 + [0, 0, 1, 0, 0], np.float64)
RADII = (0.5, 0.9, 0.7, 0.3, 0.6, 0.95, 0.4, 0.2)
WAVES = (0.1, 3.0, 1.0, 0.3, 0.05, -2.0, 6.0, 1.0)
FORMS = {
    Shape.BOX: (),
    Shape.ROUNDED_BOX: (0.15,),
    Shape.ELLIPSOID: (),
    Shape.CONE: (0.4,),
    Shape.SUPERELLIPSOID: (1.5, 3.0),
    Shape.TORUS: (),
    Shape.LATHE: (*RADII, 0.0),
    Shape.SHEET: WAVES,
}
HALVES = {Shape.TORUS: (0.8, 0.8, 0.2), Shape.LATHE: (0.5, 0.5, 0.8), Shape.SHEET: (0.7, 0.6, 0.2)}


def halves(shape):
    return HALVES.get(shape, (0.7, 0.5, 0.4))


def form_table(shape):
    table = np.zeros((1, FORM_SIZE))
    table[0, : len(FORMS[shape])] = FORMS[shape]
    return table


def wave(angle):
    turns = angle / (2 * np.pi) - np.round(angle / (2 * np.pi))
    return 8 * turns * (1 - 2 * np.abs(turns))


def spline_radius(z):
    c = np.array(RADII)
    control = np.concatenate([[2 * c[0] - c[1]], c, [2 * c[-1] - c[-2]]])
    return 0.5 * BSpline(np.arange(-3, 11), control, 3)(np.clip((z / 0.8 + 1) * 3.5, 0, 7))


def outside(shape, p):
    """A function of the place that is positive outside the solid, zero on it, and smooth at its surface."""
    x, y, z = np.moveaxis(p, -1, 0)
    a, b, c = halves(shape)
    if shape == Shape.BOX:
        return np.max(np.abs(p) - (a, b, c), axis=-1)
    if shape == Shape.ROUNDED_BOX:
        return np.linalg.norm(np.maximum(np.abs(p) - np.array((a, b, c)) + 0.15, 0), axis=-1) - 0.15
    if shape == Shape.ELLIPSOID:
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 - 1
    if shape == Shape.CONE:
        radius = 1 - 0.6 * (z + c) / (2 * c)
        return np.maximum(np.hypot(x / a, y / b) - radius, np.abs(z) / c - 1)
    if shape == Shape.SUPERELLIPSOID:
        return (np.abs(x / a) ** 1.5 + np.abs(y / b) ** 1.5) ** 2 + np.abs(z / c) ** 3 - 1
    if shape == Shape.TORUS:
        return np.hypot(np.hypot(x, y) - 0.6, z) - 0.2
    if shape == Shape.LATHE:
        return np.maximum(np.hypot(x, y) - spline_radius(z), np.abs(z) - c)
    height = sum(w[0] * wave(w[1] * x + w[2] * y + w[3]) for w in np.reshape(WAVES, (-1, 4)))
    return np.where(np.all(np.abs(p) <= np.array((a, b, c)), axis=-1), z - height, np.nan)


def rays(count, seed=0):
    rng = np.random.default_rng(seed)
    origins = rng.normal(size=(count, 3))
    origins *= 2.5 / np.linalg.norm(origins, axis=1, keepdims=True)
    return origins, rng.uniform(-0.7, 0.7, (count, 3)) - origins


def hits(shape, origins, directions):
    form = form_table(shape)
    return np.array(
        [
            first_hit(int(shape), halves(shape), form, 0, (tuple(o), tuple(d)))
            for o, d in zip(origins.tolist(), directions.tolist(), strict=True)
        ]
    )


@pytest.mark.parametrize("shape", list(Shape))
def test_a_ray_stops_where_it_first_enters(shape):
    origins, directions = rays(150)
    t = hits(shape, origins, directions)
    met = np.isfinite(t)
    steps = np.linspace(0, 2, 2001)
    values = outside(shape, origins[:, None] + steps[:, None] * directions[:, None])  # (rays, steps)
    crossing = (values[:, :-1] * values[:, 1:] < 0) & ((values[:, :-1] > 0) | (shape == Shape.SHEET))
    first = np.where(crossing.any(axis=1), steps[np.argmax(crossing, axis=1)], np.inf)
    assert np.count_nonzero(met) > 40
    # a crossing that ends between two steps is seen by the exact method alone, hence a few may differ
    assert np.count_nonzero(met != np.isfinite(first)) <= 2
    both = met & np.isfinite(first)
    assert np.quantile(np.abs(t[both] - first[both] - 0.0005), 0.97) <= 0.00051
    surface = outside(shape, origins[met] + t[met, None] * directions[met])
    assert np.nanmax(np.abs(surface)) < 2e-6


@pytest.mark.parametrize("shape", list(Shape))
def test_normals_point_along_the_gradient(shape):
    origins, directions = rays(150)
    t = hits(shape, origins, directions)
    points = (origins + t[:, None] * directions)[np.isfinite(t)]
    inner = points * (1 - 1e-4) if shape == Shape.SHEET else points
    step = 1e-6 * np.eye(3)
    gradient = np.stack([outside(shape, inner + s) - outside(shape, inner - s) for s in step], axis=-1)
    normals = np.array(
        [outward(int(shape), halves(shape), form_table(shape), 0, tuple(p)) for p in points.tolist()]
    )
    cosines = np.sum(normals * gradient, axis=1)
    cosines /= np.linalg.norm(normals, axis=1) * np.linalg.norm(gradient, axis=1)
    assert np.quantile(cosines[np.isfinite(cosines)], 0.03) > 0.9999  # the rest is at creases


def test_distance_to_a_sphere_is_the_closed_form():
    origins, directions = rays(300)
    t = np.array([first_hit(2, (0.6,) * 3, np.zeros((1, FORM_SIZE)), 0, (tuple(o), tuple(d)))
                  for o, d in zip(origins.tolist(), directions.tolist(), strict=True)])  # fmt: skip
    a, b = np.sum(directions**2, axis=1), np.sum(origins * directions, axis=1)
    root = b**2 - a * (np.sum(origins**2, axis=1) - 0.36)
    expected = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    np.testing.assert_allclose(t, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [s for s in Shape if s != Shape.SHEET])
def test_a_ray_from_inside_meets_nothing_closed(shape):
    inside = (0.6, 0.0, 0.01) if shape == Shape.TORUS else (0.02, 0.01, 0.03)
    form = form_table(shape)
    directions = [d for d in rays(40)[1].tolist() if shape != Shape.TORUS or d[0] > 0.3]
    assert directions
    assert all(
        first_hit(int(shape), halves(shape), form, 0, (inside, tuple(d))) == np.inf for d in directions
    )


def scene_of(thing, seed=0):
    solids, count = table_of(thing)
    look_along_y = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
    lights = np.zeros((MAX_LIGHTS, 8))
    lights[0] = (1, 0, 0, 0.5, 1, 1, 1, 0.01)
    return scenes.SceneDescription(
        seed, "test", count, solids, lights, AIR, look_along_y, math.radians(60), PHOTO
    )


def grey_wall(half=(9, 0.1, 9)):
    return box((0, 0, 0), half, materials.plain(np.random.default_rng(0), (0.5, 0.5, 0.5)))


def test_a_wall_that_faces_the_camera_has_constant_depth_and_normal():
    sample = scenes.render(scene_of(placed([grey_wall()], (0, 2.1, 0))), 16, 12)
    np.testing.assert_allclose(sample.depth, 2.0, rtol=1e-6)
    np.testing.assert_allclose(sample.normals, np.broadcast_to((0, 0, -1), (12, 16, 3)), atol=1e-6)


def test_depth_of_a_tilted_wall_is_that_of_its_plane():
    tilt = turn(0.4, 0) @ turn(0.3, 2)
    scene = scene_of(placed([grey_wall()], (0, 3, 0), 0.0, tilt))
    sample = scenes.render(scene, 16, 12)
    normal = tilt @ (0, -1, 0)  # world; in the camera: x, -z, y
    normal_cam = np.array([normal[0], -normal[2], normal[1]])
    point = np.array([0, 0, 3]) + 0.1 * normal_cam
    u, v = np.meshgrid(np.arange(16) + 0.5, np.arange(12) + 0.5)
    directions = (
        np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(scenes.intrinsics(scene, 16, 12)).T
    )
    np.testing.assert_allclose(sample.depth, point @ normal_cam / (directions @ normal_cam), rtol=1e-6)
    np.testing.assert_allclose(sample.normals, np.broadcast_to(normal_cam, (12, 16, 3)), atol=1e-6)


def test_the_angle_of_view_is_that_of_the_longer_side():
    K = scenes.intrinsics(scene_of([grey_wall()]), 40, 20)
    np.testing.assert_allclose(K, [[20 / math.tan(math.radians(30)), 0, 20], [0, K[0, 0], 10], [0, 0, 1]])


def test_sky_has_no_depth_and_no_normal():
    sample = scenes.render(scene_of(placed([grey_wall((0.2, 0.1, 0.2))], (0, 3, 0))), 16, 16)
    sky = sample.sky
    assert sky[0, 0]
    np.testing.assert_array_equal(sky, sample.depth == 0)
    assert not sky[8, 8]
    np.testing.assert_array_equal(sample.normals[sky], 0)


def test_a_board_before_the_lamp_leaves_a_shadow():
    wall = placed([grey_wall()], (0, 2.1, 0))
    board = placed([grey_wall((0.2, 0.01, 0.08))], (0, 1.0, 0.7))  # above the view
    middles = []
    for thing in (wall, wall + board):
        scene = scene_of(thing)
        scene.lights[0, 1:4] = (0, 0, 1.4)  # so that the shadow falls on the middle of the wall
        middles.append(
            scenes.render(replace(scene, air=0.02 * AIR), 32, 32).image[16, 16].astype(float).mean()
        )
    assert middles[1] < 0.7 * middles[0]


@pytest.fixture(scope="module")
def drawn():
    return [scenes.sample(seed) for seed in range(12)]


def test_the_tree_finds_what_trying_every_solid_finds(drawn):
    scene = drawn[0]
    world = tracing.build_world(scene.solids, scene.count, np.zeros(3))
    centre = -scene.cam_from_world[:3, :3].T @ scene.cam_from_world[:3, 3]
    for direction in rays(60)[1].tolist():
        o, d = tuple(centre.tolist()), tuple(direction)
        each = [tracing.solid_hit(world, i, o, d) for i in range(scene.count)]
        assert tracing.nearest(world, o, d, 1e4, -1)[0] == min(*each, 1e4)


def test_depth_and_normals_agree_on_planes(drawn):
    for scene in drawn[:6]:
        sample = scenes.render(scene, 64, 48)
        u, v = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
        K = scenes.intrinsics(scene, 64, 48)
        rays_cam = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
        points, normals = rays_cam * sample.depth[..., None], sample.normals.astype(np.float64)
        middle = normals[1:-1, 1:-1]
        around = [normals[1:-1, :-2], normals[1:-1, 2:], normals[:-2, 1:-1], normals[2:, 1:-1]]
        is_flat = np.all([np.sum(n * middle, axis=-1) > 1 - 1e-7 for n in around], axis=0)
        assert np.mean(is_flat) > 0.05
        for step in (points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]):
            off = np.abs(np.sum(step * middle, axis=-1))[is_flat] / np.linalg.norm(step, axis=-1)[is_flat]
            assert np.quantile(off, 0.8) < 1e-3  # the rest are steps between parallel planes


def test_normals_are_unit_and_face_the_camera(drawn):
    for scene in drawn[:6]:
        sample = scenes.render(scene, 32, 32)
        seen = sample.depth > 0
        u, v = np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5)
        K = scenes.intrinsics(scene, 32, 32)
        rays_cam = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
        np.testing.assert_allclose(np.linalg.norm(sample.normals[seen], axis=-1), 1, atol=1e-5)
        assert np.max(np.sum(sample.normals * rays_cam, axis=-1)[seen]) < 1e-5


def test_a_seed_gives_the_same_bytes(drawn):
    again = scenes.sample(3)
    assert all(np.array_equal(a, b) for a, b in zip(again.solids, drawn[3].solids, strict=True))
    (batched,) = scenes.render_batch([3], (48, 32))
    alone = scenes.render(drawn[3], 48, 32)
    for name in ("image", "depth", "normals", "sky"):
        np.testing.assert_array_equal(getattr(batched, name), getattr(alone, name))


def test_colours_leave_depth_alone(drawn):
    scene, rng = drawn[1], np.random.default_rng(5)
    painted = scene.solids.materials.copy()
    painted[: scene.count] = [materials.anything(rng) for _ in range(scene.count)]
    before = scenes.render(scene, 48, 48)
    after = scenes.render(replace(scene, solids=scene.solids._replace(materials=painted)), 48, 48)
    np.testing.assert_array_equal(before.depth, after.depth)
    np.testing.assert_array_equal(before.normals, after.normals)
    assert np.mean(np.any(before.image != after.image, axis=-1)) > 0.9


def test_views_show_several_things_and_not_only_sky(drawn):
    for scene in drawn:
        depth = scenes.render(scene, 32, 32).depth
        assert np.mean(depth == 0) < 0.6
        assert depth[depth > 0].min() > 0.05
        assert np.ptp(depth[depth > 0]) > 0.1 * depth.max()


def test_a_view_of_a_bare_wall_is_refused(drawn):
    assert is_good_view(drawn[0])
    assert not is_good_view(scene_of(placed([grey_wall()], (0, 2.1, 0))))


def test_a_camera_right_before_a_thing_is_refused(drawn):
    near = Solid(Shape.ELLIPSOID, np.zeros(3), np.eye(3), (0.02,) * 3, (), grey_wall().material)
    scene = drawn[0]
    forward = scene.cam_from_world[2, :3]
    centre = -scene.cam_from_world[:3, :3].T @ scene.cam_from_world[:3, 3]
    extra, _ = table_of(placed([near], centre + 0.06 * forward))
    columns = [c.copy() for c in scene.solids]
    for column, one in zip(columns, extra, strict=True):
        column[scene.count - 1] = one[0]
    assert not is_good_view(replace(scene, solids=scenes.Solids(*columns)))
