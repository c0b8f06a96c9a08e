"""The leaner blocks give what diffusers' give."""

import pytest
import torch
from diffusers.models.downsampling import Downsample2D

from lotus.network import Downsample


@pytest.mark.parametrize("width", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("padding", [0, 1])
def test_maps_of_any_width_are_halved_as_by_diffusers(width: int, padding: int) -> None:
    torch.manual_seed(0)
    halve = Downsample2D(4, use_conv=True, padding=padding)
    hidden = torch.randn(1, 4, 10, width)
    assert torch.allclose(Downsample(halve)(hidden), halve(hidden), atol=1e-6)


@pytest.mark.parametrize("padding", [0, 1])
def test_a_single_column_depends_on_nothing_else_in_memory(padding: int) -> None:
    halve = Downsample2D(16, use_conv=True, padding=padding).to(torch.bfloat16)
    for _ in range(10):
        junk = [torch.full((2**bits,), float("nan")) for bits in range(6, 15) for _ in range(60)]
        del junk  # what is allocated next has it
        assert torch.isfinite(Downsample(halve)(torch.randn(1, 16, 16, 2, dtype=torch.bfloat16))).all()
