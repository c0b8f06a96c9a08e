"""Devices and number formats by name."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recon.errors import InputError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float16", "bfloat16")


def resolve_device(device: "str | torch.device") -> "torch.device":
    """Returns the device of a name.

    Raises:
        InputError: There is no such device.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {str(device)!r}: not on this machine; wanted auto, cpu, cuda, ..."
        ) from error
    return place


def resolve_dtype(dtype: "str | torch.dtype", device: "torch.device") -> "torch.dtype":
    """Returns the number format of a name; "auto" chooses the fast one of the device.

    bfloat16 is what the authors' own script computes in on a CPU, so "auto" takes it where the CPU multiplies
    it in hardware; elsewhere it would be slower than float32.

    Raises:
        InputError: The name is unknown.
    """
    import torch

    if dtype == "auto":
        low = {"cuda": "float16", "cpu": "bfloat16" if cpu_has_bfloat16() else "float32"}
        dtype = low.get(device.type, "float32")
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}, wanted auto, {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, name)
    return found


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Returns True where Linux lists bfloat16 products of the CPU (AVX512-BF16, AMX, Arm BF16)."""
    listing = Path("/proc/cpuinfo")
    flags = set(listing.read_text().split()) if listing.is_file() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def free_bytes(device: "str | torch.device") -> int | None:
    """Returns how much memory a device has left; None where that is unknown."""
    kind = str(device)
    if kind.startswith("cuda"):
        import torch

        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own store
        return torch.cuda.mem_get_info(device)[0] + idle
    listing = Path("/proc/meminfo")
    if kind != "cpu" or not listing.is_file():
        return None
    fields = dict(line.split(":") for line in listing.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024
