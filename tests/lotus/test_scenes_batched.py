import numpy as np
import pytest
import torch

from lotus import scenes
from lotus.scenes import batched
from lotus.scenes.shading import radiance
from recon.errors import InputError

SEEDS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def described():
    return [scenes.sample(seed) for seed in SEEDS]


@pytest.mark.parametrize("size", [(32, 24), (18, 30)])
def test_a_batch_is_byte_for_byte_each_scene_alone(described, size):
    batch = scenes.radiance_batch(scenes.pack_scenes(described), *size, torch.device("cpu"))
    alone = [radiance(scene, scenes.intrinsics(scene, *size), *size) for scene in described]
    for one, maps in zip(batch, zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(one.numpy(), np.stack(maps))


def test_the_scenes_tested_are_of_several_kinds_indoors_and_out_with_fog(described):
    assert len({scene.kind for scene in described}) >= 3
    assert {bool(scene.air[9] > 0) for scene in described} == {True, False}


def test_tables_hold_every_solid_once(described):
    tables = scenes.pack_scenes(described)
    counts = np.array([scene.count for scene in described])
    np.testing.assert_array_equal(np.diff(tables.solid_starts), counts)
    np.testing.assert_array_equal(np.diff(tables.node_starts), 2 * counts - 1)
    assert len(tables.materials) == counts.sum()
    leaves = tables.leaves[tables.node_starts[3] : tables.node_starts[4]]
    np.testing.assert_array_equal(np.sort(leaves[leaves >= 0]), np.arange(counts[3]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_what_the_processor_draws(described):
    pytest.importorskip("numba_cuda")
    tables = scenes.pack_scenes(described)
    expected = [part.numpy() for part in scenes.radiance_batch(tables, 96, 72, torch.device("cpu"))]
    light, depth, normals = (
        part.cpu().numpy() for part in scenes.radiance_batch(tables, 96, 72, torch.device("cuda"))
    )
    # where two solids are at about the same depth, or a cell's border is met, the last digit decides
    assert np.mean(np.abs(depth - expected[1]) <= 1e-4 * expected[1]) >= 0.995
    assert np.mean(np.abs(normals - expected[2]).max(axis=-1) <= 1e-3) >= 0.995
    assert np.mean(np.abs(light - expected[0]).max(axis=-1) <= 1e-3) >= 0.99


def test_a_gpu_without_numba_cuda_is_an_input_error(described, monkeypatch):
    monkeypatch.setattr(batched, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="numba-cuda"):
        scenes.radiance_batch(scenes.pack_scenes(described[:1]), 8, 6, torch.device("cuda"))
