"""Batches that workers make ahead of time."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lotus.training.batches import ShardBatches, StreamBatches, open_source
from lotus.training.config import Data, Train
from lotus.training.encoding import encode_shard
from lotus.training.networks import build
from lotus.training.shards import write_shard
from recon.errors import InputError
from tests.lotus.training.conftest import SIZE, picture_of_a_plane


@dataclass
class Counting:
    """Stands for a source that remembers something from batch to batch."""

    made: int = 0

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        self.made += 1
        return {"batch": np.array([number, self.made])}


def test_normals_alone_want_a_folder_that_has_some(tmp_path: Path) -> None:
    data = Data(sources=(f"folder:{tmp_path}",), sizes=((8, 8),))
    options = Train(tasks=("normal",), data=data)
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb/a.png")
    np.savez(tmp_path / "depth/a.npz", depth=np.ones((8, 8)))
    with pytest.raises(InputError, match=r"no normals in it, wanted normals/NAME\.npy or intrinsics\.txt"):
        open_source(options)
    np.savez(tmp_path / "depth/a.npz", depth=np.ones((8, 8)), K=np.eye(3))
    assert open_source(options)(0)["normals"].any()


def test_shards_with_fewer_samples_than_shard_size_are_said(small: Train, tmp_path: Path) -> None:
    networks = build(small, torch.device("cpu"))
    write_shard(tmp_path, 0, 4, SIZE, picture_of_a_plane)
    encode_shard(tmp_path / "shard_000000.safetensors", networks, small, "digest")
    options = replace(small, data=replace(small.data, shards=str(tmp_path), shard_size=4))
    assert len(ShardBatches(networks, options, "digest")(0).targets) == 4
    larger = replace(options, data=replace(options.data, shard_size=64))
    with pytest.raises(InputError, match=r"safetensors: 4 samples, data\.shard_size is 64 and batch_size 4"):
        ShardBatches(networks, larger, "digest")(0)


def test_a_worker_keeps_its_source_from_batch_to_batch(small: Train) -> None:
    options = replace(small, data=Data(workers=1))
    batches = StreamBatches(build(options, torch.device("cpu")), options, Counting())
    found = [batches._arrays(number)["batch"].tolist() for number in range(3)]
    assert found == [[0, 1], [1, 2], [2, 3]]


def test_workers_make_no_more_batches_than_the_training_takes_and_end_with_it(small: Train) -> None:
    options = replace(small, steps=2, accumulate=2, data=Data(workers=3))
    batches = StreamBatches(build(options, torch.device("cpu")), options, Counting())
    batches._arrays(0)
    assert sorted(batches._ahead) == [1, 2, 3]
    assert batches._pool is not None
    workers = list(batches._pool._processes.values())
    batches.close()
    assert not any(worker.is_alive() for worker in workers)
