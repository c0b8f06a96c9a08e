"""`recon single`: one photo and its prediction to a mesh in the camera's frame."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.outputs import scene_as_seen
from pipelines.predictors import FromFiles
from pipelines.runner import run
from pipelines.single_view import SingleView
from pipelines.sources import Photos
from pipelines.stages import Calibrate, OneCamera
from recon.geometry import transform
from recon.io.meshes import read_mesh
from recon.raycasting import RayCaster
from recon.scene import Mesh
from tests.pipelines.rooms import Room
from tests.pipelines.test_bad_input import fails


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


def test_report_shows_the_mesh_through_the_camera_that_was_found(room: Room, tmp_path: Path) -> None:
    photo = sorted(room.photos.iterdir())[0]
    pipeline = SingleView(FromFiles(room.predictions), depth=Calibrate(search_fov=True))
    photos = Photos({photo.name: photo}, {photo.name: "0"}, workspace=tmp_path)
    outcome = run(pipeline, photos, {})
    found = outcome.get("depth", photo.name).camera.fov_deg
    assert abs(found - OneCamera.default_fov_deg) > 1  # or this shows nothing
    assert np.isclose(scene_as_seen(outcome).views[0].camera.fov_deg, found)


def test_photo_held_upright_has_the_usual_field_of_view_along_its_longer_side(tmp_path: Path) -> None:
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    camera = OneCamera()(photos=Photos({"a.png": tmp_path / "a.png"}, {"a.png": "0"})).views[0].camera
    assert np.isclose(camera.K[0, 0], 20 / np.tan(np.radians(OneCamera.default_fov_deg) / 2))


@pytest.mark.parametrize("fov", ["0", "1e-9", "175", "nan"])
def test_field_of_view_that_none_has_is_refused(
    room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str], fov: str
) -> None:
    photo, out = sorted(room.photos.iterdir())[0], tmp_path / "out"
    assert "wanted 1 to 170" in fails(["single", str(photo), str(out), "--fov", fov], capsys)
    assert not out.exists()


def test_damaged_photo_is_told_before_any_work(
    room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "a.png", tmp_path / "out"
    photo.write_bytes(sorted(room.photos.iterdir())[0].read_bytes()[:2000])
    assert fails(["single", str(photo), str(out)], capsys).startswith("recon: a.png: cannot be decoded")
    assert "a folder; wanted one photo" in fails(["single", str(tmp_path), str(out)], capsys)
    assert not out.exists()


def test_failure_of_the_only_view_is_told_without_counting(
    room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = sorted(room.photos.iterdir())[0]
    words = ["single", str(photo), str(tmp_path / "out"), "--predictions", str(tmp_path)]
    assert fails(words, capsys).startswith(f"recon: {photo.name}: photo_prediction: no prediction")


def test_mask_that_leaves_nothing_is_told_with_the_photo(
    room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, masks = sorted(room.photos.iterdir())[0], tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (160, 120)).save(masks / f"{photo.stem}.png")
    given = ["--predictions", str(room.predictions), "--masks", str(masks)]
    line = fails(["single", str(photo), str(tmp_path / "out"), *given], capsys)
    assert line == f"recon: {photo.name}: depth: its mask and sky leave no pixel"


def test_photo_without_prediction_takes_the_embedded_model_and_says_so(
    room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["single", str(sorted(room.photos.iterdir())[0]), str(tmp_path)])
    assert "lotus-tiny, embedded demo-quality model" in capsys.readouterr().err
    assert len(read_mesh(tmp_path / "mesh.ply").faces) > 1000
