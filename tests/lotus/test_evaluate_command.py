"""The command `lotus evaluate`: figures, resuming, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lotus.cli import main
from lotus.evaluate_command import Evaluate, read_rows
from recon.errors import InputError


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ending:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return int(ending.value.code or 0), said.out, said.err


@pytest.fixture
def scannet(tmp_path: Path, photo: np.ndarray) -> Path:
    """Three photos with depth in ScanNet's layout, 64 x 48."""
    for index in range(3):
        stem = tmp_path / f"scannet/scene000{index}_00"
        (stem / "color").mkdir(parents=True)
        (stem / "depth").mkdir()
        Image.fromarray(photo[index * 8 : index * 8 + 48, :64]).save(stem / "color/000300.jpg")
        depth = np.linspace(1000, 4000, 48 * 64).reshape(48, 64).astype(np.uint16)
        Image.fromarray(depth).save(stem / "depth/000300.png")
    return tmp_path / "scannet"


def test_figures_are_written_and_shown_beside_the_papers(
    capsys: pytest.CaptureFixture[str], scannet: Path, checkpoints: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    model = checkpoints / "disparity-d"
    code, said, _ = run(
        capsys,
        "evaluate",
        "scannet",
        scannet,
        "--checkpoint",
        model,
        "--limit",
        3,
        "--out",
        out,
        "--device",
        "cpu",
    )
    assert code == 0
    result = json.loads(out.read_text())
    rows = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()[1:]]
    assert [row["photo"] for row in rows] == [f"scene000{index}_00/color/000300.jpg" for index in range(3)]
    assert result["metrics"]["abs_rel"] == pytest.approx(np.mean([row["abs_rel"] for row in rows]))
    assert (result["space"], result["photos"], result["published_photos"]) == ("disparity", 3, 800)
    assert result["paper"]["abs_rel"] == 0.055
    assert "ScanNet val sample: 3 of 800 photos" in said
    assert f"abs_rel{result['metrics']['abs_rel']:15.4f}     0.055" in said


def test_an_interrupted_run_goes_on_where_it_was(
    capsys: pytest.CaptureFixture[str], scannet: Path, checkpoints: Path, tmp_path: Path
) -> None:
    out, rows = tmp_path / "figures.json", tmp_path / "figures.jsonl"
    words = (
        "evaluate",
        "scannet",
        scannet,
        "--checkpoint",
        checkpoints / "depth-d",
        "--out",
        out,
        "--limit",
        3,
    )
    run(capsys, *words)
    whole, lines = json.loads(out.read_text()), rows.read_text().splitlines(keepends=True)
    marked = lines[1].replace('"abs_rel": ', '"abs_rel": 1')  # a row that nobody could compute again
    rows.write_text(lines[0] + marked + lines[2][:40])
    code, _, _ = run(capsys, *words)
    assert code == 0
    assert rows.read_text() == lines[0] + marked + "".join(lines[2:])
    assert json.loads(out.read_text())["metrics"]["rmse"] == whole["metrics"]["rmse"]


def test_normals_are_measured_too(
    capsys: pytest.CaptureFixture[str], checkpoints: Path, tmp_path: Path, photo: np.ndarray
) -> None:
    (tmp_path / "test").mkdir()
    Image.fromarray(photo[:40, :50]).save(tmp_path / "test/000000_img.png")
    Image.fromarray(np.full((40, 50, 3), (128, 128, 255), np.uint8)).save(tmp_path / "test/000000_normal.png")
    out = tmp_path / "figures.json"
    words = ("evaluate", "nyuv2-normals", tmp_path, "--out", out, "--limit", 1)
    code, said, _ = run(capsys, *words, "--checkpoint", checkpoints / "normal-g")
    assert code == 0
    result = json.loads(out.read_text())
    assert 0 < result["metrics"]["median"] < 180
    assert "below_11_25" in said
    code, _, error = run(capsys, *words, "--checkpoint", checkpoints / "depth-d")
    assert code == 1
    assert "nyuv2-normals measures normals" in error
    code, _, error = run(capsys, *words, "--checkpoint", checkpoints / "normal-g", "--seed", 7)
    assert code == 1
    assert "rows with seed 42, this run has 7; name another --out or remove it" in error


@pytest.mark.parametrize(("dataset", "drawn"), [("nyuv2", "disparity"), ("nyuv2-normals", "normal")])
def test_joint_checkpoint_draws_what_the_benchmark_measures(dataset: str, drawn: str) -> None:
    assert Evaluate(dataset, Path("folder"), "lotus-tiny").space() == drawn


def test_a_task_that_contradicts_what_the_checkpoint_says_is_refused() -> None:
    with pytest.raises(InputError, match="lotus-tiny: says it draws disparity and normal, wanted depth"):
        Evaluate("nyuv2", Path("folder"), "lotus-tiny", task="depth").space()


def test_what_is_missing_is_one_line(
    capsys: pytest.CaptureFixture[str], scannet: Path, checkpoints: Path, lotus_golden: Path, tmp_path: Path
) -> None:
    model = ("--checkpoint", checkpoints / "depth-d", "--out", tmp_path / "a.json")
    code, _, error = run(capsys, "evaluate", "scannet", scannet, *model)
    assert (code, error) == (1, f"lotus: {scannet}: 3 photos of ScanNet val sample, wanted 800\n")
    code, _, error = run(capsys, "evaluate", "kitti", scannet, *model)
    assert (code, error.count("\n")) == (1, 1)
    assert "no photo of KITTI Eigen test in it" in error
    nameless = lotus_golden / "checkpoint_d"
    code, _, error = run(capsys, "evaluate", "scannet", scannet, "--checkpoint", nameless)
    assert (code, error) == (1, f"lotus: {nameless}: its name does not say what it draws; say --task\n")


def test_a_photo_without_known_depth_is_named(
    capsys: pytest.CaptureFixture[str], scannet: Path, checkpoints: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(scannet / "scene0001_00/depth/000300.png")
    model = ("--checkpoint", checkpoints / "depth-d", "--out", tmp_path / "a.json", "--limit", 3)
    code, _, error = run(capsys, "evaluate", "scannet", scannet, *model)
    assert code == 1
    assert error.endswith(
        "lotus: scene0001_00/color/000300.jpg: alignment: 0 pixels, wanted at least 2 with different values\n"
    )


def test_rows_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("no JSON\n")
    with pytest.raises(InputError, match=r"a\.jsonl: cannot hold the rows"):
        read_rows(tmp_path / "a.jsonl", {"seed": 1})


def test_rows_that_are_empty_begin_with_the_setting(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "below/a.jsonl", {"seed": 1}) == {}
    assert (tmp_path / "below/a.jsonl").read_text() == '{"seed": 1}\n'
