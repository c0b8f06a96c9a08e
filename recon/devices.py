"""Devices of torch by name."""

from typing import TYPE_CHECKING

from recon.errors import InputError

if TYPE_CHECKING:
    import torch


def find_device(name: str, *, double: bool = False) -> "torch.device":
    """Returns the device of torch that has this name.

    Args:
        name: "cuda", "cuda:1", ...; "cpu:0" is torch's own way on the processor.
        double: Whether it has to know float64, as Apple's devices do not.

    Raises:
        InputError: There is no such device, or it does not know float64.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64 if double else torch.float32, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        lack = "not on this machine, or without float64" if double else "not on this machine"
        raise InputError(f"device {name!r}: {lack}; wanted cpu, cuda, cuda:1, ...") from error
    return device
