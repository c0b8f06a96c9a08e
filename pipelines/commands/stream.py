"""`recon stream`: posed frames to a mesh."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.commands.flags import (
    PredictorFlags,
    Unprefixed,
    check_devices,
    check_predictor,
    configured,
    early_flags,
    parse,
    repeated,
)
from pipelines.console import Console
from pipelines.executors import one_blas_thread
from pipelines.outputs import only_run, open_out, write_mesh_files, write_run
from pipelines.predictors import FromFiles
from pipelines.streaming import Streaming
from pipelines.streaming import stream as stream_frames
from recon.errors import InputError
from recon.io import sequences
from recon.io.sequences import read_sequence

SNAPSHOT_FRAMES = 100  # the mesh is written after so many frames, and at the end


@dataclass(frozen=True)
class Stream:
    """Posed RGB-D or RGB frames to a mesh, frame by frame.

    Reads TUM, 7-Scenes, Open3D / Redwood folders and transforms.json (nerfstudio, Polycam). Frames without
    depth get points triangulated from their poses, and predictions aligned with them. OUT then holds mesh.ply
    and mesh.glb (metres if the sequence is metric), renewed while it runs.
    """

    sequence: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SEQUENCE")]
    """Folder of the sequence."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder for the results; made if need be."""

    source: Unprefixed[PredictorFlags] = field(default_factory=PredictorFlags)

    every: int = 1
    """Use every n-th frame."""

    config: Path | None = None
    """Options from a TOML file or an earlier run's run.json; flags override them."""

    options: Unprefixed[Streaming] = field(default_factory=Streaming)


def stream(words: Sequence[str]) -> None:
    """Runs `recon stream`."""
    early = early_flags(words)
    default = Stream(tyro.MISSING, tyro.MISSING, options=configured(Streaming(), early))
    command = parse(repeated(default, early, ("every",)), "recon stream", words)
    if command.every < 1:
        raise InputError(f"--every {command.every}, at least 1 wanted")
    check_predictor(command.options.predict)
    check_devices(command.options)
    sequence = read_sequence(command.sequence)
    sequence = replace(sequence, frames=sequence.frames[:: command.every])
    predict = command.options.predict
    if isinstance(predict, FromFiles) and any(frame.depth_path is None for frame in sequence.frames):
        predict.check(frame.name for frame in sequence.frames)
    out = open_out(command.out)
    inputs = {"sequence": command.sequence, "every": command.every}
    with Console() as console, only_run(out), one_blas_thread():
        write_run(out, "Streaming", command.options, inputs)
        _stream_to_mesh(command.options, sequence, out, console)


def _stream_to_mesh(pipeline: Streaming, sequence: sequences.Sequence, out: Path, console: Console) -> None:
    dropped = dict(sequence.dropped)
    volume = None
    for count, update in enumerate(stream_frames(pipeline, sequence, out / "cache", console.progress), 1):
        volume = update.volume
        if update.note:
            console.say(update.note)
        if update.reason:
            dropped[update.name] = update.reason
        if volume is not None and count % SNAPSHOT_FRAMES == 0:
            write_mesh_files(out, pipeline.extract(volume=volume))
    assert volume is not None  # or the stream would have raised
    mesh = pipeline.extract(volume=volume)
    write_mesh_files(out, mesh)
    console.left_out(dropped)
    used = len(sequence.frames) - sum(frame.name in dropped for frame in sequence.frames)
    console.say(
        f"{used} of {len(sequence.frames)} frames used, {len(mesh.faces)} faces; see {out / 'mesh.glb'}"
    )
