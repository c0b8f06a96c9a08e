"""Made-up training photos per second, over kinds of scenes, and the share of the steps.

python -m tests.benchmarks.scene_speed --count 100 --size 192 --processes 2

One line of JSON. CPU seconds are work and not waiting, but on a busy machine they are longer than on an idle
one.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor

from lotus import scenes


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
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
