"""COLMAP models as bytes: round trips, text and binary, broken files."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from recon.errors import InputError
from recon.io.colmap import ColmapModel, read_model, write_model
from recon.io.colmap.model import model_from_reconstruction, observations

PARTS = ["cameras", "images", "points3D", "rigs", "frames"]


@pytest.fixture
def model() -> ColmapModel:
    pycolmap.set_random_seed(1)
    options = pycolmap.SyntheticDatasetOptions(num_frames_per_rig=3, num_points3D=30)
    return model_from_reconstruction(pycolmap.synthesize_dataset(options), {})


def same(first: ColmapModel, second: ColmapModel) -> bool:
    return {k: v.tobytes() for k, v in first.files.items()} == {
        k: v.tobytes() for k, v in second.files.items()
    }


def test_binary_round_trip_keeps_every_byte(model, tmp_path):
    write_model(model, tmp_path / "new" / "sparse")
    assert same(read_model(tmp_path / "new" / "sparse"), model)


def test_text_round_trip_keeps_the_model(model, tmp_path):
    write_model(model, tmp_path, text=True)
    again = read_model(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert again.summary == pytest.approx(model.summary, abs=1e-6)
    first, second = observations(model), observations(again)
    for name in first:
        np.testing.assert_allclose(second[name]["xy"], first[name]["xy"], atol=1e-6)


def test_summary_counts_what_was_synthesized(model):
    assert model.summary["images"] == 6
    assert model.summary["points"] == 30
    assert model.summary["mean_track_length"] == 6
    assert model.summary["mean_reprojection_error_px"] < 1e-6


def test_models_from_before_rigs_are_read(model, tmp_path):
    write_model(model, tmp_path)
    (tmp_path / "rigs.bin").unlink()
    (tmp_path / "frames.bin").unlink()
    assert read_model(tmp_path).summary == pytest.approx(model.summary)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("cut", [0, 4, 30, -3])
def test_a_binary_file_cut_off_is_an_error_that_names_it(model, tmp_path, part, cut):
    write_model(model, tmp_path)
    path = tmp_path / f"{part}.bin"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=rf"{part}\.bin"):
        read_model(tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_junk_is_an_error_that_names_it(model, tmp_path, part):
    write_model(model, tmp_path)
    (tmp_path / f"{part}.bin").write_bytes(bytes(range(1, 256)) * 3)
    with pytest.raises(InputError, match=rf"{part}\.bin"):
        read_model(tmp_path)


@pytest.mark.parametrize("part", PARTS[:3])
def test_a_text_file_of_words_is_an_error_that_names_it(model, tmp_path, part):
    write_model(model, tmp_path, text=True)
    (tmp_path / f"{part}.txt").write_text("not a model\n")
    with pytest.raises(InputError, match=rf"{part}\.txt"):
        read_model(tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_file_is_an_error_that_names_it(model, tmp_path, part):
    write_model(model, tmp_path)
    (tmp_path / f"{part}.bin").unlink()
    with pytest.raises(InputError, match=part):
        read_model(tmp_path)


def test_points_of_another_model_are_an_error(model, tmp_path):
    write_model(model, tmp_path)
    (tmp_path / "points3D.bin").write_bytes(bytes(8))
    with pytest.raises(InputError, match=r"another model|not form one"):
        read_model(tmp_path)


def test_a_folder_of_models_says_where_they_are(model, tmp_path):
    for name in ("0", "1"):
        write_model(model, tmp_path / name)
    with pytest.raises(InputError, match=r"no COLMAP model, .* \(there is one in 0, 1\)"):
        read_model(tmp_path)


@pytest.mark.parametrize("folder", ["absent", "."])
def test_a_folder_without_a_model_is_an_error(tmp_path, folder):
    with pytest.raises(InputError, match="COLMAP model"):
        read_model(Path(tmp_path / folder))
