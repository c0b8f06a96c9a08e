"""Time and memory of Lotus at full size with random weights, against the reference's own way.

python tests/benchmarks/lotus_speed.py reference   two separate pipelines, one photo at a time
python tests/benchmarks/lotus_speed.py joint       depth and normals together, as LotusPredictor runs them

On a GPU: `--size 768x576 --batch 1 2 4 8 16`; the reference then runs in float16 autocast, as the authors'
script does. Each call prints one line of JSON per batch size: seconds and CPU seconds per photo, peak memory,
and on a GPU the share of the measured matmul peak. CPU seconds count work, not waiting.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread counts as busy

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from lotus.checkpoints import resolve_device, resolve_dtype
from lotus.inference import ensemble, predict
from lotus.model import LotusModel
from lotus.network import LotusUNet, place
from lotus.vae import LotusVAE

TERA_FLOP = {"512x384": 5.74, "640x480": 9.15, "768x576": 13.47, "1024x768": 25.31}  # joint, encoding shared
TASK = torch.tensor([[np.sin(1.0), 0, np.cos(1.0), 1]], dtype=torch.float32)


def full_size_unet(seed: int) -> Any:
    torch.manual_seed(seed)
    cross = ("CrossAttnDownBlock2D",) * 3, ("CrossAttnUpBlock2D",) * 3
    return (
        UNet2DConditionModel(
            in_channels=4,
            down_block_types=(*cross[0], "DownBlock2D"),
            up_block_types=("UpBlock2D", *cross[1]),
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=4,
        )
        .eval()
        .requires_grad_(False)
    )


def full_size_vae() -> Any:
    torch.manual_seed(9)
    widths = (128, 256, 512, 512)
    return (
        AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        .eval()
        .requires_grad_(False)
    )


def reference_way(device: torch.device, size: tuple[int, int]) -> Callable[[int], None]:
    """The reference's steps for two tasks: nothing shared, one photo at a time, autocast on a GPU only."""
    half = torch.float16 if device.type == "cuda" else torch.float32
    unets = [full_size_unet(0).to(device, half)]
    vae = full_size_vae().to(device, half)
    prompt, pixels = torch.randn(1, 2, 1024).to(device, half), photo_pixels(size).to(device, half)

    def once(batch: int) -> None:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            for _ in range(2 * batch):  # the second checkpoint's UNet costs the same
                latents = vae.encode(pixels).latent_dist.sample() * 0.18215
                clean = unets[0](latents, 999, prompt, class_labels=TASK.to(device, half)).sample
                (vae.decode(clean / 0.18215).sample / 2 + 0.5).clamp(0, 1).cpu()

    return once


def joint_way(device: torch.device, size: tuple[int, int], dtype: torch.dtype) -> Callable[[int], None]:
    """Depth and normals as `LotusPredictor` makes them, from the photo in memory to the predictions."""
    vae = place(LotusVAE(full_size_vae()), device, dtype)
    prompt = torch.randn(2, 1024)
    depth, normals = (
        LotusModel(place(LotusUNet(full_size_unet(seed), prompt), device, dtype), vae) for seed in (0, 1)
    )
    photo = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)

    def once(batch: int) -> None:
        predict([photo] * batch, size, ensemble(0, 1, False), depth=(depth, "affine"), normals=normals)

    return once


def photo_pixels(size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(1, 3, size[1], size[0]) * 2 - 1


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a large square product."""
    left = torch.randn(8192, 8192, device=device, dtype=dtype)
    for _ in range(3):
        left @ left
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        left @ left
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12


def measure(once: Callable[[int], None], batch: int, device: torch.device) -> dict[str, float]:
    on_gpu = device.type == "cuda"
    if on_gpu:
        once(batch)  # chooses kernels
        torch.cuda.reset_peak_memory_stats()
    rounds = 5 if on_gpu else 1
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        once(batch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "s_per_photo": round(wall / rounds / batch, 4),
        "cpu_s_per_photo": round(cpu / rounds / batch, 2),
        "peak_memory_gib": round(memory / 2**30, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=("reference", "joint"))
    parser.add_argument("--size", default="512x384")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    device = resolve_device("auto")
    dtype = resolve_dtype(options.dtype, device)
    width, height = (int(side) for side in options.size.split("x"))
    way = (
        reference_way(device, (width, height))
        if options.way == "reference"
        else joint_way(device, (width, height), dtype)
    )
    peak = matmul_peak(device, dtype) if device.type == "cuda" else None
    for batch in options.batch:
        found: dict[str, Any] = {
            "way": options.way,
            "size": options.size,
            "batch": batch,
            "dtype": str(dtype),
        }
        if options.way == "reference":
            found["dtype"] = "float16 autocast" if device.type == "cuda" else "float32"
        found |= measure(way, batch, device)
        if peak and options.size in TERA_FLOP:
            found["matmul_tflops"] = round(peak, 1)
            found["share_of_peak"] = round(TERA_FLOP[options.size] / found["s_per_photo"] / peak, 3)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
