"""The command `lotus`. A known error ends in one line and exit code 1, wrong usage in 2."""

import sys
from collections.abc import Sequence

from lotus.command_line import Program, run

HELP = """usage: lotus COMMAND ...

Lotus: depth and surface normals of single photos in one diffusion step.

commands:
{commands}

start here:
  lotus predict photos/ out/
      with the small model that comes with the package: no network needed, demo quality
  lotus predict photos/ out/ --checkpoint jingheya/lotus-depth-d-v2-0-disparity \\
      --normals-checkpoint jingheya/lotus-normal-d-v1-1
      with the published checkpoints (2 x 5 GB, downloaded once, or folders of them)
  lotus train --out DIR --networks.init CHECKPOINT --data.sources folder:PICTURES --data.sizes 768 576
      trains a checkpoint on photos with depth; the same command goes on where it was interrupted
  lotus train --config fine-tune.toml --data.sources restyled:PICTURES folder:PICTURES --out DIR
      makes the small model used to the look of about 20 photos with depth
  lotus evaluate nyuv2 nyu_labeled_extracted.tar --checkpoint jingheya/lotus-depth-d-v2-0-disparity --limit 20
      errors against true depth on 20 photos of NYUv2; without --limit what the paper's table 1 shows
  lotus verify hypersim/ --layout hypersim --list frames.txt
      looks for every photo, depth and normals of the training split, opens them, and lists the usable ones

`lotus COMMAND --help` explains a command.
"""
LOTUS = Program(
    name="lotus",
    commands={
        "predict": ("lotus.predict_command", "depth and normals of photos, as maps and pictures"),
        "evaluate": ("lotus.evaluate_command", "a checkpoint's figures on a benchmark, beside the paper's"),
        "train": ("lotus.training.command", "Lotus on your own pictures, or a small one from scratch"),
        "verify": (
            "lotus.verify_command",
            "what of a training data set is there, and what is missing or damaged",
        ),
    },
    help=HELP,
    after_interrupt="what is written is whole",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    run(LOTUS, arguments)
    sys.exit(0)
