"""The recorded loss against the one worked out anew: same parts and gradients, for each shape of batches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lotus.training.config import Loss, Train
from lotus.training.encoding import Batch, encode, make_batch
from lotus.training.graphs import GraphedLoss
from lotus.training.networks import Networks, build
from lotus.training.shards import pack
from lotus.training.step import Feed, feed_of, stacked_parts
from recon.errors import InputError
from tests.lotus.training.conftest import picture_of_a_plane

WITH_PIXELS = Loss(pixel_rows=3, pixel_crop=2, reconstruction_rows=0.5)
SIZES = ((32, 16), (16, 32))


def feeds(networks: Networks, options: Train, device: torch.device) -> list[Feed]:
    found = []
    for seed in range(4):
        arrays = pack([picture_of_a_plane(4 * seed + row, SIZES[seed % 2]) for row in range(4)])
        encoded = encode(arrays, networks, options.loss.norm_type)
        batch: Batch = make_batch(arrays, encoded, networks, options, np.random.default_rng(seed))
        found.append(feed_of(networks, batch, options, torch.Generator().manual_seed(seed)))
    return found


def compare(
    options: Train, device: torch.device, check: Callable[[torch.Tensor, torch.Tensor], None]
) -> None:
    networks = build(options, device)
    weights = [part for part in networks.trainable().parameters() if part.requires_grad]
    graphed = GraphedLoss(networks, options)

    def plain(feed: Feed) -> tuple[tuple[str, ...], torch.Tensor]:
        return stacked_parts(networks, feed, options)

    def values_and_gradient(losses: Callable[..., tuple[tuple[str, ...], torch.Tensor]], feed: Feed) -> Any:
        """Leaves no graph of autograd behind, beside which none can be recorded."""
        names, parts = losses(feed)
        found = torch.autograd.grad(parts.sum(), weights, allow_unused=True)
        return names, [parts.detach().cpu(), *(torch.zeros(1) if g is None else g.cpu() for g in found)]

    for feed in feeds(networks, options, device):
        mine, expected = (values_and_gradient(losses, feed) for losses in (graphed, plain))
        assert mine[0] == expected[0]
        for pair in zip(mine[1], expected[1], strict=True):
            check(*pair)


def test_what_is_recorded_is_the_loss(small: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[object] = []
    monkeypatch.setattr(
        torch.cuda, "make_graphed_callables", lambda parts, samples, **_: recorded.append(samples)
    )
    options = replace(small, loss=WITH_PIXELS)
    compare(options, torch.device("cpu"), torch.testing.assert_close)
    assert len(recorded) == len(SIZES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_replayed_graph_gives_the_loss_and_its_gradient(small: Train) -> None:
    options = replace(small, loss=WITH_PIXELS)

    def check(mine: torch.Tensor, plain: torch.Tensor) -> None:
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-4)

    compare(options, torch.device("cuda"), check)


def test_graphs_and_gradient_checkpointing_do_not_go_together() -> None:
    with pytest.raises(InputError, match="graphs and gradient_checkpointing"):
        Train(graphs=True, gradient_checkpointing=True)
