"""The paper's ablation in miniature: what is predicted, at how many timesteps, with noise and details or not.

    python -m tests.benchmarks.ablation OUT [--steps 250] [--seeds 0 1 2]

A small UNet from scratch on the frozen autoencoder and image trunk of lotus-tiny learns the disparity of
made-up scenes, with the paper's latent losses alone. Every variant takes the same steps over the same
batches; a seed decides the first weights, the order of batches and the noise. Judged on scenes never trained
on, as inference would draw them: AbsRel and delta 1 after the best scale and shift in disparity, and for G
the deviation of the drawn map (0 far to 1 near) over four noises. Variants trained at all timesteps also
sample in several steps. The peer is the mean map of the training scenes, fitted in the same way.

One line of JSON per run, kept in OUT/results.jsonl: what is there is not run again. Then the table.
"""

import argparse
import json
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lotus.checkpoints import IMAGE_ENCODER, find_checkpoint
from lotus.training import loop
from lotus.training.batches import open_source, render_scene
from lotus.training.config import Data, Loss, Networks, Optimizer, Train
from lotus.training.encoding import Batch, encode, make_batch
from lotus.training.jobs import make_shards, unet_job
from lotus.training.networks import Networks as Parts
from lotus.training.networks import build
from lotus.training.sampling import sample_latents
from lotus.training.shards import SHARD_NAME, pack, read_arrays
from lotus.training.step import condition_of
from lotus.training.targets import draw_values, value_range
from lotus.training.validation import score_depth

SIZE = (128, 96)
FIRST, HELD_OUT = 50_000_000, 51_000_000  # seeds that no other training uses
SHARD, JUDGED = 64, 64
NOISES = 4
SAMPLING = (1, 5, 20)
NORM_TYPE = "trunc_disparity"


@dataclass(frozen=True)
class Variant:
    name: str
    generative: bool
    prediction: Any
    timesteps: int
    reconstruction: float = 0.0


VARIANTS = (  # in the order of the paper's table 3
    Variant("G eps, all timesteps", True, "eps", 1000),
    Variant("G v, all timesteps", True, "v", 1000),
    Variant("G x0, all timesteps", True, "x0", 1000),
    Variant("G eps, single timestep", True, "eps", 1),
    Variant("G v, single timestep", True, "v", 1),
    Variant("G x0, single timestep", True, "x0", 1),
    Variant("G x0, single, detail preserver", True, "x0", 1, 1.0),
    Variant("D x0, single timestep", False, "x0", 1),
    Variant("D x0, single, detail preserver", False, "x0", 1, 1.0),
)


@dataclass(frozen=True)
class HeldOut:
    """Scenes that judge, encoded once."""

    depths: np.ndarray
    batch: Batch


def training(out: Path, variant: Variant, options: argparse.Namespace, seed: int) -> Train:
    tiny = find_checkpoint("lotus-tiny")
    return Train(
        out=out / f"{variant.name.replace(', ', '_').replace(' ', '_')}_{options.steps}_{seed}",
        generative=variant.generative,
        steps=options.steps,
        batch_size=options.batch_size,
        seed=seed,
        device="cpu",
        save_every=options.steps,
        validate_every=options.steps,
        networks=Networks(
            init="",
            vae=str(tiny),
            image_encoder=str(tiny / IMAGE_ENCODER),
            unet_channels=(32, 48, 64),
            unet_heads=(2, 3, 4),
            unet_groups=8,
        ),
        data=Data(sizes=(SIZE,), shards=str(out / "shards"), shard_size=SHARD, first=FIRST),
        loss=Loss(
            prediction=variant.prediction,
            timesteps=variant.timesteps,
            norm_type=NORM_TYPE,
            reconstruction=variant.reconstruction,
        ),
        optimizer=Optimizer(
            learning_rate=options.learning_rate, betas=(0.9, 0.99), warmup=20, cosine=True, ema=0.95
        ),
    )


def held_out(options: Train) -> HeldOut:
    samples = [render_scene(HELD_OUT + index, SIZE) for index in range(JUDGED)]
    networks, arrays = build(options, torch.device("cpu")), pack(samples)
    encoded = encode(arrays, networks, NORM_TYPE)
    batch = make_batch(arrays, encoded, networks, options, np.random.default_rng(0))
    return HeldOut(np.stack([sample.depth for sample in samples]), batch)


def mean_map(options: Train, shards: int) -> np.ndarray:
    """The mean of the pictures that the variants are trained to draw."""
    drawn = []
    for index in range(shards):
        file = Path(options.data.shards) / SHARD_NAME.format(index)
        for values in read_arrays(file, ("disparity",))["disparity"].astype(np.float32):
            limits = value_range(values, values > 0, NORM_TYPE)
            drawn.append(draw_values(values, values > 0, limits, is_disparity=True))
    return np.mean(drawn, axis=0) / 2 + 0.5


def run(options: Train, variant: Variant, kept: HeldOut) -> dict[str, Any]:
    """Trains a variant and judges it; its checkpoint is removed, also that of an interrupted run."""
    shutil.rmtree(options.out, ignore_errors=True)
    began = time.perf_counter()
    (last,) = deque(loop.run(unet_job(options, open_source(options), []), options), maxlen=1)
    trained = time.perf_counter() - began
    folder = options.out / f"step_{options.steps:07d}"
    networks = build(
        replace(options, networks=replace(options.networks, init=str(folder))), torch.device("cpu")
    )
    networks.unet.eval()
    figures: dict[str, Any] = {
        "loss": round(last["annotation"], 4),
        "train_s": round(trained, 1),
        "parameters": sum(part.numel() for part in networks.unet.parameters()),
    }
    for steps in SAMPLING if variant.timesteps > 1 else SAMPLING[:1]:
        figures[f"steps_{steps}"] = judge(networks, variant, kept, steps)
    shutil.rmtree(options.out)
    return figures | {"seconds": round(time.perf_counter() - began, 1)}


def judge(networks: Parts, variant: Variant, kept: HeldOut, steps: int) -> dict[str, float]:
    noises = range(NOISES if variant.generative else 1)
    maps = np.stack([draw(networks, variant, kept.batch, steps, noise) for noise in noises])  # (k, n, h, w)
    scores = np.array([score(each, kept.depths) for each in maps])
    found = {"abs_rel": scores[:, 0].mean(), "delta1": scores[:, 1].mean()}
    if variant.generative:
        found["abs_rel_of_mean"] = score(maps.mean(axis=0), kept.depths)[0]
        found["noise"] = np.sqrt(maps.var(axis=0, ddof=1).mean())
    return {name: round(float(value), 4) for name, value in found.items()}


@torch.no_grad()
def draw(networks: Parts, variant: Variant, batch: Batch, steps: int, seed: int) -> np.ndarray:
    """What inference draws of the held-out photos, 0 to 1."""
    condition, noise = condition_of(networks, batch), None
    if variant.generative:
        noise = torch.randn(batch.photo.shape, generator=torch.Generator().manual_seed(seed))
    latents = sample_latents(
        networks,
        condition,
        noise,
        torch.zeros(len(condition), dtype=torch.int64),
        prediction=variant.prediction,
        steps=steps,
    )
    parts = latents.split(8)
    pictures = torch.cat(
        [networks.vae.decode(part / networks.vae.config.scaling_factor).sample for part in parts]
    )
    return (pictures / 2 + 0.5).clamp(0, 1).mean(dim=1).numpy()


def score(maps: Sequence[np.ndarray], depths: np.ndarray) -> tuple[float, float]:
    found = [score_depth(each, depth, "disparity") for each, depth in zip(maps, depths, strict=True)]
    return float(np.mean([each[0] for each in found])), float(np.mean([each[1] for each in found]))


def table(rows: list[dict[str, Any]]) -> str:
    """The mean over seeds and their standard deviation."""
    lines = [
        "| Variant | Steps | Seeds | AbsRel | delta 1 | Deviation over noise | AbsRel, mean of 4 noises |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        for steps in SAMPLING:
            found = [
                row[f"steps_{steps}"]
                for row in rows
                if row["variant"] == variant.name and f"steps_{steps}" in row
            ]
            if found:
                cells = [spread(found, name) for name in ("abs_rel", "delta1", "noise", "abs_rel_of_mean")]
                lines.append(f"| {variant.name} | {steps} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(found: list[dict[str, float]], name: str) -> str:
    values = [each[name] for each in found if name in each]
    if not values:
        return ""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shards", type=int, default=32, help=f"of {SHARD} scenes each")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    first = training(options.out, VARIANTS[-1], options, 0)
    for _ in make_shards(replace(first, part="shards", steps=options.shards)):
        pass
    kept, guess = held_out(first), mean_map(first, options.shards)
    peer = score([guess] * JUDGED, kept.depths)
    print(json.dumps({"variant": "mean map", "abs_rel": round(peer[0], 4), "delta1": round(peer[1], 4)}))
    given = {name: value for name, value in vars(options).items() if name not in ("out", "seeds")}
    results = options.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    for seed in options.seeds:
        for variant in VARIANTS:
            key = {"variant": variant.name, "seed": seed, **given}
            if not any(row.items() >= key.items() for row in rows):
                rows.append(key | run(training(options.out, variant, options, seed), variant, kept))
                with results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), flush=True)
    wanted = [row for row in rows if row.items() >= given.items() and row["seed"] in options.seeds]
    print(table(wanted))


if __name__ == "__main__":
    main()
