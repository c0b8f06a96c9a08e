"""Artifacts on disk come back as they were, broken files do no harm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.store import DiskStore
from recon import Camera, DepthMap, InputError, Scene, View


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "cache")


def depth_map() -> DepthMap:
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    normals = np.zeros((3, 4, 3), np.float32)
    return DepthMap(Camera.from_fov(4, 3, 60.0), depth, normals, depth * np.float32(0.1))


def test_dataclasses_of_arrays_come_back_equal(store: DiskStore) -> None:
    store["a"] = depth_map()
    found = store["a"]
    assert isinstance(found, DepthMap)
    assert np.array_equal(found.depth, depth_map().depth)
    assert np.array_equal(found.camera.K, depth_map().camera.K)


def test_scenes_of_views_come_back_equal(store: DiskStore) -> None:
    store["s"] = Scene((View("a.jpg", Camera.from_fov(4, 3, 60.0), np.eye(4)),), dropped={"b.jpg": "blurred"})
    assert store["s"].views[0].name == "a.jpg"
    assert dict(store["s"].dropped) == {"b.jpg": "blurred"}


@pytest.mark.parametrize("value", [None, 3, 2.5, "text", (1, "a"), [1, [2]], {"k": (1.0, None)}, Path("x")])
def test_plain_values_come_back_equal(store: DiskStore, value: Any) -> None:
    store["v"] = value
    assert store["v"] == value


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        DiskStore(tmp_path / name)["key"] = depth_map()
    assert (tmp_path / "a/key.npz").read_bytes() == (tmp_path / "b/key.npz").read_bytes()


def test_objects_are_never_pickled(store: DiskStore) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        store["o"] = np.array([object()])


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_truncated_file_counts_as_absent_and_is_removed(store: DiskStore, tmp_path: Path, keep: int) -> None:
    store["a"] = depth_map()
    path = tmp_path / "cache/a.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(KeyError):
        store["a"]
    assert "a" not in store


def test_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make this folder"):
        DiskStore(tmp_path / "file" / "cache")


def test_keys_are_listed_without_unfinished_files(store: DiskStore, tmp_path: Path) -> None:
    store["b"], store["a"] = 1, 2
    (tmp_path / "cache/.c.123").write_text("half")
    assert list(store) == ["a", "b"]
