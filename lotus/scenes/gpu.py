"""Light of many scenes on an NVIDIA GPU: the three passes of `pixels` as kernels, a thread per pixel.

numba.cuda compiles the very functions that the processor runs.
"""

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float32
from numba import cuda

from lotus.scenes.batched import scene_of
from lotus.scenes.description import MAX_LIGHTS
from lotus.scenes.pixels import is_edge, smooth_pixel, soften_pixel, trace_pixel
from recon.errors import InputError

BLOCK = (8, 16, 1)  # columns, rows and scenes; a warp sees 8 x 4 pixels, whose rays meet about the same
REGISTERS = 128  # of a thread; all 236 that it would use leave room for half as many threads


def radiance_on_gpu(
    arrays: tuple[np.ndarray, ...], shape: tuple[int, int], device: torch.device
) -> tuple[
    Float32[torch.Tensor, "b h w 3"], Float32[torch.Tensor, "b h w"], Float32[torch.Tensor, "b h w 3"]
]:
    """Returns light, depth and normals; `arrays` are what `scene_of` takes.

    Raises:
        InputError: numba cannot use the GPU.
    """
    if not cuda.is_available():
        raise InputError(
            "scenes on a GPU: numba-cuda finds no NVIDIA driver or no device; `numba -s` says what it finds"
        )
    with torch.cuda.device(device):
        number = torch.cuda.current_stream().cuda_stream
        stream = cuda.external_stream(number) if number else 0
        tensors = [torch.from_numpy(array).pin_memory().to(device, non_blocking=True) for array in arrays]
        return _drawn(tensors, shape, stream)


def _drawn(tensors: list[torch.Tensor], shape: tuple[int, int], stream: Any) -> Any:
    """Queues the passes on a stream; returns light, depth and normals."""
    air = tensors[10]
    size, device = (len(air), *shape), air.device
    depth, index = torch.zeros(size, device=device), torch.full(size, -1, device=device)
    normals, albedo, extra = (torch.zeros((*size, 3), device=device) for _ in range(3))
    light, smoothed = (torch.zeros((*size, 6), device=device) for _ in range(2))
    grid = (-(-shape[1] // BLOCK[0]), -(-shape[0] // BLOCK[1]), len(air))
    launch = (grid, BLOCK, stream)
    scenes = _shared(tensors)
    _trace[launch](scenes, _shared((depth, index, normals, albedo, light, extra)))
    _smooth[launch](_shared((index, normals, light)), cuda.as_cuda_array(smoothed))
    extra += smoothed[..., 3:]
    colours = albedo * smoothed[..., :3] + extra
    _soften[launch](scenes, _shared((index, normals, smoothed, extra)), cuda.as_cuda_array(colours))
    fog, horizon = air[:, None, None, 9], air[:, None, None, 3:6].float()
    kept = torch.where(depth > 0, torch.exp(-fog * depth), 1.0)[..., None].float()
    foggy = colours * kept + horizon * (1.0 - kept)
    return torch.where(fog[..., None] > 0, foggy, colours), depth, normals


def _shared(tensors: Any) -> tuple[Any, ...]:
    """Returns tensors as arrays of numba on the same memory."""
    return tuple(cuda.as_cuda_array(tensor) for tensor in tensors)


@cuda.jit(max_registers=REGISTERS, cache=True)
@no_type_check
def _trace(arrays: Any, layers: Any) -> None:
    column, row, s = cuda.grid(3)
    depth, index, normals, albedo, light, extra = layers
    if row < depth.shape[1] and column < depth.shape[2]:
        blockers = cuda.local.array(MAX_LIGHTS, np.int64)
        for k in range(MAX_LIGHTS):
            blockers[k] = -1
        maps = (depth[s], index[s], normals[s], albedo[s], light[s], extra[s])
        trace_pixel(scene_of(arrays, s), maps, (row, column), np.int64(-1), blockers)


@cuda.jit(cache=True)
@no_type_check
def _smooth(layers: Any, out: Any) -> None:
    column, row, s = cuda.grid(3)
    index, normals, light = layers
    if row < index.shape[1] and column < index.shape[2]:
        smooth_pixel((index[s], normals[s], light[s]), (row, column), out[s])


@cuda.jit(max_registers=REGISTERS, cache=True)
@no_type_check
def _soften(arrays: Any, layers: Any, colours: Any) -> None:
    column, row, s = cuda.grid(3)
    index, normals, light, extra = layers
    is_inside = 0 < row < index.shape[1] - 1 and 0 < column < index.shape[2] - 1
    if is_inside and is_edge(index[s], normals[s], row, column):
        maps = (index[s], normals[s], light[s], extra[s])
        soften_pixel(scene_of(arrays, s), maps, (row, column), colours[s])
