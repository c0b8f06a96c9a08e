"""Training of what tells the sky: on pictures whose upper part is blue."""

import numpy as np
import torch

from lotus.data import TrainingSample
from lotus.sky import embedded_encoder, trunk_features
from lotus.training.sky import draw, train_head


def blue_above_brown(index: int) -> TrainingSample:
    rng = np.random.default_rng(index)
    sky = np.zeros((64, 64), bool)
    sky[: rng.integers(2, 6) * 8] = True
    image = np.where(sky[..., None], [120, 170, 240], rng.integers(0, 200, (64, 64, 1)))
    depth = np.where(sky, 0, 1).astype(np.float32)
    normals = np.where(sky[..., None], 0, [0, 0, -1]).astype(np.float32)
    return TrainingSample(f"picture {index}", image.astype(np.uint8), depth, normals, sky)


def test_it_learns_and_takes_features_as_they_are() -> None:
    samples = [blue_above_brown(index) for index in range(20)]
    head, figures = train_head(samples, steps=60)
    assert figures["iou"] > 0.9
    assert figures["false"] < 0.05
    encoder = embedded_encoder()
    with torch.inference_mode():
        logits = head(trunk_features(encoder, samples[0].image))
    assert logits.shape == (1, 1, 8, 8)
    assert bool(logits[0, 0, 0, 0] > 0)
    assert bool(logits[0, 0, -1, -1] < 0)


def test_every_second_scene_is_outdoors() -> None:
    drawn = list(draw(4, 5_000_000))
    assert len(drawn) == 4
    assert any(sample.sky.any() for sample in drawn[1::2])
