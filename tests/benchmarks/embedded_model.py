"""How right a Lotus checkpoint is on made-up scenes it never saw and on real photos with a measured truth.

python -m tests.benchmarks.embedded_model ../shared/data --checkpoint lotus-tiny --sheet out.png

For each group AbsRel after the best scale and shift in disparity, depth clipped to the true range of the
photo, and the mean angle of normals; beside them three guesses fitted in the same way: the mean map of
made-up scenes, a vertical ramp, and one depth for all. Truth normals of sensors are differences over 4 px of
smoothed depth, noisy themselves. One line per group, then all real photos together; `--sheet` draws photo,
disparity, its truth, normals, their truth.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lotus import scenes
from lotus.predictor import LotusPredictor
from lotus.training.validation import score_depth
from recon.evaluation.maps import normal_angles
from recon.geometry import normals_from_depth
from recon.io.colmap import photo_pixels
from recon.io.images import read_photo, remap, write_image
from recon.io.sequences import Frame, read_sequence

SEQUENCES = {  # folder: every n-th frame, focal length of the photos / of the depth maps
    "rgbd_7scenes_redkitchen": (8, 525 / 585),
    "rgbd_redwood_livingroom1_5": (1, 1.0),
    "rgbd_tum_fr1_desk_9": (2, 1.0),
}
HELD_OUT, GUESSED_FROM = 20_000_000, 30_000_000  # seeds no training uses
SCENE_SIZES = ((192, 144), (144, 192), (168, 168))
GUESS = 64  # px, of the mean map
FAR = 80.0  # m; lidar is the only truth beyond, and it is sparse there
FIGURES = ("abs_rel", "delta1", "mean_map", "ramp", "constant", "normals", "mean_normals")


@dataclass(frozen=True)
class Truth:
    name: str
    image: np.ndarray
    depth: np.ndarray
    """0 = unknown."""
    normals: np.ndarray | None


def made_up(count: int) -> Iterator[Truth]:
    for index in range(count):
        size = SCENE_SIZES[index % len(SCENE_SIZES)]
        found = scenes.render(scenes.sample(HELD_OUT + index), *size)
        yield Truth(found.name, found.image, found.depth, found.normals)


def frames(folder: Path, step: int, zoom: float) -> Iterator[Truth]:
    sequence = read_sequence(folder)
    for frame in sequence.frames[::step]:
        depth = sequence.read_depth(frame)
        depth = np.where(depth < FAR, depth, 0).astype(np.float32)
        normals = sensed_normals(depth, frame.view.camera.K)
        yield Truth(frame.name, registered(frame, zoom), depth, normals)


def registered(frame: Frame, zoom: float) -> np.ndarray:
    """A frame's photo as its depth camera would see it."""
    photo = read_photo(frame.view.image)
    pixels = photo_pixels(frame.view, photo.shape[1], photo.shape[0])
    middle = np.array([photo.shape[1], photo.shape[0]]) / 2
    return remap(photo, middle + zoom * (pixels - middle))


def sensed_normals(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    smooth = cv2.medianBlur(depth, 5)
    return np.nan_to_num(normals_from_depth(K, smooth, step=4)).astype(np.float32)


def photos(folder: Path) -> Iterator[Truth]:
    """The single photos; their list says how each depth is to be read."""
    for item in json.loads((folder / "meta.json").read_text()):
        image = read_photo(folder / item["rgb"])
        depth, normals = np.zeros(image.shape[:2], np.float32), None
        if "disparity" in item:
            with np.load(folder / item["disparity"]) as file:
                disparity = file[file.files[0]]
            seen = np.isfinite(disparity)
            focal = item["K"][0][0] * item["baseline_m"]
            depth = np.where(seen, focal / (np.where(seen, disparity, 1) + item["doffs"]), 0)
        elif item.get("depth", "").endswith(".npy"):
            depth = np.load(folder / item["depth"])
        elif "depth" in item:
            depth = cv2.imread(str(folder / item["depth"]), cv2.IMREAD_UNCHANGED) / item["depth_scale"]
        depth = np.where(depth < FAR, depth, 0).astype(np.float32)
        is_lidar = "lidar" in item["dataset"]  # too sparse for differences
        if "normal" in item:
            normals = 2 * read_photo(folder / item["normal"]).astype(np.float32) / 255 - 1
            normals *= np.array([1, -1, -1], np.float32)
        elif item.get("K") and not is_lidar:
            normals = sensed_normals(depth, np.array(item["K"], float))
        part = (slice(45, 471), slice(41, 601)) if "nyu" in item["id"] else (slice(None), slice(None))
        yield Truth(item["id"], image[part], depth[part], None if normals is None else normals[part])


def mean_maps(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean disparity, its middle 96 % from 0 to 1, and mean normals of made-up scenes."""
    disparities, normals = [], []
    for seed in range(GUESSED_FROM, GUESSED_FROM + count):
        found = scenes.render(scenes.sample(seed), GUESS, GUESS)
        values = np.where(found.depth > 0, 1 / np.where(found.depth > 0, found.depth, 1), 0)
        low, high = np.quantile(values[values > 0], (0.02, 0.98))
        disparities.append(np.clip((values - low) / (high - low + 1e-5), 0, 1))
        normals.append(found.normals)
    return np.mean(disparities, axis=0), np.mean(normals, axis=0)


def figures_of(
    truth: Truth, values: np.ndarray, normals: np.ndarray | None, guess: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    height, width = values.shape
    found = {}
    if (truth.depth > 0).any():
        depth = cv2.resize(truth.depth, (width, height), interpolation=cv2.INTER_NEAREST)
        found["abs_rel"], found["delta1"] = score_depth(values, depth, "disparity")
        found["mean_map"] = score_depth(cv2.resize(guess[0], (width, height)), depth, "disparity")[0]
        ramp = np.broadcast_to(np.linspace(0, 1, height)[:, None], (height, width))
        found["ramp"] = score_depth(ramp, depth, "disparity")[0]
        known = depth[depth > 0]
        found["constant"] = float(np.mean(np.abs(1 / np.mean(1 / known) - known) / known))
    if truth.normals is not None and normals is not None:
        wanted = cv2.resize(truth.normals, (width, height), interpolation=cv2.INTER_NEAREST)
        found["normals"] = float(normal_angles(normals, wanted).mean())
        mean = cv2.resize(guess[1], (width, height))
        found["mean_normals"] = float(normal_angles(mean, wanted).mean())
    return found


def picture_row(truth: Truth, values: np.ndarray, normals: np.ndarray | None) -> np.ndarray:
    def grey(disparity: np.ndarray) -> np.ndarray:
        known = disparity[disparity > 0]
        low, high = np.quantile(known, (0.02, 0.98)) if known.size else (0, 1)
        scaled = 255 * np.clip((disparity - low) / (high - low + 1e-9), 0, 1)
        return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)

    def colours(map_: np.ndarray | None) -> np.ndarray:
        blank = np.zeros((8, 8, 3), np.uint8)
        return blank if map_ is None else np.clip((1 - map_) * 127.5, 0, 255).astype(np.uint8)

    near = np.where(truth.depth > 0, 1 / np.where(truth.depth > 0, truth.depth, 1), 0)
    parts = [truth.image, grey(values), grey(near), colours(normals), colours(truth.normals)]
    return np.concatenate([cv2.resize(part, (240, 180)) for part in parts], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--checkpoint", default="lotus-tiny")
    parser.add_argument("--size", type=int, help="longer side the photos are shrunk to")
    parser.add_argument("--flip", action="store_true", help="also predict the mirrored photo")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    predictor = LotusPredictor(
        options.checkpoint, device="cpu", dtype="float32", processing_res=options.size, flip=options.flip
    )
    guess = mean_maps(300)
    groups = {"scenes": made_up(options.scenes), "photos": photos(options.data / "single_depth_normal")}
    groups |= {name: frames(options.data / name, *how) for name, how in SEQUENCES.items()}
    rows, real = [], []
    for group, truths in groups.items():
        found = []
        for number, truth in enumerate(truths):
            (prediction,) = predictor([truth.image])
            found.append(figures_of(truth, prediction.values, prediction.normals, guess))
            if number < 8:
                rows.append(picture_row(truth, prediction.values, prediction.normals))
        show(group, found)
        real += found if group != "scenes" else []
    show("all real", real)
    if options.sheet:
        write_image(options.sheet, np.concatenate(rows))


def show(group: str, found: list[dict[str, float]]) -> None:
    line: dict[str, float | int | str] = {"group": group, "n": len(found)}
    for name in FIGURES:
        values = [each[name] for each in found if name in each]
        if values:
            line[name] = round(float(np.mean(values)), 3)
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
