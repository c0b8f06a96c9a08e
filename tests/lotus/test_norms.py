"""Group norm by kernels against torch's own in float32."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lotus import norms
from lotus.norms import convolve_and_add, convolve_norm_silu, norm_silu

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SHAPES = [(2, 320, 24, 31, 32), (1, 64, 7, 9, 8), (2, 128, 72, 96, 32), (1, 1920, 6, 5, 32)]


@needs_gpu
@pytest.mark.parametrize("is_activated", [True, False])
@pytest.mark.parametrize(("batch", "channels", "height", "width", "groups"), SHAPES)
def test_kernels_norm_as_torch_does_in_float32(batch, channels, height, width, groups, is_activated):
    pytest.importorskip("triton")
    generator = torch.Generator("cuda").manual_seed(0)
    maps = 3 * torch.randn(batch, channels, height, width, generator=generator, device="cuda") + 5
    maps = maps.half().to(memory_format=torch.channels_last)
    norm = nn.GroupNorm(groups, channels, device="cuda", dtype=torch.float16)
    nn.init.normal_(norm.weight, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    with torch.inference_mode():
        found = norm_silu(maps, norm, is_activated=is_activated)
        exact = F.group_norm(maps.float(), groups, norm.weight.float(), norm.bias.float(), norm.eps)
    wanted = F.silu(exact) if is_activated else exact
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), wanted, rtol=2**-10, atol=2**-9)


@needs_gpu
def test_biases_are_added_on_the_way() -> None:
    pytest.importorskip("triton")
    torch.manual_seed(0)
    first, second = (nn.Conv2d(64, 64, 3, padding=1, device="cuda").requires_grad_(False) for _ in range(2))
    norm = nn.GroupNorm(32, 64, device="cuda")
    maps = torch.randn(2, 64, 33, 20, device="cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        wanted = second(F.silu(norm(first(maps)))) + maps
    for part in (first, second, norm):
        part.to(torch.float16, memory_format=torch.channels_last)
    half = maps.half().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        inner = convolve_norm_silu(half, first.weight, first.bias, norm)
        found = convolve_and_add(inner, second, half)
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.01)


def test_where_kernels_do_not_run_a_line_says_so_and_torch_norms(monkeypatch, caplog) -> None:
    def fail(*_):
        raise RuntimeError("no C compiler\nand more")

    four = SimpleNamespace(value=4)
    broken = SimpleNamespace(sum_up=defaultdict(lambda: fail), PIXELS=four, TILES=four, CHANNELS=four)
    monkeypatch.setattr(norms, "kernels", lambda: broken)
    norms.run_on.cache_clear()
    assert not norms.run_on(torch.device("cpu"))
    norms.run_on.cache_clear()
    assert "do not run on cpu, torch's slower ones do: no C compiler" in caplog.text
