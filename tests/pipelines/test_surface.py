"""The voxel size that `Fuse` chooses for the depth maps of a scene."""

from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.stages.surface import Fuse
from recon.consistency import Agreement
from recon.scene import DepthMap
from tests.pipelines.rooms import Room


def chosen_voxel_size(room: Room, depth_maps: dict[str, DepthMap], **options: Any) -> float:
    no_votes = np.zeros((120, 160), np.uint8)
    checked = {name: Agreement(each, no_votes, no_votes, no_votes) for name, each in depth_maps.items()}
    volume = Fuse(**options)(
        scene=room.capture.scene,
        checked=checked,  # type: ignore[arg-type]
        image=room.capture.images,  # type: ignore[arg-type]
        progress=lambda *told: None,
    )
    return volume.voxel_size


def test_voxels_are_as_large_as_depth_maps_lie_apart(room: Room) -> None:
    rng, noisy = np.random.default_rng(0), {}
    for name, true in room.capture.depth_maps.items():
        noise = rng.normal(0, 0.06, true.depth.shape) * (true.depth > 0)
        noisy[name] = replace(true, depth=(true.depth + noise).astype(np.float32))  # its sigma knows nothing
    fine = chosen_voxel_size(room, room.capture.depth_maps)
    coarse = chosen_voxel_size(room, noisy)
    assert 1.3 * fine < coarse
    assert 0.06 < coarse < 1.5 * 0.06 * 1.05
    assert chosen_voxel_size(room, noisy, voxel_size=0.1) == 0.1
