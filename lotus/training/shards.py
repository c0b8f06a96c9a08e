"""Training samples on disk in shards of equal pictures, so that a renderer and a training run side by side.

A shard is one safetensors file with `image` (n, h, w, 3) uint8, `disparity` (n, h, w) float16, 1 / depth and
0 where there is none, and `normals` (n, h, w, 3) int8, 127 times the OpenCV normal toward the camera. Shard k
holds the samples k * n to k * n + n - 1 of its source; it is written under another name first, so that what
is there is whole.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Int8

from lotus.data import TrainingSample
from recon.errors import InputError

NORMAL_LEVELS = 127
SHARD_NAME = "shard_{:06d}.safetensors"

Render = Callable[[int, tuple[int, int]], TrainingSample]
"""The sample of an index at a size (width, height)."""


def write_shard(folder: Path, index: int, count: int, size: tuple[int, int], render: Render) -> Path:
    """Renders and writes one shard, unless it is there; returns its file."""
    file = folder / SHARD_NAME.format(index)
    if file.is_file():
        return file
    samples = [render(number, size) for number in range(index * count, (index + 1) * count)]
    write_arrays(file, pack(samples))
    return file


def pack(samples: Sequence[TrainingSample]) -> dict[str, np.ndarray]:
    """Returns the arrays of a shard.

    Where some depth is neither known nor sky, `counts` (n, h, w) says where it is one of the two. Without it,
    what has no depth is sky.
    """
    depths = np.stack([sample.depth for sample in samples])
    normals = np.stack([sample.normals for sample in samples])
    arrays = {
        "image": np.stack([sample.image for sample in samples]),
        "disparity": disparity_of(depths),
        "normals": quantize_normals(normals),
    }
    counts = (depths > 0) | np.stack([sample.sky for sample in samples])
    return arrays if counts.all() else arrays | {"counts": counts}


def disparity_of(depth: np.ndarray) -> Float16[np.ndarray, "..."]:
    """Returns 1 / depth in half precision, 0 where there is no depth."""
    return np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0).astype(np.float16)


def quantize_normals(normals: np.ndarray) -> Int8[np.ndarray, "..."]:
    """Returns normals in steps of 1 / 127."""
    return np.rint(normals * NORMAL_LEVELS).astype(np.int8)


def write_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays to a safetensors file in one move."""
    from safetensors.numpy import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, part)
    part.replace(file)


def read_arrays(file: Path, names: tuple[str, ...], rows: slice = slice(None)) -> dict[str, np.ndarray]:
    """Returns some rows of some arrays of a shard; only these are read.

    Raises:
        InputError: The file is damaged or lacks an array.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as shard:
            return {name: shard.get_slice(name)[rows] for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a whole shard with {', '.join(names)} ({error})") from error


def count_samples(file: Path, name: str) -> int:
    """Returns how many samples a safetensors file has, by the rows of one of its arrays.

    Raises:
        InputError: The file is damaged or lacks the array.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as shard:
            return int(shard.get_slice(name).get_shape()[0])
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: damaged ({error})") from error


def read_all(file: Path, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    """Returns some rows of all arrays of a safetensors file.

    Raises:
        InputError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as shard:
            return {name: shard.get_slice(name)[rows] for name in shard.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: damaged ({error})") from error
