"""The command `lotus`. A known error ends in one line and exit code 1, wrong usage in 2."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from recon.errors import ReconError

COMMANDS = {
    "predict": "depth and normals of photos, as maps and pictures",
    "evaluate": "a checkpoint's figures on a benchmark, beside the paper's",
    "train": "Lotus on your own pictures, or a small one from scratch",
    "verify": "what of a training data set is there, and what is missing or damaged",
}
TORCH_SETTINGS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for others sleep instead of spinning
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages: far fewer page faults for maps of hundreds of megabytes
    "TORCHINDUCTOR_CACHE_DIR": os.path.expanduser(
        "~/.cache/lotus-recon/kernels"
    ),  # of --compile; outlives /tmp
}
"""What torch reads of the environment when it is loaded; the user's own settings come first."""
HOMES = {
    "predict": "lotus.predict_command",
    "evaluate": "lotus.evaluate_command",
    "train": "lotus.training.command",
    "verify": "lotus.verify_command",
}

HELP = """usage: lotus COMMAND ...

Lotus: depth and surface normals of single photos in one diffusion step.

commands:
{commands}

start here:
  lotus predict photos/ out/
      with the small model that comes with the package: no network needed, demo quality
  lotus predict photos/ out/ --checkpoint jingheya/lotus-depth-d-v2-0-disparity \
      --normals-checkpoint jingheya/lotus-normal-d-v1-1
      with the published checkpoints (2 x 5 GB, downloaded once, or folders of them)
  lotus train --out DIR --networks.init CHECKPOINT --data.sources folder:PICTURES --data.sizes 768 576
      fine-tunes a checkpoint on photos with depth; the same command goes on where it was interrupted
  lotus evaluate nyuv2 nyu_labeled_extracted.tar --checkpoint jingheya/lotus-depth-d-v2-0-disparity --limit 20
      errors against true depth on 20 photos of NYUv2; without --limit what the paper's table 1 shows
  lotus verify hypersim/ --layout hypersim --list frames.txt
      looks for every photo, depth and normals of the training split, opens them, and lists the usable ones

`lotus COMMAND --help` explains a command.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    for name, value in TORCH_SETTINGS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:10s}{text}" for name, text in COMMANDS.items())
        sys.stdout.write(HELP.format(commands=listing))
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        sys.stdout.write(f"lotus {version('lotus-recon')}\n")
        sys.exit(0)
    if words[0] not in COMMANDS:
        sys.stderr.write(f"lotus: no command {words[0]!r}; there are {', '.join(COMMANDS)}\n")
        sys.exit(2)
    logging.basicConfig(format="lotus: %(message)s", level=logging.WARNING, stream=sys.stderr)
    home = importlib.import_module(HOMES[words[0]])  # so that help needs none of it
    try:
        getattr(home, words[0])(words[1:])
    except ReconError as error:
        sys.stderr.write(f"lotus: {' '.join(str(error).split())}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("lotus: interrupted; what is written is whole\n")
        sys.exit(130)
    sys.exit(0)
