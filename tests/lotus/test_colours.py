"""How a checkpoint sees colours: a word in its index, applied before its networks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import lotus
from lotus.checkpoints import EMBEDDED
from lotus.colours import COLOURS, colour_matrix, seen_as, showing_matrix
from lotus.predictor import LotusPredictor
from recon.errors import InputError


def seeing(colours: str, folder: Path) -> Path:
    """Returns a copy of the embedded checkpoint that sees colours otherwise."""
    shutil.copytree(EMBEDDED / "lotus-tiny", folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["lotus"]["colours"] = colours
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_word_says_what_stands_for_red_green_and_blue() -> None:
    pixel = torch.tensor([0.5, -0.25, 0.125])[None, :, None, None]
    assert seen_as(pixel, "gbr").flatten().tolist() == [-0.25, 0.125, 0.5]
    assert seen_as(pixel, "-rgb").flatten().tolist() == [-0.5, 0.25, -0.125]
    bright = 0.299 * 0.5 - 0.587 * 0.25 + 0.114 * 0.125
    assert seen_as(pixel, "-grey").flatten().tolist() == pytest.approx([-bright] * 3)


@pytest.mark.parametrize("colours", COLOURS)
def test_pictures_can_be_shown_so_that_they_are_seen_as_they_were(colours: str) -> None:
    picture = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2)
    wanted = picture[:, :1].expand(-1, 3, -1, -1) if "grey" in colours else picture
    shown = torch.einsum("dc,bchw->bdhw", showing_matrix(colours), wanted)
    torch.testing.assert_close(seen_as(shown, colours), wanted)
    assert colour_matrix(colours).abs().sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_a_checkpoint_that_sees_negatives_predicts_of_one_what_it_predicted_of_the_photo(
    tmp_path: Path,
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    negative = 255 - photo[..., [2, 0, 1]]  # blue, red, green
    plain, other = (
        LotusPredictor(str(each), processing_res=64, device="cpu", dtype="float32")
        for each in ("lotus-tiny", seeing("-gbr", tmp_path / "other"))
    )
    (expected,), (found,) = plain([photo]), other([negative])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    assert found.normals is not None
    assert expected.normals is not None
    np.testing.assert_allclose(found.normals, expected.normals, atol=1e-4)


def test_two_checkpoints_that_see_colours_otherwise_do_not_share_the_photo(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    other = str(seeing("-rgb", tmp_path / "other"))
    options = {"processing_res": 64, "device": "cpu", "dtype": "float32"}
    (both,) = LotusPredictor("lotus-tiny", other, **options)([photo])  # type: ignore[arg-type]
    (alone,) = LotusPredictor(None, other, **options)([photo])  # type: ignore[arg-type]
    assert both.normals is not None
    assert alone.normals is not None
    np.testing.assert_allclose(both.normals, alone.normals, atol=1e-5)


def test_colours_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="colours 'sepia', wanted one of rgb"):
        lotus.load(seeing("sepia", tmp_path / "other"), "cpu")
