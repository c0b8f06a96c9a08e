"""The files of a benchmark as published, in a folder or still in its tar archive, and what they hold."""

import io
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from recon.errors import InputError

DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True)
class Files:
    """A folder, or a tar archive, with the files of a benchmark."""

    root: Path

    @cached_property
    def names(self) -> frozenset[str]:
        """Paths of all files below the root, with slashes.

        Raises:
            InputError: The archive is damaged.
        """
        if self.root.is_dir():
            paths = (path for path in self.root.rglob("*") if path.is_file())
            return frozenset(path.relative_to(self.root).as_posix() for path in paths)
        return frozenset(self._members)

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            InputError: There is no such file, or it cannot be read.
        """
        try:
            if self.root.is_dir():
                return (self.root / name).read_bytes()
            stream = self._archive.extractfile(self._members[name])
            assert stream is not None, "members are files"
            return stream.read()
        except (OSError, KeyError, EOFError, tarfile.TarError) as error:
            raise InputError(f"{self.root}: cannot read {name} ({type(error).__name__})") from error

    @cached_property
    def _archive(self) -> tarfile.TarFile:
        try:
            return tarfile.open(self.root)
        except (OSError, EOFError, tarfile.TarError) as error:
            raise InputError(f"{self.root}: not a tar archive, or a damaged one ({error})") from error

    @cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        try:
            members = self._archive.getmembers()
        except (OSError, EOFError, tarfile.TarError) as error:
            raise InputError(f"{self.root}: damaged archive ({error})") from error
        return {member.name.removeprefix("./"): member for member in members if member.isfile()}


def find_files(place: Path, homes: Sequence[str], photo: re.Pattern[str]) -> Files:
    """Returns the files of a benchmark: of the first of its usual homes that has a photo, else `place`.

    Args:
        place: The benchmark's folder or archive, or a folder above it.
        homes: Where below such a folder the publishers put it.
        photo: Pattern of the photos' names in the benchmark's own folder.

    Raises:
        InputError: There is nothing at `place`.
    """
    if not place.exists():
        raise InputError(f"{place}: no such folder or archive")
    for home in homes:
        if (place / home).exists():
            files = Files(place / home)
            if any(photo.fullmatch(name) for name in files.names):
                return files
    return Files(place)


def read_picture(files: Files, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture as stored, in RGB. As the authors' code, it does not turn it by its EXIF orientation.

    Raises:
        InputError: It cannot be read or decoded.
    """
    return _decoded(files, name, "RGB")


def read_grey(files: Files, name: str) -> Float32[np.ndarray, "h w"]:
    """Returns the numbers of a grey picture of 8 or 16 bits.

    Raises:
        InputError: It cannot be read or decoded, or has colours.
    """
    values = _decoded(files, name, None)
    if values.ndim != 2:
        raise InputError(f"{files.root}: {name} is a colour picture, wanted grey")
    return values.astype(np.float32)


def _decoded(files: Files, name: str, mode: str | None) -> np.ndarray:
    from PIL import Image

    content = files.read(name)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    except DECODER_ERRORS as error:
        raise InputError(f"{files.root}: {name} cannot be decoded ({type(error).__name__})") from error


def read_array(files: Files, name: str) -> np.ndarray:
    """Returns the array of an npy file without its axes of length 1.

    Raises:
        InputError: It cannot be read, or is no array of numbers.
    """
    try:
        return np.load(io.BytesIO(files.read(name)), allow_pickle=False).squeeze()
    except (ValueError, EOFError) as error:
        raise InputError(f"{files.root}: {name} is no npy file, or a damaged one ({error})") from error


def read_boxed_normals(
    files: Files, name: str, size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Returns a map of OASIS and where it is known: the normals inside a box.

    OASIS publishes pickles. A pickle can run code, so none is read: the same fields are wanted as npz.

    Args:
        files: Where it is.
        name: Of the npz: `normal` and the box `min_y`, `max_y`, `min_x`, `max_x`, ends included.
        size: (height, width) of the picture.

    Raises:
        InputError: It cannot be read, or its box does not fit.
    """
    content = files.read(name)
    try:
        fields = np.load(io.BytesIO(content), allow_pickle=False)
        inside = np.asarray(fields["normal"], np.float32)
        top, bottom, left, right = (int(fields[key]) for key in ("min_y", "max_y", "min_x", "max_x"))
        window = slice(top, bottom + 1), slice(left, right + 1)
        normals = np.zeros((*size, 3), np.float32)
        normals[window] = inside
    except (zipfile.BadZipFile, AttributeError, *DECODER_ERRORS, KeyError) as error:
        raise InputError(f"{files.root}: {name} is no map of OASIS ({error})") from error
    return normals, (normals != 0).any(axis=-1)
