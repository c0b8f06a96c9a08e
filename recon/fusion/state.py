"""A volume as arrays and as a file."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from recon.errors import InputError
from recon.fusion.blocks import BLOCK_VOXELS, GROUP, pack, unpack
from recon.fusion.seen_views import COLUMNS, SeenView

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume

# "variance": upper halves are variances, lower ones votes for free space (`packing.pack_variance`).
CHANNELS = {"tsdf": np.float32, "weight": np.float32, "variance": np.uint32, "gradient": np.uint32}
COLOR = {"color": np.uint32}
PART = 4096  # blocks copied at once


def arrays_of(volume: "TSDFVolume") -> dict[str, np.ndarray]:
    """Returns the state of a volume: views of its arrays, of a file where blocks are paged out."""
    arrays = {
        "voxel_size": np.array(volume.voxel_size),
        "truncation": np.array(volume.truncation),
        "origin": np.zeros(0, np.int64) if volume.origin is None else volume.origin.copy(),
        "views": np.array([view.as_row() for view in volume.views]).reshape(-1, COLUMNS),
        "blocks": unpack(volume.index.keys),
        "group": np.array(GROUP),  # of voxels; files without it have them in another order
    }
    if volume.colored is None:
        return arrays
    words = volume.pages.all_words()
    names = CHANNELS | (COLOR if volume.colored else {})
    for channel, (name, dtype) in enumerate(names.items()):
        arrays[name] = words[:, channel].view(dtype)
    arrays["free"] = volume.free_votes.view()
    for name in (*names, "free"):
        arrays[name].flags.writeable = False
    return arrays


def fill_from_arrays(volume: "TSDFVolume", arrays: Mapping[str, np.ndarray]) -> None:
    """Brings a state that `arrays_of` returned into an empty volume.

    Raises:
        InputError: An array is missing or does not fit the others.
    """
    blocks = np.asarray(arrays["blocks"])
    if blocks.ndim != 2 or blocks.shape[1] != 3 or blocks.dtype != np.int32:
        raise InputError(f"TSDF volume: blocks are {blocks.dtype} {blocks.shape}, wanted int32 (n, 3)")
    views = np.asarray(arrays["views"])
    if views.ndim != 2 or views.shape[1] != COLUMNS:
        raise InputError(f"TSDF volume: views are {views.shape}, wanted (n, {COLUMNS})")
    volume.origin = np.asarray(arrays["origin"], np.int64).copy() if len(arrays["origin"]) else None
    volume.views.extend(SeenView.from_row(row) for row in views)
    if "tsdf" not in arrays and not len(blocks):
        return
    names = CHANNELS | (COLOR if "color" in arrays else {})
    volume.prepare(colored="color" in arrays)
    rows = volume.index.rows(pack(blocks))
    if len(rows) < len(blocks):
        raise InputError("TSDF volume: a block is there twice")
    volume.pages.extend(len(volume.index))
    volume.pages.add_votes(rows, _of(arrays, "free", np.uint16, (len(rows), 64)))
    channels = [(i, name, dtype) for i, (name, dtype) in enumerate(names.items())]
    for some in [channels] if volume.pages.paged else [[one] for one in channels]:  # one array at a time
        given = {i: _of(arrays, name, dtype, (len(rows), BLOCK_VOXELS)) for i, name, dtype in some}
        size = min(volume.pages.most or PART, PART)
        for start in range(0, len(blocks), size):
            slots = volume.pages.slots(rows[start : start + size], change=True)
            for channel, array in given.items():
                part = np.ascontiguousarray(array[start : start + size])
                volume.pages.words[slots, channel] = part.view(np.float32)


def _of(arrays: Mapping[str, np.ndarray], name: str, dtype: DTypeLike, shape: tuple[int, int]) -> np.ndarray:
    given = arrays.get(name)
    if given is None or given.shape != shape or given.dtype != dtype:
        found = "missing" if given is None else f"{given.dtype} {given.shape}"
        raise InputError(f"TSDF volume: {name} is {found}, wanted {np.dtype(dtype)} {shape}")
    return given


def write(volume: "TSDFVolume", path: Path) -> None:
    """Writes a volume to an npz file, which appears only when it is complete.

    Raises:
        InputError: The folder is not there or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays_of(volume))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file that `write` wrote.

    Raises:
        InputError: The file is missing, damaged or not a volume.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a TSDF volume: {error}") from error
