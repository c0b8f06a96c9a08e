"""A scene from a seed: kind, layout, camera; views that teach nothing are drawn again."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from lotus.scenes.description import MAX_BLUR, MAX_MOTION, Photo, SceneDescription
from lotus.scenes.draws import Draws
from lotus.scenes.freeform import freeform
from lotus.scenes.layout import Layout
from lotus.scenes.outdoors import outdoors
from lotus.scenes.rooms import room, tabletop
from lotus.scenes.shading import probe
from lotus.scenes.solids import table_of

KINDS = (room, tabletop, outdoors, freeform)
SHARES = (0.55, 0.22, 0.15, 0.08)
ATTEMPTS = 40
NEAREST_M = 0.12  # nothing closer: a phone would not focus
MAX_SKY = 0.5  # share of the picture
MAX_ONE_SOLID = 0.7  # share of the picture that one solid may fill
MIN_SOLIDS = 7


def sample(seed: int) -> SceneDescription:
    """Returns the scene of a seed: always the same, and worth looking at.

    Layouts of one kind are drawn until one is good; the last of `ATTEMPTS` is taken as it is.
    """
    make = Draws(seed).choice(KINDS, p=SHARES)
    for attempt in range(ATTEMPTS):
        scene = _draw(make, Draws((seed, attempt)), seed)
        if is_good_view(scene):
            break
    return scene


def _draw(
    make: Callable[[np.random.Generator], Layout], rng: np.random.Generator, seed: int
) -> SceneDescription:
    layout = make(rng)
    solids, count = table_of(layout.thing)
    return SceneDescription(
        seed,
        layout.kind,
        count,
        solids,
        layout.lights,
        layout.air,
        _look_at(layout.eye, layout.target, _roll(rng)),
        math.radians(rng.uniform(35, 80)),
        draw_photo(rng),
    )


def _roll(rng: np.random.Generator) -> float:
    """Returns roll: mostly a steady hand, sometimes up to 30 degrees."""
    return math.radians(rng.uniform(-30, 30) if rng.random() < 0.3 else rng.normal(0, 4))


def _look_at(
    eye: Float64[np.ndarray, "3"], target: Float64[np.ndarray, "3"], roll: float
) -> Float64[np.ndarray, "4 4"]:
    """Returns cam_from_world of a camera that looks at a target."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (1e-6, 1e-6, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3], cam_from_world[:3, 3] = rotation, -rotation @ eye
    return cam_from_world


def draw_photo(rng: np.random.Generator) -> Photo:
    """Returns one of the ways a photo can be taken."""
    is_soft, is_shaken, is_dark = rng.random(3) < (0.4, 0.1, 0.12)
    balance = 1 + 0.12 * rng.normal(0, 1, 3) * (1, 0.2, 1)
    return Photo(
        exposure=rng.uniform(0.2, 0.45) if is_dark else rng.uniform(0.45, 1.1),
        white_balance=tuple(np.clip(balance, 0.6, 1.5).tolist()),
        contrast=rng.uniform(0.85, 1.25),
        saturation=rng.uniform(0.6, 1.25),
        vignette=rng.uniform(0, 0.5) * (rng.random() < 0.5),
        blur=rng.uniform(0.001, MAX_BLUR) if is_soft else 0.0,
        motion=(rng.uniform(0.005, MAX_MOTION) if is_shaken else 0.0, rng.uniform(0, math.pi)),
        shot_noise=0.05 * rng.random() ** 3,
        read_noise=0.015 * rng.random() ** 3,
        jpeg_quality=int(100 - 50 * rng.random() ** 2),
    )


def is_good_view(scene: SceneDescription) -> bool:
    """Says whether a coarse look finds several solids, none too near, none that fills the picture."""
    depth, index = probe(scene)
    seen = index[index >= 0]
    if seen.size < (1 - MAX_SKY) * index.size or np.min(depth[index >= 0]) < NEAREST_M:
        return False
    counts = np.bincount(seen)
    return bool(counts.max() < MAX_ONE_SOLID * index.size and np.count_nonzero(counts) >= MIN_SOLIDS)
