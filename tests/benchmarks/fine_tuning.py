"""lotus-tiny fine-tuned on 20 pictures of a look it has never seen: its error on others of that look.

    python -m tests.benchmarks.fine_tuning [--looks thermal negative lines night] [--steps 200] [--out DIR]

The looks: made-up scenes as a thermal camera might show them (one false-colour scale of inverted brightness,
blurred), as negatives with exchanged channels, as black lines on white, and as an image intensifier shows
them in the dark (green and noisy). The pictures are written as a folder of photos with depth and normals,
`lotus train --config fine-tune.toml` runs on it as a user would run it, and 40 held-out pictures are judged
before and after: AbsRel after the best scale and shift in disparity, and the mean angle of normals. One line
of JSON each, then the shares that are left.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
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


def restyle(samples: list[TrainingSample], look: str) -> list[TrainingSample]:
    rng = np.random.default_rng(0)
    return [replace(sample, image=LOOKS[look](sample.image, rng)) for sample in samples]


def thermal(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    grey = 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    coloured = cv2.applyColorMap(cv2.GaussianBlur(grey, (0, 0), 1.2), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(coloured[..., ::-1])


def negative(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(255 - image[..., [2, 0, 1]])


def lines(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    darker = np.minimum(grey - cv2.GaussianBlur(grey, (0, 0), 1.6) + 1, 0)
    return np.repeat((255 * (1 + np.tanh(darker / 3)))[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def night(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    light = 0.12 * (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255.0) ** 2.2
    light += rng.normal(size=light.shape) * np.sqrt(0.0025 * light + 0.00012)
    amplified = cv2.GaussianBlur(np.clip(4 * light, 0, None), (0, 0), 0.6).clip(0, 1) ** (1 / 1.6)
    return (amplified[..., None] * (38, 255, 64)).astype(np.uint8)


LOOKS = {"thermal": thermal, "negative": negative, "lines": lines, "night": night}


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


def fine_tune(photos: list[TrainingSample], steps: int, home: Path) -> str:
    """Returns the checkpoint that a training on photos ends with."""
    write_folder(photos, home / "data")
    words = ["train", "--config", "fine-tune.toml", "--out", home / "training"]
    words += ["--data.sources", f"restyled:{home / 'data'}", f"folder:{home / 'data'}"]
    words += ["--steps", steps, "--save-every", steps]
    subprocess.run([sys.executable, "-c", LOTUS, *map(str, words)], check=True)
    return str(home / "training" / f"step_{steps:07d}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--looks", nargs="+", choices=LOOKS, default=["thermal"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, help="new folder for pictures and checkpoints")
    options = parser.parse_args()
    photos = scenes.render_batch(range(FIRST, FIRST + TRAINED), SIZE)
    others = scenes.render_batch(range(HELD_OUT, HELD_OUT + JUDGED), SIZE)
    print(json.dumps({"look": "as they are", **judge("lotus-tiny", others)}), flush=True)
    for look in options.looks:
        held_out = restyle(others, look)
        before = judge("lotus-tiny", held_out)
        print(json.dumps({"look": look, "when": "before", **before}), flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            home = (options.out or Path(temporary)) / look
            after = judge(fine_tune(restyle(photos, look), options.steps, home), held_out)
        print(json.dumps({"look": look, "when": "after", **after}), flush=True)
        left = {name: round(after[name] / before[name], 3) for name in before}
        print(json.dumps({"look": look, "left": left}), flush=True)


if __name__ == "__main__":
    main()
