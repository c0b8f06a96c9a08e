"""The command `lotus train`: options from TOML and flags, the log, and the loop's progress."""

import copy
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro

from lotus.checkpoints import VAE, resolve_device
from lotus.training import autoencoder, loop
from lotus.training.config import Train, read_config
from lotus.training.networks import build_vae, write_part
from recon.errors import InputError


def train(words: Sequence[str]) -> None:
    """Runs a training to its last step, or goes on with one.

    Raises:
        InputError: An option, a checkpoint or the samples are not what they have to be.
    """
    options = parse(words)
    options.out.mkdir(parents=True, exist_ok=True)
    {"vae": _train_vae}[options.part](options)


def parse(words: Sequence[str]) -> Train:
    """Returns the options of a command line: a TOML file's, then the flags'.

    Raises:
        InputError: The file cannot be read, or an option is wrong.
    """
    rest, default = list(words), Train()
    if "--config" in rest:
        place = rest.index("--config")
        if place + 1 >= len(rest):
            raise InputError("--config wants a file")
        default = read_config(Path(rest[place + 1]))
        del rest[place : place + 2]
    return tyro.cli(Train, args=rest, prog="lotus train [--config FILE]", default=default)


def _train_vae(options: Train) -> None:
    torch.manual_seed(options.seed)
    device = resolve_device(options.device)
    vae = build_vae(options.networks).to(device)

    def files() -> list[Path]:
        found = sorted(Path(options.data.shards).glob("shard_*.safetensors"))
        if not found:
            raise InputError(f"data.shards {options.data.shards!r}: no shards there")
        return found

    def loss(step: int, index: int) -> tuple[torch.Tensor, loop.Numbers]:
        number = step * options.accumulate + index
        pictures = autoencoder.draw_batch(files(), options, number).to(device)
        generator = torch.Generator().manual_seed(options.seed + number)
        return autoencoder.loss(vae, pictures, generator)

    def write(folder: Path) -> None:
        finished = copy.deepcopy(vae)
        autoencoder.finish(finished, files())
        write_part(finished, folder / VAE)

    def validate(step: int) -> loop.Numbers:
        from lotus.training.validation import check_autoencoder

        return check_autoencoder(vae, files()[0], options.out / f"step_{step:07d}.jpg")

    _follow(loop.Job(vae, loss, write, validate), options)


def _follow(job: loop.Job, options: Train) -> None:
    """Runs a job with a progress bar; every step is a line of log.jsonl."""
    from tqdm import tqdm

    with (
        (options.out / "log.jsonl").open("a") as journal,
        tqdm(total=options.steps, unit="step", file=sys.stderr, mininterval=5) as progress,
    ):
        for numbers in loop.run(job, options):
            progress.update(int(numbers["step"]) - progress.n)
            progress.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)
            rounded = {name: float(f"{value:.6g}") for name, value in numbers.items()}
            journal.write(json.dumps(rounded) + "\n")
            if any(name.startswith("held_out") for name in numbers):
                journal.flush()
                os.fsync(journal.fileno())
