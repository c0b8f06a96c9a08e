"""lotus-tiny fine-tuned on 20 pictures of a look it has never seen: its error on others of that look.

    python -m tests.benchmarks.fine_tuning [--steps 200] [--out DIR]

The look: made-up scenes as a thermal camera might show them, one false-colour scale of inverted brightness.
The pictures are written as a folder of photos with depth and normals, `lotus train` runs on it as a user
would run it, and 40 held-out pictures are judged before and after: AbsRel after the best scale and shift in
disparity, and the mean angle of normals. One line of JSON each, then the shares that are left.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from lotus import scenes
from lotus.data import TrainingSample
from lotus.predictor import LotusPredictor
from lotus.training.validation import score_depth
from recon.evaluation.maps import normal_angles
from recon.io.images import write_image

FIRST, HELD_OUT = 40_000_000, 41_000_000  # seeds that no training uses
SIZE = (256, 192)
TRAINED, JUDGED = 20, 40
LOTUS = "from lotus.cli import main; main()"


def pictures(first: int, count: int) -> list[TrainingSample]:
    found = scenes.render_batch(range(first, first + count), SIZE)
    return [TrainingSample(s.name, thermal(s.image), s.depth, s.normals, sky=s.sky) for s in found]


def thermal(image: np.ndarray) -> np.ndarray:
    grey = 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    coloured = cv2.applyColorMap(cv2.GaussianBlur(grey, (0, 0), 1.2), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(coloured[..., ::-1])


def write_folder(samples: list[TrainingSample], folder: Path) -> None:
    for number, sample in enumerate(samples):
        write_image(folder / "rgb" / f"{number:03d}.png", sample.image)
        for name, values in (
            ("depth", np.where(sample.sky, np.inf, sample.depth)),
            ("normals", sample.normals),
        ):
            (folder / name).mkdir(exist_ok=True)
            np.save(folder / name / f"{number:03d}.npy", values.astype(np.float32))


def judge(checkpoint: str, samples: list[TrainingSample]) -> dict[str, float]:
    predictor = LotusPredictor(checkpoint, space="disparity", device="cpu", dtype="float32")
    errors, angles = [], []
    for sample in samples:
        (found,) = predictor([sample.image])
        errors.append(score_depth(found.values, sample.depth, "disparity")[0])
        assert found.normals is not None
        angles.append(float(normal_angles(found.normals, sample.normals).mean()))
    return {"abs_rel": round(float(np.mean(errors)), 4), "normals": round(float(np.mean(angles)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--out", type=Path, help="new folder for pictures and checkpoint")
    options = parser.parse_args()
    held_out = pictures(HELD_OUT, JUDGED)
    before = judge("lotus-tiny", held_out)
    print(json.dumps({"when": "before", **before}), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        home = options.out or Path(temporary)
        write_folder(pictures(FIRST, TRAINED), home / "data")
        words = ["train", "--networks.init", "lotus-tiny", "--tasks", "disparity", "normal"]
        words += ["--data.sources", f"folder:{home / 'data'}", "--data.sizes", *map(str, SIZE)]
        words += ["--data.validation", "0", "--steps", options.steps, "--batch-size", options.batch_size]
        words += ["--save-every", options.steps, "--optimizer.learning-rate", options.learning_rate]
        words += ["--optimizer.warmup", "10", "--optimizer.cosine", "--optimizer.ema", "0.95"]
        words += ["--loss.reconstruction-rows", "0.1", "--loss.pixel-rows", "4"]
        words += ["--processing-res", "256", "--out", home / "training"]
        subprocess.run([sys.executable, "-c", LOTUS, *map(str, words)], check=True)
        after = judge(str(home / "training" / f"step_{options.steps:07d}"), held_out)
    print(json.dumps({"when": "after", **after}), flush=True)
    print(json.dumps({"left": {name: round(after[name] / before[name], 3) for name in before}}), flush=True)


if __name__ == "__main__":
    main()
