"""Flags that several commands share: where depth and normals come from, and what must be known first."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import tyro

from lotus.devices import resolve_device
from lotus.predictor import LotusPredictor
from pipelines.config import read_inputs, read_options, with_options
from pipelines.multi_view import MultiView
from pipelines.predictors import FromFiles, Imported
from pipelines.single_view import SingleView
from pipelines.stages import InterpolatePoints, Predict
from pipelines.streaming import Streaming
from recon.devices import find_device
from recon.errors import InputError

C = TypeVar("C")
P = TypeVar("P", MultiView, SingleView, Streaming)
Space = Literal["auto", "depth", "disparity"]
Unprefixed = Annotated[C, tyro.conf.arg(name="")]
"""Options that stand on the command line without the field's name before them."""


@dataclass(frozen=True)
class PredictorFlags:
    """Where depth and normals come from; at most one of --predictions, --checkpoint, --predictor.

    With none of them it is lotus-tiny, the small model that comes with the package; for a stream,
    whose frames are not compared with each other, depth interpolated between the sparse points.
    """

    predictions: Path | None = None
    """Folder with NAME.npz for each photo NAME: values, kind, normals and optionally confidence."""

    checkpoint: str | None = None
    """Lotus checkpoint for depth or disparity: a folder, or a published one's id (jingheya/lotus-...)."""

    normals_checkpoint: str | None = None
    """Lotus checkpoint for normals, beside --checkpoint."""

    space: Space = "auto"
    """What --checkpoint draws, which its files do not say; auto reads it from its name."""

    predictor: str | None = None
    """Any other predictor class, as package.module:Class; or points: no network, depth is interpolated
    between the sparse points."""

    def choose(self, otherwise: Any) -> Any:
        """Returns the stage that predicts, or `otherwise` if no flag names one."""
        given = [name for name in ("predictions", "checkpoint", "predictor") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"--{given[0]} and --{given[1]} exclude each other")
        if self.normals_checkpoint and not self.checkpoint:
            raise InputError("--normals-checkpoint goes with --checkpoint, which is missing")
        if self.space != "auto" and not self.checkpoint:
            raise InputError("--space goes with --checkpoint, which is missing")
        if self.predictions:
            if not self.predictions.is_dir():
                raise InputError(f"{self.predictions}: no such folder of predictions")
            return FromFiles(self.predictions.absolute())
        if self.checkpoint:
            depth, normals = _located(self.checkpoint), _located(self.normals_checkpoint)
            return Predict(LotusPredictor(depth=depth, normals=normals, space=self.space))
        if self.predictor == "points":
            return InterpolatePoints()
        return Predict(Imported(self.predictor)) if self.predictor else otherwise


def _located(checkpoint: str | None) -> str | None:
    """A folder as an absolute path, a hub id as it is."""
    is_folder = checkpoint is not None and Path(checkpoint).exists()
    return str(Path(checkpoint).absolute()) if checkpoint is not None and is_folder else checkpoint


def early_flags(words: Sequence[str]) -> argparse.Namespace:
    """Returns the flags that decide which options there are, read before all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # a flag without its value is left for the main parser to complain about
    for flag in ("--config", "--sparse", "--predictions"):
        parser.add_argument(flag, nargs="?", type=lambda text: None if text == "None" else Path(text))
    for flag in ("--checkpoint", "--normals-checkpoint", "--predictor"):
        parser.add_argument(flag, nargs="?", type=lambda text: None if text == "None" else text)
    parser.add_argument("--space", nargs="?")
    early = parser.parse_known_args([_dashed(word) for word in words])[0]
    early.space = (
        early.space if early.space in get_args(Space) else "auto"
    )  # also the main parser's to complain about
    return early


def _dashed(word: str) -> str:
    """A word with an option's name in dashes, which the main parser takes with underscores, too."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def flags_of(early: argparse.Namespace) -> PredictorFlags:
    """Returns those of the early flags that choose a predictor."""
    return PredictorFlags(
        early.predictions, early.checkpoint, early.normals_checkpoint, early.space, early.predictor
    )


def configured(pipeline: P, early: argparse.Namespace) -> P:
    """Returns a pipeline with the options of --config and the predictor that the flags name.

    Raises:
        InputError: The file is not what it has to be, or the flags contradict each other.
    """
    if early.config:
        pipeline = with_options(pipeline, read_options(early.config), str(early.config))
    return replace(pipeline, predict=flags_of(early).choose(pipeline.predict))


def repeated(command: C, early: argparse.Namespace, names: Sequence[str]) -> C:
    """Returns a command with those of its fields as the earlier run of --config had them.

    Raises:
        InputError: The file is not what it has to be.
    """
    if not early.config:
        return command
    inputs = {name: value for name, value in read_inputs(early.config).items() if name in names}
    return with_options(command, inputs, str(early.config))


def parse(default: C, program: str, words: Sequence[str]) -> C:
    """Returns a command as the command line has it; `default` stands for what is not said."""
    return tyro.cli(
        type(default), args=words, prog=program, default=default, config=(tyro.conf.AvoidSubcommands,)
    )


def check_predictor(predict: Any) -> None:
    """Raises before any work what Lotus would raise at the first photo.

    Raises:
        InputError: A checkpoint is not there, or what it draws is unknown.
    """
    predictor = predict.predictor if isinstance(predict, Predict) else None
    if isinstance(predictor, LotusPredictor):
        predictor.check()


def check_devices(pipeline: MultiView | Streaming) -> None:
    """Raises before any work what its stages would raise at their first view.

    Raises:
        InputError: A device or a predictor's class that an option names is not on this machine.
    """
    predictor = getattr(pipeline.predict, "predictor", None)
    if isinstance(predictor, Imported):
        predictor.check()
    if isinstance(predictor, LotusPredictor) and predictor.device not in ("auto", "cpu"):
        resolve_device(predictor.device)
    for name in ("match", "fuse"):
        device = getattr(getattr(pipeline, name, None), "device", "cpu")
        if device != "cpu":
            find_device(device, double=name == "match")
