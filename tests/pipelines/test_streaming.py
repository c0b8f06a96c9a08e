"""`recon stream`: posed frames, with and without depth, become a mesh frame by frame."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines import cli
from pipelines.graph import ByView, Recipe
from pipelines.outputs import only_run, open_out
from pipelines.sources import Given, Photo, ReadImage
from pipelines.stages import Fuse
from pipelines.streaming import Streaming, stream
from recon import synthetic
from recon.consistency import Agreement
from recon.evaluation import evaluate_mesh
from recon.geometry import invert
from recon.io.images import write_image
from recon.io.maps import write_depth_png
from recon.io.meshes import read_mesh
from recon.io.sequences import read_sequence
from recon.scene import Scene
from recon.synthetic import Capture

OPENGL_FROM_CV = np.diag([1.0, -1, -1, 1])
VOXEL_SIZE = 0.02


@pytest.fixture(scope="module")
def capture() -> Capture:
    world = synthetic.tabletop(seed=4)
    cameras = synthetic.tabletop_cameras(world, 320, 240, 16)[:6]
    return synthetic.capture(world, cameras, seed=4, supersample=1)


@pytest.fixture(scope="module")
def sequence(capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table as nerfstudio would keep it: transforms.json, images and depth in thousandths of a unit."""
    folder = tmp_path_factory.mktemp("sequence")
    synthetic.write_photos(capture, folder / "images")
    frames = []
    for view in capture.scene.views:
        depth = Path("depth") / Path(view.name).with_suffix(".png")
        write_depth_png(folder / depth, capture.depth_maps[view.name].depth, scale=1000.0)
        pose = invert(view.cam_from_world) @ OPENGL_FROM_CV
        frames.append(
            {
                "file_path": f"images/{view.name}",
                "depth_file_path": depth.as_posix(),
                "transform_matrix": pose.tolist(),
            }
        )
    K = capture.scene.views[0].camera.K
    intrinsics = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": 320, "h": 240}
    (folder / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))
    return folder


def test_frames_with_depth_become_the_true_surface(capture: Capture, sequence: Path, tmp_path: Path) -> None:
    cli.main(["stream", str(sequence), str(tmp_path), "--fuse.voxel-size", str(VOXEL_SIZE)])
    views = capture.scene.views
    score = evaluate_mesh(
        read_mesh(tmp_path / "mesh.ply"), capture.mesh, thresholds=[VOXEL_SIZE], samples=20_000, views=views
    )
    assert score.precision[0] > 0.95
    assert (tmp_path / "mesh.glb").exists()


def test_a_second_run_into_the_same_folder_changes_nothing(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_run(open_out(tmp_path)), pytest.raises(SystemExit):
        cli.main(["stream", str(sequence), str(tmp_path)])
    assert "another run is writing there" in capsys.readouterr().err
    assert not (tmp_path / "run.json").exists()


def without_depth(sequence: Path, folder: Path) -> Path:
    """A copy of the sequence with photos and poses only."""
    shutil.copytree(sequence, folder)
    shutil.rmtree(folder / "depth")
    record = json.loads((folder / "transforms.json").read_text())
    for frame in record["frames"]:
        del frame["depth_file_path"]
    (folder / "transforms.json").write_text(json.dumps(record))
    return folder


def test_frames_without_depth_are_triangulated(capture: Capture, sequence: Path, tmp_path: Path) -> None:
    folder = without_depth(sequence, tmp_path / "rgb")
    cli.main(["stream", str(folder), str(tmp_path / "out"), "--fuse.voxel-size", str(VOXEL_SIZE)])
    mesh = read_mesh(tmp_path / "out/mesh.ply")
    score = evaluate_mesh(mesh, capture.mesh, thresholds=[3 * VOXEL_SIZE], samples=20_000)
    assert score.precision[0] > 0.8


def test_poses_that_the_photos_contradict_are_refined_and_said_so(
    capture: Capture, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = without_depth(sequence, tmp_path / "rgb")
    record = json.loads((folder / "transforms.json").read_text())
    rng = np.random.default_rng(0)
    for frame in record["frames"]:
        pose = np.array(frame["transform_matrix"])
        pose[:3, :3] = Rotation.from_rotvec(np.radians(0.5) * rng.normal(size=3)).as_matrix() @ pose[:3, :3]
        frame["transform_matrix"] = pose.tolist()
    (folder / "transforms.json").write_text(json.dumps(record))
    scores = []
    for flags in ([], ["--keep-poses"]):
        out = tmp_path / f"out{len(flags)}"
        cli.main(["stream", str(folder), str(out), "--fuse.voxel-size", str(VOXEL_SIZE), *flags])
        said = "contradict the given poses" in capsys.readouterr().err
        assert said != bool(flags)
        mesh = read_mesh(out / "mesh.ply")
        score = evaluate_mesh(mesh, capture.mesh, thresholds=[3 * VOXEL_SIZE], samples=20_000)
        scores.append(score.precision[0])
    assert scores[0] > 0.95
    assert scores[0] > scores[1] + 0.05


def test_a_frame_without_depth_and_points_costs_that_frame_alone(sequence: Path, tmp_path: Path) -> None:
    frames = read_sequence(sequence)
    blank = tmp_path / "blank.png"
    write_image(blank, np.full((240, 320, 3), 128, np.uint8))
    posed = [replace(frame, view=replace(frame.view, image=blank)) for frame in frames.frames]
    mixed = replace(frames, frames=(replace(posed[0], depth_path=None), *posed[1:]))
    *updates, last = stream(Streaming(fuse=Fuse(VOXEL_SIZE)), mixed, tmp_path, lambda step, done, total: None)
    assert "no measured depth" in updates[0].reason
    assert last.volume is not None
    assert not any(update.reason for update in [*updates[1:], last])


def test_stream_ends_in_the_same_volume_as_a_batch(sequence: Path, tmp_path: Path) -> None:
    frames = read_sequence(sequence)
    pipeline = Streaming(fuse=Fuse(VOXEL_SIZE))
    *_, last = stream(pipeline, frames, tmp_path, lambda step, done, total: None)
    checked, images, seen = {}, {}, []
    for frame in frames.frames:
        depth_map = pipeline.sensor(sequence=frames, frame=frame)
        no_votes = np.zeros(depth_map.depth.shape, np.uint8)
        checked[frame.name] = Recipe(
            frame.name, Given(Agreement(depth_map, no_votes, no_votes, no_votes)), kept=False
        )
        assert frame.view.image is not None
        image = ReadImage(Photo(frame.name, frame.view.image))(view=frame.view)
        images[frame.name] = Recipe(frame.name, Given(image), kept=False)
    batch = Fuse(VOXEL_SIZE)(
        scene=Scene(tuple(frame.view for frame in frames.frames)),
        checked=ByView(checked, {}),
        image=ByView(images, {}),
        progress=lambda *told: seen.append(told),
    )
    assert seen[0] == ("volume", 0, len(checked))  # before the voxel size is chosen
    assert last.volume is not None
    for name, array in batch.arrays().items():
        assert np.array_equal(array, last.volume.arrays()[name]), name


def test_every_nth_frame_is_used(sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stream", str(sequence), str(tmp_path), "--every", "3"]
    cli.main([*words, "--fuse.voxel-size", str(VOXEL_SIZE)])
    assert "2 of 2 frames used" in capsys.readouterr().err


def test_folder_that_is_no_sequence_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["stream", str(tmp_path), str(tmp_path / "out")])
    assert stopped.value.code == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_predictions_of_no_frame_are_told_before_any_work(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions").mkdir()
    folder = without_depth(sequence, tmp_path / "sequence")
    words = ["stream", str(folder), str(tmp_path / "out"), "--predictions", str(tmp_path / "predictions")]
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "nor of any other photo" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
