"""Published ways to put a prediction into scene units, beside ours: a table of relative depth errors.

One function per method, written from its description; each takes the anchors (`Seen`) and gives the value of
1 / depth (or depth, for predictions that are depth) at the pixels asked for. Ours is `recon.alignment.align`
per view, and the same with all views of a set made to agree (`agree`).

    python tests/benchmarks/alignment_baselines.py --sets room:3 tabletop:4 --markdown
    python tests/benchmarks/alignment_baselines.py --sets tracks:FOLDER rgbd:FOLDER --anchors 100 --work CACHE

prints one JSON object per set, kind, number of anchors, share of outliers and bend: for each method the
median and the mean, in percent, over all judged pixels of all views. A pixel without depth, or off by more
than its depth, counts as 100 %. `alignment_cases.py` says what judges.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from alignment_cases import Sample, sensor_samples, some_anchors, synthetic_samples, track_samples
from plain_backend import INLIER_ERROR, ransac_affine

from recon import synthetic
from recon.alignment import Alignment, agree, align, corrected
from recon.errors import ViewError
from recon.geometry import sample, sample_depth
from recon.scene import Prediction, SparseDepth

MIN_POINTS = 4  # of ours, so that 10 anchors are tried whatever the edges take
MAX_PIVOTS = 200  # lines through so many anchors are tried by truncated L1 (METHODS of MoGe: subsampled too)
LOCAL_WIDTH = 50 / 640  # Gaussian of the local regression, share of the longer side
LOCAL_RIDGE = 1.0  # on its shift, in units of the median target
LOCAL_GATE = 0.15  # relative error under the global fit beyond which it drops an anchor
NEAREST = 5
JITTER = 1e-5  # on predicted values, as in Prior Depth Anything, against equal ones
OURS, OURS_JOINT = "ours", "ours, joint"


@dataclass(frozen=True, eq=False)
class Seen:
    """Anchors as a method sees them."""

    uv: np.ndarray
    """(n, 2), in longer sides of the picture."""

    x: np.ndarray
    """Predicted values."""

    y: np.ndarray
    """Depth or 1 / depth, as the prediction."""

    sigma: np.ndarray
    """Standard deviation of y."""


def weighted_least_squares(seen: Seen, uv: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Scale and shift by least squares, weights 1 / sigma^2 (DN-Splatter, Turkulainen et al. 2025)."""
    design = np.stack([seen.x, np.ones_like(seen.x)], axis=1)
    scale, shift = np.linalg.lstsq(design / seen.sigma[:, None], seen.y / seen.sigma, rcond=None)[0]
    return scale * x + shift


def median_scale(seen: Seen, uv: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The median ratio, no shift (MP-SfM, Pataki et al. 2025); made for depth, not for affine values."""
    positive = seen.x > 0
    return np.median(seen.y[positive] / seen.x[positive]) * x if positive.any() else np.zeros_like(x)


def ransac(seen: Seen, uv: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Scale and shift by RANSAC, then least squares on the inliers (Murre, Guo et al. 2025)."""
    scale, shift = ransac_affine(seen.x, seen.y, INLIER_ERROR * seen.y)
    return scale * x + shift


def truncated_l1(seen: Seen, uv: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The exact minimum of sum_k min(|a x_k + b - y_k| / y_k, T) (MoGe, Wang et al. 2025).

    At it the line passes through an anchor; through one anchor the cost is piecewise linear in a, with kinks
    where a residual is 0 or T.
    """
    best, line = np.inf, (0.0, 0.0)
    limit = INLIER_ERROR * seen.y
    for i in np.unique(np.linspace(0, len(seen.x) - 1, MAX_PIVOTS).astype(int)):
        run, rise = np.abs(seen.x - seen.x[i]), (seen.y - seen.y[i]) * np.sign(seen.x - seen.x[i])
        moves = run > 0
        run, rise, width = run[moves], rise[moves], limit[moves]
        kinks = np.concatenate([(rise - width) / run, rise / run, (rise + width) / run])
        turns = np.concatenate([-run / width, 2 * run / width, -run / width])
        order = np.argsort(kinks)
        changes = np.cumsum(turns[order])[:-1] * np.diff(kinks[order])
        cost = np.append(0, np.cumsum(changes)) + (~moves).sum() - len(seen.x)
        cost[kinks[order] <= 0] = np.inf
        if len(cost) and cost.min() < best:
            best, scale = cost.min(), kinks[order][cost.argmin()]
            line = (scale, seen.y[i] - scale * seen.x[i])
    return line[0] * x + line[1]


def local_regression(seen: Seen, uv: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Scale and shift at each pixel, anchors weighted by nearness (FrozenRecon, Xu et al. 2023).

    After a global fit, whose far anchors are dropped; that fit is RANSAC here, so that outliers do not undo
    it. All anchors are used and every pixel is solved, where FrozenRecon takes 100 and a coarse grid.
    """
    unit = np.median(seen.y)
    fitted, aligned = (ransac(seen, uv, values) / unit for values in (seen.x, x))
    target = seen.y / unit
    kept = np.abs(fitted - target) < LOCAL_GATE * target
    if not kept.any():
        return aligned * unit
    fitted, target, result = fitted[kept], target[kept], np.zeros_like(x)
    for part in np.array_split(np.arange(len(x)), 1 + len(x) // 2000):
        away = np.square(uv[part, None] - seen.uv[kept]).sum(axis=2) / (2 * LOCAL_WIDTH**2)
        nearest = away.min(axis=1, keepdims=True)
        weights = np.exp(nearest - away)  # far from all anchors too, the ridge grows instead
        ridge = LOCAL_RIDGE * np.exp(np.minimum(nearest[:, 0], 30))
        xx, xy = weights @ fitted**2, weights @ (fitted * target)
        sum_x, sum_y, count = weights @ fitted, weights @ target, weights.sum(axis=1) + ridge
        shift = (xx * sum_y - sum_x * xy) / (xx * count - sum_x**2)
        result[part] = (xy - shift * sum_x) / xx * aligned[part] + shift
    return result * unit


def nearest_affine(seen: Seen, uv: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Scale and shift at each pixel of its 5 nearest anchors, weights 1 / distance, in disparity.

    Prior Depth Anything's coarse alignment (Wang et al. 2025), which does nothing about outliers.
    """
    from scipy.spatial import cKDTree

    jittered = seen.x + JITTER * np.random.default_rng(0).standard_normal(len(seen.x))
    distance, index = cKDTree(seen.uv).query(uv, min(NEAREST, len(seen.x)))
    weights = 1 / np.maximum(distance, JITTER)
    weights /= weights.sum(axis=1, keepdims=True)
    near_x, near_y = jittered[index], seen.y[index]
    mean_x, mean_y = (weights * near_x).sum(axis=1), (weights * near_y).sum(axis=1)
    off = near_x - mean_x[:, None]
    scale = (weights * off * near_y).sum(axis=1) / np.maximum((weights * off**2).sum(axis=1), JITTER**2)
    return scale * (x - mean_x) + mean_y


Method = Callable[[Seen, np.ndarray, np.ndarray], np.ndarray]
BASELINES: dict[str, Method] = {
    "least squares": weighted_least_squares,
    "median scale": median_scale,
    "RANSAC affine": ransac,
    "truncated L1": truncated_l1,
    "local regression": local_regression,
    "nearest affine": nearest_affine,
}


def baseline_depth(name: str, prediction: Prediction, anchors: SparseDepth, uv: np.ndarray) -> np.ndarray:
    """Depth at pixels by one of the baselines; 0 where it has none."""
    in_disparity = prediction.kind == "affine_disparity" or name == "nearest affine"
    side = max(prediction.values.shape)
    at_anchors, at_pixels = (_values(prediction, where, in_disparity) for where in (anchors.uv, uv))
    known, asked = np.isfinite(at_anchors), np.isfinite(at_pixels)
    depth, sigma = anchors.depth[known], anchors.sigma[known]
    y, of_y = (1 / depth, sigma / depth**2) if in_disparity else (depth, sigma)
    seen = Seen(anchors.uv[known] / side, at_anchors[known], y, of_y)
    found = np.zeros(len(uv))
    try:
        found[asked] = BASELINES[name](seen, uv[asked] / side, at_pixels[asked])
    except ViewError:
        return found
    return np.divide(1, found, out=np.zeros_like(found), where=found > 0) if in_disparity else found


def _values(prediction: Prediction, uv: np.ndarray, in_disparity: bool) -> np.ndarray:
    if prediction.kind == "affine_disparity":
        return sample(prediction.values, uv)
    depth = sample_depth(prediction.values, uv)
    depth = np.where(depth > 0, depth, np.nan)
    return 1 / depth if in_disparity else depth


def errors_of(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Relative errors, at most 1, which also is that of no depth."""
    return np.where(depth > 0, np.minimum(np.abs(depth / truth - 1), 1), 1.0)


def compare(
    samples: list[Sample], kind: str, count: int, outliers: float, bend: float, seed: int
) -> dict[str, np.ndarray]:
    """Errors of every method at the judged pixels of all views."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in BASELINES}
    aligned: dict[str, Alignment] = {}
    for index, one in enumerate(samples):
        prediction = synthetic.distort(one.truth, seed=(seed, index), kind=kind, bend=bend)
        anchors = some_anchors(one.pool, count, outliers, (seed, index, count))
        for name in BASELINES:
            depth = baseline_depth(name, prediction, anchors, one.judged_uv)
            found[name].append(errors_of(depth, one.judged_depth))
        try:
            aligned[one.view.name] = align(prediction, anchors, one.view.camera, min_points=MIN_POINTS)
        except ViewError as error:
            print(f"{one.view.name}: {error}", file=sys.stderr)
    found[OURS] = our_errors(samples, aligned)
    changes = agree([one.view for one in samples if one.view.name in aligned], aligned.__getitem__)
    joint = {name: corrected(aligned[name], change) for name, change in changes.items()}
    found[OURS_JOINT] = our_errors(samples, aligned | joint)
    found["undistorted field"] = [
        errors_of(sample_depth(one.truth.depth, one.judged_uv), one.judged_depth) for one in samples
    ]
    return {name: np.concatenate(errors) for name, errors in found.items()}


def our_errors(samples: list[Sample], aligned: dict[str, Alignment]) -> list[np.ndarray]:
    """Errors of ours; a view that could not be aligned has no depth."""
    return [
        errors_of(sample_depth(aligned[one.view.name].depth_map.depth, one.judged_uv), one.judged_depth)
        if one.view.name in aligned
        else np.ones(len(one.judged_uv))
        for one in samples
    ]


def load(name: str, views: int, work: Path) -> list[Sample]:
    """The samples of a set: room:SEED, tabletop:SEED, tracks:FOLDER or rgbd:FOLDER."""
    kind, _, which = name.partition(":")
    if kind == "tracks":
        return track_samples(Path(which), work / Path(which).name, 0)
    if kind == "rgbd":
        return sensor_samples(Path(which), 0)
    return synthetic_samples(kind, int(which), views)


def rows(arguments: argparse.Namespace) -> Iterator[dict]:
    """One row per set and cell of the table."""
    cells = list(product(arguments.kinds, arguments.anchors, arguments.outliers, arguments.bends))
    with tempfile.TemporaryDirectory() as temporary:
        for number, name in enumerate(arguments.sets):
            samples = load(name, arguments.views, Path(arguments.work or temporary))
            for kind, count, outliers, bend in cells:
                errors = compare(samples, kind, count, outliers, bend, number)
                yield {
                    "set": Path(name).name,
                    "kind": kind,
                    "anchors": round(float(np.mean([min(count, len(one.pool)) for one in samples]))),
                    "outliers": outliers,
                    "bend": bend,
                    "median": {key: round(100 * float(np.median(one)), 3) for key, one in errors.items()},
                    "mean": {key: round(100 * float(np.mean(one)), 3) for key, one in errors.items()},
                }


def markdown(row: dict) -> str:
    """A line of the table: median / mean of each method, the best baseline in bold, and our share of it."""
    best = min(row["median"][name] for name in BASELINES)
    cells = [str(row[key]) for key in ("set", "kind", "anchors", "outliers", "bend")]
    for name, median in row["median"].items():
        text = f"{median:.2f} / {row['mean'][name]:.2f}"
        cells.append(f"**{text}**" if name in BASELINES and median == best else text)
    shares = (f"{row['median'][name] / best:.2f}" for name in (OURS, OURS_JOINT))
    return "| " + " | ".join([*cells, *shares]) + " |"


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=["room:3", "tabletop:4"])
    parser.add_argument("--kinds", nargs="+", default=["affine_disparity"])
    parser.add_argument("--anchors", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--outliers", type=float, nargs="+", default=[0.0, 0.2, 0.4])
    parser.add_argument("--bends", type=float, nargs="+", default=[0.02, 0.06, 0.12])
    parser.add_argument("--views", type=int, default=8, help="of a synthetic set")
    parser.add_argument("--work", help="folder that keeps features of photos; a temporary one if not given")
    parser.add_argument("--markdown", action="store_true", help="a table instead of JSON lines")
    arguments = parser.parse_args()
    names = [*BASELINES, OURS, OURS_JOINT, "undistorted field"]
    if arguments.markdown:
        heads = ["set", "kind", "anchors", "outliers", "bend", *names, "ours / best", "joint / best"]
        print("| " + " | ".join(heads) + " |")
        print("|" + "---|" * len(heads))
    for row in rows(arguments):
        print(markdown(row) if arguments.markdown else json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
