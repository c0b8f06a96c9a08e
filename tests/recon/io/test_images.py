import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from recon.errors import InputError, ViewError
from recon.geometry import pixel_centers
from recon.io.images import (
    exif_focal_px,
    find_photos,
    photo_size,
    photos,
    read_mask,
    read_photo,
    remap,
    resize_image,
    resize_map,
    resize_normals,
    verify_photo,
    write_image,
)
from recon.scene import Camera

RNG = np.random.default_rng(0)


def picture(width: int = 48, height: int = 32) -> np.ndarray:
    """Smooth, and different in every corner."""
    v, u = np.mgrid[:height, :width] / max(width, height)
    return np.stack([255 * u, 255 * v, 120 + 60 * np.sin(9 * u)], axis=-1).astype(np.uint8)


def save(path: Path, image: np.ndarray, tags: dict | None = None, **options) -> Path:
    exif = Image.Exif()
    for tag, value in (tags or {}).items():
        if tag == 0x0112:
            exif[tag] = value
        else:
            exif.get_ifd(0x8769)[tag] = value
    Image.fromarray(image).save(path, exif=exif, **options)
    return path


def test_photos_are_found_in_subfolders_sorted_without_hidden_ones(tmp_path):
    for name in ["b.JPG", "a/z.png", "a/y.tif", ".hidden.jpg", ".thumbs/c.jpg", "notes.txt", "c.webp"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in find_photos(tmp_path)]
    assert names == ["a/y.tif", "a/z.png", "b.JPG", "c.webp"]


def test_a_folder_without_photos_says_what_it_has(tmp_path):
    for name in ["a.txt", "b.md", "c.txt"]:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"has 3 files \(.txt, .md\), none of them a photo"):
        find_photos(tmp_path)


def test_a_missing_folder_and_a_file_are_named(tmp_path):
    (tmp_path / "file.jpg").touch()
    with pytest.raises(InputError, match="no such folder"):
        find_photos(tmp_path / "absent")
    with pytest.raises(InputError, match="a file, wanted a folder"):
        find_photos(tmp_path / "file.jpg")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_every_exif_orientation_gives_the_same_upright_picture_as_pillow(tmp_path, orientation, ending):
    path = save(tmp_path / f"a.{ending}", picture(), {0x0112: orientation})
    with Image.open(path) as photo:
        expected = np.asarray(ImageOps.exif_transpose(photo))
    assert np.array_equal(read_photo(path), expected)
    assert photo_size(path) == expected.shape[1::-1]


def test_a_photo_stored_on_its_side_comes_out_upright(tmp_path):
    path = save(tmp_path / "a.png", np.rot90(picture()), {0x0112: 6})  # 6: turn clockwise to see it upright
    assert np.array_equal(read_photo(path), picture())


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_reduced_size_is_that_of_the_fitted_camera(tmp_path, orientation):
    for size in [(97, 61), (640, 352), (61, 97)]:
        path = save(tmp_path / "a.jpg", picture(*size), {0x0112: orientation})
        camera = Camera.from_fov(*photo_size(path), 60.0).fitted(50)
        assert read_photo(path, 50).shape == (camera.height, camera.width, 3)


def test_a_jpeg_decoded_at_a_fraction_equals_the_average_of_the_full_one(tmp_path):
    full = picture(640, 480)
    path = save(tmp_path / "a.jpg", full, quality=95)
    reduced = read_photo(path, 80)
    averaged = full.reshape(60, 8, 80, 8, 3).mean(axis=(1, 3))
    assert np.abs(reduced - averaged).max() <= 3  # compression; a shift by one pixel would be 32


def test_a_small_photo_is_not_enlarged(tmp_path):
    assert np.array_equal(read_photo(save(tmp_path / "a.png", picture()), 1000), picture())


def test_16_bit_grey_is_scaled_to_8_bits(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    for name in ["a.png", "a.tif"]:
        Image.fromarray(values).save(tmp_path / name)
        assert read_photo(tmp_path / name)[0, :, 1].tolist() == [0, 1, 128, 255]


def test_grey_palette_and_cmyk_become_rgb(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 77, np.uint8))
    grey.save(tmp_path / "grey.jpg", quality=100)
    Image.new("RGB", (4, 4), (10, 200, 30)).quantize(4).save(tmp_path / "palette.png")
    Image.new("RGB", (16, 16), (250, 20, 30)).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read_photo(tmp_path / "grey.jpg").astype(int) - 77).max() <= 1
    assert (read_photo(tmp_path / "palette.png") == [10, 200, 30]).all()
    assert np.abs(read_photo(tmp_path / "cmyk.jpg").astype(int) - [250, 20, 30]).max() <= 3


def test_transparency_is_blended_over_white(tmp_path):
    rgba = np.full((4, 4, 4), [100, 0, 0, 255], np.uint8)
    rgba[0, :, 3] = 0
    rgba[1, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    rows = read_photo(tmp_path / "a.png")[:, 0].astype(int)
    assert rows[0].tolist() == [255, 255, 255]
    assert np.abs(rows[1] - [177, 127, 127]).max() <= 1
    assert rows[2].tolist() == [100, 0, 0]


def test_the_first_picture_of_a_phone_s_multi_picture_jpeg_is_read(tmp_path):
    first, second = Image.fromarray(picture(64, 64)), Image.new("RGB", (64, 64), "red")
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(read_photo(tmp_path / "a.jpg", 16)[8, 8].astype(int) - picture(16, 16)[8, 8]).max() < 12


def _broken(tmp_path: Path) -> dict[str, Path]:
    good = save(tmp_path / "good.jpg", RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)).read_bytes()
    png = save(tmp_path / "good.png", RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)).read_bytes()
    flipped = bytearray(png)
    flipped[200:240] = bytes(40)
    contents = {
        "truncated.jpg": good[: len(good) // 2],
        "truncated.png": png[: len(png) // 2],
        "flipped.png": bytes(flipped),
        "text.jpg": b"this is not a photo",
        "empty.jpg": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


@pytest.mark.parametrize("check", [read_photo, verify_photo], ids=["read", "verify"])
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("truncated.jpg", "truncated"),
        ("truncated.png", "cannot be decoded"),
        ("text.jpg", "no JPEG, PNG"),
        ("empty.jpg", "empty"),
    ],
)
def test_a_broken_photo_is_one_clear_line_with_its_name(tmp_path, check, name, fault):
    with pytest.raises(ViewError, match=fault) as caught:
        check(_broken(tmp_path)[name])
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_png_with_a_wrong_checksum_does_not_verify(tmp_path):
    with pytest.raises(ViewError, match=r"flipped.png: cannot be decoded \(broken PNG"):
        verify_photo(_broken(tmp_path)["flipped.png"])


def test_whole_photos_verify(tmp_path):
    verify_photo(save(tmp_path / "a.jpg", picture(333, 222)))
    verify_photo(save(tmp_path / "a.png", picture()))


def test_too_many_pixels_are_refused_before_they_are_decoded_and_pillow_stays_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_PHOTO_PIXELS", 100_000)
    path = save(tmp_path / "big.png", picture(500, 400))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ViewError, match=r"big.png: 500x400 pixels .* at most"):
            read_photo(path)


def test_a_jpeg_beyond_the_limit_is_read_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_PHOTO_PIXELS", 100_000)
    assert read_photo(save(tmp_path / "big.jpg", picture(480, 400)), 240).shape == (200, 240, 3)


def test_a_gigapixel_header_is_refused_without_a_warning(tmp_path):
    header = save(tmp_path / "a.bmp", picture()).read_bytes()
    size = np.array([30000, 30000], "<i4").tobytes()
    (tmp_path / "huge.bmp").write_bytes(header[:18] + size + header[26:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ViewError, match="900 megapixels, at most 250"):
            read_photo(tmp_path / "huge.bmp")


def test_focal_length_follows_the_35_mm_equivalent_by_the_diagonal(tmp_path):
    path = save(tmp_path / "a.jpg", picture(300, 400), {0xA405: 26})
    assert exif_focal_px(path) == pytest.approx(26 * 500 / 43.2666, rel=1e-4)


def test_focal_length_follows_the_focal_plane_resolution_of_a_resized_photo(tmp_path):
    tags = {0x920A: 24.0, 0xA20E: 1000.0, 0xA210: 3, 0xA002: 6000, 0xA003: 4000}  # 1000 px per cm: 100 per mm
    path = save(tmp_path / "a.jpg", picture(600, 400), tags)
    assert exif_focal_px(path) == pytest.approx(24.0 * 100 / 10)


@pytest.mark.parametrize("tags", [{}, {0xA405: 0}, {0xA405: 9999}, {0x920A: 5.0}])
def test_absent_zero_and_absurd_focal_lengths_are_none(tmp_path, tags):
    assert exif_focal_px(save(tmp_path / "a.jpg", picture(), tags)) is None


def test_damaged_metadata_do_not_cost_the_photo(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*garbage", quality=95)
    assert read_photo(tmp_path / "a.jpg").shape == (32, 48, 3)
    assert exif_focal_px(tmp_path / "a.jpg") is None


def test_focal_length_of_a_drone_photo_is_that_of_its_maker(shared_data):
    path = shared_data / "drone_brighton_beach" / "images" / "DJI_0023.JPG"
    assert photo_size(path) == (4000, 2250)
    assert exif_focal_px(path) == pytest.approx(20 * np.hypot(4000, 2250) / 43.2666, rel=1e-4)
    assert read_photo(path, 500).shape == (281, 500, 3)


@pytest.mark.parametrize("name", ["sub/a.jpg.png", "sub/a.png", "sub/a.JPG"])
def test_masks_are_found_by_both_conventions(tmp_path, name):
    keep = np.zeros((8, 16), np.uint8)
    keep[:, 8:] = 255
    (tmp_path / "sub").mkdir()
    Image.fromarray(keep).save(tmp_path / name, format="JPEG" if name.endswith("JPG") else "PNG")
    assert np.array_equal(read_mask(tmp_path, "sub/a.jpg", size=(16, 8)), keep > 0)


def test_mask_pixels_that_are_not_black_and_not_transparent_are_kept(tmp_path):
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.array([[0, 1, 65535]], np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.array([[[9, 0, 0, 0], [0, 0, 0, 255], [0, 9, 0, 255]]], np.uint8)).save(
        tmp_path / "alpha.png"
    )
    assert read_mask(tmp_path, "grey.jpg").tolist() == [[False, True, True]]
    assert read_mask(tmp_path, "deep.jpg").tolist() == [[False, True, True]]
    assert read_mask(tmp_path, "alpha.jpg").tolist() == [[False, False, True]]


def test_a_mask_of_another_size_names_both_sizes_and_an_absent_one_is_none(tmp_path):
    Image.fromarray(np.ones((8, 16), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"16x8 pixels, photo a.jpg has 32x16"):
        read_mask(tmp_path, "a.jpg", size=(32, 16))
    assert read_mask(tmp_path, "b.jpg") is None


def test_shrinking_averages_areas_and_growing_keeps_a_ramp():
    image = RNG.integers(0, 255, (12, 18, 3), dtype=np.uint8)
    averaged = image.reshape(4, 3, 6, 3, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(image, 6, 4) - averaged).max() <= 0.51
    ramp = np.repeat((np.arange(32, dtype=np.uint8) * 4 + 50)[None, :, None], 8, axis=0).repeat(3, axis=2)
    grown = resize_image(ramp, 64, 8)[0, 4:-4, 0].astype(float)
    expected = ((np.arange(64) + 0.5) / 2 - 0.5)[4:-4] * 4 + 50
    assert np.abs(grown - expected).max() <= 0.76


@pytest.mark.parametrize("missing", [np.nan, 0.0])
def test_missing_values_do_not_mix_into_their_neighbours(missing):
    values = np.full((8, 8), 3, np.float32)
    values[:, :3] = missing
    for size in [(4, 4), (16, 16), (16, 4)]:
        resized = resize_map(values, *size, missing=missing)
        present = resized[~np.isnan(resized) & (resized != 0)]
        assert np.allclose(present, 3)
        assert 0.55 * resized.size <= present.size <= 0.75 * resized.size  # 5 of 8 columns have a value


def test_a_plane_s_map_is_resampled_to_the_value_at_the_new_pixel_centres():
    slope = (pixel_centers(12, 8) @ [2.0, 3.0]).astype(np.float32)
    expected = (pixel_centers(6, 4) * 2) @ [2.0, 3.0]
    assert np.allclose(resize_map(slope, 6, 4), expected, atol=1e-4)


def test_resized_normals_are_unit_or_none():
    normals = RNG.normal(size=(9, 9, 3)).astype(np.float32)
    normals[..., 2] = -3
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[:4] = 0
    for size in [(5, 5), (20, 20)]:
        length = np.linalg.norm(resize_normals(normals, *size), axis=-1)
        assert np.all((np.abs(length - 1) < 1e-5) | (length == 0))
        assert (length == 0).any()
        assert (length > 0).mean() > 0.4


def test_remap_at_the_pixel_centres_is_the_picture_itself():
    image = RNG.integers(0, 255, (10, 14, 3), dtype=np.uint8)
    assert np.array_equal(remap(image, pixel_centers(14, 10)), image)


def test_remap_is_exact_on_a_slope_and_nan_outside():
    slope = (pixel_centers(14, 10) @ [2.0, 3.0]).astype(np.float32)
    pixels = np.array([[[3.25, 4.75], [-0.1, 3.0], [14.2, 3.0], [0.2, 0.5], [np.nan, 2.0]]])
    sampled = remap(slope, pixels)
    assert sampled[0, 0] == pytest.approx(3.25 * 2 + 4.75 * 3, abs=0.1)  # OpenCV rounds to 1/32 of a pixel
    assert np.isnan(sampled[0, [1, 2, 4]]).all()
    assert sampled[0, 3] == slope[0, 0]


def test_remap_of_a_picture_is_black_outside():
    image = np.full((4, 4, 3), 200, np.uint8)
    assert remap(image, np.array([[[2.0, 2.0], [5.0, 2.0]]]))[0, :, 0].tolist() == [200, 0]


def test_remap_to_half_size_agrees_with_the_resized_picture():
    image = picture(64, 48)
    assert (
        np.abs(remap(image, pixel_centers(32, 24) * 2).astype(int) - resize_image(image, 32, 24)).max() <= 1
    )


def test_png_is_written_without_loss_and_jpeg_nearly(tmp_path):
    write_image(tmp_path / "new" / "a.png", picture())
    write_image(tmp_path / "a.jpeg", picture())
    assert np.array_equal(read_photo(tmp_path / "new" / "a.png"), picture())
    assert np.abs(read_photo(tmp_path / "a.jpeg").astype(int) - picture()).max() <= 6


def test_a_failed_write_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match=r"wanted \.png or \.jpg"):
        write_image(tmp_path / "a.gif", picture())
    (tmp_path / "b.png").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_image(tmp_path / "b.png", picture())
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
