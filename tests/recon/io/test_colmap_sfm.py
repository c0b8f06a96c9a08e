"""Structure from motion on drawn photos of a room corner with a box: poses, determinism, reasons, errors."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from recon.errors import InputError, PipelineError
from recon.geometry import look_at, similarity, transform
from recon.io.colmap import (
    ColmapModel,
    SfmOptions,
    doubts_about,
    pair_matching,
    reconstruct,
    scene_from_model,
    triangulate,
)
from recon.io.colmap.model import load_reconstruction
from recon.scene import Camera, View

WIDTH, HEIGHT, FOCAL = 320, 240, 336.0
CAMERA = Camera(np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]), WIDTH, HEIGHT)
QUADS = (  # origin, first side, second side; far ones first
    ((-4.0, -3.0, 6.0), (6.5, 0.0, 0.0), (0.0, 6.0, 0.0)),  # wall z = 6
    ((2.5, -3.0, 6.0), (0.0, 0.0, -5.0), (0.0, 6.0, 0.0)),  # wall x = 2.5
    ((-4.0, 1.5, 6.0), (6.5, 0.0, 0.0), (0.0, 0.0, -5.0)),  # floor y = 1.5
    ((-0.9, -0.6, 4.5), (1.4, 0.0, 0.0), (0.0, 1.4, 0.0)),  # box front z = 4.5
)
OPTIONS = SfmOptions(max_features=250, focal_px=FOCAL)
PINHOLE = replace(OPTIONS, camera_model="PINHOLE", fix_lens=True)


def posed(index: int) -> View:
    center = np.array([-1.2 + 0.6 * index, 0.15 * (-1) ** index, 0.1 * index])
    pose = look_at(center, np.array([0.2, 0.0, 5.0]), np.array([0.0, 1.0, 0.0]))
    return View(f"photo {index}.png", CAMERA, pose)  # a blank in the name, as phones write them


@cache
def texture(seed: int) -> np.ndarray:
    """Noise of all scales, 100 texels per unit."""
    rng, total = np.random.default_rng(seed), np.zeros((650, 650, 3))
    for cells in (12, 36, 90, 200):
        total += cv2.resize(rng.normal(size=(cells, cells, 3)), (650, 650), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 35 * total, 0, 255).astype(np.uint8)


def drawn(view: View, seed: int = 0) -> np.ndarray:
    photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    array_from_pixel = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])  # OpenCV's first centre is 0
    for number, (origin, u, v) in enumerate(QUADS):
        quad = np.array([np.divide(u, 650), np.divide(v, 650), origin]).T  # world from texel
        points = view.cam_from_world[:3, :3] @ quad
        points[:, 2] += view.cam_from_world[:3, 3]
        H = array_from_pixel @ CAMERA.K @ points @ np.linalg.inv(array_from_pixel)
        layer = cv2.warpPerspective(texture(10 * seed + number), H, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
        cover = cv2.warpPerspective(np.full((650, 650), 255, np.uint8), H, (WIDTH, HEIGHT))
        photo = np.where(cover[..., None] > 127, layer, photo)
    return photo


def write_photos(folder: Path) -> dict[str, Path]:
    """Five photos by their names."""
    files = {posed(index).name: folder / posed(index).name for index in range(5)}
    for index, path in enumerate(files.values()):
        cv2.imwrite(str(path), drawn(posed(index)))
    return files


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[str, Path]:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def model(photos, work) -> ColmapModel:
    return reconstruct(photos, work, OPTIONS)


def content(model: ColmapModel) -> dict[str, bytes]:
    return {name: part.tobytes() for name, part in model.files.items()}


def test_cameras_are_where_the_photos_were_drawn(model, photos):
    views = scene_from_model(model, photos).views
    truth = np.stack([posed(index).center for index in range(5)])
    found = np.stack([view.center for view in views])
    errors = np.linalg.norm(transform(similarity(found, truth), found) - truth, axis=1)
    assert [view.name for view in views] == list(photos)
    assert errors.max() < 0.02  # of 2.4 units; at 320 px a keypoint is good to about 0.3 px
    assert model.summary["mean_reprojection_error_px"] < 0.6


def test_points_have_the_colours_of_the_photos(photos, work):
    scene = scene_from_model(reconstruct(photos, work, PINHOLE), photos)
    pixels = scene.cloud.uv[scene.cloud.seen[:, 1] == 0].astype(int)
    points = scene.cloud.seen[scene.cloud.seen[:, 1] == 0, 0]
    photo = cv2.imread(str(photos["photo 0.png"]))[..., ::-1]
    inside = (pixels >= 0).all(axis=1) & (pixels < [WIDTH, HEIGHT]).all(axis=1)
    column, row = pixels[inside].T
    difference = np.abs(photo[row, column].astype(int) - scene.cloud.colors[points[inside]])
    assert np.median(difference) < 15


def test_two_runs_in_other_folders_and_orders_give_the_same_bytes(model, photos, tmp_path):
    again = reconstruct(dict(reversed(photos.items())), tmp_path, OPTIONS)
    assert content(again) == content(model)


def test_a_run_that_goes_on_after_a_crash_gives_the_same_bytes(model, photos, tmp_path):
    def crash(step: str, done: int, total: int) -> None:
        if step == "mapping":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(photos, tmp_path, OPTIONS, on_progress=crash)
    next((tmp_path / "features").glob("*.npz")).unlink()
    assert content(reconstruct(photos, tmp_path, OPTIONS)) == content(model)


def test_processes_that_match_give_the_same_bytes(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pair_matching, "WORKER_LOOKUPS", 1)
    monkeypatch.setattr(pair_matching, "thread_count", lambda: 3)
    assert content(reconstruct(photos, tmp_path, OPTIONS)) == content(model)
    assert not list(tmp_path.glob("blocks-*"))


def test_a_process_that_ends_too_early_is_said_and_a_run_after_it_goes_on(
    model, photos, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(pair_matching, "WORKER_LOOKUPS", 1)
        patch.setattr(pair_matching, "thread_count", lambda: 3)
        patch.setattr(pair_matching, "WORKER", "raise SystemExit(9)")
        with pytest.raises(PipelineError, match=r"matching: a process ended \(exit code 9\)"):
            reconstruct(photos, tmp_path, OPTIONS)
    assert content(reconstruct(photos, tmp_path, OPTIONS)) == content(model)


def test_progress_of_each_step_ends_at_its_total(photos, work):
    calls: list[tuple[str, int, int]] = []
    reconstruct(photos, work, OPTIONS, on_progress=lambda *call: calls.append(call))
    last = {step: (done, total) for step, done, total in calls}
    assert last == {"features": (5, 5), "matching": (10, 10), "mapping": (5, 5)}


def test_photos_that_cannot_be_used_are_dropped_with_the_true_reason(photos, work, tmp_path):
    others = {"blank.png": np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "other.png": drawn(posed(2), seed=5)}
    for name, picture in others.items():
        cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / "torn.png").write_bytes(photos["photo 0.png"].read_bytes()[:5000])
    extra = {name: tmp_path / name for name in (*others, "torn.png")}
    dropped = reconstruct(photos | extra, work, OPTIONS).dropped
    assert list(dropped) == ["blank.png", "other.png", "torn.png"]
    assert dropped["blank.png"].startswith("no features")
    assert "matches" in dropped["other.png"]
    assert "torn.png" in dropped["torn.png"]


def test_photos_that_match_each_other_but_not_the_placed_ones_say_so(photos, work, tmp_path):
    others = {}
    for number in (1, 2):
        others[f"other {number}.png"] = tmp_path / f"other {number}.png"
        cv2.imwrite(str(others[f"other {number}.png"]), drawn(posed(number), seed=5))
    dropped = reconstruct(photos | others, work, OPTIONS).dropped
    assert list(dropped) == ["other 1.png", "other 2.png"]
    assert "with other 2.png, is left out as well" in dropped["other 1.png"]
    assert "photos that were placed" in dropped["other 1.png"]


def test_a_large_photo_keeps_its_size_in_the_model(photos, tmp_path):
    large = {}
    for name, path in photos.items():
        large[name] = tmp_path / name
        cv2.imwrite(str(large[name]), cv2.resize(cv2.imread(str(path)), (641, 481)))
    options = replace(OPTIONS, max_image_size=320, focal_px=2 * FOCAL)
    result = reconstruct(large, tmp_path, options)
    camera = next(iter(load_reconstruction(result).cameras.values()))
    assert (camera.width, camera.height) == (641, 481)
    assert camera.params[0] == pytest.approx(2 * FOCAL, rel=0.03)
    assert result.summary["mean_reprojection_error_px"] < 1.2


def test_masked_parts_get_no_points(photos, tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, : WIDTH // 2] = 255
    for name in photos:
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)
    result = reconstruct(photos, tmp_path / "work", OPTIONS, masks=tmp_path)
    assert load_reconstruction(result).num_points3D() > 50
    for image in load_reconstruction(result).images.values():
        assert max(keypoint.xy[0] for keypoint in image.points2D) <= WIDTH / 2


def test_global_mapping_finds_the_same_cameras(photos, work):
    views = scene_from_model(reconstruct(photos, work, replace(OPTIONS, mapper="global")), photos).views
    truth = np.stack([posed(index).center for index in range(5)])
    found = np.stack([view.center for view in views])
    assert np.linalg.norm(transform(similarity(found, truth), found) - truth, axis=1).max() < 0.03


@pytest.mark.parametrize("matcher", ["sequential", "retrieval"])
def test_other_matchers_place_all_photos(photos, work, matcher):
    result = reconstruct(photos, work, replace(OPTIONS, matcher=matcher, neighbors=2), ordered=True)
    assert result.summary["images"] == 5


def test_a_fixed_lens_stays_as_given(photos, work):
    result = reconstruct(photos, work, PINHOLE)
    camera = next(iter(load_reconstruction(result).cameras.values()))
    np.testing.assert_array_equal(camera.params, [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2])


def test_one_photo_is_a_clear_error(photos, tmp_path):
    with pytest.raises(PipelineError, match="1 of at least 2 photos found"):
        reconstruct({"photo 0.png": photos["photo 0.png"]}, tmp_path, OPTIONS)


def test_unrelated_photos_are_a_clear_error(photos, tmp_path):
    cv2.imwrite(str(tmp_path / "other.png"), drawn(posed(2), seed=5))
    pair = {"photo 0.png": photos["photo 0.png"], "other.png": tmp_path / "other.png"}
    with pytest.raises(PipelineError, match="none of 2 photos could be placed"):
        reconstruct(pair, tmp_path, OPTIONS)


def test_two_unreadable_photos_are_a_clear_error(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no photo")
    with pytest.raises(PipelineError, match="0 of 2 photos can be read"):
        reconstruct({name: tmp_path / name for name in ("a.png", "b.png")}, tmp_path, OPTIONS)


def test_parameters_that_do_not_fit_the_lens_model_are_an_input_error():
    with pytest.raises(InputError, match="2 numbers, SIMPLE_RADIAL has 4"):
        replace(OPTIONS, camera_params=(1.0, 2.0))


def test_triangulated_points_lie_on_the_drawn_surfaces_and_poses_stay(photos, work):
    views = [posed(index) for index in range(5)]
    result = triangulate(photos, views, work, OPTIONS)
    points = scene_from_model(result, photos).cloud.points
    box = (np.abs(points[:, :2] + [0.2, -0.1]) < 0.7).all(axis=1)
    planes = [points[:, 2] - 6, points[:, 0] - 2.5, points[:, 1] - 1.5, np.where(box, points[:, 2] - 4.5, 9)]
    distance = np.abs(planes).min(axis=0)
    assert len(points) > 200
    assert np.median(distance) < 0.01
    assert np.quantile(distance, 0.95) < 0.06
    for image in load_reconstruction(result).images.values():
        given = next(view for view in views if view.name == image.name).cam_from_world
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(given[:3, :3]), given[:3, 3])
        # COLMAP's reader normalises quaternions, which moves their last bit.
        np.testing.assert_allclose(image.cam_from_world().rotation.quat, pose.rotation.quat, atol=4e-16)
        np.testing.assert_array_equal(image.cam_from_world().translation, pose.translation)
        np.testing.assert_array_equal(image.camera.params, [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2])


def test_two_photos_of_known_poses_are_enough(photos, tmp_path):
    pair = dict(list(photos.items())[:2])
    result = triangulate(pair, [posed(0), posed(1)], tmp_path, OPTIONS)
    assert result.summary["points"] > 100
    assert not result.note


def moved(view: View, rng: np.random.Generator) -> View:
    """The view as a tracker might tell it: 3 % of the distance off, turned by half a degree or so."""
    turn = cv2.Rodrigues(np.radians(0.4) * rng.normal(size=3))[0]
    pose = np.eye(4)
    pose[:3, :3] = turn @ view.cam_from_world[:3, :3]
    pose[:3, 3] = -pose[:3, :3] @ (view.center + 0.05 * rng.normal(size=3))
    return replace(view, cam_from_world=pose)


def distances(result: ColmapModel, photos: dict[str, Path]) -> np.ndarray:
    """Of each point seen by at least three photos to the nearest surface of the drawn world."""
    cloud = scene_from_model(result, photos).cloud
    points = cloud.points[np.bincount(cloud.seen[:, 0]) >= 3]
    return np.abs([points[:, 2] - 6, points[:, 0] - 2.5, points[:, 1] - 1.5, points[:, 2] - 4.5]).min(axis=0)


def centers(result: ColmapModel, photos: dict[str, Path]) -> np.ndarray:
    return np.stack([view.center for view in scene_from_model(result, photos).views])


def test_poses_that_the_photos_contradict_are_refined(photos, work):
    rng = np.random.default_rng(0)
    views = [moved(posed(index), rng) for index in range(5)]
    kept = triangulate(photos, views, work, OPTIONS, keep_poses=True)
    refined = triangulate(photos, views, work, OPTIONS)
    assert not kept.note
    assert "contradict the given poses" in refined.note
    assert "retriangulate" in doubts_about(kept)
    assert not doubts_about(refined)
    assert len(distances(refined, photos)) > 2 * len(distances(kept, photos))
    truth = np.stack([posed(index).center for index in range(5)])
    given, found = np.stack([view.center for view in views]), centers(refined, photos)
    shape_off = np.linalg.norm(transform(similarity(found, truth), found) - truth, axis=1)
    assert shape_off.max() < 0.02 < np.linalg.norm(given - truth, axis=1).max()
    assert np.linalg.norm(given.mean(axis=0) - found.mean(axis=0)) < 0.02  # the frame is the given one
    np.testing.assert_allclose(np.ptp(found, axis=0)[0], np.ptp(given, axis=0)[0], rtol=0.03)
    again = triangulate(photos, views, work, OPTIONS)
    assert content(refined) == content(again)


def test_a_photo_that_tells_nothing_keeps_its_pose(photos, work, tmp_path):
    rng = np.random.default_rng(0)
    views = [moved(posed(index), rng) for index in range(5)]
    blank = tmp_path / "photo 4.png"
    cv2.imwrite(str(blank), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    files = photos | {blank.name: blank}
    refined = triangulate(files, views, tmp_path, OPTIONS)
    assert refined.note
    given, found = np.stack([view.center for view in views]), centers(refined, files)
    assert np.linalg.norm(given[:4] - found[:4], axis=1).min() > 1e-3
    np.testing.assert_allclose(given[4], found[4], atol=1e-12)


def test_poses_of_other_photos_are_a_clear_error(photos, work):
    with pytest.raises(PipelineError, match="0 of at least 2 photos found"):
        triangulate(photos, [replace(posed(0), name="elsewhere.png")], work, OPTIONS)


def test_two_photos_taken_close_together_are_enough(photos, tmp_path):
    pair = dict(list(photos.items())[:2])  # 7 degrees apart, seen from the scene
    assert reconstruct(pair, tmp_path, OPTIONS).summary["images"] == 2


def test_a_lens_model_with_many_parameters_does_not_fall_apart(photos, work):
    assert reconstruct(photos, work, replace(OPTIONS, camera_model="FULL_OPENCV")).summary["images"] == 5


def test_blank_photos_are_a_clear_error_with_retrieval_too(tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    blank = {name: tmp_path / name for name in ("a.png", "b.png")}
    with pytest.raises(PipelineError, match="no two of them have a match"):
        reconstruct(blank, tmp_path, replace(OPTIONS, matcher="retrieval"))
