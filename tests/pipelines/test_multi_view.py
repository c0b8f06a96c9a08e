"""`recon multi` from photos, true cameras and distorted predictions to a mesh, and again with reuse."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from pipelines.config import read_options, with_options
from pipelines.multi_view import MultiView
from recon.errors import InputError
from recon.evaluation import evaluate_mesh
from recon.io.maps import read_depth_map
from recon.io.meshes import read_mesh
from tests.pipelines.rooms import Room

LEFT_BY_RUN = ("mesh.ply", "mesh.glb", "sparse", "depth", "report.html", "report.json", "run.json", "cache")


@pytest.fixture(scope="module")
def out(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    cli.main(room.flags(folder))
    return folder


def steps(out: Path) -> dict[str, tuple[int, int]]:
    record = json.loads((out / "report.json").read_text())
    return {step["artifact"]: (step["computed"], step["reused"]) for step in record["steps"]}


def test_run_leaves_what_is_promised(out: Path) -> None:
    assert [name for name in LEFT_BY_RUN if not (out / name).exists()] == []


def test_mesh_lies_on_the_true_surface(room: Room, out: Path) -> None:
    # 5 % of the room's 4 units; predictions are off by 6 % of the depth with a smooth bend
    score = evaluate_mesh(read_mesh(out / "mesh.ply"), room.capture.mesh, thresholds=[0.2], samples=20_000)
    assert score.precision[0] > 0.85


def test_mesh_is_coloured_and_in_the_models_frame(room: Room, out: Path) -> None:
    mesh = read_mesh(out / "mesh.ply")
    assert mesh.colors is not None
    assert np.abs(mesh.vertices.mean(axis=0) - room.capture.mesh.vertices.mean(axis=0)).max() < 1.0


def test_depth_files_are_what_was_fused(room: Room, out: Path) -> None:
    name = next(iter(room.capture.depth_maps))
    depth_map = read_depth_map((out / "depth" / name).with_suffix(".npz"))
    truth = room.capture.depth_maps[name].depth
    both = (depth_map.depth > 0) & (truth > 0)
    assert np.median(np.abs(depth_map.depth[both] / truth[both] - 1)) < 0.06


def test_another_voxel_size_makes_fusion_and_later_only(room: Room, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "out"
    shutil.copytree(out, again)
    cli.main([*room.flags(again)[:-1], "0.08"])
    made = {artifact for artifact, (computed, _) in steps(again).items() if computed}
    assert made - {"prediction"} == {"volume", "mesh", "textured"}


def test_one_more_photo_is_predicted_alone(room: Room, tmp_path: Path) -> None:
    photos, again = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(room.photos, photos)
    last = sorted(photos.iterdir())[-1]
    kept = last.read_bytes()
    last.unlink()
    flags = room.flags(again)
    cli.main([flags[0], str(photos), *flags[2:]])
    last.write_bytes(kept)
    cli.main([flags[0], str(photos), *flags[2:]])
    assert steps(again)["photo_prediction"] == (1, 7)


def test_run_json_given_back_is_the_same_pipeline(out: Path) -> None:
    options = read_options(out / "run.json")
    first = with_options(MultiView(), options, "run.json")
    assert first.fuse.voxel_size == 0.05
    assert with_options(MultiView(), options, "run.json") == first


def test_config_file_gives_the_same_bytes_as_flags(room: Room, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "out"
    cli.main(["multi", str(room.photos), str(again), "--config", str(out / "run.json")])
    assert (again / "mesh.ply").read_bytes() == (out / "mesh.ply").read_bytes()


def test_processes_give_the_same_bytes_as_one(room: Room, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "out"
    cli.main([*room.flags(again), "--workers", "2"])
    assert (again / "mesh.ply").read_bytes() == (out / "mesh.ply").read_bytes()


def test_ray_gives_the_same_bytes_as_one_process(room: Room, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    again = tmp_path / "out"
    words = [*room.flags(again), "--ray", "local"]
    # a process of its own: the type checks of the tests wrap functions so that Ray cannot send them
    subprocess.run([sys.executable, "-c", f"from pipelines.cli import main; main({words!r})"], check=True)
    assert (again / "mesh.ply").read_bytes() == (out / "mesh.ply").read_bytes()


def test_until_stops_before_fusion(room: Room, tmp_path: Path) -> None:
    again = tmp_path / "out"
    cli.main([*room.flags(again), "--until", "aligned"])
    assert (again / "depth").is_dir()
    assert not (again / "mesh.ply").exists()


def test_until_in_a_finished_folder_keeps_what_it_stops_before(out: Path, room: Room, tmp_path: Path) -> None:
    again = tmp_path / "out"
    shutil.copytree(out, again)
    cli.main([*room.flags(again), "--until", "scene"])
    assert len(list((again / "depth").iterdir())) == 8
    assert (again / "mesh.ply").read_bytes() == (out / "mesh.ply").read_bytes()
    assert (again / "mesh.glb").exists()


def test_depth_of_a_photo_that_is_gone_goes(out: Path, room: Room, tmp_path: Path) -> None:
    photos, again = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(room.photos, photos)
    shutil.copytree(out, again)
    (photos / "view_003.png").unlink()
    flags = room.flags(again)
    cli.main([flags[0], str(photos), *flags[2:], "--until", "aligned"])
    assert not (again / "depth/view_003.npz").exists()
    assert len(list((again / "depth").iterdir())) == 7


def test_a_mesh_that_cannot_be_written_leaves_the_earlier_one(
    out: Path, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "out"
    shutil.copytree(out, again)

    def full(path: Path, mesh: object) -> None:
        raise InputError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("pipelines.outputs.meshes.write_mesh", full)
    with pytest.raises(SystemExit):
        cli.main(room.flags(again))
    assert (again / "mesh.ply").read_bytes() == (out / "mesh.ply").read_bytes()


def test_report_names_the_predictor(out: Path) -> None:
    assert "prediction files" in json.loads((out / "report.json").read_text())["notes"][0]


def test_a_second_pass_goes_on_from_the_first(room: Room, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "out"
    shutil.copytree(out, again)
    cli.main([*room.flags(again), "--second-pass"])
    made = {artifact for artifact, (computed, _) in steps(again).items() if computed}
    assert made - {"prediction"} == {
        *("drawn", "measured", "planes", "settled", "checked", "volume", "mesh", "textured")
    }
    first, second = (
        evaluate_mesh(read_mesh(folder / "mesh.ply"), room.capture.mesh, thresholds=[0.1], samples=20_000)
        for folder in (out, again)
    )
    assert second.f_score[0] > first.f_score[0] - 0.02
    assert (again / "mesh.ply").read_bytes() != (out / "mesh.ply").read_bytes()
