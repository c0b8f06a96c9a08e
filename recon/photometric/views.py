"""Which other photos a view is compared with."""

import numpy as np
from jaxtyping import Float64

from recon.errors import ViewError
from recon.geometry import transform
from recon.scene import Scene, View

BEST_ANGLE_DEG = 12.0  # between rays
LESS_DEG, MORE_DEG = 5.0, 10.0  # standard deviations: less measures depth badly, more shows other sides
MAX_SCALE = 4.0  # ratio of pixel sizes on the surface beyond which patches say nothing
MIN_SHARED = 8  # points seen by both; fewer say nothing about overlap
SAME_SIDE_COSINE = 0.7  # of two baselines' directions
SAME_SIDE_SHARE = 0.5  # what a view counts beside a chosen one on the same side


def choose_neighbours(scene: Scene, view: View, *, count: int = 4) -> list[View]:
    """Returns the views to match with, best first; fewer than `count` where too few overlap.

    Score of a candidate: the sum over the points that both see of exp(-(angle - 12)^2 / (2 s^2)), s = 5
    degrees below and 10 above (the form of MVSNet's view selection, Yao et al. 2018), times the ratio of the
    sizes of a pixel on the surface, the smaller over the larger. Chosen one after the other: beside a chosen
    view on the same side a candidate counts half, so that one occluder does not hide a point from all.

    Args:
        scene: Its sparse points tell overlap and angles.
        view: One of its views.
        count: Most neighbours wanted.

    Raises:
        ViewError: The scene has no sparse points.
    """
    if scene.cloud is None:
        raise ViewError(f"{view.name}: the scene has no sparse points to choose neighbours by")
    index = [other.name for other in scene.views].index(view.name)
    seen = [scene.cloud.seen[scene.cloud.seen[:, 1] == j, 0] for j in range(len(scene.views))]
    scores = np.zeros(len(scene.views))
    for j, other in enumerate(scene.views):
        shared = np.intersect1d(seen[index], seen[j])
        if j != index and len(shared) >= MIN_SHARED:
            scores[j] = _score(view, other, scene.cloud.points[shared])
    baselines = np.stack([other.center - view.center for other in scene.views])
    baselines /= np.maximum(np.linalg.norm(baselines, axis=1, keepdims=True), np.finfo(float).tiny)
    return [scene.views[j] for j in _spread_out(scores, baselines, count)]


def _score(view: View, other: View, points: Float64[np.ndarray, "n 3"]) -> float:
    toward, toward_other = view.center - points, other.center - points
    lengths = np.linalg.norm(toward, axis=1) * np.linalg.norm(toward_other, axis=1)
    cosines = np.einsum("nc,nc->n", toward, toward_other) / np.maximum(lengths, np.finfo(float).tiny)
    off = np.degrees(np.arccos(np.clip(cosines, -1, 1))) - BEST_ANGLE_DEG
    quality = np.exp(-0.5 * np.square(off / np.where(off < 0, LESS_DEG, MORE_DEG)))
    ratio = _pixel_size(view, points) / _pixel_size(other, points)
    ratio = np.minimum(ratio, 1 / ratio)
    return float((quality * np.where(ratio >= 1 / MAX_SCALE, ratio, 0)).sum())


def _pixel_size(view: View, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n"]:
    depth = transform(view.cam_from_world, points)[:, 2]
    focal = np.sqrt(view.camera.K[0, 0] * view.camera.K[1, 1])
    return np.maximum(depth, np.finfo(np.float32).tiny) / focal


def _spread_out(
    scores: Float64[np.ndarray, "v"], baselines: Float64[np.ndarray, "v 3"], count: int
) -> list[int]:
    left = scores.copy()
    chosen: list[int] = []
    while len(chosen) < count and left.max(initial=0) > 0:
        best = int(left.argmax())
        chosen.append(best)
        left[baselines @ baselines[best] > SAME_SIDE_COSINE] *= SAME_SIDE_SHARE
        left[best] = 0
    return chosen
