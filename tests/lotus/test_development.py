from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lotus.scenes.description import Photo
from lotus.scenes.development import develop_batch
from lotus.scenes.exposure import develop, photo_table
from lotus.scenes.jpeg import jpeg_batch
from recon.errors import InputError

PLAIN = Photo(0.8, (1.0, 1.0, 1.0), 1.0, 1.0, 0.0, 0.0, (0.0, 0.0), 0.0, 0.0, 100)
PHOTOS = (
    PLAIN,
    replace(PLAIN, white_balance=(1.3, 1.0, 0.7), contrast=1.2, saturation=0.6, vignette=0.5, exposure=0.3),
    replace(PLAIN, blur=0.005),
    replace(PLAIN, motion=(0.015, 0.6), blur=0.0021),
    replace(PLAIN, motion=(0.009, 2.4)),
    replace(PLAIN, jpeg_quality=50),
    replace(PLAIN, jpeg_quality=84, saturation=1.25),
    replace(PLAIN, motion=(0.012, 1.5), blur=0.003, jpeg_quality=95, vignette=0.3, contrast=0.85),
)


def light_of(seed, height, width):
    """Overlapping soft and hard blobs of coloured light, some far brighter than the rest."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / width
    light = np.full((height, width, 3), 0.05)
    for _ in range(12):
        near = 1 - np.hypot(x - rng.random(), y - rng.random()) / rng.uniform(0.05, 0.6)
        light += np.clip(near * rng.uniform(1, 30), 0, 1)[..., None] * rng.gamma(0.6, 0.4, 3)
    return light.astype(np.float32)


def developed(light, photos, seed=0):
    table, generator = torch.from_numpy(photo_table(photos)), torch.Generator().manual_seed(seed)
    return develop_batch(torch.from_numpy(light), table, generator).numpy()


def one_by_one(light, photos):
    pairs = zip(light, photos, strict=True)
    return np.stack([develop(one, photo, np.random.default_rng(0)) for one, photo in pairs])


@pytest.mark.parametrize("size", [(192, 256), (131, 203)])  # whole blocks and cut ones
def test_batch_equals_the_photos_one_by_one(size):
    light = np.stack([light_of(seed, *size) for seed in range(len(PHOTOS))])

    batch, single = developed(light, PHOTOS), one_by_one(light, PHOTOS)

    off = np.abs(batch.astype(int) - single)
    # a JPEG's coefficient near half a step may be rounded the other way
    assert np.all(np.mean(off <= 2, axis=(1, 2, 3)) > 0.98)
    assert np.all(np.mean(off, axis=(1, 2, 3)) < 0.3)


def test_jpeg_equals_opencv_at_every_quality():
    qualities = np.arange(10, 101, 5)
    picture = developed(light_of(3, 64, 80)[None], [PLAIN])[0]
    rough = picture ^ np.random.default_rng(0).integers(0, 8, picture.shape, np.uint8)
    batch = torch.from_numpy(rough).permute(2, 0, 1).float().expand(len(qualities), -1, -1, -1)

    ours = jpeg_batch(batch, torch.from_numpy(qualities).float()).permute(0, 2, 3, 1).numpy()

    for quality, one in zip(qualities.tolist(), ours, strict=True):
        _, code = cv2.imencode(".jpg", rough[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        theirs = cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]
        off = np.abs(one - theirs)  # JPEG itself is off by 2 to 8 levels here
        assert off.mean() < 0.5
        assert np.mean(off <= 2) > 0.95  # the rest is of coefficients rounded the other way


def test_jpeg_of_quality_100_is_left_out():
    light = light_of(4, 48, 64)

    batch = developed(np.stack([light, light]), [PLAIN, replace(PLAIN, jpeg_quality=99)])

    assert np.array_equal(batch[0], developed(light[None], [PLAIN])[0])
    assert not np.array_equal(batch[0], batch[1])


def test_noise_is_as_strong_and_as_correlated_as_of_one_photo():
    photo = replace(PLAIN, shot_noise=0.03, read_noise=0.02, contrast=0.8)
    light = np.stack([np.full((96, 128, 3), level, np.float32) for level in (0.2, 0.9)])

    batch, single = developed(light, [photo] * 2).astype(float), one_by_one(light, [photo] * 2).astype(float)

    for ours, theirs in zip(batch, single, strict=True):
        assert abs(ours.mean() - theirs.mean()) < 0.3  # both means are good to 0.03
        assert abs(ours.std() / theirs.std() - 1) < 0.03  # about 4 times the error of 37 000 values
        beside = [np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1] for one in (ours, theirs)]
        assert abs(beside[0] - beside[1]) < 0.03


def test_noise_depends_on_the_generator_only():
    light, photos = light_of(5, 32, 48)[None], [replace(PLAIN, read_noise=0.02)]

    first, again, other = (developed(light, photos, seed) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("change", [{"blur": 0.006}, {"motion": (0.02, 0.0)}])
def test_blur_beyond_the_kernels_is_refused(change):
    with pytest.raises(InputError, match=r"wanted at most 0\.005 and 0\.015"):
        photo_table([PLAIN, replace(PLAIN, **change)])
