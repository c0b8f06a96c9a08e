"""`recon single`: one photo and its prediction to a mesh in the camera's frame."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from recon.geometry import transform
from recon.io.meshes import read_mesh
from recon.raycasting import RayCaster
from recon.scene import Mesh
from tests.pipelines.rooms import Room


def true_surface(room: Room, name: str) -> Mesh:
    """The room in the frame of one of its cameras."""
    view = room.capture.scene.view(name)
    return Mesh(transform(view.cam_from_world, room.capture.mesh.vertices), room.capture.mesh.faces)


def test_photo_becomes_its_surface_up_to_scale(room: Room, tmp_path: Path) -> None:
    photo = sorted(room.photos.iterdir())[0]
    words = ["single", str(photo), str(tmp_path), "--predictions", str(room.predictions)]
    cli.main(words)
    mesh = read_mesh(tmp_path / "mesh.ply")
    truth = room.capture.depth_maps[photo.name].depth
    # the scale of a single photo is open: bring both to the same median depth
    vertices = mesh.vertices * (np.median(truth) / np.median(mesh.vertices[:, 2]))
    distance = RayCaster(true_surface(room, photo.name)).distance(vertices)
    assert np.median(distance) < 0.05 * np.median(truth)  # predictions are off by 6 %
    assert (tmp_path / "mesh.glb").exists()
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["faces"] == len(mesh.faces)


def test_photo_without_prediction_takes_the_embedded_model_and_says_so(
    room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["single", str(sorted(room.photos.iterdir())[0]), str(tmp_path)])
    assert "lotus-tiny, embedded demo-quality model" in capsys.readouterr().err
    assert len(read_mesh(tmp_path / "mesh.ply").faces) > 1000
