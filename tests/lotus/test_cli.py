"""The command: what it writes, what it says, how it ends."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lotus.cli import main
from lotus.predictor import LotusPredictor
from recon.io.maps import read_prediction
from recon.scene import Prediction


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ending:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return int(ending.value.code or 0), said.out, said.err


@pytest.fixture
def photos(tmp_path: Path, photo: np.ndarray) -> Path:
    """A folder with a photo, a smaller one in a folder below, and a broken one."""
    (tmp_path / "photos/more").mkdir(parents=True)
    Image.fromarray(photo).save(tmp_path / "photos/first.png")
    Image.fromarray(photo[:, :80]).save(tmp_path / "photos/more/second.jpg")
    return tmp_path / "photos"


def test_predict_writes_maps_pictures_and_a_contact_sheet(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path
) -> None:
    models = ("--checkpoint", checkpoints / "disparity-d", "--normals-checkpoint", checkpoints / "normal-g")
    out = tmp_path / "out"
    code, said, _ = run(capsys, "predict", photos, out, *models, "--processing-res", 64, "--device", "cpu")
    assert code == 0
    assert f"affine_disparity values by {checkpoints / 'disparity-d'}; normals by" in said
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    pictures = [
        f"pictures/{name}_{kind}.png" for name in ("first", "more/second") for kind in ("depth", "normals")
    ]
    assert files == sorted(
        ["contact_sheet.jpg", "first.npz", "more/second.npz", "predictions.json", *pictures]
    )
    with np.load(out / "first.npz") as maps:
        assert maps["values"].shape == (48, 64)
        assert str(maps["kind"]) == "affine_disparity"
        np.testing.assert_allclose(np.linalg.norm(maps["normals"], axis=-1).max(), 1, atol=1e-5)


def test_one_photo_and_depth_alone(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path
) -> None:
    out, model = tmp_path / "out", checkpoints / "depth-d"
    code, said, _ = run(
        capsys, "predict", photos / "first.png", out, "--checkpoint", model, "--processing-res", 64
    )
    assert code == 0
    assert "no normals: no checkpoint for them" in said
    prediction = read_prediction(out / "first.npz")
    assert prediction.kind == "affine"
    assert prediction.normals is None


def test_the_task_decides_where_the_name_does_not(
    capsys: pytest.CaptureFixture[str], photos: Path, lotus_golden: Path, tmp_path: Path
) -> None:
    words = ("predict", photos / "first.png", tmp_path / "out", "--checkpoint", lotus_golden / "checkpoint_g")
    code, _, error = run(capsys, *words)
    assert code == 1
    assert "say depth or disparity (option space: lotus --task" in error
    code, _, _ = run(capsys, *words, "--task", "normal", "--processing-res", 64)
    assert code == 0
    with np.load(tmp_path / "out/first.npz") as maps:
        assert np.isnan(maps["values"]).all()
        assert np.isfinite(maps["normals"]).all()


def test_a_photo_that_cannot_be_read_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path
) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    words = (
        "predict",
        photos,
        tmp_path / "out",
        "--checkpoint",
        checkpoints / "depth-d",
        "--processing-res",
        64,
    )
    code, said, error = run(capsys, *words)
    assert code == 1
    assert "2 of 3 photos done" in said
    assert "1 of 3 photos cannot be read: broken.png" in error
    assert (tmp_path / "out/first.npz").is_file()


def test_a_second_run_does_what_is_missing_or_changed(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path, photo: np.ndarray
) -> None:
    out = tmp_path / "out"
    words = ("predict", photos, out, "--checkpoint", checkpoints / "depth-d", "--processing-res", 64)
    for name in ("lost", "turned"):
        shutil.copy(photos / "first.png", photos / f"{name}.png")
    run(capsys, *words)
    before = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    (out / "lost.npz").unlink()
    Image.fromarray(photo[::-1]).save(photos / "turned.png")
    shutil.copy(photos / "first.png", photos / "new.png")
    code, said, _ = run(capsys, *words)
    assert code == 0
    assert "2 of 5 photos are done already" in said
    assert "5 of 5 photos done" in said
    after = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    assert {name for name in after if after[name] == before.get(name)} == {"first.npz", "second.npz"}
    first, lost, turned = (
        read_prediction(out / f"{name}.npz").values for name in ("first", "lost", "turned")
    )
    np.testing.assert_array_equal(lost, first)
    assert not np.array_equal(turned, first)


def test_a_run_with_other_settings_does_all_photos_anew_and_says_so(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("predict", photos, out, "--checkpoint", checkpoints / "depth-d", "--processing-res", 64)
    run(capsys, *words)
    plain = read_prediction(out / "first.npz").values
    _, said, _ = run(capsys, *words, "--flip", "--batch-size", 1)
    assert f"{out} has maps of other settings (flip): all photos are done anew" in said
    flipped = read_prediction(out / "first.npz").values
    assert not np.array_equal(flipped, plain)
    _, said, _ = run(capsys, *words, "--flip")
    assert "2 of 2 photos are done already" in said


def test_a_checkpoint_that_cannot_be_loaded_leaves_the_record(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, broken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("predict", photos, out, "--checkpoint", checkpoints / "depth-d", "--processing-res", 64)
    run(capsys, *words)
    weights = broken / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, error = run(capsys, *words, "--checkpoint", broken, "--task", "depth")
    assert code == 1
    assert "truncated" in error
    _, said, _ = run(capsys, *words)
    assert "2 of 2 photos are done already" in said


def test_a_run_that_is_stopped_keeps_what_it_did(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    checkpoints: Path,
    tmp_path: Path,
) -> None:
    out, calls = tmp_path / "out", []
    words = ("predict", photos, out, "--checkpoint", checkpoints / "depth-d", "--processing-res", 64)
    predict_batch = LotusPredictor.__call__

    def stop_second(predictor: LotusPredictor, images: list[np.ndarray]) -> list[Prediction]:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict_batch(predictor, images)

    monkeypatch.setattr(LotusPredictor, "__call__", stop_second)
    code, _, _ = run(capsys, *words, "--batch-size", 1)
    assert code == 130
    _, said, _ = run(capsys, *words)
    assert "1 of 2 photos are done already" in said
    assert calls == [1, 1, 1]


def test_photos_of_one_name_are_refused(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path, photo: np.ndarray
) -> None:
    Image.fromarray(photo).save(photos / "first.jpg")
    code, _, error = run(capsys, "predict", photos, tmp_path / "out", "--checkpoint", checkpoints / "depth-d")
    assert code == 1
    assert "would both write first.npz" in error


def test_photos_of_any_kind_and_shape_are_done(
    capsys: pytest.CaptureFixture[str], checkpoints: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shapes = {
        "dot": (1, 1, 3),
        "wide": (17, 4000, 3),
        "tall": (900, 7, 3),
        "grey": (40, 50),
        "alpha": (40, 50, 4),
    }
    (tmp_path / "photos").mkdir()
    for name, shape in shapes.items():
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(tmp_path / f"photos/{name}.png")
    deep = rng.integers(0, 65535, (40, 50)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "photos/deep.png")
    model = ("--checkpoint", checkpoints / "depth-d", "--processing-res", 64)
    code, said, _ = run(capsys, "predict", tmp_path / "photos", tmp_path / "out", *model)
    assert code == 0
    assert "6 of 6 photos done" in said
    sizes = {path.stem: read_prediction(path).values.shape for path in (tmp_path / "out").glob("*.npz")}
    assert sizes["dot"] == (64, 64)
    assert (sizes["wide"], sizes["tall"]) == ((8, 64), (64, 8))
    assert sizes["grey"] == sizes["alpha"] == sizes["deep"] == (48, 64)
    width, height = Image.open(tmp_path / "out/contact_sheet.jpg").size
    assert max(width, height) < 3000


def test_an_ensemble_from_the_command_line(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path
) -> None:
    model = ("--checkpoint", checkpoints / "depth-wide-g", "--processing-res", 64, "--steps", 2, "--seeds", 2)
    words = ("predict", photos / "first.png", tmp_path / "out", *model, "--flip", "--scales", 1, 0.75)
    assert run(capsys, *words)[0] == 0
    confidence = read_prediction(tmp_path / "out/first.npz").confidence
    assert confidence is not None
    assert 0 < confidence.min() < confidence.max() < 1


def test_out_that_is_a_file_is_refused(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path
) -> None:
    words = ("predict", photos, photos / "first.png", "--checkpoint", checkpoints / "depth-d")
    code, _, error = run(capsys, *words)
    assert code == 1
    assert "first.png: a file; wanted a folder for the results" in error


def test_results_inside_the_folder_of_photos_are_no_photos(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path
) -> None:
    model = ("--checkpoint", checkpoints / "depth-d", "--processing-res", 64)
    for _ in range(2):
        code, said, _ = run(capsys, "predict", photos, photos / "maps", *model)
        assert code == 0
        assert "2 of 2 photos done" in said


def test_photos_below_out_are_photos(
    capsys: pytest.CaptureFixture[str], photos: Path, checkpoints: Path, tmp_path: Path
) -> None:
    model = ("--checkpoint", checkpoints / "depth-d", "--processing-res", 64)
    _, said, _ = run(capsys, "predict", photos, tmp_path, *model)
    assert "2 of 2 photos done" in said


def test_out_that_is_the_folder_of_photos_is_refused(
    capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    code, _, error = run(capsys, "predict", photos, photos / "more/..")
    assert code == 1
    assert "the folder of the photos, wanted another one for the results" in error


def test_known_errors_are_one_line_and_code_1(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    alone = ["--normals-checkpoint", "normal"]
    for flags in (["--checkpoint", "nothing/depth-here"], ["--checkpoint", "depth.ckpt"], alone):
        code, said, error = run(capsys, "predict", photos, tmp_path / "out", *flags)
        assert (code, said, error.count("\n")) == (1, "", 1)


def test_without_a_checkpoint_the_embedded_model_predicts_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    code, said, _ = run(capsys, "predict", photos / "first.png", tmp_path / "out", "--device", "cpu")
    assert code == 0
    assert "affine_disparity values by lotus-tiny; normals by lotus-tiny" in said
    assert "embedded demo-quality model; for best results: --checkpoint jingheya/lotus-" in said
    assert read_prediction(tmp_path / "out/first.npz").normals is not None


def test_a_terminated_run_ends_as_an_exception_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM)))
    monkeypatch.setattr("lotus.predict_command.predict", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert run(capsys, "predict")[0] == 143


def test_wrong_usage_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "paint")[0] == 2
    assert run(capsys)[0] == 2
    assert run(capsys, "predict", "a", "b", "--task", "colour")[0] == 2


def test_help_is_there_within_a_second() -> None:
    code = "from lotus.cli import main; main(['--help'])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "lotus predict photos/ out/" in done.stdout
    assert "v2-0-disparity \\\n      --normals" in done.stdout  # as a shell reads it
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.0
