"""The loss and its gradient as CUDA graphs: recorded once for each shape of batches, then replayed.

A small network's step is thousands of small kernels, and starting them one by one can take the host longer
than the GPU needs for the work. A replayed graph starts them all at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float32
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from lotus.training.config import Train
from lotus.training.networks import Networks
from lotus.training.step import Feed, stacked_parts

Losses = Float32[torch.Tensor, "parts"]


@dataclass
class GraphedLoss:
    """The parts of a batch's loss, differentiable in the networks' weights.

    The weights must stay where they are in memory; what lies there may change.
    """

    networks: Networks
    options: Train
    _recorded: dict[tuple[torch.Size, ...], "_Parts"] = field(default_factory=dict)

    def __call__(self, feed: Feed) -> tuple[tuple[str, ...], Losses]:
        """Returns the parts' names and values; never waits for the device, except where it records."""
        leaves, tree = tree_flatten(feed)
        tensors = [leaf for leaf in leaves if leaf is not None]
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._recorded:
            self._recorded[shapes] = self._record(tensors, leaves, tree)
        parts = self._recorded[shapes]
        losses = parts(*tensors)
        return parts.names, losses

    def _record(self, tensors: Sequence[torch.Tensor], leaves: Sequence[Any], tree: TreeSpec) -> "_Parts":
        parts = _Parts(self.networks, self.options, [leaf is not None for leaf in leaves], tree)
        samples = tuple(tensor.clone() for tensor in tensors)
        torch.cuda.make_graphed_callables(parts, samples, allow_unused_input=True)
        return parts


class _Parts(nn.Module):
    """The loss of a feed whose tensors are given one by one."""

    def __init__(self, networks: Networks, options: Train, is_there: Sequence[bool], tree: TreeSpec) -> None:
        super().__init__()
        self.trained = networks.trainable()
        self.networks, self.options = networks, options
        self.is_there, self.tree = is_there, tree
        self.names: tuple[str, ...] = ()

    def forward(self, *tensors: torch.Tensor) -> Losses:
        """Returns the loss's parts."""
        rest = iter(tensors)
        feed = tree_unflatten([next(rest) if there else None for there in self.is_there], self.tree)
        self.names, losses = stacked_parts(self.networks, feed, self.options)
        return losses
