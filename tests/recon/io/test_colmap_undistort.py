"""Undistortion of every COLMAP camera model: observations, pinhole cameras, photo pixels."""

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from recon.errors import InputError, PipelineError
from recon.geometry import invert, pixel_centers, project, rays, transform
from recon.io.colmap import ColmapModel, photo_pixels, scene_from_model
from recon.io.colmap.model import model_from_reconstruction
from recon.scene import Camera, Lens, View

WIDTH, HEIGHT = 400, 300
LENSES = {
    "SIMPLE_PINHOLE": [350, 205, 148],
    "PINHOLE": [350, 340, 205, 148],
    "SIMPLE_RADIAL": [350, 205, 148, -0.15],
    "RADIAL": [350, 205, 148, 0.2, -0.05],
    "OPENCV": [350, 340, 205, 148, -0.2, 0.05, 0.002, -0.003],
    "FULL_OPENCV": [350, 340, 205, 148, -0.2, 0.05, 0.002, -0.003, 0.01, 0.02, -0.01, 0.005],
    "FOV": [300, 300, 205, 148, 0.8],
    "SIMPLE_FISHEYE": [200, 205, 148],
    "FISHEYE": [120, 118, 205, 148],
    "SIMPLE_RADIAL_FISHEYE": [200, 205, 148, 0.03],
    "RADIAL_FISHEYE": [200, 205, 148, 0.03, -0.01],
    "OPENCV_FISHEYE": [130, 131, 205, 148, 0.02, -0.01, 0.002, -0.0005],
    "THIN_PRISM_FISHEYE": [250, 248, 205, 148, 0.02, -0.01, 0.001, 0.002, 0.001, 0.001, 0.002, -0.001],
    "RAD_TAN_THIN_PRISM_FISHEYE": [
        *(250, 248, 205, 148, 0.02, -0.01, 0.001, 0, 0, 0),
        *(0.001, 0.002, 0.001, 0.001, 0.002, -0.001),
    ],
    "SIMPLE_DIVISION": [350, 205, 148, -0.2],
    "DIVISION": [350, 340, 205, 148, -0.2],
    "EUCM": [300, 298, 205, 148, 0.6, 1.1],
    "EQUIRECTANGULAR": [WIDTH, HEIGHT],
}
lenses = pytest.mark.parametrize("name", LENSES)


def colmap_camera(name: str) -> pycolmap.Camera:
    params = np.array(LENSES[name], float)
    return pycolmap.Camera(camera_id=1, model=name, width=WIDTH, height=HEIGHT, params=params)


def photographed(name: str, folder: Path) -> tuple[ColmapModel, dict[str, Path], np.ndarray]:
    """A model of two photos through a lens that both see 60 random points."""
    rng = np.random.default_rng(7)
    points = np.column_stack([rng.uniform(-1.2, 1.2, (60, 2)), rng.uniform(2.5, 5, 60)])
    model, photos = pycolmap.Reconstruction(), {}
    model.add_camera_with_trivial_rig(colmap_camera(name))
    for index in (1, 2):
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([0.2 * index, 0.1, 0]))
        keypoints = colmap_camera(name).img_from_cam(points + pose.translation)
        image = pycolmap.Image(name=f"{index}.png", camera_id=1, image_id=index, keypoints=keypoints)
        model.add_image_with_trivial_frame(image, pose)
        photos[f"{index}.png"] = folder / f"{index}.png"
        cv2.imwrite(str(photos[f"{index}.png"]), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    for row, point in enumerate(points):
        track = pycolmap.Track()
        track.add_element(1, row)
        track.add_element(2, row)
        model.add_point3D(point, track, np.array([10, 20, 30], np.uint8))
    return model_from_reconstruction(model, {}), photos, points


@lenses
def test_undistorted_observations_are_the_pinhole_projections(name, tmp_path):
    model, photos, _ = photographed(name, tmp_path)
    scene = scene_from_model(model, photos, max_size=320)
    for index, view in enumerate(scene.views):
        rows = scene.cloud.seen[:, 1] == index
        points = scene.cloud.points[scene.cloud.seen[rows, 0]]
        expected = project(view.camera.K, transform(view.cam_from_world, points))
        assert rows.sum() == 60
        np.testing.assert_allclose(scene.cloud.uv[rows], expected, atol=1e-3)


@lenses
def test_photo_pixels_are_where_the_lens_puts_the_rays(name, tmp_path):
    model, photos, _ = photographed(name, tmp_path)
    view = scene_from_model(model, photos).views[0]
    small = view.camera.resized(40, 30)
    pixels = photo_pixels(view, 2 * WIDTH, 2 * HEIGHT, small) / 2
    back = colmap_camera(name).cam_ray_from_img(pixels.reshape(-1, 2)).reshape(30, 40, 3)
    np.testing.assert_allclose(back / back[..., 2:], rays(small.K, 40, 30), atol=1e-4)


@lenses
def test_the_pinhole_picture_has_no_blank_pixel_and_touches_the_photos_border(name, tmp_path):
    model, photos, _ = photographed(name, tmp_path)
    view = scene_from_model(model, photos).views[0]
    pixels = photo_pixels(view, WIDTH, HEIGHT)
    fov = 2 * np.degrees(np.arctan(view.camera.width / (2 * view.camera.K[0, 0])))
    gap = min(pixels.min(), (np.array([WIDTH, HEIGHT]) - pixels).min())
    assert np.isfinite(pixels).all()
    assert gap < 3 or fov > 110  # px; a wide lens is cut to 120 degrees


def test_an_ideal_pinhole_photo_has_no_lens_and_keeps_its_calibration(tmp_path):
    model, photos, _ = photographed("PINHOLE", tmp_path)
    view = scene_from_model(model, photos).views[0]
    assert view.lens is None
    np.testing.assert_array_equal(view.camera.K, [[350, 0, 205], [0, 340, 148], [0, 0, 1]])
    np.testing.assert_allclose(photo_pixels(view, WIDTH, HEIGHT), pixel_centers(WIDTH, HEIGHT))


def test_a_fisheye_wider_than_the_limit_is_cut_to_it(tmp_path):
    model, photos, _ = photographed("EQUIRECTANGULAR", tmp_path)
    camera = scene_from_model(model, photos).views[0].camera
    assert np.degrees(2 * np.arctan(camera.width / 2 / camera.K[0, 0])) == pytest.approx(120, abs=0.5)


def test_the_longer_side_is_limited_and_the_field_of_view_stays(tmp_path):
    model, photos, _ = photographed("OPENCV", tmp_path)
    full = scene_from_model(model, photos).views[0].camera
    small = scene_from_model(model, photos, max_size=100).views[0].camera
    assert max(small.width, small.height) == 100
    np.testing.assert_allclose(small.resized(full.width, full.height).K, full.K, rtol=1e-9)


def test_a_model_of_half_the_photos_size_fits_the_photo(tmp_path):
    model, photos, _ = photographed("SIMPLE_RADIAL", tmp_path)
    for path in photos.values():
        cv2.imwrite(str(path), np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8))
    view = scene_from_model(model, photos).views[0]
    pixel = photo_pixels(view, 2 * WIDTH, 2 * HEIGHT)[0, 0]
    ray = rays(view.camera.K, view.camera.width, view.camera.height)[:1, 0]
    np.testing.assert_allclose(pixel, 2 * colmap_camera("SIMPLE_RADIAL").img_from_cam(ray)[0], atol=1e-6)


def test_photos_and_model_images_without_partner_are_dropped_with_a_reason(tmp_path):
    model, photos, _ = photographed("RADIAL", tmp_path)
    photos["extra.png"] = photos.pop("2.png")
    scene = scene_from_model(model, photos)
    assert [view.name for view in scene.views] == ["1.png"]
    assert scene.dropped == {
        "2.png": "in the COLMAP model, but not among the photos",
        "extra.png": "not in the COLMAP model",
    }


def test_a_photo_turned_since_the_model_was_made_is_dropped(tmp_path):
    model, photos, _ = photographed("RADIAL", tmp_path)
    cv2.imwrite(str(photos["2.png"]), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    assert "300x400" in scene_from_model(model, photos).dropped["2.png"]


def test_a_model_of_other_photos_is_one_clear_error(tmp_path):
    model, _, _ = photographed("RADIAL", tmp_path)
    with pytest.raises(PipelineError, match="none of its 2 photos"):
        scene_from_model(model, {"other.png": tmp_path / "1.png"})


def test_poses_are_those_of_the_model(tmp_path):
    model, photos, _ = photographed("RADIAL", tmp_path)
    views = scene_from_model(model, photos).views
    np.testing.assert_allclose(invert(views[1].cam_from_world)[:3, 3], [-0.4, -0.1, 0], atol=1e-12)


def test_an_unknown_lens_model_is_an_input_error():
    view = View("a.png", Camera.from_fov(8, 6, 60.0), np.eye(4), lens=Lens("NO_LENS", np.ones(3), 8, 6))
    with pytest.raises(InputError, match="NO_LENS"):
        photo_pixels(view, 8, 6)
