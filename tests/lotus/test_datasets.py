"""Tiny benchmarks in the published layouts: what is found, decoded, cropped, counted, refused."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lotus.datasets import BENCHMARKS, open_benchmark
from recon.errors import InputError

EXR = Path(__file__).parent / "files/zip.exr"
KITTI_PHOTO = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/{}.png"
KITTI_DEPTH = "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/{}.png"


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def sample(name: str, place: Path, limit: int = 1):
    benchmark = BENCHMARKS[name]
    files, samples = open_benchmark(benchmark, place, limit=limit)
    return benchmark.read(files, samples[0])


def nyu(folder: Path, count: int = 1) -> Path:
    depth = np.arange(480 * 640, dtype=np.uint16).reshape(480, 640) % 12000
    for index in range(count):
        write(folder / f"test/kitchen_0004/rgb_{index:04d}.png", gray(480, 640))
        write(folder / f"test/kitchen_0004/depth_{index:04d}.png", depth)
    return folder


def test_nyu_depth_is_millimetres_inside_eigens_window(tmp_path: Path) -> None:
    found = sample("nyuv2", nyu(tmp_path))
    v, u = np.mgrid[:480, :640]
    millimetres = (v * 640 + u) % 65536 % 12000
    inside = (v >= 45) & (v <= 470) & (u >= 41) & (u <= 600)
    np.testing.assert_allclose(found.depth, millimetres / 1000, rtol=1e-6)
    np.testing.assert_array_equal(found.mask, inside & (millimetres > 1) & (millimetres < 10000))


def test_kitti_is_cut_to_the_benchmark_and_eigens_window(tmp_path: Path) -> None:
    v, u = np.mgrid[:375, :1242]
    write(
        tmp_path / KITTI_PHOTO.format("0000000069"), np.stack([v % 256, u % 256, 0 * v], -1).astype(np.uint8)
    )
    write(tmp_path / KITTI_DEPTH.format("0000000069"), (v * 40 + u + 1).astype(np.uint16))
    found = sample("kitti", tmp_path)
    assert found.image.shape == (352, 1216, 3)
    assert found.image[0, 0].tolist() == [23, 13, 0]  # 375 - 352 rows from above, (1242 - 1216) / 2 columns
    np.testing.assert_allclose(found.depth, (v * 40 + u + 1)[23:, 13:1229] / 256, rtol=1e-6)
    rows, columns = np.nonzero(found.mask)
    assert (rows.min(), rows.max() + 1) == (117, 321)
    assert (columns.min(), columns.max() + 1) == (43, 1172)
    assert found.mask.sum() == 204 * 1129


def test_kitti_photos_without_depth_do_not_count(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / KITTI_PHOTO.format(index), gray(375, 1242))
    write(tmp_path / KITTI_DEPTH.format(1), np.full((375, 1242), 256, np.uint16))
    (tmp_path / "list.txt").write_text(
        f"{KITTI_PHOTO.format(0)} None 721.5\n{KITTI_PHOTO.format(1)} {KITTI_DEPTH.format(1)} 721.5\n"
    )
    _, by_list = open_benchmark(BENCHMARKS["kitti"], tmp_path, listing=tmp_path / "list.txt")
    _, by_files = open_benchmark(BENCHMARKS["kitti"], tmp_path, limit=1)
    assert by_list == by_files == [(KITTI_PHOTO.format(1), KITTI_DEPTH.format(1))]


def test_eth3d_depth_is_raw_floats_and_infinite_where_unknown(tmp_path: Path) -> None:
    depth = np.arange(1, 25, dtype="<f4").reshape(4, 6)
    depth[1, 2] = np.inf
    write(tmp_path / "rgb/office/images/dslr_images/DSC_0219.JPG", gray(4, 6))
    target = tmp_path / "depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG"
    target.parent.mkdir(parents=True)
    target.write_bytes(depth.tobytes())
    found = sample("eth3d", tmp_path)
    np.testing.assert_array_equal(found.mask, np.isfinite(depth))
    np.testing.assert_array_equal(found.depth, np.where(np.isfinite(depth), depth, 0))
    target.write_bytes(depth.tobytes()[:-4])
    with pytest.raises(InputError, match="has 92 bytes, its photo of 6 x 4 wants 96"):
        sample("eth3d", tmp_path)


def test_scannet_depth_is_millimetres(tmp_path: Path) -> None:
    write(tmp_path / "scene0406_02/color/000300.jpg", gray(2, 3))
    write(tmp_path / "scene0406_02/depth/000300.png", np.array([[0, 1, 2], [500, 9999, 10000]], np.uint16))
    found = sample("scannet", tmp_path)
    np.testing.assert_array_equal(found.mask, [[False, False, True], [True, True, False]])
    np.testing.assert_allclose(found.depth, [[0, 0.001, 0.002], [0.5, 9.999, 10]], rtol=1e-6)


def test_diode_counts_where_its_mask_says(tmp_path: Path) -> None:
    stem = "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010"
    mask = np.array([[1, 0], [1, 1]], np.float32)
    write(tmp_path / f"{stem}.png", gray(2, 2))
    write(tmp_path / f"{stem}_depth.npy", np.array([[0.3, 2], [400, 5]], np.float32)[..., None])
    write(tmp_path / f"{stem}_depth_mask.npy", mask)
    found = sample("diode", tmp_path)
    np.testing.assert_array_equal(found.mask, mask == 1)
    np.testing.assert_array_equal(found.depth, np.array([[0.3, 2], [400, 5]], np.float32))


@pytest.mark.parametrize(
    ("name", "stem"), [("nyuv2-normals", "test/000000"), ("scannet-normals", "scene0532_00/000000")]
)
def test_normals_in_png_are_left_up_and_toward_the_camera(tmp_path: Path, name: str, stem: str) -> None:
    home = tmp_path / "dsine_eval" / name.removesuffix("-normals")
    colours = np.array([[[128, 128, 255], [128, 255, 128], [255, 128, 128], [0, 0, 0]]], np.uint8)
    write(home / f"{stem}_img.png", gray(1, 4))
    write(home / f"{stem}_normal.png", colours)
    found = sample(name, tmp_path)
    np.testing.assert_allclose(found.normals[0, :3], -np.eye(3)[[2, 1, 0]], atol=0.005)
    np.testing.assert_array_equal(found.mask, [[True, True, True, False]])


@pytest.mark.parametrize(
    ("name", "stem"), [("ibims-normals", "ibims/corridor_01"), ("sintel-normals", "alley_1/frame_0001")]
)
def test_normals_in_exr_count_where_they_are_long_enough(tmp_path: Path, name: str, stem: str) -> None:
    write(tmp_path / f"{stem}_img.png", gray(19, 5))
    (tmp_path / f"{stem}_normal.exr").write_bytes(EXR.read_bytes())
    v, u = np.mgrid[:19, :5]
    stored = np.stack([u / 8 - 0.25, v / 16 - 0.5, u * v / 64], axis=-1)
    found = sample(name, tmp_path)
    np.testing.assert_array_equal(found.normals, -stored)
    np.testing.assert_array_equal(found.mask, np.linalg.norm(stored, axis=-1) > 0.5)
    assert 0 < found.mask.sum() < found.mask.size


def oasis(folder: Path, fields: dict[str, object]) -> Path:
    write(folder / "val/100277_DT_img.png", gray(4, 5))
    np.savez(folder / "val/100277_DT_normal.npz", **fields)
    return folder


def test_oasis_normals_fill_their_box(tmp_path: Path) -> None:
    stored = np.zeros((2, 3, 3))
    stored[0, 0], stored[1, 2] = (0.6, 0, 0.8), (0, -0.6, 0.8)  # right, down, toward the camera
    box = {"min_y": 1, "max_y": 2, "min_x": 2, "max_x": 4, "normal": stored}
    found = sample("oasis-normals", oasis(tmp_path, box))
    assert sorted(zip(*np.nonzero(found.mask), strict=True)) == [(1, 2), (2, 4)]
    np.testing.assert_allclose(found.normals[1, 2], [0.6, 0, -0.8], rtol=1e-6)
    np.testing.assert_allclose(found.normals[2, 4], [0, -0.6, -0.8], rtol=1e-6)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no map of OASIS"):
        sample("oasis-normals", oasis(tmp_path, {"normal": np.array([Path("x")])}))


def test_an_archive_reads_as_its_folder(tmp_path: Path) -> None:
    nyu(tmp_path / "unpacked")
    (tmp_path / "download/nyuv2").mkdir(parents=True)
    with tarfile.open(tmp_path / "download/nyuv2/nyu_labeled_extracted.tar", "w") as archive:
        archive.add(tmp_path / "unpacked", ".")
    packed, unpacked = sample("nyuv2", tmp_path / "download"), sample("nyuv2", tmp_path / "unpacked")
    assert packed.name == unpacked.name
    np.testing.assert_array_equal(packed.depth, unpacked.depth)
    np.testing.assert_array_equal(packed.mask, unpacked.mask)


def test_a_limit_takes_photos_evenly_spread(tmp_path: Path) -> None:
    _, samples = open_benchmark(BENCHMARKS["nyuv2"], nyu(tmp_path, 5), limit=3)
    assert [Path(names[0]).stem for names in samples] == ["rgb_0000", "rgb_0002", "rgb_0004"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    nyuv2 = BENCHMARKS["nyuv2"]
    with pytest.raises(InputError, match="none: no such folder or archive"):
        open_benchmark(nyuv2, tmp_path / "none")
    with pytest.raises(InputError, match="no photo of NYUv2 test in it"):
        open_benchmark(nyuv2, tmp_path)
    nyu(tmp_path, 3)
    with pytest.raises(InputError, match="3 photos of NYUv2 test, wanted 654"):
        open_benchmark(nyuv2, tmp_path)
    with pytest.raises(InputError, match="3 photos of NYUv2 test, wanted 4"):
        open_benchmark(nyuv2, tmp_path, limit=4)
    (tmp_path / "test/kitchen_0004/depth_0001.png").unlink()
    lacks = r"NYUv2 test lacks 1 files, the first is test/kitchen_0004/depth_0001\.png"
    with pytest.raises(InputError, match=lacks):
        open_benchmark(nyuv2, tmp_path)
    (tmp_path / "list.txt").write_text("test/kitchen_0004/rgb_0001.png x y\n")
    with pytest.raises(InputError, match=lacks):
        open_benchmark(nyuv2, tmp_path, listing=tmp_path / "list.txt")
    with pytest.raises(InputError, match=r"void\.txt: no list of file names \(FileNotFoundError\)"):
        open_benchmark(nyuv2, tmp_path, listing=tmp_path / "void.txt")


def test_damaged_and_mismatched_files_are_named(tmp_path: Path) -> None:
    depth = nyu(tmp_path) / "test/kitchen_0004/depth_0000.png"
    write(depth, np.zeros((240, 320), np.uint16))
    with pytest.raises(InputError, match=r"depth_0000\.png is 320 x 240, its photo 640 x 480"):
        sample("nyuv2", tmp_path)
    depth.write_bytes(depth.read_bytes()[:60])
    with pytest.raises(InputError, match=r"depth_0000\.png cannot be decoded"):
        sample("nyuv2", tmp_path)
    write(depth, gray(480, 640))
    with pytest.raises(InputError, match=r"depth_0000\.png is a colour picture, wanted grey"):
        sample("nyuv2", tmp_path)
    (tmp_path / "broken.tar").write_bytes(io.BytesIO(b"no archive").getvalue())
    with pytest.raises(InputError, match=r"broken\.tar: not a tar archive"):
        open_benchmark(BENCHMARKS["nyuv2"], tmp_path / "broken.tar")
