"""Tiny data sets in the published layouts: depth, axes, masks, order; what is missing is said."""

import csv
import importlib.util
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lotus.cli import main
from lotus.data import Folder, Hypersim, Mixture, TrainingSample, VirtualKitti, fit_normals, mirrored
from lotus.data.hypersim import OURS_FROM_RUB, SPLIT_FILE, intrinsics, planar_depth, read_split
from lotus.data.samples import covered, cut, facing, resized
from recon.errors import InputError, ViewError
from recon.geometry import rays

needs_h5py = pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="needs h5py")
SIZE = HEIGHT, WIDTH = 48, 64
SCENES = ("02",)  # of Virtual KITTI: looking for all files takes a second under run-time checks
WALL, FLOOR, LEFT_WALL = (0, 0, -1), (0, -1, 0), (1, 0, 0)  # facing us, facing up, facing right; our axes


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def save_hdf5(path: Path, values: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = values.astype(np.float16)


def gray(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def ramp() -> np.ndarray:
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([u * 3, v * 5, (u + v) % 256], axis=-1).astype(np.uint8)


def corner() -> tuple[np.ndarray, np.ndarray]:
    """Depth and normals (ours) of a wall 2 m ahead, the floor 0.5 m below, and a wall 0.8 m to the left."""
    directions = rays(intrinsics(WIDTH, HEIGHT), WIDTH, HEIGHT)
    with np.errstate(divide="ignore"):
        floor = np.where(directions[..., 1] > 0, 0.5 / directions[..., 1], np.inf)
        left = np.where(directions[..., 0] < 0, -0.8 / directions[..., 0], np.inf)
    planes = np.stack([np.full(SIZE, 2.0), floor, left])
    normals = np.array([WALL, FLOOR, LEFT_WALL], np.float32)[planes.argmin(axis=0)]
    return planes.min(axis=0).astype(np.float32), normals


def middles() -> np.ndarray:
    """Pixels whose 5 x 5 window lies on one of the corner's planes."""
    planes = corner()[1] @ [1, 2, 3]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(planes, 2, mode="edge"), (5, 5))
    return windows.min(axis=(2, 3)) == windows.max(axis=(2, 3))


def hypersim(
    folder: Path, frames: int = 2, *, scene: str = "ai_001_001", distance: np.ndarray | None = None
) -> Path:
    """Writes frames of the corner as published: distances along rays, normals right, up, back."""
    depth, normals = corner()
    along = depth * np.linalg.norm(rays(intrinsics(WIDTH, HEIGHT), WIDTH, HEIGHT), axis=-1)
    images = folder / scene / "images"
    for frame in range(frames):
        save(images / f"scene_cam_00_final_preview/frame.{frame:04d}.tonemap.jpg", gray())
        geometry = images / "scene_cam_00_geometry_hdf5"
        save_hdf5(geometry / f"frame.{frame:04d}.depth_meters.hdf5", along if distance is None else distance)
        save_hdf5(geometry / f"frame.{frame:04d}.normal_cam.hdf5", normals * [1, -1, -1])
    return folder


def split_file(folder: Path, rows: list[tuple[str, int, str, str]]) -> None:
    with (folder / SPLIT_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        header = (
            "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
        )
        writer.writerow(header.split(","))
        writer.writerows([scene, "cam_00", frame, public, "", split] for scene, frame, public, split in rows)


def train(frames: int, scene: str = "ai_001_001") -> list[tuple[str, int, str, str]]:
    return [(scene, frame, "True", "train") for frame in range(frames)]


def kitti(folder: Path, depth_cm: np.ndarray, frames: int = 1) -> Path:
    below = folder / "Scene02/clone/frames"
    for frame in range(frames):
        save(below / f"rgb/Camera_0/rgb_{frame:05d}.jpg", gray(*depth_cm.shape))
        save(below / f"depth/Camera_0/depth_{frame:05d}.png", depth_cm)
    return folder


def photos(folder: Path, names: tuple[str, ...] = ("a", "b")) -> Path:
    depth, normals = corner()
    for name in names:
        save(folder / f"rgb/{name}.png", ramp())
        save(folder / f"depth/{name}.npy", depth)
        save(folder / f"normals/{name}.npy", normals)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ending:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return int(ending.value.code or 0), said.out, said.err


# Hypersim


def test_distance_becomes_depth_with_the_published_focal_length() -> None:
    ones = np.ones((768, 1024), np.float32)
    depth = planar_depth(ones, intrinsics(1024, 768))
    assert depth[0, 0] == pytest.approx(886.81 / (511.5**2 + 383.5**2 + 886.81**2) ** 0.5, rel=1e-6)
    assert depth[384, 612] == pytest.approx(886.81 / (100.5**2 + 0.5**2 + 886.81**2) ** 0.5, rel=1e-6)


@needs_h5py
def test_hypersim_is_planar_depth_and_normals_in_our_axes(tmp_path: Path) -> None:
    split_file(hypersim(tmp_path), train(2))
    sample = Hypersim(tmp_path, size=SIZE)[0]
    depth, normals = corner()
    np.testing.assert_allclose(sample.depth, depth, rtol=1e-3)  # half precision in the file
    np.testing.assert_allclose(sample.normals, normals, atol=1e-6)
    assert {tuple(normal) for normal in sample.normals.reshape(-1, 3).astype(int)} == {WALL, FLOOR, LEFT_WALL}
    assert not sample.sky.any()


@needs_h5py
def test_hypersim_normals_into_the_surface_are_turned(tmp_path: Path) -> None:
    split_file(hypersim(tmp_path), train(2))
    path = tmp_path / "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0001.normal_cam.hdf5"
    path.unlink()
    normals = corner()[1]
    signs = np.where(np.arange(WIDTH) % 2, 1, -1)[None, :, None]
    stored = normals * [1, -1, -1] * signs
    stored[0, 0] = np.nan
    save_hdf5(path, stored)
    found = Hypersim(tmp_path, size=SIZE)[1].normals
    assert not found[0, 0].any()
    np.testing.assert_allclose(found.reshape(-1, 3)[1:], normals.reshape(-1, 3)[1:], atol=1e-6)


def test_nearly_all_normals_of_a_real_frame_of_hypersim_face_the_camera(shared_data: Path) -> None:
    picture = Image.open(shared_data / "single_depth_normal/hypersim_normal_cam.png").convert("RGB")
    normals = (np.asarray(picture) / np.float32(127.5) - 1) * OURS_FROM_RUB
    turned = (facing(normals, intrinsics(1024, 768)) * normals).sum(axis=-1) < -0.5
    assert turned.mean() < 1e-3  # 0.013 if x were to the left, 0.15 if y were down


@needs_h5py
def test_hypersim_takes_the_public_frames_of_its_split(tmp_path: Path) -> None:
    hypersim(tmp_path, 4)
    rows = [*train(2), ("ai_001_001", 2, "False", "train"), ("ai_001_001", 3, "True", "test")]
    split_file(tmp_path, rows)
    assert Hypersim(tmp_path).frames == ("ai_001_001/cam_00/0000", "ai_001_001/cam_00/0001")
    assert Hypersim(tmp_path, "test").frames == ("ai_001_001/cam_00/0003",)
    with pytest.raises(InputError, match="no frame of split 'val'"):
        read_split(tmp_path / SPLIT_FILE, "val")


@needs_h5py
def test_hypersim_as_the_reference_prepares_it_reads_alike(tmp_path: Path) -> None:
    split_file(hypersim(tmp_path / "published"), train(2))
    hypersim(tmp_path / "prepared/train")
    published, prepared = Hypersim(tmp_path / "published"), Hypersim(tmp_path / "prepared")
    assert published.frames == prepared.frames
    np.testing.assert_array_equal(published[1].depth, prepared[1].depth)
    assert published[1].depth.shape == (576, 768)


@needs_h5py
def test_hypersim_frames_with_nan_are_no_samples(tmp_path: Path) -> None:
    distance = np.ones(SIZE, np.float32)
    distance[5, 7] = np.nan
    split_file(hypersim(tmp_path, 1, distance=distance), train(1))
    with pytest.raises(ViewError, match=r"ai_001_001/cam_00/0000: NaN in its depth"):
        Hypersim(tmp_path)[0]


@needs_h5py
def test_hypersim_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no Hypersim, wanted metadata_images_split_scene_v1\.csv beside"):
        len(Hypersim(tmp_path))
    hypersim(tmp_path)
    with pytest.raises(InputError, match=r"2 frames but no metadata_images_split_scene_v1\.csv"):
        len(Hypersim(tmp_path))
    (tmp_path / SPLIT_FILE).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not the authors' split file"):
        len(Hypersim(tmp_path))


def test_without_h5py_the_package_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    code, _, error = run(capsys, "verify", tmp_path, "--layout", "hypersim")
    assert code == 1
    assert "pip install 'lotus-recon[train]'" in error


# Virtual KITTI


def test_plane_fits_are_exact_on_a_plane() -> None:
    K = np.array([[60.0, 0, 31], [0, 55, 25], [0, 0, 1]])
    normal = np.array([0.48, -0.6, -0.64])
    depth = (-3 / (rays(K, WIDTH, HEIGHT) @ normal)).astype(np.float32)
    depth[(depth < 0) | (depth > 80)] = 0
    found = fit_normals(K, depth)
    known = found.any(axis=-1)
    assert known.mean() > 0.8
    np.testing.assert_allclose(found[known], np.broadcast_to(normal, (known.sum(), 3)), atol=1e-4)


def test_plane_fits_are_the_least_singular_vector() -> None:
    K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    depth = (5 + 0.2 * np.random.default_rng(0).random((9, 9))).astype(np.float32)
    points = rays(K, 9, 9) * depth[..., None].astype(np.float64)
    window = points[2:7, 3:8].reshape(-1, 3)
    expected = np.linalg.svd(window - window.mean(axis=0))[2][2]
    expected = -expected * np.sign(expected @ points[4, 5])
    np.testing.assert_allclose(fit_normals(K, depth)[4, 5], expected, atol=1e-5)


def test_plane_fits_keep_to_one_side_of_a_jump_and_need_pixels_off_a_line() -> None:
    K = np.array([[60.0, 0, 5], [0, 60, 5], [0, 0, 1]])
    depth = np.full((10, 10), 2.0, np.float32)
    depth[:, 5:] = 2.2
    np.testing.assert_allclose(fit_normals(K, depth), np.broadcast_to(np.array(WALL), (10, 10, 3)), atol=1e-6)
    row = np.zeros((10, 10), np.float32)
    row[4] = 2
    assert not fit_normals(K, row).any()
    row[5, 5] = 2
    assert fit_normals(K, row)[4, 5].tolist() == list(WALL)
    three = np.zeros((10, 10), np.float32)
    three[4, 4] = three[4, 5] = three[5, 4] = 2
    assert not fit_normals(K, three).any()


def test_kitti_depth_is_in_cm_and_sky_from_80_m(tmp_path: Path) -> None:
    v, u = np.mgrid[:375, :1242]
    cm = (100 + u + 10 * v).astype(np.uint16)
    cm[23, 13:17] = 7999, 8000, 65535, 0
    sample = VirtualKitti(kitti(tmp_path, cm), SCENES)[0]
    assert sample.image.shape == (352, 1216, 3)
    expected = cm[23:, 13:1229] / 100
    expected[0, 1:4] = 0
    np.testing.assert_allclose(sample.depth, expected, rtol=1e-6)
    assert np.argwhere(sample.sky).tolist() == [[0, 1], [0, 2]]


def test_kitti_normals_are_in_our_axes(tmp_path: Path) -> None:
    depth, normals = corner()
    cm = np.rint(depth * 20 * 100).astype(np.uint16)  # a corner 20 times larger, so that a cm is little
    found = VirtualKitti(kitti(tmp_path, cm), SCENES, size=SIZE)[0].normals
    inside = middles() & found.any(axis=-1)
    assert inside.mean() > 0.6
    np.testing.assert_allclose(found[inside], normals[inside], atol=0.03)
    assert {tuple(normal) for normal in np.rint(found[inside]).astype(int)} == {WALL, FLOOR, LEFT_WALL}


def test_small_kitti_frames_are_enlarged(tmp_path: Path) -> None:
    cm = np.full((10, 20), 500, np.uint16)
    cm[:5] = 300
    sample = VirtualKitti(kitti(tmp_path, cm), SCENES, size=(30, 40))[0]
    assert sample.image.shape == (30, 40, 3)
    assert [(sample.depth == depth).all(axis=1).sum() for depth in (3, 5)] == [15, 15]


def test_kitti_archives_unpacked_beside_each_other(tmp_path: Path) -> None:
    kitti(tmp_path, np.full((20, 40), 500, np.uint16))
    for kind in ("rgb", "depth"):
        home = tmp_path / "apart" / f"vkitti_2.0.3_{kind}/Scene02/clone/frames"
        home.mkdir(parents=True)
        (tmp_path / "Scene02/clone/frames" / kind).rename(home / kind)
    assert VirtualKitti(tmp_path / "apart", SCENES).frames == ("Scene02/clone/Camera_0/00000",)


def test_kitti_holds_out_scene_01(tmp_path: Path) -> None:
    kitti(tmp_path, np.full((20, 40), 500, np.uint16))
    (tmp_path / "Scene02").rename(tmp_path / "Scene01")
    with pytest.raises(
        InputError, match="no sample of Virtual KITTI 2, scenes 02 06 18 20 has all its files"
    ):
        len(VirtualKitti(tmp_path))
    assert len(VirtualKitti(tmp_path, scenes=("01",))) == 1
    with pytest.raises(InputError, match="no scene '03'; it has 01, 02, 06, 18, 20"):
        len(VirtualKitti(tmp_path, scenes=("03",)))


# any folder


def test_a_folder_reads_as_stored(tmp_path: Path) -> None:
    source = Folder(photos(tmp_path))
    depth, normals = corner()
    assert source.frames == ("a", "b")
    np.testing.assert_array_equal(source[1].image, ramp())
    np.testing.assert_array_equal(source[1].depth, depth)
    np.testing.assert_array_equal(source[1].normals, normals)


def test_unknown_depth_is_0_and_infinite_depth_is_sky(tmp_path: Path) -> None:
    depth = np.ones(SIZE)
    depth[0, :4] = np.nan, -1, np.inf, -np.inf
    save(photos(tmp_path) / "depth/a.npy", depth)
    sample = Folder(tmp_path)[0]
    assert sample.depth[0, :5].tolist() == [0, 0, 0, 0, 1]
    assert np.argwhere(sample.sky).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("axes", "sign"), [(None, (1, -1, -1)), ("left-up-back", (-1, -1, -1)), ("right-down-forward", (1, 1, 1))]
)
def test_normals_in_png_say_their_axes(tmp_path: Path, axes: str | None, sign: tuple[int, int, int]) -> None:
    normals = corner()[1]
    (photos(tmp_path) / "normals/a.npy").unlink()
    colours = np.rint((normals * sign + 1) * 127.5).astype(np.uint8)
    colours[0, 0] = 0
    save(tmp_path / "normals/a.png", colours)
    found = Folder(tmp_path, normal_axes=axes)[0].normals
    assert not found[0, 0].any()
    np.testing.assert_allclose(found.reshape(-1, 3)[1:], normals.reshape(-1, 3)[1:], atol=0.01)


def test_normals_of_other_axes_are_refused(tmp_path: Path) -> None:
    save(photos(tmp_path) / "normals/a.npy", -corner()[1])
    with pytest.raises(ViewError, match=r"a\.npy: \d+ of 3072 normals point away from the camera"):
        Folder(tmp_path)[0]


@pytest.mark.parametrize("text", ["{f} 0 {cx} 0 {f} {cy} 0 0 1", "{f}, {f}, {cx}, {cy}"])
def test_normals_are_made_from_depth_where_k_is_known(tmp_path: Path, text: str) -> None:
    depth, normals = corner()
    save(tmp_path / "rgb/a.png", gray(2 * HEIGHT, 2 * WIDTH))  # K is that of the photo, twice as large
    save(tmp_path / "depth/a.png", np.rint(depth * 20000).astype(np.uint16))
    assert not Folder(tmp_path, depth_scale=20000.0)[0].normals.any()
    K = intrinsics(2 * WIDTH, 2 * HEIGHT)
    numbers = text.format(f=K[0, 0], cx=K[0, 2] - 0.5, cy=K[1, 2] - 0.5)  # the first centre at 0 in OpenCV
    (tmp_path / "intrinsics.txt").write_text(numbers)
    sample = Folder(tmp_path, depth_scale=20000.0)[0]
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(sample.depth, depth, atol=3e-5)
    inside = middles() & sample.normals.any(axis=-1)
    assert inside.mean() > 0.6
    np.testing.assert_allclose(sample.normals[inside], normals[inside], atol=0.02)


def test_predictions_and_depth_maps_in_npz(tmp_path: Path) -> None:
    depth, normals = corner()
    for name in ("a", "b", "c"):
        save(tmp_path / f"rgb/{name}.png", gray())
    (tmp_path / "depth").mkdir()
    np.savez(tmp_path / "depth/a.npz", values=depth, kind=np.array("metric"), normals=normals)
    np.savez(tmp_path / "depth/b.npz", depth=depth, K=intrinsics(WIDTH, HEIGHT))
    np.savez(tmp_path / "depth/c.npz", values=depth, kind=np.array("affine"))
    source = Folder(tmp_path)
    np.testing.assert_array_equal(source[0].depth, depth)
    np.testing.assert_allclose(source[0].normals, normals, atol=1e-6)
    np.testing.assert_array_equal(source[1].depth, depth)
    made = source[1].normals
    inside = middles() & made.any(axis=-1)
    assert inside.mean() > 0.6
    np.testing.assert_allclose(made[inside], normals[inside], atol=1e-3)
    with pytest.raises(ViewError, match=r"c\.npz: kind affine, of unknown shift; wanted metric or scale"):
        source[2]


def test_a_folder_gives_samples_of_one_size(tmp_path: Path) -> None:
    sample = Folder(photos(tmp_path), size=(24, 24))[0]
    depth, normals = corner()
    assert sample.image.shape == (24, 24, 3)
    np.testing.assert_array_equal(sample.depth, depth[1::2, 1::2][:, 4:28])
    np.testing.assert_array_equal(sample.normals, normals[1::2, 1::2][:, 4:28])


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    photos(tmp_path)
    save(tmp_path / "depth/a.npy", np.ones((10, 64)))
    with pytest.raises(ViewError, match=r"a\.npy: normals of shape \(48, 64, 3\), its depth wants"):
        Folder(tmp_path)[0]
    (tmp_path / "normals/a.npy").unlink()
    with pytest.raises(ViewError, match=r"a\.npy: 64 x 10, its photo 64 x 48"):
        Folder(tmp_path)[0]
    save(tmp_path / "depth/a.npy", np.ones((48, 64, 2)))
    with pytest.raises(ViewError, match=r"depth of float64, shape \(48, 64, 2\); wanted numbers"):
        Folder(tmp_path)[0]
    (tmp_path / "depth/a.npy").write_bytes(b"no array")
    with pytest.raises(ViewError, match=r"a\.npy: not an array, or a damaged file"):
        Folder(tmp_path)[0]
    save(tmp_path / "rgb/b.jpg", gray())
    with pytest.raises(InputError, match=r"b\.png and b\.jpg share the name b"):
        Folder(tmp_path)[0]
    with pytest.raises(InputError, match="no folder rgb in it"):
        Folder(tmp_path / "depth")[0]


# samples


def sample_of(depth: np.ndarray, normals: np.ndarray, image: np.ndarray | None = None) -> TrainingSample:
    return TrainingSample(
        "x", ramp() if image is None else image, depth, normals, np.zeros(depth.shape, bool)
    )


def test_samples_check_themselves() -> None:
    depth, normals = corner()
    sky = np.zeros(SIZE, bool)
    with pytest.raises(InputError, match="not finite"):
        TrainingSample("x", gray(), np.full(SIZE, np.inf, np.float32), normals, sky)
    with pytest.raises(InputError, match="negative or in the sky"):
        TrainingSample("x", gray(), depth, normals, ~sky)


def test_a_mirrored_sample_is_what_a_mirrored_scene_gives() -> None:
    depth, normals = corner()
    other = mirrored(sample_of(depth, normals))
    np.testing.assert_array_equal(other.image, ramp()[:, ::-1])
    exact = fit_normals(intrinsics(WIDTH, HEIGHT), other.depth)
    inside = middles()[:, ::-1] & exact.any(axis=-1)
    np.testing.assert_allclose(other.normals[inside], exact[inside], atol=2e-3)
    again = mirrored(other)
    np.testing.assert_array_equal(again.normals, normals)
    np.testing.assert_array_equal(again.depth, depth)


def test_resizing_takes_the_nearest_centre() -> None:
    columns = np.broadcast_to(np.arange(1, WIDTH + 1, dtype=np.float32), SIZE)
    sample = sample_of(np.ascontiguousarray(columns), np.zeros((*SIZE, 3), np.float32))
    found = resized(sample, 36, 48).depth[0]
    centers = (np.arange(48) + 0.5) * 64 / 48  # of the new pixels, in old ones
    assert np.abs(found - 0.5 - centers).max() <= 0.5
    assert resized(sample, *SIZE) is sample


def test_windows_are_low_or_in_the_middle() -> None:
    depth, normals = corner()
    sample = sample_of(depth, normals)
    np.testing.assert_array_equal(cut(sample, 20, 30, lowest=True).depth, depth[28:, 17:47])
    np.testing.assert_array_equal(cut(sample, 20, 30, lowest=False).image, ramp()[14:34, 17:47])
    assert covered(sample, 100, 50).depth.shape == (100, 50)


def test_facing_normals_look_at_the_camera() -> None:
    K = intrinsics(WIDTH, HEIGHT)
    random = np.random.default_rng(0).normal(size=(*SIZE, 3)).astype(np.float32)
    found = facing(random, K)
    assert ((found * rays(K, WIDTH, HEIGHT)).sum(axis=-1) <= 0).all()
    np.testing.assert_allclose(
        np.abs((found * random).sum(axis=-1)), np.linalg.norm(random, axis=-1), rtol=1e-5
    )


# mixtures


@dataclass(frozen=True)
class Numbered:
    """A source whose samples show their index in the photo."""

    name: str
    length: int
    broken: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> TrainingSample:
        if index in self.broken:
            raise ViewError(f"{self.name} {index}: broken")
        image = np.full((2, 4, 3), index, np.uint8)
        image[:, 0] = 255
        return TrainingSample(
            f"{self.name} {index}", image, np.ones((2, 4), np.float32),
            np.full((2, 4, 3), WALL, np.float32), np.zeros((2, 4), bool),
        )  # fmt: skip


ROOMS, STREETS = Numbered("room", 40), Numbered("street", 7)


def names(mixture: Mixture, indices: range) -> list[list[tuple[str, int]]]:
    return [[(sample.name, int(sample.image[0, 0, 0])) for sample in mixture[index]] for index in indices]


def test_a_batch_is_of_one_source_and_sources_come_with_their_probability() -> None:
    mixture = Mixture((Numbered("room", 4000), STREETS), (0.9, 0.1), batch_size=4, seed=1)
    batches = [[draw.source for draw in mixture.draws(index)] for index in range(2000)]
    assert all(len(set(batch)) == 1 and len(batch) == 4 for batch in batches)
    share = np.mean([batch[0] == 1 for batch in batches])
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / 2000) ** 0.5  # four standard deviations


def test_an_epoch_is_one_pass_over_the_first_source() -> None:
    mixture = Mixture((ROOMS,), (1.0,), batch_size=8, seed=1)
    assert mixture.epoch_batches == 5
    epochs = [
        [draw.item for index in range(5 * epoch, 5 * epoch + 5) for draw in mixture.draws(index)]
        for epoch in range(2)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_a_small_source_begins_anew_when_it_is_exhausted() -> None:
    mixture = Mixture((Numbered("room", 160), STREETS), (0.5, 0.5), batch_size=4, seed=1)
    draws = chain(*(mixture.draws(index) for index in range(mixture.epoch_batches)))
    items = [draw.item for draw in draws if draw.source == 1]
    assert len(items) >= 28
    for start in range(0, 28, 7):
        assert sorted(items[start : start + 7]) == list(range(7))
    assert items[:7] != items[7:14]


def test_resuming_and_workers_change_nothing() -> None:
    from torch.utils.data import DataLoader

    mixture = Mixture((ROOMS, STREETS), (0.7, 0.3), batch_size=3, seed=5)
    fresh = names(mixture, range(30))
    resumed = Mixture((ROOMS, STREETS), (0.7, 0.3), batch_size=3, seed=5)
    assert names(resumed, range(17, 30)) == fresh[17:]
    loader = DataLoader(mixture, batch_size=None, sampler=range(30), num_workers=2)  # type: ignore[arg-type]
    assert [[(each.name, int(each.image[0, 0, 0])) for each in batch] for batch in loader] == fresh
    assert names(Mixture((ROOMS, STREETS), (0.7, 0.3), batch_size=3, seed=6), range(30)) != fresh


def test_half_of_the_samples_are_mirrored() -> None:
    mixture = Mixture((ROOMS,), (1.0,), batch_size=8, seed=2)
    flips = [draw.is_mirrored for index in range(100) for draw in mixture.draws(index)]
    assert abs(np.mean(flips) - 0.5) < 4 * 0.5 / 800**0.5
    batch, draws = mixture[3], mixture.draws(3)
    shown = [sample.image[0, 3, 0] == 255 for sample in batch]  # the mark of the first column is in the last
    assert shown == [draw.is_mirrored for draw in draws]
    assert {True, False} == set(shown)
    never = Mixture((ROOMS,), (1.0,), batch_size=8, seed=2, mirror_probability=0.0)
    assert not any(draw.is_mirrored for draw in never.draws(3))


def test_a_sample_that_cannot_be_used_is_replaced_the_same_way_each_time() -> None:
    broken = Mixture((Numbered("room", 40, tuple(range(0, 40, 2))),), (1.0,), batch_size=8, seed=2)
    whole = Mixture((ROOMS,), (1.0,), batch_size=8, seed=2)
    found, planned = names(broken, range(10)), names(whole, range(10))
    assert found == names(broken, range(10))
    for ours, theirs in zip(chain(*found), chain(*planned), strict=True):
        number = int(theirs[0].split()[1])
        assert int(ours[0].split()[1]) % 2 == 1
        assert number % 2 == 0 or ours == theirs
    useless = Mixture((Numbered("room", 3, (0, 1, 2)),), (1.0,), batch_size=1, seed=0)
    with pytest.raises(InputError, match=r"20 samples in a row cannot be used .*room \d: broken"):
        useless[0]


def test_a_photo_whose_depth_is_all_unknown_is_replaced(tmp_path: Path) -> None:
    save(photos(tmp_path) / "depth/b.npy", np.zeros(SIZE))
    mixture = Mixture((Folder(tmp_path),), (1.0,), batch_size=8, seed=0)
    assert {sample.name for sample in mixture[0]} == {"a"}
    save(tmp_path / "depth/a.npy", np.full(SIZE, np.inf))
    with pytest.raises(InputError, match=r"20 samples in a row .*[ab]: not a pixel has depth$"):
        mixture[0]


def test_mixtures_check_their_options() -> None:
    with pytest.raises(InputError, match="1 probabilities for 2 sources"):
        Mixture((ROOMS, STREETS), (1.0,), 4, 0)
    with pytest.raises(InputError, match="none below 0 and one above"):
        Mixture((ROOMS, STREETS), (0.0, 0.0), 4, 0)
    with pytest.raises(InputError, match="source 1 of the mixture has no samples"):
        Mixture((ROOMS, Numbered("none", 0)), (0.5, 0.5), 4, 0)


# lotus verify


@needs_h5py
def test_verify_says_what_hypersim_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = np.ones(SIZE, np.float32)
    nan[0, 0] = np.nan
    split_file(hypersim(tmp_path, 4), [*train(4), *train(1, "ai_001_002"), *train(3, "ai_009_009")])
    hypersim(tmp_path, 1, scene="ai_001_002", distance=nan)
    images = tmp_path / "ai_001_001/images"
    (images / "scene_cam_00_geometry_hdf5/frame.0001.normal_cam.hdf5").unlink()
    (images / "scene_cam_00_geometry_hdf5/frame.0003.depth_meters.hdf5").write_bytes(b"cut off")
    words = ("verify", tmp_path, "--layout", "hypersim", "--list", tmp_path / "usable.txt")
    code, said, _ = run(capsys, *words)
    assert code == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[:7] == [
        f"Hypersim train, in {tmp_path}",
        "wanted 8",
        "with all files 4",
        "scenes missing 1 ai_009_009",
        "without normals 1 ai_001_001/cam_00/0001",
        "opened 4",
        "of them usable 2",
    ]
    assert "unusable 1 NaN in its depth: ai_001_002/cam_00/0000" in lines
    assert any("no hdf5 file with a 'dataset'" in line and "cam_00/0003" in line for line in lines)
    listed = ["ai_001_001/cam_00/0000", "ai_001_001/cam_00/0002"]
    assert (tmp_path / "usable.txt").read_text().split() == listed
    assert Hypersim(tmp_path, frames_list=tmp_path / "usable.txt").frames == tuple(listed)


def test_verify_says_what_kitti_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kitti(tmp_path, np.full((20, 70), 500, np.uint16), frames=3)
    (tmp_path / "Scene02/clone/frames/depth/Camera_0/depth_00001.png").unlink()
    code, said, _ = run(capsys, "verify", tmp_path, "--layout", "vkitti", "--scenes", "02", "--open", "1")
    assert code == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[1:4] == [
        "wanted 4660",
        "with all files 2",
        "scenes missing 9 Scene02/15-deg-left, ..., Scene02/sunset",
    ]
    assert "without photo 463 Scene02/clone/Camera_0/00003, ..., Scene02/clone/Camera_1/00232" in lines
    assert "without depth 464 Scene02/clone/Camera_0/00001, ..., Scene02/clone/Camera_1/00232" in lines
    assert lines[-3:-1] == ["opened 1", "of them usable 1"]
    assert lines[-1] == "of their pixels: depth 100.0 %, normals 100.0 %, sky 0.0 %"


def test_verify_says_which_photos_have_no_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos(tmp_path) / "depth/b.npy").unlink()
    code, said, _ = run(capsys, "verify", tmp_path, "--layout", "folder")
    assert code == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[1:4] == ["wanted 2", "with all files 1", "without depth 1 b"]
    assert lines[-1] == "of their pixels: depth 100.0 %, normals 100.0 %, sky 0.0 %"


def test_verify_counts_photos_whose_depth_is_all_unknown_unusable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photos(tmp_path) / "depth/b.npy", np.zeros(SIZE))
    code, said, _ = run(capsys, "verify", tmp_path, "--layout", "folder")
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert code == 0
    assert lines[2:5] == ["with all files 2", "opened 2", "of them usable 1"]
    assert "unusable 1 not a pixel has depth: b" in lines


def test_verify_ends_with_1_where_nothing_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--layout", "vkitti", "--scenes", "02")
    code, _, error = run(capsys, "verify", tmp_path / "none", *words)
    assert (code, error.count("no such folder")) == (1, 1)
    code, said, error = run(capsys, "verify", tmp_path, *words)
    assert code == 1
    assert "with all files" in said
    assert "no sample of Virtual KITTI 2, scenes 02 can be used" in error
    photos(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"depth/{name}.npy").write_bytes(b"no array")
    code, said, error = run(capsys, "verify", tmp_path, "--layout", "folder")
    assert code == 1
    assert "not an array, or a damaged file" in said
    assert "can be used" in error


def test_verify_opens_with_several_processes_as_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photos(tmp_path, tuple("abcdef")) / "depth/d.npy", np.full(SIZE, np.nan))
    (tmp_path / "normals/d.npy").unlink()
    one, two = (run(capsys, "verify", tmp_path, "--layout", "folder", "--workers", n)[:2] for n in (1, 2))
    assert one == two
    assert "d: not a pixel has depth or normals" not in one[1]
    assert "not a pixel has depth or normals: d" in one[1]
