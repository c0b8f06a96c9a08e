"""`--checkpoint` and what goes with it: said before any work, in one line."""

import shutil
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.commands.flags import early_flags, flags_of
from recon.errors import InputError
from tests.pipelines.rooms import Room

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def mine(golden: Path, tmp_path: Path) -> Path:
    """A checkpoint whose name does not say what it draws."""
    return Path(shutil.copytree(golden / "lotus/checkpoint_d", tmp_path / "mine"))


def predictor(*words: str) -> object:
    return flags_of(early_flags(words)).choose(None).predictor


def test_space_goes_to_the_predictor(mine: Path) -> None:
    assert predictor("--checkpoint", str(mine), "--space", "depth").kind() == "affine"
    assert predictor("--checkpoint", str(mine), "--space", "disparity").kind() == "affine_disparity"


def test_underscores_are_dashes_in_names_and_themselves_in_values() -> None:
    assert early_flags(["--normals_checkpoint", "a_b"]).normals_checkpoint == "a_b"
    assert early_flags(["--normals_checkpoint=a_b"]).normals_checkpoint == "a_b"


def test_space_without_a_checkpoint_is_refused() -> None:
    with pytest.raises(InputError, match="--space goes with --checkpoint, which is missing"):
        flags_of(early_flags(["--space", "depth"])).choose(None)


@pytest.mark.parametrize("command", ["multi", "single"])
def test_an_unknown_space_is_said_before_any_work(
    room: Room, mine: Path, tmp_path: Path, capsys: Capsys, command: str
) -> None:
    photos = room.photos if command == "multi" else sorted(room.photos.iterdir())[0]
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, str(photos), str(tmp_path / "out"), "--checkpoint", str(mine)])
    said = capsys.readouterr()
    assert stopped.value.code == 1
    assert said.err.count("\n") == 1
    assert "its name does not say what it draws; say depth or disparity" in said.err
    assert "recon --space" in said.err
    assert not (tmp_path / "out/report.json").exists()


def test_a_missing_checkpoint_is_said_before_any_work(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    words = ["multi", str(room.photos), str(tmp_path / "out"), "--checkpoint", str(tmp_path / "no-depth")]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 1
    assert "no such folder, and not a hub id" in capsys.readouterr().err


def test_a_wrong_space_is_wrong_usage(room: Room, mine: Path, tmp_path: Path, capsys: Capsys) -> None:
    words = ["multi", str(room.photos), str(tmp_path / "out"), "--checkpoint", str(mine), "--space", "normal"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2


def test_a_photo_becomes_a_mesh_by_a_checkpoint_of_any_name(room: Room, mine: Path, tmp_path: Path) -> None:
    photo = sorted(room.photos.iterdir())[0]
    options = ["--predict.predictor.processing-res", "64", "--predict.predictor.device", "cpu"]
    cli.main(
        ["single", str(photo), str(tmp_path / "out"), "--checkpoint", str(mine), "--space", "depth", *options]
    )
    assert (tmp_path / "out/mesh.ply").exists()
