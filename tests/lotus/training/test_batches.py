"""Batches that workers make ahead of time."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from lotus.training.batches import StreamBatches
from lotus.training.config import Data, Train
from lotus.training.networks import build


@dataclass
class Counting:
    """Stands for a source that remembers something from batch to batch."""

    made: int = 0

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        self.made += 1
        return {"batch": np.array([number, self.made])}


def test_a_worker_keeps_its_source_from_batch_to_batch(small: Train) -> None:
    options = replace(small, data=Data(workers=1))
    batches = StreamBatches(build(options, torch.device("cpu")), options, Counting())
    found = [batches._arrays(number)["batch"].tolist() for number in range(3)]
    assert found == [[0, 1], [1, 2], [2, 3]]
