import numpy as np
import pytest
from PIL import Image

from recon import synthetic
from recon.errors import InputError
from recon.geometry import invert, points_from_depth, project, rays, sample, transform
from recon.raycasting import RayCaster
from recon.scene import Camera, Lens


@pytest.fixture(scope="module")
def capture():
    world = synthetic.room()
    sampling = synthetic.PointSampling(count=600)
    return synthetic.capture(world, synthetic.room_cameras(world, 96, 72, 8), seed=3, points=sampling)


def test_capture_is_deterministic():
    world = synthetic.tabletop()
    cameras = synthetic.tabletop_cameras(world, 32, 24, 4)
    first, second = (synthetic.capture(world, cameras, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.scene.cloud.points, second.scene.cloud.points)
    np.testing.assert_array_equal(first.images["view_002.png"], second.images["view_002.png"])


def test_other_seeds_give_other_textures_of_the_same_surface():
    first, second = synthetic.tabletop(0), synthetic.tabletop(1)
    cameras = synthetic.tabletop_cameras(first, 32, 24, 2)
    one, two = (synthetic.capture(world, cameras, seed=0) for world in (first, second))
    np.testing.assert_array_equal(one.depth_maps["view_000.png"].depth, two.depth_maps["view_000.png"].depth)
    assert np.abs(one.images["view_000.png"].astype(int) - two.images["view_000.png"]).mean() > 5


def test_depth_of_a_plane_is_its_formula():
    world = synthetic.plane()
    camera = Camera.from_fov(32, 24, 40.0)
    ((_, cam_from_world),) = synthetic.orbit(world, camera, radius=0.5, height=1.5, count=1)
    depth_map = synthetic.exact_depth(RayCaster(world.mesh), camera, cam_from_world)
    normal = cam_from_world[:3, :3] @ [0, 0, 1]
    distance = normal @ transform(cam_from_world, world.center[None])[0]
    expected = distance / (rays(camera.K, 32, 24) @ normal)
    np.testing.assert_allclose(depth_map.depth, expected, rtol=1e-6)
    np.testing.assert_allclose(depth_map.normals, np.broadcast_to(normal, (24, 32, 3)), atol=1e-6)


def test_depth_of_a_sphere_is_its_formula():
    world = synthetic.sphere()
    camera = Camera.from_fov(32, 24, 20.0)
    ((_, cam_from_world),) = synthetic.orbit(world, camera, radius=4.0, height=1.0, count=1)
    depth_map = synthetic.exact_depth(RayCaster(world.mesh), camera, cam_from_world)
    points = transform(invert(cam_from_world), points_from_depth(camera.K, depth_map.depth))
    radii = np.linalg.norm(points - world.center, axis=-1)
    assert (depth_map.depth > 0).all()
    np.testing.assert_allclose(radii, 1, atol=3e-4)  # the sag that the triangles are said to have


def test_photos_agree_on_the_color_of_a_surface_point(capture):
    cloud, views = capture.scene.cloud, capture.scene.views
    seen_by = [cloud.seen[cloud.seen[:, 1] == index, 0] for index in (0, 1)]
    both = np.intersect1d(*seen_by)
    colors = [
        sample(
            capture.images[view.name].astype(np.float64),
            project(view.camera.K, transform(view.cam_from_world, cloud.points[both])),
        ).mean(axis=1)
        for view in views[:2]
    ]
    assert len(both) > 40
    assert np.corrcoef(*colors)[0, 1] > 0.7


def test_blank_surfaces_have_no_points_and_no_features():
    world = synthetic.tabletop(textured=False)
    result = synthetic.capture(world, synthetic.tabletop_cameras(world, 64, 48, 6), seed=0)
    heights = result.scene.cloud.points[:, 2] - world.center[2] + 0.06
    assert len(result.scene.cloud.points) > 100
    assert np.abs(heights).max() < 0.06  # the cloth is flat at height 0; the things on it reach 0.2


def test_points_without_noise_lie_on_the_surface_and_on_their_pixels():
    world = synthetic.room()
    sampling = synthetic.PointSampling(count=200, noise_px=0.0)
    result = synthetic.capture(world, synthetic.room_cameras(world, 64, 48, 8), seed=0, points=sampling)
    cloud = result.scene.cloud
    assert RayCaster(world.mesh).distance(cloud.points).max() < 1e-4  # float32 distance, long triangles
    assert cloud.errors.max() < 1e-9


def test_point_noise_is_what_triangulation_makes_of_keypoint_noise(capture):
    scene = capture.scene
    z = []
    for view in scene.views:
        anchors = scene.anchors(view)
        true_depth = sample_nearest(capture.depth_maps[view.name].depth, anchors.uv)
        flat = np.abs(anchors.depth / true_depth - 1) < 0.1  # not across an edge
        z.append(((anchors.depth - true_depth) / anchors.sigma)[flat])
    spread = 1.48 * np.median(np.abs(np.concatenate(z)))
    assert 0.3 < spread < 1.5  # sigma is of two views and 0.7 px, the points have up to 8 views and 0.5 px


def sample_nearest(depth, uv):
    u, v = uv.astype(int).T
    return depth[v, u].astype(np.float64)


def test_outliers_are_consistent_in_their_views_but_off_the_surface():
    world = synthetic.room()
    sampling = synthetic.PointSampling(count=300, outliers=0.4)
    result = synthetic.capture(world, synthetic.room_cameras(world, 64, 48, 8), seed=0, points=sampling)
    cloud = result.scene.cloud
    far = RayCaster(world.mesh).distance(cloud.points) > 0.15
    assert 0.2 < far.mean() < 0.45
    assert np.median(cloud.errors[far]) < 1.0


def test_every_point_has_two_views_and_each_observation_is_in_its_picture(capture):
    cloud = capture.scene.cloud
    assert (np.bincount(cloud.seen[:, 0], minlength=len(cloud.points)) >= 2).all()
    assert ((cloud.uv >= 0) & (cloud.uv < [96, 72])).all()
    assert len(np.unique(cloud.seen, axis=0)) == len(cloud.seen)


def test_supersampling_converges():
    world = synthetic.tabletop()
    camera = synthetic.tabletop_cameras(world, 32, 24, 1)
    photos = [
        synthetic.capture(world, camera, seed=0, supersample=s).images["view_000.png"] for s in (1, 4, 8)
    ]
    rough, fine = (np.abs(photos[i].astype(int) - photos[2]).mean() for i in (0, 1))
    assert fine < rough / 2


def test_written_photos_read_back_equal_and_carry_the_focal_length(capture, tmp_path):
    synthetic.write_photos(capture, tmp_path)
    with Image.open(tmp_path / "view_001.png") as photo:
        equivalent_mm = photo.getexif().get_ifd(0x8769)[0xA405]
        np.testing.assert_array_equal(np.asarray(photo), capture.images["view_001.png"])
    focal = equivalent_mm / 43.27 * np.hypot(96, 72)
    assert focal == pytest.approx(capture.scene.views[1].camera.K[0, 0], rel=0.03)  # whole millimetres


def test_a_capture_without_cameras_is_an_input_error():
    with pytest.raises(InputError, match="without cameras"):
        synthetic.capture(synthetic.plane(), [], seed=0)


def test_a_lens_puts_every_ray_where_its_formula_says():
    fine = Camera.from_fov(400, 300, 80.0)
    lens = Lens("SIMPLE_RADIAL", np.array([100.0, 48.5, 36.0, -0.12]), 96, 72)
    ramp = (np.arange(400) // 2).astype(np.uint8)  # grey = half the column of the pinhole picture
    photo = synthetic.through_lens(np.broadcast_to(ramp[None, :, None], (300, 400, 3)).copy(), fine, lens)
    x, y = np.meshgrid(np.linspace(-0.3, 0.3, 9), np.linspace(-0.2, 0.2, 7))
    factor = 100 * (1 - 0.12 * (x**2 + y**2))
    uv = np.stack([48.5 + factor * x, 36 + factor * y], axis=-1).reshape(-1, 2)
    columns = (fine.K[0, 0] * x + fine.K[0, 2]).ravel()
    np.testing.assert_allclose(sample(photo[..., 0].astype(np.float64), uv), columns / 2 - 0.5, atol=0.75)


def test_a_lens_without_distortion_changes_nothing(capture):
    view = capture.scene.views[0]
    K = view.camera.K
    lens = Lens("SIMPLE_RADIAL", np.array([K[0, 0], K[0, 2], K[1, 2], 0.0]), 96, 72)
    photo = synthetic.through_lens(capture.images[view.name], view.camera, lens)
    np.testing.assert_array_equal(photo, capture.images[view.name])


def test_another_lens_model_is_an_input_error():
    lens = Lens("OPENCV", np.zeros(8), 8, 8)
    with pytest.raises(InputError, match="model OPENCV"):
        synthetic.through_lens(np.zeros((8, 8, 3), np.uint8), Camera.from_fov(8, 8, 60.0), lens)
