"""Made-up training photos per second, over kinds of scenes, and the share of the steps.

python -m tests.benchmarks.scene_speed --count 100 --size 192 --processes 2
python -m tests.benchmarks.scene_speed --count 256 --size 192 --device cuda

One line of JSON. CPU seconds are work and not waiting, but on a busy machine they are longer than on an idle
one. With a device, batches of 64 packed scenes are drawn on it: without sampling and packing, whose CPU
seconds per scene stand beside, and without the first batch, for which the kernels are compiled; then the
shares of pixels that come out as on the processor.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from lotus import scenes

BATCH = 64


def timed(seeds: range, size: int) -> dict[str, float]:
    scenes.render(scenes.sample(0), 16, 16)  # compiled or read from the cache
    seconds = {"sample_cpu_s": 0.0, "render_cpu_s": 0.0}
    start = time.perf_counter()
    for seed in seeds:
        ticks = [time.process_time()]
        scene = scenes.sample(seed)
        ticks.append(time.process_time())
        scenes.render(scene, size, size)
        ticks.append(time.process_time())
        seconds["sample_cpu_s"] += ticks[1] - ticks[0]
        seconds["render_cpu_s"] += ticks[2] - ticks[1]
    return {**seconds, "wall_s": time.perf_counter() - start}


def timed_batches(count: int, size: int, device: torch.device) -> dict[str, float]:
    scenes.pack_scenes([scenes.sample(0)])  # compiled or read from the cache
    seeds = [range(40_000 + k, 40_000 + min(k + BATCH, count)) for k in range(0, count, BATCH)]
    ticks = [time.process_time()]
    described = [[scenes.sample(seed) for seed in some] for some in seeds]
    ticks.append(time.process_time())
    tables = [scenes.pack_scenes(some) for some in described]
    ticks.append(time.process_time())
    first = drawn_s(tables[:1], size, device)
    seconds = drawn_s(tables, size, device)
    return {
        "first_batch_s": first,
        "scenes_per_s": count / seconds,
        "sample_cpu_s": (ticks[1] - ticks[0]) / count,
        "pack_cpu_s": (ticks[2] - ticks[1]) / count,
        **agreement(scenes.pack_scenes(described[0][:8]), device),
    }


def agreement(tables: scenes.SceneTables, device: torch.device) -> dict[str, float]:
    """Returns the shares of pixels whose depth is the processor's to 1e-4 of it, and light to 1e-3."""
    expected = scenes.radiance_batch(tables, 96, 72, torch.device("cpu"))
    light, depth, _ = (part.cpu() for part in scenes.radiance_batch(tables, 96, 72, device))
    same_depth = (depth - expected[1]).abs() <= 1e-4 * expected[1]
    same_light = (light - expected[0]).abs().amax(-1) <= 1e-3
    return {"same_depth": same_depth.float().mean().item(), "same_light": same_light.float().mean().item()}


def drawn_s(tables: list[scenes.SceneTables], size: int, device: torch.device) -> float:
    start = time.perf_counter()
    for batch in tables:
        light, _, _ = scenes.radiance_batch(batch, size, size, device)
    light.sum().item()  # waits for the device
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", type=torch.device)
    arguments = parser.parse_args()
    if arguments.device is not None:
        batches = timed_batches(arguments.count, arguments.size, arguments.device)
        print(json.dumps({"size": arguments.size, "device": str(arguments.device), **batches}))
        return
    shares = [
        range(40_000 + k, 40_000 + arguments.count, arguments.processes) for k in range(arguments.processes)
    ]
    with ProcessPoolExecutor(arguments.processes) as pool:
        parts = list(pool.map(timed, shares, [arguments.size] * arguments.processes))
    cpu = {
        key: sum(part[key] for part in parts) / arguments.count for key in ("sample_cpu_s", "render_cpu_s")
    }
    wall = max(part["wall_s"] for part in parts)
    line = {"size": arguments.size, "processes": arguments.processes, "scenes_per_s": arguments.count / wall}
    print(json.dumps({**line, **cpu, "scenes_per_cpu_s": 1 / sum(cpu.values())}))


if __name__ == "__main__":
    main()
