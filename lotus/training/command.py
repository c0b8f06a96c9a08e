"""The command `lotus train`: options from TOML and flags, the log, and the loop's progress."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TextIO

import tyro

from lotus.checkpoints import colours_of, find_checkpoint
from lotus.colours import AS_THEY_ARE
from lotus.training import loop
from lotus.training.batches import RESTYLED, held_out, open_set, open_source
from lotus.training.config import Train, read_config
from lotus.training.jobs import make_shards, own_device, unet_job, vae_job
from lotus.training.looks import fitting_colours
from recon.errors import InputError

log = logging.getLogger(__name__)


def train(words: Sequence[str]) -> None:
    """Runs a training to its last step, or goes on with one.

    Raises:
        InputError: An option, a checkpoint or the samples are not what they have to be.
    """
    logging.getLogger("lotus.training").setLevel(logging.INFO)
    options = parse(words)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{options.out}: no folder can be made there ({error.strerror})") from error
    {"unet": _train_unet, "vae": _train_vae, "shards": _make_shards}[options.part](options)


def parse(words: Sequence[str]) -> Train:
    """Returns the options of a command line: a TOML file's, then the flags'.

    Raises:
        InputError: The file cannot be read, or an option is wrong.
    """
    rest, default = [part for word in words for part in _apart(word)], Train()
    if "--config" in rest:
        place = rest.index("--config")
        if place + 1 >= len(rest):
            raise InputError("--config wants a file")
        default = read_config(_config_file(rest[place + 1]))
        del rest[place : place + 2]
    return tyro.cli(Train, args=rest, prog="lotus train [--config FILE]", default=default)


def _apart(word: str) -> list[str]:
    """Returns --config=FILE in two words, any other as it is."""
    return word.split("=", 1) if word.startswith("--config=") else [word]


def _config_file(name: str) -> Path:
    """Returns a file, or one that comes with the package where there is none of that name."""
    file, own = Path(name), Path(__file__).parent / name
    return own if own.is_file() and not file.exists() else file


def settle_colours(options: Train) -> Train:
    """Returns the training with colours as its checkpoint says, or chosen by its first data set of photos.

    Raises:
        InputError: It has none, or the checkpoint cannot be loaded.
    """
    networks, data = options.networks, options.data
    if networks.colours != "auto":
        said = colours_of(find_checkpoint(networks.init)) if networks.init else AS_THEY_ARE
        return replace(options, networks=replace(networks, colours=networks.colours or said))
    sets = [
        (name, size, listed)
        for name, size, listed in zip(data.sources, data.sizes, data.lists or repeat(""), strict=False)
        if name != "scenes" and not name.startswith(RESTYLED)
    ]
    if not sets:
        raise InputError("networks.colours auto wants photos among data.sources, such as folder:FOLDER")
    name, size, listed = sets[0]
    photos = open_set(name, size, listed=listed)
    colours = fitting_colours(options, photos, own_device(options.device))
    log.info("the networks see the colours of the photos as %s", colours)
    return replace(options, networks=replace(networks, colours=colours))


def _train_unet(options: Train) -> None:
    options = settle_colours(options)
    _follow(unet_job(options, open_source(options), held_out(options)), options)


def _train_vae(options: Train) -> None:
    _follow(vae_job(options), options)


def _make_shards(options: Train) -> None:
    from tqdm import tqdm

    for _ in tqdm(make_shards(options), total=options.steps, unit="shard", file=sys.stderr, mininterval=5):
        pass


def _follow(job: loop.Job, options: Train) -> None:
    """Runs a job with a progress bar; every step is a line of log.jsonl."""
    from tqdm import tqdm

    with (
        closing(job),
        _open_log(options.out / "log.jsonl") as journal,
        tqdm(total=options.steps, unit="step", file=sys.stderr, mininterval=5) as progress,
    ):
        for numbers in loop.run(job, options):
            if not loop.is_first():
                continue
            progress.update(int(numbers["step"]) - progress.n)
            progress.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)
            rounded = {name: float(f"{value:.6g}") for name, value in numbers.items()}
            journal.write(json.dumps(rounded) + "\n")
            if any(name.startswith("held_out") for name in numbers):
                os.fsync(journal.fileno())


def _open_log(file: Path) -> TextIO:
    """Returns a file to add lines to, each of which is there as soon as it is whole."""
    try:
        return file.open("a", buffering=1)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from error
