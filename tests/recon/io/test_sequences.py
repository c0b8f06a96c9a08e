import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from recon.errors import InputError, ViewError
from recon.geometry import invert, look_at, points_from_depth, rotation_from_wxyz, transform
from recon.io.maps import write_depth_png
from recon.io.sequences import Sequence, read_sequence

WIDTH, HEIGHT = 32, 24
K = np.array([[30.0, 0, 15], [0, 31, 12], [0, 0, 1]])  # as OpenCV writes it


def pose(number: int) -> np.ndarray:
    """World from camera of frame `number`."""
    center = np.array([0.1 * number, 0.2, -0.3])
    return invert(look_at(center, np.array([1.0, 0.5, 4.0]), np.array([0.1, 1.0, 0.0])))


def wxyz(rotation: np.ndarray) -> np.ndarray:
    axis, _ = cv2.Rodrigues(rotation)
    angle = np.linalg.norm(axis)
    return np.array([np.cos(angle / 2), *(axis.ravel() / angle * np.sin(angle / 2))])


def write_photo(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "green").save(path)


def write_depth(path: Path, scale: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.full(size[::-1], 2, np.float32)
    depth[0, 0] = 0
    write_depth_png(path, depth, scale=scale)


def text(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.9f}" for value in row) for row in matrix) + "\n"


def make_tum(folder: Path, sequence: str = "made up") -> Path:
    rgb, depth, truth = [f"# file: '{sequence}.bag'"], ["# depth"], ["# t tx ty tz qx qy qz qw"]
    for number in range(4):
        time = 100 + number / 30
        write_photo(folder / "rgb" / f"{number}.png")
        write_depth(folder / "depth" / f"{number}.png", 5000.0)
        rgb.append(f"{time:.6f} rgb/{number}.png")
        depth.append(f"{time + (0.01 if number < 3 else 0.05):.6f} depth/{number}.png")
        w, x, y, z = wxyz(pose(number)[:3, :3])
        center = " ".join(f"{value:.9f}" for value in pose(number)[:3, 3])
        truth.append(f"{time - 0.004:.6f} {center} {x:.9f} {y:.9f} {z:.9f} {w:.9f}")
    for name, lines in {"rgb": rgb, "depth": depth, "groundtruth": truth}.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "camera.txt").write_text("30 31 15 12  # fx fy cx cy")
    return folder


def make_seven_scenes(folder: Path) -> Path:
    for number in range(4):
        prefix = folder / f"frame-{number:06d}"
        write_photo(prefix.with_suffix(".color.png"))
        write_depth(prefix.with_suffix(".depth.png"), 1000.0)
        prefix.with_suffix(".pose.txt").write_text(text(pose(number)))
    (folder / "frame-000003.pose.txt").write_text("-1.#IND " * 12 + "0 0 0 1")
    (folder / "camera-intrinsics.txt").write_text(text(K))
    return folder


def make_redwood(folder: Path) -> Path:
    lines = []
    for number in range(4):
        write_photo(folder / "color" / f"{number:05d}-000{number}.jpg")
        write_depth(folder / "depth" / f"{number:05d}-999{number}.png", 1000.0)
        lines.append(f"{number} {number} {number + 1}\n{text(pose(number))}")
    (folder / "depth" / "00003-9993.png").unlink()
    (folder / "trajectory.log").write_text("".join(lines))
    columns = K.T.ravel().tolist()
    content = {"width": WIDTH, "height": HEIGHT, "intrinsic_matrix": columns}
    (folder / "camera_intrinsic.json").write_text(json.dumps(content))
    return folder


def make_transforms(folder: Path, **fields) -> Path:
    frames = []
    for number in range(4):
        write_photo(folder / "images" / f"{number}.png")
        write_depth(folder / "depth" / f"{number}.png", 1000.0)
        opengl = pose(number) @ np.diag([1.0, -1, -1, 1])
        frames.append(
            {
                "file_path": f"images/{number}.png",
                "depth_file_path": f"depth/{number}.png",
                "transform_matrix": opengl.tolist(),
            }
        )
    frames[3]["transform_matrix"] = (2 * np.eye(4)).tolist()
    shared = {"fl_x": 30, "fl_y": 31, "cx": 15.5, "cy": 12.5, "w": WIDTH, "h": HEIGHT}
    (folder / "transforms.json").write_text(json.dumps({**shared, **fields, "frames": frames}))
    return folder


def make_meta(folder: Path) -> Path:
    frames = []
    for number in range(4):
        write_photo(folder / "c" / f"{number}.png")
        write_depth(folder / "d" / f"{number}.png", 500.0)
        frames.append({"color": f"c/{number}.png", "depth": f"d/{number}.png", "pose": pose(number).tolist()})
    frames[3]["depth"] = "d/missing.png"
    content = {"K": K.tolist(), "width": WIDTH, "height": HEIGHT, "depth_scale": 500, "frames": frames}
    (folder / "meta.json").write_text(json.dumps(content))
    return folder


MAKERS = [make_tum, make_seven_scenes, make_redwood, make_transforms, make_meta]
LAYOUTS = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


@LAYOUTS
def test_every_layout_gives_the_poses_it_was_written_with(tmp_path, make):
    sequence = read_sequence(make(tmp_path))
    assert len(sequence.frames) == 3
    for number, frame in enumerate(sequence.frames):
        assert np.allclose(frame.view.cam_from_world @ pose(number), np.eye(4), atol=1e-6)


@LAYOUTS
def test_every_layout_gives_k_with_our_half_pixel(tmp_path, make):
    for frame in read_sequence(make(tmp_path)).frames:
        assert np.allclose(frame.view.camera.K, [[30, 0, 15.5], [0, 31, 12.5], [0, 0, 1]])
        assert (frame.view.camera.width, frame.view.camera.height) == (WIDTH, HEIGHT)
        assert frame.view.lens is None


@LAYOUTS
def test_every_layout_gives_depth_in_metres_and_0_for_none(tmp_path, make):
    sequence = read_sequence(make(tmp_path))
    depth = sequence.read_depth(sequence.frames[0])
    assert sequence.is_metric
    assert depth.shape == (HEIGHT, WIDTH)
    assert depth[0, 0] == 0
    assert np.allclose(depth.ravel()[1:], 2)


@LAYOUTS
def test_names_are_paths_below_the_folder(tmp_path, make):
    for frame in read_sequence(make(tmp_path)).frames:
        assert tmp_path / frame.name == frame.view.image
        assert frame.view.image.is_file()


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (make_tum, "rgb/3.png", "no depth within 20 ms"),
        (make_seven_scenes, "frame-000003.color.png", "tracking was lost"),
        (make_redwood, "color/00003-0003.jpg", "no depth map has the number"),
        (make_transforms, "images/3.png", "no rotation and translation"),
        (make_meta, "c/3.png", "file missing.png is missing"),
    ],
)
def test_a_frame_that_cannot_be_used_is_dropped_with_its_reason(tmp_path, make, name, reason):
    dropped = read_sequence(make(tmp_path)).dropped
    assert list(dropped) == [name]
    assert reason in dropped[name]


@pytest.mark.parametrize(
    ("sequence", "lens"), [("freiburg1_desk", "FULL_OPENCV"), ("freiburg3_office", None)]
)
def test_the_camera_of_a_tum_sequence_is_known_by_its_name(tmp_path, sequence, lens):
    view = read_sequence(make_tum(tmp_path, f"rgbd_dataset_{sequence}")).frames[0].view
    assert (view.lens.model if view.lens else None) == lens
    assert view.camera.K[0, 2] == {"FULL_OPENCV": 319.1, None: 320.6}[lens]


def test_tum_times_are_those_of_the_photos(tmp_path):
    frames = read_sequence(make_tum(tmp_path)).frames
    assert np.allclose([frame.timestamp for frame in frames], 100 + np.arange(3) / 30, atol=1e-6)


def test_seven_scenes_frames_in_a_subfolder_are_found(tmp_path):
    make_seven_scenes(tmp_path / "frames")
    (tmp_path / "frames" / "camera-intrinsics.txt").rename(tmp_path / "camera-intrinsics.txt")
    sequence = read_sequence(tmp_path)
    assert [frame.name for frame in sequence.frames] == [
        f"frames/frame-{number:06d}.color.png" for number in range(3)
    ]


def test_depth_of_a_distorted_lens_is_undistorted_like_its_photo(tmp_path):
    make_transforms(tmp_path, k1=-0.3, camera_model="OPENCV")
    raw = np.arange(1, WIDTH * HEIGHT + 1, dtype=np.float32).reshape(HEIGHT, WIDTH) / 100
    write_depth_png(tmp_path / "depth" / "0.png", raw, scale=1000.0)
    sequence = read_sequence(tmp_path)
    frame = sequence.frames[0]
    expected = cv2.remap(
        np.rint(raw * 1000).astype(np.float32) / 1000,
        *cv2.initUndistortRectifyMap(K, np.array([-0.3, 0, 0, 0]), None, K, (WIDTH, HEIGHT), cv2.CV_32FC1),
        cv2.INTER_NEAREST,
    )
    assert frame.view.lens.model == "OPENCV"
    assert (np.abs(sequence.read_depth(frame) - expected) < 1e-6).mean() > 0.99  # ties may round either way


def test_transforms_of_smaller_photos_and_depth_keep_the_rays(tmp_path):
    make_transforms(tmp_path)
    for number in range(4):
        write_photo(tmp_path / "images" / f"{number}.png", (WIDTH // 2, HEIGHT // 2))
        write_depth(tmp_path / "depth" / f"{number}.png", 1000.0, (WIDTH // 4, HEIGHT // 4))
    sequence = read_sequence(tmp_path)
    assert np.allclose(sequence.frames[0].view.camera.K, [[15, 0, 7.75], [0, 15.5, 6.25], [0, 0, 1]])
    assert sequence.read_depth(sequence.frames[0]).shape == (HEIGHT // 4, WIDTH // 4)


def test_a_photo_of_another_ratio_than_transforms_says_costs_one_frame(tmp_path):
    make_transforms(tmp_path)
    write_photo(tmp_path / "images" / "1.png", (HEIGHT, WIDTH))
    reason = read_sequence(tmp_path).dropped["images/1.png"]
    assert reason == "the photo has 24x32 pixels, transforms.json says 32x24"


def test_blender_scenes_without_endings_and_sizes_are_read(tmp_path):
    write_photo(tmp_path / "train" / "r_0.png")
    frames = [{"file_path": "./train/r_0", "transform_matrix": np.eye(4).tolist()}]
    content = {"camera_angle_x": float(2 * np.arctan(0.5)), "frames": frames}
    (tmp_path / "transforms_train.json").write_text(json.dumps(content))
    sequence = read_sequence(tmp_path)
    assert np.allclose(sequence.frames[0].view.camera.K, [[32, 0, 16], [0, 32, 12], [0, 0, 1]])
    assert sequence.frames[0].name == "train/r_0.png"
    assert not sequence.is_metric
    with pytest.raises(ViewError, match="no measured depth"):
        sequence.read_depth(sequence.frames[0])


def test_a_camera_file_may_give_distortion(tmp_path):
    make_tum(tmp_path)
    (tmp_path / "camera.txt").write_text("30 31 15 12 0.1 0.01 0 0 0.5")
    lens = read_sequence(tmp_path).frames[0].view.lens
    assert lens.model == "FULL_OPENCV"
    assert lens.params.tolist() == [30, 31, 15.5, 12.5, 0.1, 0.01, 0, 0, 0.5, 0, 0, 0]


def test_a_damaged_photo_of_transforms_costs_one_frame(tmp_path):
    make_transforms(tmp_path)
    (tmp_path / "images" / "1.png").write_text("no picture")
    assert "1.png: its content is no" in read_sequence(tmp_path).dropped["images/1.png"]


def _without_camera(folder: Path) -> None:
    (make_seven_scenes(folder) / "camera-intrinsics.txt").unlink()


def _wrong_list(folder: Path) -> None:
    (make_tum(folder) / "groundtruth.txt").write_text("100.0 1 2 3")


def _wrong_log(folder: Path) -> None:
    (make_redwood(folder) / "trajectory.log").write_text("0 0 1\n1 0 0 0\n")


def _wrong_json(folder: Path) -> None:
    (make_transforms(folder) / "transforms.json").write_text("{")


def _no_frames(folder: Path) -> None:
    (make_transforms(folder) / "transforms.json").write_text('{"fl_x": 3}')


def _no_focal(folder: Path) -> None:
    make_transforms(folder)
    content = json.loads((folder / "transforms.json").read_text())
    del content["fl_x"]
    (folder / "transforms.json").write_text(json.dumps(content))


def _unknown_model(folder: Path) -> None:
    make_transforms(folder, camera_model="EQUIRECTANGULAR")


def _turned(folder: Path) -> None:
    content = json.loads((make_redwood(folder) / "camera_intrinsic.json").read_text())
    turned = {**content, "width": HEIGHT, "height": WIDTH}
    (folder / "camera_intrinsic.json").write_text(json.dumps(turned))


def _all_lost(folder: Path) -> None:
    make_seven_scenes(folder)
    for path in folder.glob("*.pose.txt"):
        path.write_text("nan " * 16)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda folder: None, r"looked for rgb.txt with groundtruth.txt \(TUM\)"),
        (_without_camera, "no camera; wanted a file camera-intrinsics.txt"),
        (_wrong_list, "groundtruth.txt: line 1: '100.0 1 2 3', wanted a time and 7 more"),
        (_wrong_log, "trajectory.log: 2 lines, wanted five for each pose"),
        (_wrong_json, "transforms.json: no JSON"),
        (_no_frames, "transforms.json: wanted a field 'frames'"),
        (_no_focal, "frame 0: a field is missing or wrong .'fl_x'"),
        (_unknown_model, "camera_model 'EQUIRECTANGULAR', wanted one of OPENCV"),
        (_turned, "camera_intrinsic.json: says 24x32 pixels, the photos have 32x24"),
        (_all_lost, "0 of 4 frames can be used; the first: frame-000000.color.png: .*not finite"),
    ],
)
def test_a_folder_that_is_no_sequence_says_why_in_one_line(tmp_path, spoil, fault):
    spoil(tmp_path)
    with pytest.raises(InputError, match=fault) as caught:
        read_sequence(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_sequence(tmp_path / "absent")


def test_the_quaternion_helper_of_these_tests_is_right():
    assert np.allclose(rotation_from_wxyz(wxyz(pose(1)[:3, :3])), pose(1)[:3, :3])


def _gap_m(sequence: Sequence, first: int, second: int) -> float:
    """Median distance between the clouds of two frames, world frame."""
    clouds = []
    for frame in (sequence.frames[first], sequence.frames[second]):
        depth = sequence.read_depth(frame)
        points = points_from_depth(frame.view.camera.K, depth)[depth > 0]
        clouds.append(transform(invert(frame.view.cam_from_world), points))
    distances, _ = cKDTree(clouds[0][::3]).query(clouds[1][::97])
    return float(np.median(distances))


@pytest.mark.parametrize(
    ("name", "count", "second", "limit_m"),
    [
        ("rgbd_tum_fr1_desk_9", 9, 8, 0.01),
        ("rgbd_7scenes_redkitchen", 98, 19, 0.015),
        ("rgbd_redwood_livingroom1_5", 5, 4, 0.01),
    ],
)
def test_clouds_of_two_real_frames_agree(shared_data, name, count, second, limit_m):
    sequence = read_sequence(shared_data / name)
    assert len(sequence.frames) == count
    assert _gap_m(sequence, 0, second) < limit_m


def test_a_tum_photo_has_the_pose_nearest_to_its_time(shared_data):
    frame = read_sequence(shared_data / "rgbd_tum_fr1_desk_9").frames[0]
    assert frame.timestamp == 1305031453.359684
    assert np.allclose(frame.view.center, [1.3112, 0.8507, 1.5186])  # the list's row for ...453.3595
