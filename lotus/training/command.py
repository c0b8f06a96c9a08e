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
from lotus.scenes import TrainingSample
from lotus.training.batches import ShardBatches, StreamBatches, held_out, open_source
from lotus.training.config import Train, read_config
from lotus.training.encoding import encode_shard, encoder_digest
from lotus.training.linear_encoder import make_linear
from lotus.training.networks import build, build_vae, write_networks, write_part
from lotus.training.shards import write_shard
from lotus.training.step import batch_loss
from lotus.training.validation import check, check_autoencoder
from recon.errors import InputError

SEED_STRIDE = 1_000_003  # steps of a seed before they would repeat another's


def train(words: Sequence[str]) -> None:
    """Runs a training to its last step, or goes on with one.

    Raises:
        InputError: An option, a checkpoint or the samples are not what they have to be.
    """
    options = parse(words)
    options.out.mkdir(parents=True, exist_ok=True)
    {"unet": _train_unet, "vae": _train_vae, "shards": _make_shards}[options.part](options)


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


def _train_unet(options: Train) -> None:
    device = resolve_device(options.device)
    networks = build(options, device)
    source = open_source(options.data)
    samples = held_out(source, options.data)
    batches: ShardBatches | StreamBatches = StreamBatches(networks, options, source)
    if options.data.shards:
        batches = ShardBatches(networks, options, encoder_digest(networks, options))

    def loss(step: int, index: int) -> tuple[torch.Tensor, loop.Numbers]:
        before = batches.waited
        batch = batches(step, index)
        number = step * options.accumulate + index
        generator = torch.Generator().manual_seed(options.seed * SEED_STRIDE + number)
        total, parts = batch_loss(networks, batch, options, generator)
        return total, parts | {"waiting": batches.waited - before}

    def write(folder: Path) -> None:
        write_networks(networks, folder, options.processing_res)

    def validate(step: int) -> loop.Numbers:
        return check(networks, samples, options, options.out / f"step_{step:07d}.jpg")

    _follow(loop.Job(networks.trainable(), loss, write, validate), options)


def _make_shards(options: Train) -> None:
    """Renders and encodes shards, one after the other, `steps` in all."""
    from tqdm import tqdm

    networks = build(options, resolve_device(options.device))
    digest, source = encoder_digest(networks, options), open_source(options.data)
    folder, data = Path(options.data.shards), options.data
    if not data.shards:
        raise InputError("--part shards wants data.shards, a folder for them")

    def render(index: int, size: tuple[int, int]) -> TrainingSample:
        return source(data.first + index, size)

    for index in tqdm(range(options.steps), unit="shard", file=sys.stderr, mininterval=5):
        shard = write_shard(folder, index, data.shard_size, data.sizes[index % len(data.sizes)], render)
        encode_shard(shard, networks, options, digest)


def _train_vae(options: Train) -> None:
    torch.manual_seed(options.seed)
    device = resolve_device(options.device)
    vae = build_vae(options.networks)

    def files() -> list[Path]:
        found = sorted(Path(options.data.shards).glob("shard_*.safetensors"))
        if not found:
            raise InputError(f"data.shards {options.data.shards!r}: no shards there")
        return found

    if options.networks.linear_encoder:
        make_linear(vae, autoencoder.draw_pictures(files()), autoencoder.NOISE)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    vae.to(device)

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
