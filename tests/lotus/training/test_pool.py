"""Batches from scenes rendered many at once: the same maps as one by one, and the same batch for a number."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lotus import scenes
from lotus.image_encoder import ImageEncoder
from lotus.training.batches import StreamBatches, open_source
from lotus.training.config import Data, Loss, Train
from lotus.training.encoding import encode
from lotus.training.loop import Job, Training, run
from lotus.training.networks import build
from lotus.training.pool import PHOTOS, PooledScenes, lay_out, value_ranges
from lotus.training.shards import pack
from lotus.training.step import batch_loss
from lotus.training.targets import value_range
from recon.errors import InputError

SIZES = ((32, 24), (24, 32))


@pytest.fixture
def pooled(small: Train) -> Train:
    data = Data(sizes=SIZES, validation=2, pool=4, reuse=2)
    return replace(small, data=data, loss=Loss(pixel_rows=2, pixel_crop=2, norm_type="trunc_disparity"))


def test_a_layout_has_every_scene_and_several_photos() -> None:
    ((_, photos),) = lay_out(range(3))
    assert photos.shape[:2] == (3, PHOTOS)
    assert len(np.unique(photos[0], axis=0)) == PHOTOS
    np.testing.assert_array_equal(photos[1, 0], scenes.photo_table([scenes.sample(1).photo])[0])


def test_a_fresh_pool_gives_the_batch_that_an_old_one_gives(pooled: Train) -> None:
    networks = build(pooled, torch.device("cpu"))
    old, fresh = PooledScenes(networks, pooled), PooledScenes(networks, pooled)
    batches = [old(number) for number in range(11)]
    again = fresh(10)
    assert torch.equal(again.photo, batches[10].photo)
    assert torch.equal(again.targets, batches[10].targets)
    assert not torch.equal(batches[9].photo, batches[10].photo)


def test_targets_are_those_of_single_samples(pooled: Train) -> None:
    options = replace(pooled, batch_size=2, data=replace(pooled.data, sizes=SIZES[:1]))
    networks = build(options, torch.device("cpu"))
    batch = PooledScenes(networks, options)(0)
    samples = scenes.render_batch(range(2), SIZES[0])
    candidates = []
    for mirrored in (False, True):
        arrays = pack(samples)
        arrays = {name: values[:, :, ::-1] if mirrored else values for name, values in arrays.items()}
        if mirrored:
            arrays["normals"] = arrays["normals"] * np.array([-1, 1, 1], np.int8)
        candidates.append(encode(arrays, networks, "trunc_disparity"))
    for row in range(2):
        task = options.tasks[int(batch.tasks[row])]
        target = batch.targets[row].numpy()
        errors = [np.abs(each[task] - target).max(axis=(1, 2, 3)).min() for each in candidates]
        assert min(errors) < 0.02  # disparity is kept in half precision, 1 / 1024 of its range
        near = int(np.argmin(errors))
        index = np.abs(candidates[near][task] - target).max(axis=(1, 2, 3)).argmin()
        np.testing.assert_array_equal(batch.valid[row, 0].numpy(), candidates[near][f"{task}_valid"][index])


@pytest.mark.parametrize("norm_type", ["trunc_disparity", "disparity", "truncnorm", "instnorm"])
def test_value_ranges_are_those_of_single_maps(norm_type: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 1, (3, 20, 30)).astype(np.float32)
    known = rng.random(values.shape) < 0.8
    found = value_ranges(torch.from_numpy(values), torch.from_numpy(known), norm_type)
    wanted = [value_range(*pair, norm_type) for pair in zip(values, known, strict=True)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("pool", [4, 0])
def test_trunk_and_decoder_learn_at_their_share_of_the_rate(pooled: Train, tmp_path: Path, pool: int) -> None:
    trunk = tmp_path / "trunk.safetensors"
    save_file(ImageEncoder((4, 4, 4)).state_dict(), trunk)
    chosen = replace(
        pooled.networks,
        image_encoder=str(trunk),
        feature_channels=(4, 4, 4),
        trunk_rate=0.5,
        decoder_rate=0.0,
    )
    data = replace(pooled.data, pool=pool)
    options = replace(pooled, out=tmp_path / "out", networks=chosen, data=data, steps=1)
    networks = build(options, torch.device("cpu"))
    before = {name: part.clone() for name, part in networks.trainable().named_parameters()}
    stream = StreamBatches(networks, options, open_source(options))
    batches = PooledScenes(networks, options) if pool else stream

    def loss(number: int) -> tuple[torch.Tensor, dict[str, float]]:
        return batch_loss(networks, batches(number), options, torch.Generator().manual_seed(number))

    job = Job(networks.trainable(), loss, lambda _: None, lambda _: {}, {"trunk": 0.5})
    shares = {group["share"]: len(group["params"]) for group in Training(job, options).optimizer.param_groups}
    assert set(shares) == {0.5, 1.0}
    list(run(job, options))
    moved = {
        name.partition(".")[0]
        for name, part in networks.trainable().named_parameters()
        if not torch.equal(part, before[name])
    }
    assert moved == {"unet", "projections", "trunk"}


def test_options_that_do_not_go_together_are_refused(pooled: Train) -> None:
    sharded = replace(pooled.data, pool=0, shards="somewhere")
    with pytest.raises(InputError, match=r"trunk_rate and data\.shards"):
        replace(pooled, data=sharded, networks=replace(pooled.networks, trunk_rate=0.1))
    with pytest.raises(InputError, match=r"decoder_rate wants loss\.pixel_rows"):
        replace(pooled, loss=Loss(), networks=replace(pooled.networks, decoder_rate=0.1))
    with pytest.raises(InputError, match="scenes alone"):
        replace(pooled, data=replace(pooled.data, shards="somewhere"))
