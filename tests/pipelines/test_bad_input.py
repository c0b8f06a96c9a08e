"""What users get wrong ends in one clear line, or drops the one photo it is about."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from tests.pipelines.rooms import Room

Capsys = pytest.CaptureFixture[str]


def fails(words: list[str], capsys: Capsys) -> str:
    """Runs a command that has to fail, and returns the one line it says why with."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 1
    assert last.startswith("recon: ")
    return last


def dropped(out: Path) -> dict[str, str]:
    return json.loads((out / "report.json").read_text())["dropped"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.mkdir(), "none of them a photo|no photo|no files|empty"),
        (lambda folder: None, "no such file or folder"),
        (lambda folder: folder.write_text("photos"), "video|no folder|not a"),
    ],
)
def test_photos_that_are_none(
    tmp_path: Path, capsys: Capsys, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "photos")
    line = fails(["multi", str(tmp_path / "photos"), str(tmp_path / "out")], capsys)
    assert any(word in line for word in words.split("|")), line


@pytest.mark.parametrize("option", ["--match.device", "--fuse.device"])
def test_device_that_is_not_there_is_told_before_any_work(
    room: Room, tmp_path: Path, capsys: Capsys, option: str
) -> None:
    out = tmp_path / "out"
    line = fails(["multi", str(room.photos), str(out), option, "cuda:99"], capsys)
    assert "device 'cuda:99': not on this machine" in line
    assert not out.exists()


def test_single_photo_for_multi_says_what_to_do(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(sorted(room.photos.iterdir())[0], tmp_path / "photos")
    line = fails(["multi", str(tmp_path / "photos"), str(tmp_path / "out")], capsys)
    assert "1 of at least 2 photos" in line
    assert "recon single" in line


def test_photo_instead_of_a_folder_is_no_video(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    line = fails(["multi", str(sorted(room.photos.iterdir())[0]), str(tmp_path / "out")], capsys)
    assert "one photo, wanted a folder of photos or a video; recon single" in line


def test_photos_that_cannot_be_read_are_named(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (7, 300)).save(tmp_path / "photos" / "thin.png")
    line = fails(["multi", str(tmp_path / "photos"), str(tmp_path / "out")], capsys)
    assert "none of its 1 photos can be read; the first, thin.png: 7x300 pixels, wanted at least 8" in line


def test_bad_photo_is_told_first_and_kept_where_the_run_stops_early(
    room: Room, tmp_path: Path, capsys: Capsys
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(room.photos, photos)
    (photos / "bad.png").write_text("no photo")
    (photos / "other.heic").touch()
    cli.main(["multi", str(photos), str(out), *room.flags(out)[3:], "--until", "sparse"])
    said = capsys.readouterr().err
    assert said.count("left out: bad.png: its content is no JPEG") == 1
    assert "pictures of other kinds: 1 are not read (.heic)" in said
    assert said.index("left out: bad.png") < said.index("writing mesh")
    assert list(dropped(out)) == ["bad.png"]


def test_masks_of_other_photos_are_refused_and_those_there_are_counted(
    room: Room, tmp_path: Path, capsys: Capsys
) -> None:
    (tmp_path / "masks").mkdir()
    flags = [*room.flags(tmp_path / "out"), "--masks", str(tmp_path / "masks")]
    Image.new("L", (160, 120), 255).save(tmp_path / "masks" / "other.png")
    assert "no mask of any photo, wanted view_000.png" in fails(flags, capsys)
    (tmp_path / "masks" / "other.png").rename(tmp_path / "masks" / "view_001.png")
    cli.main([*flags, "--until", "sparse"])
    assert "masks: of 1 of 8 photos" in capsys.readouterr().err
    again = ["multi", str(room.photos), str(tmp_path / "again"), "--config", str(tmp_path / "out/run.json")]
    cli.main([*again, "--until", "sparse"])
    assert "masks: of 1 of 8 photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--predict.batch-size", "0", "predict.batch_size: 0, wanted a number above 0"),
        ("--predict.max-size", "0", "predict.max_size: 0 pixels, at least 16 wanted"),
        ("--match.max-size", "0", "match.max_size: 0 pixels, at least 16 wanted"),
        ("--match.neighbours", "-1", "match.neighbours: -1, wanted at least 0"),
        ("--align.min-points", "0", "align.min_points: 0, wanted at least 4"),
        ("--cameras.options.camera-params", "1", "camera_params: 1 numbers, SIMPLE_RADIAL has 4"),
        ("--fuse.voxel-size", "nan", "fuse.voxel_size: nan, wanted a number above 0"),
        ("--fuse.truncation", "-1", "fuse.truncation: -1, wanted a number above 0"),
        ("--fuse.memory", "0", "fuse.memory: 0, wanted a number above 0"),
        ("--extract.min-component-share", "3", "wanted a share between 0 and 1"),
        ("--predict.predictor.dtype", "float8", "dtype 'float8', wanted auto, float32"),
        ("--predict.predictor.device", "cuda:99", "device 'cuda:99': not on this machine"),
        ("--predict.predictor.processing-res", "100000", "wanted 32 to 8192"),
        ("--predict.predictor.processing-res", "7", "wanted 32 to 8192"),
        ("--predictor", "nowhere", "predictor 'nowhere', wanted package.module:Class"),
        ("--predictor", "no.where:Class", "predictor no.where:Class: cannot import"),
    ],
)
def test_option_that_cannot_be_is_told_before_any_work(
    room: Room, tmp_path: Path, capsys: Capsys, option: str, value: str, wanted: str
) -> None:
    out = tmp_path / "out"
    assert wanted in fails(["multi", str(room.photos), str(out), option, value], capsys)
    assert not out.exists()


def test_files_that_are_none_are_told_before_any_work(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "a.toml").write_text("no table")
    words = ["plan", "--config"]
    assert fails([*words, str(tmp_path / "b")], capsys).endswith("b: cannot read (No such file or directory)")
    assert "a.toml: no TOML (" in fails([*words, str(tmp_path / "a.toml")], capsys)
    assert "nope: no such file, wanted one of .ply" in fails(["evaluate", "nope", "b.ply"], capsys)
    assert ": a folder, wanted one of .ply" in fails(["evaluate", str(tmp_path), "b.ply"], capsys)
    assert "'.gif', wanted .png" in fails(["evaluate", "nope", "b.ply", "--picture", "c.gif"], capsys)


def test_unrelated_photos_say_that_nothing_matches(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)
        picture = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "photos" / f"{number}.png")
    line = fails(["multi", str(tmp_path / "photos"), str(tmp_path / "out")], capsys)
    assert "match" in line or "overlap" in line


@pytest.mark.parametrize("kind", ["truncated", "text"])
def test_bad_photo_among_good_ones_is_dropped_with_its_reason(room: Room, tmp_path: Path, kind: str) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(room.photos, photos)
    victim = sorted(photos.iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:2000] if kind == "truncated" else b"not a photo")
    flags = room.flags(out)
    cli.main([flags[0], str(photos), *flags[2:]])
    assert list(dropped(out)) == [victim.name]


def test_prediction_of_nan_drops_its_view(room: Room, tmp_path: Path) -> None:
    name, out = _with_prediction(room, tmp_path, lambda values: np.full_like(values, np.nan))
    assert list(dropped(out)) == [name]


def test_prediction_of_another_shape_drops_its_view(room: Room, tmp_path: Path) -> None:
    name, out = _with_prediction(room, tmp_path, lambda values: values[:, : values.shape[1] // 2])
    assert "ratios differ" in dropped(out)[name]


def test_prediction_of_another_size_is_used(room: Room, tmp_path: Path) -> None:
    _, out = _with_prediction(room, tmp_path, lambda values: np.repeat(np.repeat(values, 2, 0), 2, 1))
    assert dropped(out) == {}


def _with_prediction(
    room: Room, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]
) -> tuple[str, Path]:
    folder, out = tmp_path / "predictions", tmp_path / "out"
    shutil.copytree(room.predictions, folder)
    path = sorted(folder.iterdir())[1]
    with np.load(path) as arrays:
        values, kind, normals = arrays["values"], str(arrays["kind"]), arrays["normals"]
    normals = np.stack([change(normals[..., channel]) for channel in range(3)], axis=-1)
    np.savez(path, values=change(values), kind=kind, normals=normals)
    flags = room.flags(out)
    flags[flags.index("--predictions") + 1] = str(folder)
    cli.main([*flags, "--until", "aligned"])
    return f"{path.stem}.png", out


def test_missing_predictions_of_most_photos_stop_the_run(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "predictions").mkdir()
    flags = room.flags(tmp_path / "out")
    flags[flags.index("--predictions") + 1] = str(tmp_path / "predictions")
    assert "no prediction view_000.npz" in fails(flags, capsys)


def test_broken_model_is_named(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    shutil.copytree(room.sparse, tmp_path / "sparse")
    (tmp_path / "sparse/images.bin").write_bytes((room.sparse / "images.bin").read_bytes()[:100])
    flags = room.flags(tmp_path / "out")
    flags[flags.index("--sparse") + 1] = str(tmp_path / "sparse")
    assert "images.bin" in fails(flags, capsys)


def test_out_that_is_a_file_is_named(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "out").write_text("taken")
    assert "cannot write there" in fails(room.flags(tmp_path / "out"), capsys)


@pytest.mark.parametrize("name", ["mesh.glb", "report.html", "run.json"])
def test_folder_where_a_result_goes_is_told_before_any_work(
    room: Room, tmp_path: Path, capsys: Capsys, name: str
) -> None:
    (tmp_path / name).mkdir()
    assert f"{name}: is a folder, results need a file" in fails(room.flags(tmp_path), capsys)


def test_unknown_option_in_config_names_the_nearest(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "run.toml").write_text("[fuse]\nvoxel_sise = 1\n")
    line = fails([*room.flags(tmp_path / "out"), "--config", str(tmp_path / "run.toml")], capsys)
    assert "did you mean 'voxel_size'" in line


def test_unknown_artifact_lists_those_there_are(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    line = fails([*room.flags(tmp_path / "out"), "--until", "meshh"], capsys)
    assert "mesh" in line
    assert "aligned" in line


def test_two_predictors_exclude_each_other(room: Room, tmp_path: Path, capsys: Capsys) -> None:
    line = fails([*room.flags(tmp_path / "out"), "--checkpoint", "somewhere"], capsys)
    assert "exclude each other" in line


def test_wrong_usage_exits_with_2(capsys: Capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["multi", "--no-such-flag"])
    assert stopped.value.code == 2
