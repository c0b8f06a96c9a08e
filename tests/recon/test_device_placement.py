"""Nothing is left on the wrong side of a GPU, tried without one; results are those of the processor."""

import numpy as np
import pytest
import torch

from recon import refinement
from recon.fusion import TSDFVolume
from recon.photometric import refine
from tests.recon.fusion_scenes import VOXEL
from tests.recon.pretended_gpu import pretended_gpu
from tests.recon.test_fusion_device import POSES, assert_alike, assert_same_surface, view_of
from tests.recon.test_photometric_device import MAY_DIFFER_IN_ALL, priors, room


def test_what_is_pretended_keeps_apart_what_a_gpu_would():
    with pretended_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device.type == (there + 1).device.type == "cuda"
        assert here.device.type == there.cpu().device.type == "cpu"
        assert (there + here.to(there.device)).cpu().numpy().tolist() == [2, 2, 2]
        assert (there * torch.tensor(2.0)).device.type == "cuda"
        with pytest.raises(RuntimeError, match="on cuda:0 and on cpu"):
            torch.stack([there, here])
        with pytest.raises(RuntimeError, match="on cuda:0 and on cpu"):
            there[torch.tensor([0])] = 1
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize("prior", ["vague", "flat"])
def test_photos_are_compared_there(prior):
    photos, _ = room()
    with pretended_gpu():
        found = refine(photos[0], priors()[prior], photos[1:], device="cuda")
    expected = refine(photos[0], priors()[prior], photos[1:])
    assert (found.outcome != expected.outcome).mean() < MAY_DIFFER_IN_ALL
    assert (expected.depth_map.depth > 0).mean() > 0.3


def test_a_volume_is_fused_saved_and_drawn_there(tmp_path):
    volumes = []
    for device in ("cuda", "cpu"):
        with pretended_gpu():
            volume = TSDFVolume(VOXEL, threads=1, device=device)
            for pose in POSES:
                volume.integrate(*view_of(pose, True))
            volume.integrate(*view_of(POSES[0], True))
            volume.remove(*view_of(POSES[0], True))
            volume.save(tmp_path / "volume.npz")
            volume = TSDFVolume.load(tmp_path / "volume.npz", device=device)
            volumes.append(volume)
    with pretended_gpu():
        assert_alike(*volumes)
        assert_same_surface(*volumes)


def test_normals_refine_depth_and_are_integrated_there():
    exact = room()[1]
    with pretended_gpu():
        found = refinement.refine(priors()["vague"], device="cuda")
        alone = refinement.integrate(exact.camera, exact.normals, exact.depth > 0, device="cuda")
    np.testing.assert_allclose(
        found.depth_map.depth, refinement.refine(priors()["vague"]).depth_map.depth, rtol=1e-5
    )
    expected = refinement.integrate(exact.camera, exact.normals, exact.depth > 0)
    np.testing.assert_allclose(alone, expected, rtol=1e-5)
