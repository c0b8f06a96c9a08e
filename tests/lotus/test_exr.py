"""OpenEXR files that its own library (3.5) wrote from a formula."""

from pathlib import Path

import numpy as np
import pytest

from lotus.exr import read_exr
from recon.errors import InputError

FILES = Path(__file__).parent / "files"


def formula() -> np.ndarray:
    v, u = np.mgrid[:19, :5].astype(np.float32)
    return np.stack([u / 8 - 0.25, v / 16 - 0.5, u * v / 64], axis=-1)


@pytest.mark.parametrize("name", ["none_half.exr", "zips.exr", "zip.exr"])
def test_pictures_equal_what_was_written(name: str) -> None:
    np.testing.assert_array_equal(read_exr(name, (FILES / name).read_bytes()), formula())


def test_a_compression_that_is_not_read_is_named() -> None:
    with pytest.raises(InputError, match=r"piz\.exr: OpenEXR compression PIZ, wanted ZIP, ZIPS or none"):
        read_exr("piz.exr", (FILES / "piz.exr").read_bytes())


@pytest.mark.parametrize("length", [0, 7, 60, 400, 600])
def test_a_cut_off_file_is_refused(length: int) -> None:
    with pytest.raises(InputError, match=r"zip\.exr: a damaged OpenEXR file"):
        read_exr("zip.exr", (FILES / "zip.exr").read_bytes()[:length])


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(InputError, match=r"x\.exr: not an OpenEXR file"):
        read_exr("x.exr", b"\x89PNG\r\n\x1a\n")
