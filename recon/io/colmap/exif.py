"""Which camera took a photo, and where: EXIF tags that tell which photos share a lens and which are near."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAKE, MODEL = 0x010F, 0x0110
SUB_IFD, FOCAL_LENGTH, FOCAL_35MM, LENS_MODEL = 0x8769, 0x920A, 0xA405, 0xA434
GPS_IFD, LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE = 0x8825, 1, 2, 3, 4


def camera_label(path: Path) -> str:
    """Returns maker, model, lens and focal length as EXIF has them; an empty text for a photo without."""
    main, details, _ = _tags(path)
    values = [main.get(MAKE), main.get(MODEL)] + [
        details.get(tag) for tag in (LENS_MODEL, FOCAL_LENGTH, FOCAL_35MM)
    ]
    return " ".join(str(value).replace("\0", "").strip() for value in values if value is not None)


def gps_position(path: Path) -> tuple[float, float] | None:
    """Returns (latitude, longitude), degrees; None where EXIF has no sound position."""
    *_, gps = _tags(path)
    try:
        latitude, longitude = _degrees(gps[LATITUDE]), _degrees(gps[LONGITUDE])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 <= latitude <= 90 and 0 <= longitude <= 180) or latitude == longitude == 0:
        return None
    south, west = str(gps.get(LATITUDE_REF, "N")) == "S", str(gps.get(LONGITUDE_REF, "E")) == "W"
    return (-latitude if south else latitude), (-longitude if west else longitude)


def _degrees(parts: Any) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    return degrees + minutes / 60 + seconds / 3600


def _tags(path: Path) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    """Main, photo and GPS tags; empty where they are damaged, for the pixels are still good."""
    from PIL import Image

    try:
        with Image.open(path) as photo:
            tags = photo.getexif()
            return dict(tags), tags.get_ifd(SUB_IFD), tags.get_ifd(GPS_IFD)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError):
        return {}, {}, {}
