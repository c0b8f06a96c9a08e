"""Final depth at sparse points that were kept back, by an older checkout of this project and by this one.

    OLDER=FOLDER python -m tests.benchmarks.before_photos fountain=FOLDER temple=FOLDER

OLDER is a checkout of the project; that of commit 33d1447 is the last one that did not compare photos. Both
get the same photos, cameras (`cameras.json`, taken as given), 70 % of the sparse points, and the same
predictions of `lotus-tiny`, then points alone. One JSON object per scene: of the points kept back the share
that has depth, median and mean error and the share within 2 %, percent, and the ratio of the medians.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recon.geometry import sample_depth
from recon.io.maps import read_depth_map
from recon.scene import Scene
from tests.benchmarks.embedded_prior import summary
from tests.benchmarks.held_out import Given, held_out_only
from tests.benchmarks.openmvs import OURS, held_out_inputs

HERE = Path(__file__).resolve().parents[2]
PREDICT = "import sys; from lotus.cli import main; main(sys.argv[1:])"


def run_from(checkout: Path, code: str, words: Sequence[str]) -> None:
    subprocess.run(
        [sys.executable, "-c", code, *words],
        check=True,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=sys.stderr,
    )


def held_out_errors(scene: Scene, given: Given, out: Path) -> np.ndarray:
    """Relative errors of the depth that a run wrote, NaN where it wrote none."""
    judges, found = held_out_only(scene, given), []
    for view in given.scene.views:
        points = judges.anchors(view)
        path = out / "depth" / f"{Path(view.name).stem}.npz"
        depth = read_depth_map(path).depth if path.is_file() else np.zeros((2, 2), np.float32)
        size = np.array(depth.shape[::-1]) / (view.camera.width, view.camera.height)
        at = sample_depth(depth, points.uv * size)
        found.append(np.where(at > 0, np.abs(at / points.depth - 1), np.nan))
    return np.concatenate(found)


def row(source: Path, size: int, older: Path, folder: Path) -> dict:
    scene, given = held_out_inputs(source, size, folder)
    images, sparse, predictions = (str(folder / name) for name in ("images", "sparse", "predictions"))
    run_from(HERE, PREDICT, ["predict", images, predictions])
    done: dict[str, dict] = {}
    for name, ours, theirs in (
        ("lotus-tiny", ["--predictions", predictions], ["--predictions", predictions]),
        ("points", ["--predictor", "points"], []),  # which was what the older one did by default
    ):
        medians = []
        for which, checkout, more in (("older", older, theirs), ("ours", HERE, ours)):
            out = folder / f"{name}_{which}"
            run_from(checkout, OURS, ["multi", images, str(out), "--sparse", sparse, *more])
            errors = held_out_errors(scene, given, out)
            done.setdefault(name, {})[which] = summary(errors)
            medians.append(float(np.nanmedian(errors)))
        done[name]["left"] = round(medians[1] / medians[0], 3)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--size", type=int, default=1024, help="longer side of the photos, px")
    parser.add_argument("--keep", type=Path, help="new folder for inputs and results")
    options = parser.parse_args()
    if "OLDER" not in os.environ:
        print("skipped: OLDER is not set; wanted an older checkout of this project", file=sys.stderr)
        return
    older = Path(os.environ["OLDER"]).absolute()
    with tempfile.TemporaryDirectory() as temporary:
        for word in options.scenes:
            name, _, source = word.partition("=")
            folder = (options.keep or Path(temporary)).absolute() / name
            folder.mkdir(parents=True)
            found = row(Path(source), options.size, older, folder)
            print(json.dumps({"scene": name, **found}), flush=True)


if __name__ == "__main__":
    main()
