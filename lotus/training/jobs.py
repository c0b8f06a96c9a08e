"""What `lotus train` does: a training of the UNet, one of a small autoencoder, or shards for them."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from lotus.checkpoints import DEFAULT_RES, VAE, processing_res_of
from lotus.data import TrainingSample
from lotus.devices import resolve_device
from lotus.training import autoencoder, loop
from lotus.training.batches import ShardBatches, Source, StreamBatches, render_scene
from lotus.training.config import Train
from lotus.training.encoding import Batch, encode_shard, encoder_digest
from lotus.training.graphs import GraphedLoss
from lotus.training.linear_encoder import make_linear
from lotus.training.networks import build, build_vae, write_networks, write_part
from lotus.training.pool import PooledScenes
from lotus.training.shards import write_shard
from lotus.training.step import Feed, feed_of, stacked_parts
from lotus.training.validation import check, check_autoencoder
from recon.errors import InputError

SEED_STRIDE = 1_000_003  # steps of a seed before they would repeat another's


def unet_job(options: Train, source: Source, samples: Sequence[TrainingSample]) -> loop.Job:
    """Returns the training of Lotus itself.

    Args:
        options: The training.
        source: Of batches that are made as they are needed; unused where there are shards.
        samples: Held-out ones.

    Raises:
        InputError: The networks to start from cannot be loaded or adapted.
    """
    device = own_device(options.device)
    loop.join_processes(device)
    networks = build(options, device)
    batches: ShardBatches | StreamBatches | PooledScenes = StreamBatches(networks, options, source)
    if options.data.pool:
        batches = PooledScenes(networks, options)
    elif options.data.shards:
        batches = ShardBatches(networks, options, encoder_digest(networks, options))

    said = processing_res_of(networks.origin) if networks.origin else None
    size = options.processing_res or said or DEFAULT_RES
    ahead: dict[int, Batch] = {}
    told = 0.0  # seconds of waiting, so far
    losses: Callable[[Feed], tuple[tuple[str, ...], torch.Tensor]]
    losses = partial(stacked_parts, networks, options=options)
    if options.graphs and device.type == "cuda":
        losses = GraphedLoss(networks, options)

    def loss(number: int) -> tuple[torch.Tensor, loop.Numbers]:
        nonlocal told
        batch = ahead.pop(number) if number in ahead else batches(number)
        generator = torch.Generator().manual_seed(options.seed * SEED_STRIDE + number)
        names, parts = losses(feed_of(networks, batch, options, generator))
        values = dict(zip(names, parts.tolist(), strict=True))
        waiting, told = batches.waited - told, batches.waited
        return parts.sum(), values | {"waiting": waiting}

    def prepare(number: int) -> None:
        if device.type == "cuda":
            ahead[number] = batches(number)

    def write(folder: Path) -> None:
        dtype = torch.float16 if options.half else torch.float32
        write_networks(networks, folder, size, dtype, prediction=options.loss.prediction)

    def validate(step: int) -> loop.Numbers:
        return check(networks, samples, options, options.out / f"step_{step:07d}.jpg")

    def close() -> None:
        if not isinstance(batches, ShardBatches):
            batches.close()

    shares = {"trunk": options.networks.trunk_rate, "decoder": options.networks.decoder_rate}
    return loop.Job(networks.trainable(), loss, write, validate, shares, prepare, close)


def own_device(name: str) -> torch.device:
    """Returns the device of a name; of several GPUs, the one that torchrun gives this process."""
    device = resolve_device(name)
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def vae_job(options: Train) -> loop.Job:
    """Returns the training of a small autoencoder on shards.

    Raises:
        InputError: There are no shards.
    """
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

    def loss(number: int) -> tuple[torch.Tensor, loop.Numbers]:
        pictures = autoencoder.draw_batch(files(), options, number).to(device)
        generator = torch.Generator().manual_seed(options.seed + number)
        return autoencoder.loss(vae, pictures, generator)

    def write(folder: Path) -> None:
        finished = copy.deepcopy(vae)
        autoencoder.finish(finished, files())
        write_part(finished, folder / VAE)

    def validate(step: int) -> loop.Numbers:
        return check_autoencoder(vae, files()[0], options.out / f"step_{step:07d}.jpg")

    return loop.Job(vae, loss, write, validate)


def make_shards(options: Train) -> Iterator[int]:
    """Renders and encodes shards, one after the other, `steps` in all; those that are there are kept.

    Yields:
        The number of shards that there are.

    Raises:
        InputError: No folder is given.
    """
    networks = build(options, resolve_device(options.device))
    digest = encoder_digest(networks, options)
    folder, data = Path(options.data.shards), options.data
    if not data.shards:
        raise InputError("--part shards wants data.shards, a folder for them")

    def render(index: int, size: tuple[int, int]) -> TrainingSample:
        return render_scene(data.first + index, size)

    for index in range(options.steps):
        shard = write_shard(folder, index, data.shard_size, data.sizes[index % len(data.sizes)], render)
        encode_shard(shard, networks, options, digest)
        yield index + 1
