"""Batches that workers make ahead of time."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lotus.training.batches import ShardBatches, StreamBatches, held_out, open_set, open_source
from lotus.training.config import Data, Train
from lotus.training.encoding import encode_shard
from lotus.training.looks import RestyledScenes
from lotus.training.loop import own_batches
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


def folder_of(home: Path, names: str, *, broken: str = "") -> Data:
    for name in ("rgb", "depth", "normals"):
        (home / name).mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(home / f"rgb/{name}.png")
        np.save(home / f"depth/{name}.npy", np.full((8, 8), ord(name), np.float32))
        np.save(home / f"normals/{name}.npy", np.broadcast_to(np.float32([0, 0, -1]), (8, 8, 3)))
    for name in broken:
        (home / f"depth/{name}.npy").write_bytes(b"no array")
    return Data(sources=(f"folder:{home}",), sizes=((8, 8),), validation_set=f"folder:{home}")


def test_both_tasks_want_a_source_that_has_normals(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for home in (one, other):
        home.mkdir()
        data = folder_of(home, "a")
    (one / "normals/a.npy").unlink()
    wanting = replace(data, sources=(f"folder:{one}",))
    with pytest.raises(InputError, match="one: no normals in it"):
        open_source(Train(tasks=("disparity", "normal"), data=wanting))
    both = replace(data, sources=(f"folder:{one}", f"folder:{other}"), sizes=((8, 8),) * 2)
    open_source(Train(tasks=("disparity", "normal"), data=both))


def test_only_the_listed_samples_are_trained_on(tmp_path: Path) -> None:
    data = folder_of(tmp_path, "abc")
    (tmp_path / "list.txt").write_text("a\nc\n")
    listed = Train(data=replace(data, lists=(str(tmp_path / "list.txt"),)), batch_size=4)
    seen = {
        value for number in range(4) for value in open_source(listed)(number)["disparity"].ravel().tolist()
    }
    every = open_source(replace(listed, data=data))
    assert {value for number in range(4) for value in every(number)["disparity"].ravel().tolist()} > seen
    with pytest.raises(InputError, match=r"2 data\.lists, wanted one for each of 1 sources"):
        open_source(replace(listed, data=replace(listed.data, lists=("", ""))))
    (tmp_path / "list.txt").write_text("d\n")
    with pytest.raises(InputError, match=r"1 samples of the list are missing, the first is d"):
        open_source(listed)


def test_held_out_samples_that_cannot_be_used_are_left_out(tmp_path: Path, caplog) -> None:
    data = folder_of(tmp_path, "abc", broken="b")
    assert [sample.name for sample in held_out(Train(data=data))] == ["a", "c"]
    assert "b.npy" in caplog.text
    for name in "ac":
        (tmp_path / f"depth/{name}.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"no sample can be used \(see `lotus verify`\); the last: .*c\.npy"):
        held_out(Train(data=data))


def test_photos_that_cannot_be_used_do_not_stop_scenes_restyled_after_the_others(tmp_path: Path) -> None:
    data = folder_of(tmp_path, "abc", broken="a")
    found = open_set(f"restyled:{data.sources[0].removeprefix('folder:')}", (8, 8))
    assert isinstance(found, RestyledScenes)
    assert len(found.photos) == 2


def test_each_process_makes_only_its_own_batches(small: Train, monkeypatch) -> None:
    options = replace(small, steps=4, accumulate=2, data=Data(workers=1))
    monkeypatch.setattr("lotus.training.loop.processes", lambda: 2)
    monkeypatch.setattr("lotus.training.loop.rank", lambda: 1)
    assert list(own_batches(0, options)) == [2, 3, 6, 7, 10, 11, 14, 15]
    batches = StreamBatches(build(options, torch.device("cpu")), options, Counting())
    for number in own_batches(0, options):
        batches._arrays(number)
    assert batches._ahead == {}
    batches.close()


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
