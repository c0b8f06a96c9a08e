"""Group norm, SiLU and what is added, of channels-last maps on a GPU: each map read and written once.

torch norms channels-first maps alone: a channels-last one is copied before, and again for the convolution
behind it; and it adds a convolution's bias in a pass of its own. In half precision that takes longer than the
convolutions. Elsewhere, and where torch compiles, this is torch's own.
"""

import logging
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn

from lotus.modules import first_line

log = logging.getLogger(__name__)


def norm_silu(
    hidden: Float[torch.Tensor, "b c h w"],
    norm: nn.GroupNorm,
    *,
    is_activated: bool = True,
    added: Float[torch.Tensor, "c"] | None = None,
) -> Float[torch.Tensor, "b c h w"]:
    """Returns silu(norm(hidden + added)), or without SiLU, in the memory format of `hidden`."""
    if has_kernels(hidden):
        return _run(hidden, norm, is_activated, added)
    normed = norm(hidden if added is None else hidden + added[:, None, None])
    return F.silu(normed, inplace=True) if is_activated else normed


def convolve_norm_silu(
    hidden: Float[torch.Tensor, "b c h w"],
    kernel: Float[torch.Tensor, "d c 3 3"],
    bias: Float[torch.Tensor, "d"],
    norm: nn.GroupNorm,
) -> Float[torch.Tensor, "b d h w"]:
    """Returns silu(norm(kernel * hidden + bias))."""
    if has_kernels(hidden):
        return norm_silu(F.conv2d(hidden, kernel, padding=1), norm, added=bias)
    return norm_silu(F.conv2d(hidden, kernel, bias, padding=1), norm)


def convolve_and_add(
    hidden: Float[torch.Tensor, "b c h w"], convolution: nn.Conv2d, other: Float[torch.Tensor, "b d h w"]
) -> Float[torch.Tensor, "b d h w"]:
    """Returns the convolved map plus another."""
    if not has_kernels(hidden):
        found: torch.Tensor = convolution(hidden)
        return found.add_(other)
    update = F.conv2d(hidden, convolution.weight, padding=convolution.padding)
    other = other.contiguous(memory_format=torch.channels_last)
    grid, pixels, channels = _grid(update)
    with torch.cuda.device_of(update):  # of several GPUs Triton takes the current one
        kernels().join[grid](update, convolution.bias, other, pixels, channels)
    return update


def has_kernels(hidden: torch.Tensor) -> bool:
    """Returns True for half-precision channels-last maps on a GPU, where torch does not compile them."""
    return (
        hidden.is_cuda
        and hidden.dtype != torch.float32
        and not torch.compiler.is_compiling()
        and hidden.is_contiguous(memory_format=torch.channels_last)
        and run_on(hidden.device)
    )


@lru_cache
def run_on(device: torch.device) -> bool:
    """Returns True where the kernels run: Triton is there, and so is what it compiles with."""
    if kernels() is None:
        return False
    maps = torch.zeros(1, 8, 2, 2, dtype=torch.float16, device=device)
    norm = nn.GroupNorm(4, 8, device=device, dtype=torch.float16)
    try:
        with torch.inference_mode():
            _run(maps.to(memory_format=torch.channels_last), norm, True, None)
    except Exception as error:  # whatever a compiler, linker or driver says
        told = "kernels of Triton do not run on %s, torch's slower ones do: %s"
        log.warning(told, device, first_line(error))
        return False
    return True


@lru_cache(maxsize=1)
def kernels() -> Any:
    """Returns the module of kernels, or None where there is no Triton."""
    try:
        from lotus import norm_kernels
    except ImportError:
        return None
    return norm_kernels


def _run(
    hidden: torch.Tensor, norm: nn.GroupNorm, is_activated: bool, added: torch.Tensor | None
) -> torch.Tensor:
    """Runs the kernels: sums, the line of each channel, the map."""
    grid, pixels, channels = _grid(hidden)
    parts, _, batch = grid
    each = channels // norm.num_groups
    sums = torch.empty(batch, parts, 2, channels, dtype=torch.float32, device=hidden.device)
    line = torch.empty(batch, 2, channels, dtype=torch.float32, device=hidden.device)
    out = torch.empty_like(hidden)
    with torch.cuda.device_of(hidden):
        kernels().sum_up[grid](hidden, sums, pixels, channels)
        kernels().put_together[norm.num_groups, batch](
            *(sums, norm.weight, norm.bias, norm.bias if added is None else added, line),
            *(parts, pixels, channels, each, norm.eps),
            EACH=1 << (each - 1).bit_length(),
            ADDS=added is not None,
        )
        kernels().apply[grid](hidden, line, out, pixels, channels, ACTIVATED=is_activated)
    return out


def _grid(maps: torch.Tensor) -> tuple[tuple[int, int, int], int, int]:
    """Returns programs by pixels, channels and pictures; pixels; channels."""
    batch, channels, height, width = maps.shape
    pixels, own = height * width, kernels()
    rows = own.PIXELS.value * own.TILES.value
    return (-(-pixels // rows), -(-channels // own.CHANNELS.value), batch), pixels, channels
