"""From a description to a training sample."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from lotus.data import TrainingSample
from lotus.scenes.description import SceneDescription
from lotus.scenes.exposure import develop
from lotus.scenes.sampling import sample
from lotus.scenes.shading import radiance


def intrinsics(scene: SceneDescription, width: int, height: int) -> Float64[np.ndarray, "3 3"]:
    """Returns K of the scene's camera for a picture of this size."""
    focal = 0.5 * max(width, height) / math.tan(0.5 * scene.fov)
    return np.array([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1]])


def render(scene: SceneDescription, width: int, height: int) -> TrainingSample:
    """Returns the photo of a scene with its exact depth and normals; what has no depth is sky."""
    K = intrinsics(scene, width, height)
    light, depth, normals = radiance(scene, K, width, height)
    image = develop(light, scene.photo, np.random.default_rng((scene.seed, width, height)))
    return TrainingSample(f"scene {scene.seed}", image, depth, normals, sky=depth == 0)


def render_batch(seeds: Sequence[int], size: tuple[int, int]) -> list[TrainingSample]:
    """Returns the samples of seeds at size (width, height)."""
    return [render(sample(seed), *size) for seed in seeds]
