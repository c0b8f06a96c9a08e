"""Photos and masks as arrays: found, checked, read upright in 8-bit RGB, written."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import hypot, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from recon.errors import InputError, ViewError
from recon.io.files import replaced
from recon.io.images.resampling import resize_image

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
UNREAD_ENDINGS = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".rw2",
    ".orf",
)
PHOTO_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")  # Pillow's names of the same
MAX_PHOTO_PIXELS = 250_000_000  # 0.75 GB as RGB; larger is a stitched picture or a broken header
MAX_ASPECT_ERROR = 0.01  # photo and camera may differ by the rounding of a resize, not by a crop or a turn
MIN_PHOTO_SIDE = 8  # px; what is smaller shows no scene
JPEG_QUALITY = 95  # no visible loss, a quarter of the bytes of 100
JPEG_REDUCTIONS = (8, 4, 2)  # libjpeg decodes straight to these fractions
LOSSY_ENDINGS = (".jpg", ".jpeg", ".webp")

JPEG: dict[str, Any] = {"format": "JPEG", "quality": JPEG_QUALITY, "subsampling": 0}
WRITTEN: dict[str, dict[str, Any]] = {".png": {"format": "PNG"}, ".jpg": JPEG, ".jpeg": JPEG}

FILM_DIAGONAL_MM = hypot(36, 24)
EXIF_ORIENTATION, EXIF_SUB_IFD = 0x0112, 0x8769
EXIF_FOCAL_LENGTH, EXIF_FOCAL_35MM = 0x920A, 0xA405
EXIF_WIDTH, EXIF_HEIGHT = 0xA002, 0xA003
EXIF_PLANE_RESOLUTION, EXIF_PLANE_UNIT = 0xA20E, 0xA210
EXIF_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
FOCAL_RANGE = (0.2, 50.0)  # focal length per longer side: 136 degrees to 1 degree; else EXIF is wrong

# What Pillow's decoders raise on broken files.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)


def find_photos(folder: Path) -> list[Path]:
    """Returns the photos below a folder, sorted by their path inside it; hidden ones are skipped.

    Raises:
        InputError: There is no such folder, or no photo in it.
    """
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: a file, wanted a folder of photos")
    visible = _visible_files(folder)
    photos = [folder / name for name in visible if name.suffix.lower() in PHOTO_ENDINGS]
    if not photos:
        kinds = Counter(name.suffix.lower() or "no ending" for name in visible)
        found = f" ({', '.join(kind for kind, _ in kinds.most_common(6))})" if kinds else ""
        raise InputError(
            f"{folder}: has {len(visible)} files{found}, none of them a photo ({', '.join(PHOTO_ENDINGS)})"
        )
    return photos


def unread_pictures(folder: Path) -> Counter[str]:
    """Returns how many pictures below a folder are of kinds that are not read, by ending."""
    endings = (name.suffix.lower() for name in _visible_files(folder))
    return Counter(ending for ending in endings if ending in UNREAD_ENDINGS)


def _visible_files(folder: Path) -> list[Path]:
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        (name for name in names if not any(part.startswith(".") for part in name.parts)), key=Path.as_posix
    )


def same_ratio(photo: tuple[int, int], camera: tuple[int, int]) -> bool:
    """Returns whether a photo and a camera, each (width, height), may differ by a resize alone."""
    across, down = photo[0] * camera[1], photo[1] * camera[0]
    return abs(across - down) <= MAX_ASPECT_ERROR * down


def photo_size(path: Path) -> tuple[int, int]:
    """Returns (width, height) of an upright photo; reads the header only.

    Raises:
        ViewError: The file is no photo.
    """
    with open_picture(path) as photo:
        return _upright_size(photo)


def read_photo(path: Path, max_size: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a photo upright (by its EXIF orientation) in 8-bit RGB.

    16-bit values are scaled, transparent pixels blended over white. A reduction averages over areas; JPEG is
    decoded straight to 1/2, 1/4 or 1/8 where that still is large enough.

    Args:
        path: JPEG, PNG, TIFF, WebP or BMP; the first picture of a file with several.
        max_size: Longest side of the result, pixels; a smaller photo keeps its size. None: full size.

    Raises:
        ViewError: The file is no photo, is damaged, or has more pixels than `MAX_PHOTO_PIXELS`.
    """
    with open_picture(path) as photo:
        size = _upright_size(photo)
        target = _fitted(*size, max_size)
        _reduce_jpeg(photo, target)
        _check_pixel_count(path, photo, size)
        photo.load()  # before the orientation is read: Pillow turns TIFFs upright itself and drops their tag
        pixels, orientation = _to_rgb(path, photo), _orientation(photo)
    return resize_image(_turn_upright(pixels, orientation), *target)


def verify_photo(path: Path) -> None:
    """Decodes a photo to find out whether it is whole, at the least cost (JPEG at an eighth of its size).

    Raises:
        ViewError: As `read_photo`; also a PNG with a wrong checksum, and a side below `MIN_PHOTO_SIDE`.
    """
    with open_picture(path) as photo:
        size = _upright_size(photo)
        if min(size) < MIN_PHOTO_SIDE:
            raise ViewError(
                f"{path.name}: {size[0]}x{size[1]} pixels, wanted at least {MIN_PHOTO_SIDE} a side"
            )
        _reduce_jpeg(photo, (1, 1))
        _check_pixel_count(path, photo, size)
        photo.load()
    with open_picture(path) as photo:
        photo.verify()  # the decoder ignores PNG's checksums


def exif_focal_px(path: Path) -> float | None:
    """Returns the focal length that EXIF tells for the full-size photo, pixels; None where it tells none.

    From the 35 mm equivalent by the diagonal (CIPA DCG-001): f = f_35 * diagonal_px / 43.27. It is rounded to
    millimetres and, for a photo cropped in the camera, of the whole sensor: good to some per cent. Else from
    the focal length and the focal plane resolution, scaled if the photo was resized since.

    Raises:
        ViewError: The file is no photo.
    """
    with open_picture(path) as photo:
        width, height = photo.size
        tags = _exif(photo)
    equivalent = _positive(tags.get(EXIF_FOCAL_35MM))
    millimetres = _positive(tags.get(EXIF_FOCAL_LENGTH))
    per_unit = _positive(tags.get(EXIF_PLANE_RESOLUTION))
    if equivalent:
        focal = equivalent * hypot(width, height) / FILM_DIAGONAL_MM
    elif millimetres and per_unit:
        taken = max(_positive(tags.get(EXIF_WIDTH)), _positive(tags.get(EXIF_HEIGHT)))
        resized = max(width, height) / taken if taken else 1.0
        unit_mm = EXIF_UNIT_MM.get(int(_positive(tags.get(EXIF_PLANE_UNIT))), EXIF_UNIT_MM[2])
        focal = millimetres * per_unit / unit_mm * resized
    else:
        return None
    plausible = FOCAL_RANGE[0] <= focal / max(width, height) <= FOCAL_RANGE[1]
    return float(focal) if plausible else None


def find_mask(folder: Path, photo_name: str) -> Path | None:
    """Returns the mask file of a photo: NAME.jpg.png (COLMAP's way), else NAME with any picture ending."""
    stem = Path(photo_name).with_suffix("")
    names = [f"{photo_name}.png"] + [f"{stem}{end}" for low in PHOTO_ENDINGS for end in (low, low.upper())]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_mask(
    folder: Path, photo_name: str, *, size: tuple[int, int] | None = None
) -> Bool[np.ndarray, "h w"] | None:
    """Returns the mask of a photo, True = keep; None if `find_mask` finds none.

    Pixels neither black nor transparent are kept; in JPEG and WebP, where compression blurs black, those from
    half brightness up.

    Args:
        folder: Where the masks are, with the subfolders of the photos.
        photo_name: Path of the photo below its folder, with its ending.
        size: (width, height) of the photo that the mask must have; None takes any.

    Raises:
        InputError: The mask has another size.
        ViewError: The file is no picture.
    """
    path = find_mask(folder, photo_name)
    if path is None:
        return None
    with open_picture(path) as picture:
        _check_pixel_count(path, picture, picture.size)
        picture.load()
        values, orientation = _mask_values(picture), _orientation(picture)
    values = _turn_upright(values, orientation)
    if size is not None and values.shape != (size[1], size[0]):
        raise InputError(
            f"{path}: mask of {values.shape[1]}x{values.shape[0]} pixels, "
            f"photo {photo_name} has {size[0]}x{size[1]}"
        )
    return np.ascontiguousarray(values >= (128 if path.suffix.lower() in LOSSY_ENDINGS else 1))


def write_image(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes a picture as PNG or JPEG (by the path's ending), whole or not at all.

    Raises:
        InputError: Another ending, or the file cannot be written.
    """
    from PIL import Image

    check_ending(path)
    with replaced(path) as temporary:
        Image.fromarray(image).save(temporary, **WRITTEN[path.suffix.lower()])


def check_ending(path: Path) -> None:
    """Raises what `write_image` would raise of a path's ending.

    Raises:
        InputError: It is none of `WRITTEN`.
    """
    if path.suffix.lower() not in WRITTEN:
        raise InputError(f"{path}: ending {path.suffix!r}, wanted .png or .jpg")


@contextmanager
def open_picture(path: Path) -> Iterator[Any]:
    """Gives Pillow's image of a file, not decoded yet; what fails in the block is the file's fault.

    Raises:
        ViewError: The file is missing, empty, no picture or damaged.
    """
    from PIL import Image, UnidentifiedImageError

    # Pillow's guard warns far below the size of panoramas; `_check_pixel_count` stands in for it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise ViewError(f"{path.name}: the file is empty (0 bytes)")
        with Image.open(path, formats=PHOTO_FORMATS) as photo:
            yield photo
    except FileNotFoundError as error:
        raise ViewError(f"{path.name}: no such file in {path.parent}") from error
    except UnidentifiedImageError as error:
        raise ViewError(f"{path.name}: its content is no JPEG, PNG, TIFF, WebP or BMP picture") from error
    except DECODER_ERRORS as error:
        raise ViewError(f"{path.name}: cannot be decoded ({str(error) or type(error).__name__})") from error


def _check_pixel_count(path: Path, photo: Any, size: tuple[int, int]) -> None:
    if photo.size[0] * photo.size[1] > MAX_PHOTO_PIXELS:
        megapixels = size[0] * size[1] / 1e6
        raise ViewError(
            f"{path.name}: {size[0]}x{size[1]} pixels are {megapixels:.0f} megapixels, "
            f"at most {MAX_PHOTO_PIXELS / 1e6:.0f} are read"
        )


def _fitted(width: int, height: int, max_size: int | None) -> tuple[int, int]:
    factor = 1.0 if max_size is None else min(1.0, max_size / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _reduce_jpeg(photo: Any, target: tuple[int, int]) -> None:
    """Has a JPEG decoded at the smallest fraction that covers `target` and divides its size exactly."""
    if photo.format not in ("JPEG", "MPO"):
        return
    long, short = max(photo.size), min(photo.size)
    for reduction in JPEG_REDUCTIONS:
        # A size that does not divide would gain a part of a pixel, and the whole picture would be squeezed.
        divides = long % reduction == 0 and short % reduction == 0
        if divides and long // reduction >= max(target) and short // reduction >= min(target):
            photo.draft(None, (photo.size[0] // reduction, photo.size[1] // reduction))
            return


def _upright_size(photo: Any) -> tuple[int, int]:
    width, height = photo.size
    if photo.format == "TIFF":
        width, height = (
            photo.tag_v2[256],
            photo.tag_v2[257],
        )  # as stored, whatever Pillow's version makes of it
    return (height, width) if _orientation(photo) >= 5 else (width, height)


def _exif(photo: Any) -> dict[int, Any]:
    """The tags of a photo; none if they are damaged, for its pixels are still good."""
    try:
        tags = photo.getexif()
        return {**tags, **tags.get_ifd(EXIF_SUB_IFD)}
    except DECODER_ERRORS:
        return {}


def _positive(value: Any) -> float:
    """An EXIF number; 0 where it is absent, not a number or not positive."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if isfinite(number) and number > 0 else 0.0


def _orientation(photo: Any) -> int:
    return int(_positive(_exif(photo).get(EXIF_ORIENTATION))) or 1


def _turn_upright(image: Shaped[np.ndarray, "..."], orientation: int) -> Shaped[np.ndarray, "..."]:
    """Undoes EXIF orientations 2 to 8 (EXIF 2.3, table 6)."""
    swapped = np.swapaxes(image, 0, 1) if orientation in (5, 6, 7, 8) else image
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return swapped[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _to_rgb(path: Path, photo: Any) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    if photo.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        grey = np.asarray(photo, np.int32)
        if grey.min() < 0 or grey.max() > 65535:
            raise ViewError(
                f"{path.name}: grey values {grey.min()} to {grey.max()}, wanted 8 or 16 bits without sign"
            )
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=-1)
    if photo.mode == "F":
        raise ViewError(f"{path.name}: floating-point pixels, wanted 8 or 16 bits")
    if photo.has_transparency_data:
        white = Image.new("RGBA", photo.size, "white")
        photo = Image.alpha_composite(white, photo.convert("RGBA"))
    return np.asarray(photo.convert("RGB"))


def _mask_values(picture: Any) -> np.ndarray:
    """Brightness of a mask picture; transparent counts as black."""
    if picture.mode.startswith(("I", "F")):
        return np.asarray(picture)
    rgba = np.asarray(picture.convert("RGBA"))
    return np.where(rgba[..., 3] > 0, rgba[..., :3].max(axis=-1), 0)
