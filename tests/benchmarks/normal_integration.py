"""Normal integration alone on the DiLiGenT objects, beside bilateral normal integration (Cao et al. 2022).

    BINI=FOLDER python -m tests.benchmarks.normal_integration

BINI is a checkout of xucao-42/bilateral_normal_integration (GPL: run as a program of its own, never part of
this project), whose `data/Fig7_diligent` holds normals, masks and true depth. Prints one JSON object per
object: mean absolute error of ours after a median scale, mm, and CPU seconds; then what its own evaluation
script prints last (its errors, mm), and the CPU seconds of that script, each for all objects.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from recon.refinement import integrate
from recon.scene import Camera

FULL = 65535.0


def ours(folder: Path) -> tuple[float, float]:
    """Error, mm, and CPU seconds of one object."""
    mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    picture = cv2.imread(str(folder / "normal_map.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    normals = (picture / FULL * 2 - 1) * [1, -1, -1]  # given with y up and z toward the camera
    normals *= mask[..., None] / np.linalg.norm(normals, axis=-1, keepdims=True)
    K = np.loadtxt(folder / "K.txt")
    K[:2, 2] += 0.5 - np.array([columns[0], rows[0]])
    mask, normals = mask[inside], normals[inside].astype(np.float32)
    truth = np.load(folder / "depth_gt.npz")["depth_gt"][inside]
    started = time.process_time()
    depth = integrate(Camera(K, mask.shape[1], mask.shape[0]), normals, mask)
    seconds = time.process_time() - started
    judged = mask & (depth > 0) & (truth > 0)
    scale = np.median(truth[judged] / depth[judged])
    return float(np.abs(scale * depth[judged] - truth[judged]).mean()), seconds


def main() -> None:
    root = Path(os.environ["BINI"])
    errors, total = [], 0.0
    for folder in sorted((root / "data" / "Fig7_diligent").iterdir()):
        error, seconds = ours(folder)
        errors.append(error)
        total += seconds
        print(json.dumps({"object": folder.name, "error_mm": round(error, 3), "cpu_s": round(seconds, 2)}))
    print(
        json.dumps({"mean_error_mm": round(float(np.mean(errors)), 3), "cpu_s": round(total, 1)}), flush=True
    )
    printed = subprocess.run(
        [sys.executable, "evaluation_diligent.py"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"theirs_cpu_s": round(used.ru_utime + used.ru_stime, 1)}))
    print(printed[printed.rindex("{") :])


if __name__ == "__main__":
    if "BINI" in os.environ:
        main()
    else:
        print("skipped: BINI is not set", file=sys.stderr)
