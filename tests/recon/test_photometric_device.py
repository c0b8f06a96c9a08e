"""Planes matched on a device of torch against those of the kernels; "cpu:0" is torch on the processor.

Scores differ by how sums are rounded: squares of grey levels lose digits where there is little texture. Where
two planes score alike, a pixel may so take the other one, and then its neighbours try that.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from recon import synthetic
from recon.errors import InputError
from recon.photometric import Measurement, Photo, flat_prior, on_device, refine, tiles
from recon.photometric.cost import INVALID
from recon.photometric.fitting import BORDER, NO_PRIOR
from recon.photometric.levels import Level, make_levels
from recon.photometric.matcher import matchers_on
from recon.photometric.slants import slants_of
from recon.scene import DepthMap

SIZE = (128, 96)
COUNT = SIZE[0] * SIZE[1]
MAY_DIFFER = 0.001  # share of the pixels after one kernel; on the processor it is none
MAY_DIFFER_IN_ALL = 0.005  # after all of them on all levels; on the processor it is 0.0008 at most
OFF_CENTRE_PX = 1.5  # of the texture: some pixels are beyond
DEVICES = [
    "cpu:0",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU for torch")),
]


@cache
def room() -> tuple[list[Photo], DepthMap]:
    """Four photos of a room, and the true depth of the first."""
    world = synthetic.room(2)
    cameras = synthetic.room_cameras(world, *SIZE, count=12)[:4]
    capture = synthetic.capture(world, cameras, seed=2, supersample=1)
    photos = [Photo(v.camera, v.cam_from_world, capture.images[v.name]) for v in capture.scene.views]
    return photos, next(iter(capture.depth_maps.values()))


@cache
def priors() -> dict[str, DepthMap]:
    """1 % off and as sure; the same, but vague in the right half; no more than a range of depth."""
    exact = room()[1]
    depth = (1.01 * exact.depth).astype(np.float32)
    near = replace(exact, depth=depth, sigma=np.float32(0.01) * depth)
    sigma = near.sigma.copy()
    sigma[:, SIZE[0] // 2 :] *= 40
    return {"near": near, "vague": replace(near, sigma=sigma), "flat": flat_prior(exact.camera, 0.5, 8.0)}


@cache
def level() -> Level:
    photos, _ = room()
    return make_levels(photos[0], priors()["vague"], photos[1:])[0]


@cache
def pictures() -> tuple[Any, Any]:
    """As the kernels want them; half again as much texture is wanted, so that more pixels have none."""
    grey, colors, least_spread, *prior = level().reference()
    return (grey, colors, np.float32(1.5) * least_spread, *prior), level().sources()


@cache
def swept(alone: bool = False) -> tuple[np.ndarray, ...]:
    """Planes, scores, ratios and motions after the kernels' sweep; not to be changed."""
    shape = level().grey.shape
    nothing = (np.zeros((*shape, 3), np.float32), *(np.zeros(shape, np.float32) for _ in range(3)))
    matcher = matchers_on("cpu", 1)(*pictures(), nothing)
    matcher.sweep(band(alone))
    return matcher.arrays()


def band(alone: bool) -> tuple[np.ndarray, ...]:
    return level().planes, np.float32(3) * level().bands, np.full(level().grey.shape, alone)


def after(
    device: str, state: tuple[np.ndarray, ...], step: Callable[[Any], Any]
) -> tuple[tuple[np.ndarray, ...], Any]:
    """Returns the state after a step from a state, and what the step returns."""
    matcher = matchers_on(device, 1)(*pictures(), tuple(one.copy() for one in state))
    returned = step(matcher)
    return matcher.arrays(), returned


def assert_alike(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    """Planes to a hundredth of a pixel, scores to 0.0002, ratios to a thousandth, motions to last bits."""
    (planes, scores, ratios, motions), wanted = found, expected
    px = np.abs(planes - wanted[0]).max(axis=-1) * np.maximum(wanted[3], 0)
    assert (px > 0.01).mean() < MAY_DIFFER
    assert (np.abs(scores - wanted[1]) > 2e-4).mean() < MAY_DIFFER
    assert (np.abs(scores - wanted[1]) > 1e-5).mean() < 0.02
    assert (np.abs(ratios - wanted[2]) > 1e-3 * wanted[2]).mean() < MAY_DIFFER
    assert (np.abs(motions - wanted[3]) > 1e-6 * np.abs(wanted[3])).mean() < MAY_DIFFER


def changed(state: tuple[np.ndarray, ...], before: tuple[np.ndarray, ...]) -> int:
    return np.count_nonzero((state[0] != before[0]).any(axis=-1))


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("alone", [False, True])
def test_the_sweep_is_the_kernels(device, alone):
    expected = swept(alone)
    found, _ = after(device, expected, lambda matcher: matcher.sweep(band(alone)))
    assert (expected[1] < INVALID).sum() > 0.5 * COUNT
    assert (expected[3] < 0).sum() > 0.02 * COUNT  # blank
    assert_alike(found, expected)


def test_other_slants_are_tried_as_by_the_kernels(device):
    planes, bands, _ = band(False)
    wide = np.where(np.indices(bands.shape)[1] % 2 == 0, np.float32(0.3) * planes[..., 0], bands)
    flat, slants = planes * np.array([1, 0, 0], np.float32), slants_of(level().camera)
    state = (swept()[0], swept()[1] + np.float32(0.5), *swept()[2:])
    found, expected = (
        after(on, state, lambda matcher: matcher.tilt((flat, wide, slants)))[0] for on in (device, "cpu")
    )
    assert 0.05 * COUNT < changed(expected, state) < 0.7 * COUNT
    assert_alike(found, expected)


@pytest.mark.parametrize("color", [0, 1])
def test_propagation_is_the_kernels(device, color):
    planes, scores, *rest = swept()
    wrong = (np.random.default_rng(0).random(scores.shape) < 0.3) & (scores < INVALID)
    planes = np.where(wrong[..., None], np.float32(1.05) * planes, planes)
    state = (planes, np.where(wrong, np.float32(1.2), scores), *rest)
    found, expected = (
        after(on, state, lambda matcher: matcher.propagate(color))[0] for on in (device, "cpu")
    )
    assert changed(expected, state) > 0.1 * COUNT
    assert_alike(found, expected)


def test_planes_are_fitted_as_by_the_kernels(device):
    planes, scores, *rest = swept()
    state = (planes * np.array([1, 0, 0], np.float32), scores + np.float32(0.03), *rest)
    found, expected = (after(on, state, lambda matcher: matcher.fit())[0] for on in (device, "cpu"))
    assert changed(expected, state) > 0.3 * COUNT
    assert_alike(found, expected)


def test_depth_sigma_and_rejections_are_the_kernels(device):
    energy = np.sum(np.square(np.gradient(pictures()[0][0])), axis=0)

    def measure(matcher: Any) -> Any:
        return matcher.measure(energy, OFF_CENTRE_PX)

    (found, ours), (expected, wanted) = (after(on, swept(), measure) for on in (device, "cpu"))
    assert_alike(found, expected)
    assert set(np.unique(wanted[1])) == set(range(9)) - {NO_PRIOR, BORDER}
    assert (ours[1] != wanted[1]).mean() < MAY_DIFFER
    same = ours[1] == wanted[1]
    for column, tolerance in ((0, 1e-5), (2, 1e-2)):  # w, and its variance: a difference of like costs
        off = np.abs(ours[0] - wanted[0])[same][:, column] > tolerance * np.abs(wanted[0])[same][:, column]
        assert off.mean() < MAY_DIFFER
    assert (np.abs(ours[0] - wanted[0])[same][:, 1] > 2e-4).mean() < MAY_DIFFER


@cache
def measured(device: str, prior: str) -> Measurement:
    photos, _ = room()
    return refine(photos[0], priors()[prior], photos[1:], threads=1, device=device)


def assert_measured_alike(found: Measurement, expected: Measurement) -> None:
    assert (found.outcome != expected.outcome).mean() < MAY_DIFFER_IN_ALL
    both = (found.depth_map.depth > 0) & (expected.depth_map.depth > 0)
    for one, other, tolerance in (
        (found.depth_map.depth, expected.depth_map.depth, 1e-4),
        (found.depth_map.sigma, expected.depth_map.sigma, 0.02),
        (found.ncc, expected.ncc, 1e-3),
    ):
        assert (np.abs(one[both] / other[both] - 1) > tolerance).mean() < MAY_DIFFER_IN_ALL
    turned = np.einsum("nc,nc->n", found.depth_map.normals[both], expected.depth_map.normals[both])
    assert (turned < np.cos(0.01)).mean() < MAY_DIFFER_IN_ALL


@pytest.mark.parametrize("prior", ["near", "vague", "flat"])
def test_the_whole_measurement_is_the_kernels(device, prior):
    found, expected = measured(device, prior), measured("cpu", prior)
    assert (expected.depth_map.depth > 0).sum() > 0.4 * COUNT
    assert_measured_alike(found, expected)


@pytest.mark.parametrize("prior", ["near", "flat"])
def test_depth_is_as_near_the_truth_as_the_kernels(device, prior):
    truth, errors = room()[1].depth, []
    for on in (device, "cpu"):
        depth = measured(on, prior).depth_map.depth
        errors.append(np.abs(depth / np.maximum(truth, 1e-6) - 1)[(depth > 0) & (truth > 0)])
    for share in (0.001, 0.01):
        within = [(error < share).mean() for error in errors]
        assert within[0] == pytest.approx(within[1], abs=0.001)
    assert np.median(errors[0]) == pytest.approx(np.median(errors[1]), rel=0.005)


def test_chunks_change_next_to_nothing(device, monkeypatch):
    expected = measured(device, "near")
    monkeypatch.setattr(on_device, "CHUNK", 1000)
    photos, _ = room()
    assert_measured_alike(refine(photos[0], priors()["near"], photos[1:], device=device), expected)


def test_tiles_are_measured_on_the_device(device, monkeypatch):
    monkeypatch.setattr(tiles, "WHOLE", 100)
    monkeypatch.setattr(tiles, "TILE", 96)
    photos, _ = room()
    found, expected = (
        refine(photos[0], priors()["near"], photos[1:], threads=1, device=on) for on in (device, "cpu")
    )
    assert_measured_alike(found, expected)


def test_nothing_is_made_on_another_device():
    photos, _ = room()
    with torch.device("meta"):  # what does not say where it is made would be there, and not go with the rest
        found = refine(photos[0], priors()["vague"], photos[1:], device="cpu:0")
    assert_measured_alike(found, measured("cpu:0", "vague"))


def test_photos_that_see_nothing_measure_nothing_on_the_device(device):
    photos, _ = room()
    away = replace(photos[1], cam_from_world=np.diag([-1.0, 1, -1, 1]) @ photos[0].cam_from_world)
    row = Photo(photos[1].camera.resized(SIZE[0], 1), photos[1].cam_from_world, photos[1].image[:1])
    for others in ([], [away], [row]):
        expected = refine(photos[0], priors()["near"], others)
        found = refine(photos[0], priors()["near"], others, device=device)
        np.testing.assert_array_equal(found.outcome, expected.outcome)
        assert not found.depth_map.depth.any()


def test_nothing_that_is_given_changes(device):
    before = swept()
    for step in (lambda one: one.propagate(0), lambda one: one.fit(), lambda one: one.sweep(band(False))):
        state = tuple(one.copy() for one in before)
        step(matchers_on(device, 1)(*pictures(), state))
        for one, other in zip(state, before, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_an_input_error(name):
    photos, _ = room()
    with pytest.raises(
        InputError, match=f"^device '{name}': not on this machine.*; wanted cpu, cuda"
    ) as caught:
        refine(photos[0], priors()["near"], photos[1:], device=name)
    assert "\n" not in str(caught.value)


def test_matching_on_the_processor_does_without_torch():
    code = (
        "import sys; import numpy as np; from recon.photometric import *; from recon.scene import Camera;"
        "camera = Camera.from_fov(48, 36, 60.0); image = np.zeros((36, 48, 3), np.uint8);"
        "photo = Photo(camera, np.eye(4), image); refine(photo, flat_prior(camera, 1.0, 2.0), [photo]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
