"""OpenEXR pictures of floating-point channels: the part of the format that ground truth comes in.

Scan lines without compression or with deflate (ZIPS, ZIP), after "OpenEXR File Layout" (openexr.com). The
wheels of OpenCV cannot read the format, and its own library is a large one for so little.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from recon.errors import InputError

MAGIC = 20000630
TILED_DEEP_OR_MULTIPART = 0x200 | 0x800 | 0x1000  # bits of the version field
ROWS_PER_CHUNK = {0: 1, 2: 1, 3: 16}  # by compression: none, ZIPS, ZIP
COMPRESSIONS = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
NUMBERS = {1: np.dtype("<f2"), 2: np.dtype("<f4")}


def read_exr(name: str, content: bytes) -> Float32[np.ndarray, "h w 3"]:
    """Returns the channels R, G, B of an OpenEXR file.

    Args:
        name: Of the file, for errors.
        content: Of the file.

    Raises:
        InputError: The file is damaged, lacks one of the channels, or is of a kind that is not read here.
    """
    try:
        return _decode(name, content)
    except (struct.error, ValueError, IndexError, KeyError, zlib.error) as error:
        raise InputError(f"{name}: a damaged OpenEXR file ({error})") from error


def _decode(name: str, content: bytes) -> Float32[np.ndarray, "h w 3"]:
    magic, version = struct.unpack_from("<II", content)
    if magic != MAGIC:
        raise InputError(f"{name}: not an OpenEXR file")
    if version & TILED_DEEP_OR_MULTIPART:
        raise InputError(f"{name}: a tiled, deep or multi-part OpenEXR file, wanted one of scan lines")
    header, position = _header(content)
    compression = header["compression"][0]
    if compression not in ROWS_PER_CHUNK:
        raise InputError(f"{name}: OpenEXR compression {COMPRESSIONS[compression]}, wanted ZIP, ZIPS or none")
    left, top, right, bottom = struct.unpack("<4i", header["dataWindow"])
    width, height, rows = right - left + 1, bottom - top + 1, ROWS_PER_CHUNK[compression]
    channels = list(_channels(header["channels"]))
    lacking = [letter for letter in "RGB" if letter not in dict(channels)]
    if lacking:
        raise InputError(f"{name}: no channel {lacking[0]}, it has {', '.join(dict(channels))}")
    planes = {letter: np.zeros((height, width), np.float32) for letter, _ in channels}
    row_bytes = width * sum(number.itemsize for _, number in channels)
    for offset in struct.unpack_from(f"<{-(-height // rows)}Q", content, position):
        y, size = struct.unpack_from("<iI", content, offset)
        first, count = y - top, min(rows, bottom + 1 - y)
        packed = content[offset + 8 : offset + 8 + size]
        raw = packed if size == row_bytes * count else _undo_prediction(zlib.decompress(packed))
        lines = np.frombuffer(raw, np.uint8).reshape(count, row_bytes)
        start = 0
        for letter, number in channels:
            end = start + width * number.itemsize
            planes[letter][first : first + count] = np.ascontiguousarray(lines[:, start:end]).view(number)
            start = end
    return np.stack([planes[letter] for letter in "RGB"], axis=-1)


def _header(content: bytes) -> tuple[dict[str, bytes], int]:
    """Returns the attributes by name, and where the offsets of the chunks begin."""
    attributes, position = {}, 8
    while content[position]:
        name, kind, _ = content[position : position + 512].split(b"\0", 2)
        position += len(name) + len(kind) + 2
        (size,) = struct.unpack_from("<I", content, position)
        attributes[name.decode("latin-1")] = content[position + 4 : position + 4 + size]
        position += 4 + size
    return attributes, position + 1


def _channels(listing: bytes) -> Iterator[tuple[str, Any]]:
    """Yields name and number format of every channel, in the order in which a row holds them."""
    while listing[0]:
        name, _, rest = listing.partition(b"\0")
        (kind,) = struct.unpack_from("<i", rest)
        if kind not in NUMBERS or struct.unpack_from("<2i", rest, 8) != (1, 1):
            raise ValueError(f"channel {name.decode('latin-1')} is not of full size in half or float")
        yield name.decode("latin-1"), NUMBERS[kind]
        listing = rest[16:]


def _undo_prediction(packed: bytes) -> bytes:
    """Undoes what makes rows compress well: bytes as differences, even bytes before odd ones."""
    steps = np.frombuffer(packed, np.uint8).copy()
    steps[1:] -= 128
    values = np.cumsum(steps, dtype=np.uint8)
    half = (len(values) + 1) // 2
    ordered = np.empty_like(values)
    ordered[0::2], ordered[1::2] = values[:half], values[half:]
    return ordered.tobytes()
