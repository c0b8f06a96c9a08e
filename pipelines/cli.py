"""The command `recon`. A known error ends in one line and exit code 1, wrong usage in 2."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from lotus.cli import TORCH_SETTINGS
from recon.errors import ReconError

COMMANDS = {
    "multi": ("photos", "a folder of photos, or a video, to a mesh"),
    "single": ("photos", "one photo to a mesh"),
    "stream": ("stream", "posed RGB-D or RGB frames to a mesh, frame by frame"),
    "evaluate": ("results", "compare a mesh with a reference: accuracy, completeness, F-score"),
    "plan": ("results", "show the steps of a pipeline and what each reads and makes"),
    "view": ("results", "look at a result in the browser"),
    "demo": ("demo", "render a scene, reconstruct it, and compare with the truth"),
}
"""Module below `pipelines.commands` and one line of help; the modules are imported only when they run."""

HELP = """usage: recon COMMAND ...

Lotus Recon: photos in, mesh out.

commands:
{commands}

start here:
  recon demo out/                 a built-in scene through the whole pipeline
  recon multi photos/ out/        your own photos; then open out/report.html and out/mesh.glb
  recon multi photos/ out/ --checkpoint DIR
                                  the same with Lotus depth and normals from a checkpoint folder

`recon COMMAND --help` explains a command. An interrupted run goes on where it stopped: same command again.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    for name, value in TORCH_SETTINGS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:10s}{text}" for name, (_, text) in COMMANDS.items())
        sys.stdout.write(HELP.format(commands=listing))
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        sys.stdout.write(f"recon {version('lotus-recon')}\n")
        sys.exit(0)
    if words[0] not in COMMANDS:
        sys.stderr.write(f"recon: no command {words[0]!r}; there are {', '.join(COMMANDS)}\n")
        sys.exit(2)
    logging.basicConfig(format="recon: %(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        module = importlib.import_module(f"pipelines.commands.{COMMANDS[words[0]][0]}")
        getattr(module, words[0])(words[1:])
    except ReconError as error:
        sys.stderr.write(f"recon: {' '.join(str(error).split())}\n")
        sys.exit(1)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write("recon: interrupted; the same command goes on where it stopped\n")
        sys.exit(130)
