"""Trains what tells the sky (`lotus.sky`) on made-up scenes: python -m lotus.training.sky OUT.safetensors.

The image encoder of lotus-tiny stays as it is; a perceptron on its features learns which cells of 8 px are
sky, by their share of it. Features get noise, and their weights decay, so that it takes to photos.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float32
from torch import nn

from lotus import scenes
from lotus.data import TrainingSample
from lotus.sky import embedded_encoder, new_head, trunk_features

SIZE = (256, 192)
CELL = 8  # px
BATCH = 8192  # cells
NOISE = 0.3  # of features with unit variance
RATE, DECAY = 3e-3, 3e-2
HELD_OUT = 0.15  # of the scenes


@dataclass(frozen=True)
class TrainSky:
    """Trains what tells the sky in photos, on made-up scenes: eight minutes on one core."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File of the weights, .safetensors."""

    count: int = 3000
    """Scenes; half of them are outdoors."""

    first: int = 7_000_000
    """Seed of the first scene."""

    steps: int = 2000
    """Of the optimiser."""


def draw(count: int, first: int) -> Iterator[TrainingSample]:
    """Yields scenes, every second one of them outdoors."""
    seed, made = first, 0
    while made < count:
        scene = scenes.sample(seed)
        if made % 2 == 0 or scene.kind == "outdoors":
            yield scenes.render(scene, *SIZE)
            made += 1
        seed += 1


def train_head(samples: Sequence[TrainingSample], steps: int) -> tuple[nn.Module, dict[str, float]]:
    """Returns the perceptron, and how it does on scenes held out.

    That is the intersection over the union of what is sky, and the share of the rest that it takes for sky.
    """
    encoder = embedded_encoder()
    with torch.inference_mode():
        features = torch.cat([trunk_features(encoder, sample.image) for sample in samples])
    wanted = torch.cat([_shares(sample) for sample in samples])
    first = max(1, round(HELD_OUT * len(samples)))
    cells, shares = _flat(features[first:]), _flat(wanted[first:])
    middle, spread = cells.mean(0), cells.std(0) + 1e-3
    torch.manual_seed(0)
    head = new_head(cells.shape[1])
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(steps):
        chosen = torch.randint(len(cells), (BATCH,))
        seen = (cells[chosen] - middle) / spread
        seen = seen + NOISE * torch.randn_like(seen)
        loss = F.binary_cross_entropy_with_logits(head(seen[..., None, None])[:, 0, 0, 0], shares[chosen, 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - (step + 1) / steps)
    layer = head[0]
    assert isinstance(layer, nn.Conv2d)
    _fold(layer, middle, spread)
    with torch.inference_mode():
        found, true = head(features[:first])[:, 0] > 0, wanted[:first, 0] > 0.5
    both, either = (found & true).sum(), (found | true).sum()
    return head, {
        "iou": float(both / either.clamp(min=1)),
        "false": float((found & ~true).sum() / (~true).sum().clamp(min=1)),
    }


def _shares(sample: TrainingSample) -> Float32[torch.Tensor, "1 1 h8 w8"]:
    return F.avg_pool2d(torch.from_numpy(sample.sky.astype(np.float32))[None, None], CELL)


def _flat(maps: Float32[torch.Tensor, "n c h w"]) -> Float32[torch.Tensor, "m c"]:
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _fold(layer: nn.Conv2d, middle: Float32[torch.Tensor, "c"], spread: Float32[torch.Tensor, "c"]) -> None:
    """Lets a layer take features as they are, where it took them with mean zero and variance one."""
    with torch.no_grad():
        layer.weight /= spread[:, None, None]
        assert layer.bias is not None
        layer.bias -= (layer.weight[..., 0, 0] * middle).sum(1)


def main(words: Sequence[str]) -> None:
    """Trains it, writes its weights and prints how it does."""
    from safetensors.torch import save_file

    options = tyro.cli(TrainSky, args=words, prog="python -m lotus.training.sky")
    head, figures = train_head(list(draw(options.count, options.first)), options.steps)
    save_file({name: weight.contiguous() for name, weight in head.state_dict().items()}, options.out)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
