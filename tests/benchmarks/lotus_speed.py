"""Time and memory of Lotus at full size with random weights, against the reference's own way.

python -m tests.benchmarks.lotus_speed             both ways, and the ratio
python -m tests.benchmarks.lotus_speed joint       depth and normals together, as LotusPredictor runs them
python -m tests.benchmarks.lotus_speed reference   two separate pipelines, one photo at a time

On a GPU: `--size 768x576 --batch 1 2 4 8 16`; the reference then runs in float16 autocast, as the authors'
script does, and the peak of a large matrix product is measured first. Each way runs in a process of its own
with torch's settings of the commands `lotus` and `recon` (`--plain`: without them). One line of JSON per way
and batch size: seconds and CPU seconds per photo, peak memory, and on a GPU the share of the peak. CPU time
is work and not waiting, though threads that spin for others count as well.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lotus.command_line import TORCH_SETTINGS

TERA_FLOP = {"512x384": 5.74, "640x480": 9.15, "768x576": 13.47, "1024x768": 25.31}  # joint, encoding shared
WAYS = ("reference", "joint")
ROUNDS_ON_GPU = 5
TINY = {"block_out_channels": (32, 32, 64, 64)}  # --tiny: whether the script runs, not how fast

Once = Callable[[int], None]


def on_device(build: Callable[[], Any]) -> Any:
    """Returns a network with random weights, drawn on the GPU if there is one: in a moment."""
    from lotus.devices import resolve_device

    with resolve_device("auto"):
        return build().cpu().eval().requires_grad_(False)


def unet(seed: int, tiny: bool) -> Any:
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    cross = ("CrossAttnDownBlock2D",) * 3, ("CrossAttnUpBlock2D",) * 3
    return on_device(
        lambda: UNet2DConditionModel(
            in_channels=4,
            down_block_types=(*cross[0], "DownBlock2D"),
            up_block_types=("UpBlock2D", *cross[1]),
            cross_attention_dim=1024,
            attention_head_dim=2 if tiny else (5, 10, 20, 20),
            use_linear_projection=True,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=4,
            **(TINY if tiny else {}),
        )
    )


def autoencoder(tiny: bool) -> Any:
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(9)
    return on_device(
        lambda: AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            **(TINY if tiny else {"block_out_channels": (128, 256, 512, 512)}),
        )
    )


def reference_way(options: argparse.Namespace) -> Once:
    """The reference's steps for two tasks: nothing shared, one photo at a time, autocast on a GPU only."""
    import numpy as np
    import torch

    device, _ = place_and_format(options)
    half = torch.float16 if device.type == "cuda" else torch.float32
    networks = [unet(0, options.tiny).to(device, half)]
    vae = autoencoder(options.tiny).to(device, half)
    prompt = torch.randn(1, 2, 1024).to(device, half)
    pixels = (torch.rand(1, 3, options.height, options.width) * 2 - 1).to(device, half)
    task = torch.tensor([[np.sin(1.0), 0, np.cos(1.0), 1]]).to(device, half)

    def once(batch: int) -> None:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            for _ in range(2 * batch):  # the second checkpoint's UNet costs the same
                latents = vae.encode(pixels).latent_dist.sample() * 0.18215
                clean = networks[0](latents, 999, prompt, class_labels=task).sample
                (vae.decode(clean / 0.18215).sample / 2 + 0.5).clamp(0, 1).cpu()

    return once


def joint_way(options: argparse.Namespace) -> Once:
    """Depth and normals as `LotusPredictor` makes them, from the photo in memory to the predictions."""
    import numpy as np
    import torch

    from lotus.inference import ensemble, predict
    from lotus.model import LotusModel
    from lotus.network import LotusUNet, place
    from lotus.vae import LotusVAE

    device, dtype = place_and_format(options)
    vae = place(LotusVAE(autoencoder(options.tiny)), device, dtype)
    prompt = torch.randn(2, 1024)
    depth, normals = (
        LotusModel(
            place(LotusUNet(unet(seed, options.tiny), prompt), device, dtype),
            vae,
            is_generative=False,
            is_compiled=options.compile,
        )
        for seed in (0, 1)
    )
    size = options.width, options.height
    photo = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)

    def once(batch: int) -> None:
        predict([photo] * batch, size, ensemble(0, 1, False), depth=(depth, "affine"), normals=normals)

    return once


def place_and_format(options: argparse.Namespace) -> Any:
    from lotus.devices import resolve_device, resolve_dtype

    device = resolve_device("auto")
    return device, resolve_dtype(options.dtype, device)


def matmul_peak(options: argparse.Namespace) -> float:
    """TFLOP/s of a large square product."""
    import torch

    device, dtype = place_and_format(options)
    left = torch.randn(8192, 8192, device=device, dtype=dtype)
    for _ in range(3):
        left @ left
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        left @ left
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12


def measure(once: Once, batch: int, options: argparse.Namespace) -> dict[str, float]:
    import torch

    on_gpu = place_and_format(options)[0].type == "cuda"
    if on_gpu or options.compile:
        once(batch)  # chooses or makes kernels
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on, not that of making the weights
    rounds = ROUNDS_ON_GPU if on_gpu else 1
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        once(batch)  # ends with a copy to the host, which waits for the device
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    system = resource.getrusage(resource.RUSAGE_SELF).ru_stime
    return {
        "s_per_photo": round(wall / rounds / batch, 4),
        "cpu_s_per_photo": round(cpu / rounds / batch, 2),
        "system_s": round(system, 1),
        "peak_memory_gib": round((torch.cuda.max_memory_allocated() if on_gpu else peak_bytes()) / 2**30, 2),
    }


def peak_bytes() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def run_way(options: argparse.Namespace) -> None:
    once = {"reference": reference_way, "joint": joint_way}[options.way](options)
    device, dtype = place_and_format(options)
    on_gpu = device.type == "cuda"
    peak = matmul_peak(options) if on_gpu else None
    of_reference = "float16 autocast" if on_gpu else "float32"
    for batch in options.batch:
        found: dict[str, Any] = {"way": options.way, "size": options.size, "batch": batch}
        found["dtype"] = of_reference if options.way == "reference" else str(dtype).removeprefix("torch.")
        found |= measure(once, batch, options)
        if peak and options.size in TERA_FLOP and not options.tiny:
            found["matmul_tflops"] = round(peak, 1)
            found["share_of_peak"] = round(TERA_FLOP[options.size] / found["s_per_photo"] / peak, 3)
        print(json.dumps(found), flush=True)


def run_both(options: argparse.Namespace, words: list[str]) -> None:
    """Runs each way in a process of its own and compares the best batch of each."""
    settings = {} if options.plain else TORCH_SETTINGS
    bare = {name: value for name, value in os.environ.items() if name not in TORCH_SETTINGS}
    found: dict[str, list[dict[str, Any]]] = {}
    for way in WAYS:
        command = [sys.executable, "-m", "tests.benchmarks.lotus_speed", way, *words]
        if way == "reference":
            command += ["--batch", "1"]
        done = subprocess.run(command, env=bare | settings, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout, end="", flush=True)
        found[way] = [json.loads(line) for line in done.stdout.splitlines()]
    cost = "s_per_photo" if "matmul_tflops" in found["joint"][0] else "cpu_s_per_photo"
    reference, joint = (min(each[cost] for each in found[way]) for way in WAYS)
    print(json.dumps({"compared": cost, "ratio": round(joint / max(reference, 1e-9), 3)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", nargs="?", choices=WAYS)
    parser.add_argument("--size", default="512x384", help="width x height")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--dtype", default="auto", help="of the joint way")
    parser.add_argument("--plain", action="store_true", help="torch's own settings for both ways")
    parser.add_argument("--compile", action="store_true", help="compile the joint way's networks")
    parser.add_argument("--tiny", action="store_true", help="small networks: try the script")
    options = parser.parse_args()
    options.width, options.height = (int(side) for side in options.size.split("x"))
    if options.way:
        run_way(options)
    else:
        run_both(options, sys.argv[1:])


if __name__ == "__main__":
    main()
