"""Volumes on a device of torch against those of the kernels; "cpu:0" is torch on the processor."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from recon.errors import InputError
from recon.fusion import TSDFVolume, on_device
from recon.fusion.reference import variances, votes
from tests.recon.fusion_scenes import VOXEL, positions_as_colors, see_plane, see_sphere, sphere_poses

POSES = sphere_poses(9)
MOVED = POSES[4] + np.array([[0, 0, 0, 0.2], [0, 0, 0, -0.1], [0, 0, 0, 0.1], [0, 0, 0, 0]])
DEVICES = [
    "cpu:0",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU for torch")),
]


def view_of(pose, colored):
    """Depth, pose and photo; the darker the farther the camera is along x, so that exposures differ."""
    depth_map = see_sphere(pose)
    colors = positions_as_colors(depth_map, pose) * (0.8 - 0.1 * pose[2, 0])
    return depth_map, pose, colors.astype(np.uint8) if colored else None


def fuse_on(device, colored=True, poses=POSES):
    volume = TSDFVolume(VOXEL, threads=1, device=device)
    for pose in poses:
        volume.integrate(*view_of(pose, colored))
    return volume


def levels(words):
    return np.stack([words & 2047, words >> 11 & 2047, words >> 22]).astype(int)


def assert_alike(volume, expected):
    """Equal but for how sums of products are rounded; where little weight is left, that is much of a mean."""
    found, wanted = volume.arrays(), expected.arrays()
    assert set(found) == set(wanted)
    np.testing.assert_array_equal(found["blocks"], wanted["blocks"])
    for name in {"gradient", "color"} & set(found):
        np.testing.assert_allclose(levels(found[name]), levels(wanted[name]), atol=1, err_msg=name)
    sums = (arrays["tsdf"] * arrays["weight"] for arrays in (found, wanted))
    np.testing.assert_allclose(*sums, atol=2e-6)  # weights are up to 6
    doubts = found["variance"], wanted["variance"]
    np.testing.assert_allclose(*map(variances, doubts), rtol=2**-7, atol=2e-6)
    np.testing.assert_array_equal(*map(votes, doubts))
    for name in ("weight", "free", "views"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)


def assert_same_surface(volume, expected):
    mesh, wanted = volume.extract(), expected.extract()
    np.testing.assert_array_equal(mesh.faces, wanted.faces)
    np.testing.assert_allclose(mesh.vertices, wanted.vertices, atol=1e-4 * VOXEL)
    off = np.abs(mesh.normals - wanted.normals)  # mixed by variances, of which few are rounded otherwise
    assert np.quantile(off, 0.999) < 1e-4
    assert off.max() < 5e-4
    if wanted.colors is not None:
        np.testing.assert_allclose(mesh.colors.astype(int), wanted.colors.astype(int), atol=1)


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(scope="module")
def whole():
    return fuse_on("cpu")


@pytest.mark.parametrize("colored", [True, False])
def test_a_device_holds_what_the_kernels_hold(device, colored):
    volume, expected = fuse_on(device, colored), fuse_on("cpu", colored)
    assert (expected.arrays()["weight"] > 0).sum() > 10_000
    assert (votes(expected.arrays()["variance"]) > 0).sum() > 300
    assert_alike(volume, expected)
    assert_same_surface(volume, expected)


def test_weights_and_votes_are_the_kernels_to_the_bit(device, whole):
    volume = fuse_on(device)
    np.testing.assert_array_equal(volume.arrays()["weight"], whole.arrays()["weight"])
    np.testing.assert_array_equal(*(votes(v.arrays()["variance"]) for v in (volume, whole)))
    near, far = (see_plane(np.eye(4), np.array([0.0, 0, -1]), -z) for z in (2.0, 3.0))
    cells = []
    for place in (device, "cpu"):
        volume = TSDFVolume(0.05, threads=1, device=place)
        for depth_map in (near, far, far):
            volume.integrate(depth_map, np.eye(4))
        cells.append(volume.free_votes)
    assert (cells[0] > 0).sum() > 1000
    np.testing.assert_array_equal(*cells)


def test_exposures_are_compared_with_colours_on_the_device(device, whole):
    gains = np.array([view.gains for view in fuse_on(device).views])
    assert np.abs(gains - 1).max() > 0.1
    np.testing.assert_allclose(gains, [view.gains for view in whole.views], rtol=0.01)  # steps of colours


@pytest.mark.parametrize("colored", [True, False])
def test_a_view_is_taken_away_and_another_moved(device, colored):
    volumes = [fuse_on(place, colored) for place in (device, "cpu")]
    for volume in volumes:
        volume.remove(*view_of(POSES[0], colored))
        depth_map, pose, photo = view_of(POSES[4], colored)
        volume.reintegrate(depth_map, pose, MOVED, photo)
    assert_alike(*volumes)
    assert_same_surface(*volumes)


def test_votes_that_were_never_cast_are_not_taken_away(device):
    volume, beside = TSDFVolume(0.1, device=device), np.eye(4)
    beside[0, 3] = 0.1
    wall, nearer = (see_plane(np.eye(4), np.array([0.0, 0, -1]), -z) for z in (3.0, 2.0))
    volume.integrate(wall, np.eye(4))
    volume.integrate(nearer, beside)  # makes blocks that the first view would have seen through
    volume.remove(wall, np.eye(4))
    assert not volume.free_votes.any()


def test_outliers_weigh_as_little_on_the_device(device):
    volumes = [fuse_on(place, poses=POSES[:3]) for place in (device, "cpu")]
    for volume in volumes:
        for _ in range(4):
            volume.integrate(*view_of(POSES[4], True))
        depth_map, _, photo = view_of(POSES[4], True)
        volume.integrate(depth_map, MOVED, photo)
    assert_alike(*volumes)


def test_chunks_change_no_byte(device, monkeypatch):
    expected = fuse_on(device).arrays()
    monkeypatch.setattr(on_device, "CHUNK", 7)
    for name, array in fuse_on(device).arrays().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("then", ["cpu", None])
def test_a_volume_is_saved_and_goes_on_elsewhere_or_there(device, then, whole, tmp_path):
    fuse_on(device, poses=POSES[:5]).save(tmp_path / "volume.npz")
    volume = TSDFVolume.load(tmp_path / "volume.npz", threads=1, device=then or device)
    for pose in POSES[5:]:
        volume.integrate(*view_of(pose, True))
    assert_alike(volume, whole)


def test_a_volume_of_arrays_is_on_the_device(device, whole):
    volume = TSDFVolume.from_arrays(whole.arrays(), device=device)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(volume.arrays()[name], array, err_msg=name)
    np.testing.assert_array_equal(volume.extract().vertices, whole.extract().vertices)


def test_volumes_merge_whatever_they_are_on(device, monkeypatch):
    monkeypatch.setattr(on_device.DevicePages, "most", 50)
    first, second = POSES[:5], POSES[5:]
    expected = fuse_on("cpu", poses=first)
    expected.merge(fuse_on("cpu", poses=second))
    for ours, theirs in ((device, device), (device, "cpu"), ("cpu", device)):
        volume = fuse_on(ours, poses=first)
        volume.merge(fuse_on(theirs, poses=second))
        assert_alike(volume, expected)


def test_a_volume_merged_with_itself_weighs_twice(device, whole):
    volume = TSDFVolume.from_arrays(whole.arrays(), device=device)
    volume.merge(volume)
    np.testing.assert_array_equal(volume.arrays()["weight"], 2 * whole.arrays()["weight"])
    np.testing.assert_array_equal(volume.free_votes, 2 * whole.free_votes)


def test_points_are_looked_up_on_the_device(device, whole, monkeypatch):
    monkeypatch.setattr(on_device.DevicePages, "most", 50)
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 3))
    volume = TSDFVolume.from_arrays(whole.arrays(), device=device)
    np.testing.assert_array_equal(volume.weights_at(points), whole.weights_at(points))


def test_an_empty_volume_stays_empty(device):
    assert TSDFVolume.from_arrays(TSDFVolume(VOXEL, device=device).arrays(), device=device).size.blocks == 0


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_an_input_error(name):
    with pytest.raises(InputError, match=f"device '{name}': not on this machine; wanted cpu, cuda"):
        TSDFVolume(VOXEL, device=name)


def test_a_limit_of_memory_is_refused_on_a_device():
    with pytest.raises(InputError, match=r"memory of 1e\+09 bytes on device 'cpu:0': wanted no limit"):
        TSDFVolume(VOXEL, memory=1e9, device="cpu:0")


def test_volumes_on_the_processor_do_without_torch():
    code = (
        "import sys; from tests.recon.fusion_scenes import *;"
        "fuse(sphere_poses(2)).extract(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
