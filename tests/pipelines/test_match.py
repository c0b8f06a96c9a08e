"""Where the stage that compares photos does it."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.stages import Match
from recon.errors import InputError
from recon.photometric import Measurement, flat_prior
from recon.refinement import unrefined
from recon.scene import Camera, Scene, View

VIEW = View("a", Camera.from_fov(40, 30, 60.0), np.eye(4))


def match_on(device: str) -> Measurement:
    return Match(device=device)(
        view=VIEW,
        scene=Scene((VIEW,)),
        aligned=SimpleNamespace(has_own_normals=True, is_predicted=True),
        refined={"a": unrefined(flat_prior(VIEW.camera, 1.0, 2.0))},
        image={"a": np.zeros((30, 40, 3), np.uint8)},
        kept=np.ones((30, 40), np.bool_),
    )


def test_on_a_device_one_process_does_it_for_all_views() -> None:
    assert not Match().whole_machine
    assert Match(device="cuda").whole_machine


def test_the_device_is_asked_for_and_has_to_be_there() -> None:
    assert not match_on("cpu:0").depth_map.depth.any()
    with pytest.raises(InputError, match="device 'nowhere': not on this machine"):
        match_on("nowhere")
