"""Which photos are compared, and what EXIF says of camera and place."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.geometry import look_at
from recon.io.colmap.exif import camera_label, gps_position
from recon.io.colmap.features import PhotoFeatures
from recon.io.colmap.options import SfmOptions
from recon.io.colmap.pairs import choose_pairs, posed_pairs
from recon.scene import Camera, View


def photo(folder: Path, index: int, position: tuple[float, float] | None = None) -> PhotoFeatures:
    """Features of a photo that shows place number index // 5 of a world of four places."""
    place, noise = np.random.default_rng(index // 5), np.random.default_rng(1000 + index)
    descriptors = place.integers(0, 200, (80, 128)) + noise.integers(0, 20, (80, 128))
    file = folder / f"{index}.npz"
    np.savez(file, xy=np.zeros((80, 2), np.float32), descriptors=descriptors.astype(np.uint8))
    return PhotoFeatures(f"{index}", 640, 480, 1.0, 80, file, None, "", position)


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in pairs}


def test_few_photos_are_all_compared_once(tmp_path):
    pairs = choose_pairs([photo(tmp_path, index) for index in range(6)], SfmOptions(), False)
    assert as_set(pairs) == {(i, j) for i in range(6) for j in range(i + 1, 6)}


def test_retrieval_compares_photos_of_one_place_and_connects_the_places(tmp_path):
    features = [photo(tmp_path, index) for index in range(20)]
    pairs = choose_pairs(features, SfmOptions(matcher="retrieval", neighbors=4), False)
    same_place = {(i, j) for i in range(20) for j in range(i + 1, 20) if i // 5 == j // 5}
    assert same_place <= as_set(pairs)
    assert len(pairs) == len(same_place) + 3  # four places need three bridges


def test_frames_are_compared_with_their_neighbours_and_with_look_alikes(tmp_path):
    features = [photo(tmp_path, index % 10) for index in range(20)]  # the second round shows the first again
    pairs = as_set(choose_pairs(features, SfmOptions(matcher="sequential", neighbors=4), True))
    assert {(i, i + step) for i in range(18) for step in (1, 2)} <= pairs
    assert (0, 10) in pairs


def test_spatial_matching_compares_the_nearest_by_gps(tmp_path):
    features = [photo(tmp_path, 5 * index, (46.0, 8.0 + 0.001 * index)) for index in range(12)]
    pairs = as_set(choose_pairs(features, SfmOptions(matcher="spatial", neighbors=2), False))
    assert {(index, index + 1) for index in range(11)} <= pairs


def test_posed_views_are_compared_with_near_ones_that_look_the_same_way():
    camera, down = Camera.from_fov(64, 48, 60.0), np.array([0.0, 1.0, 0.0])
    centers = [np.array([float(index), 0.0, 0.0]) for index in range(6)]
    ways = [np.array([0.0, 0.0, 1.0 if index < 3 else -1.0]) for index in range(6)]
    views = [
        View(f"{index}", camera, look_at(center, center + way, down))
        for index, (center, way) in enumerate(zip(centers, ways, strict=True))
    ]
    assert as_set(posed_pairs(views, 2)) == {(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)}


@pytest.mark.parametrize(
    ("south", "west", "expected"), [("N", "E", (46.505, 8.25)), ("S", "W", (-46.505, -8.25))]
)
def test_gps_position_and_camera_come_from_exif(tmp_path, south, west, expected):
    tags = Image.Exif()
    tags[0x010F], tags[0x0110] = "Maker\0\0", "Model X"
    tags.get_ifd(0x8825).update({1: south, 2: (46.0, 30.0, 18.0), 3: west, 4: (8.0, 15.0, 0.0)})
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=tags)
    assert gps_position(tmp_path / "a.jpg") == pytest.approx(expected)
    assert camera_label(tmp_path / "a.jpg") == "Maker Model X"


def test_a_photo_without_exif_has_no_place_and_no_camera(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    assert gps_position(tmp_path / "a.png") is None
    assert camera_label(tmp_path / "a.png") == ""
