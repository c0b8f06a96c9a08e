"""Marigold through diffusers' own pipelines, with tiny random networks; never the hub."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.adapters.marigold import Marigold, kind_of, normals_from_raw
from pipelines.predictors import Imported
from recon.errors import InputError

os.environ["HF_HUB_OFFLINE"] = "1"
TARGET = "pipelines.adapters.marigold:Marigold"
RES = 32


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both pipelines are made of, untrained."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    words = tmp_path_factory.mktemp("tokenizer")
    vocabulary = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (words / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(vocabulary)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    blocks = {"block_out_channels": (16, 32), "norm_num_groups": 8}
    unet = UNet2DConditionModel(
        **blocks,
        layers_per_block=1,
        sample_size=16,
        in_channels=8,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        cross_attention_dim=16,
    )
    vae = AutoencoderKL(
        **blocks,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    text = CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=4,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return {
        "unet": unet.eval(),
        "vae": vae.eval(),
        "scheduler": DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
        "text_encoder": CLIPTextModel(text).eval(),
        "tokenizer": CLIPTokenizer.from_pretrained(words, model_max_length=77),
    }


@pytest.fixture(scope="module")
def home(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the checkpoints depth and normals."""
    from diffusers import MarigoldDepthPipeline, MarigoldNormalsPipeline

    home = tmp_path_factory.mktemp("marigold")
    common = {"default_denoising_steps": 1, "default_processing_resolution": RES}
    MarigoldDepthPipeline(**parts, prediction_type="depth", **common).save_pretrained(home / "depth")
    MarigoldNormalsPipeline(**parts, prediction_type="normals", **common).save_pretrained(home / "normals")
    return home


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (45, 64, 3), dtype=np.uint8)


def options(home: Path, **more: object) -> dict[str, object]:
    names = {"depth": str(home / "depth"), "normals": str(home / "normals")}
    return names | {"processing_res": RES, "device": "cpu", "dtype": "float32"} | more


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [((0, 0, 1), (0, 0, -1)), ((0, 1, 0), (0, -1, 0)), ((1, 0, 0), (1, 0, 0)), ((0, 0, 0.2), (0, 0, 0))],
    ids=["wall ahead", "floor", "wall at the left", "no direction"],
)
def test_normals_become_ours(drawn: tuple[float, ...], expected: tuple[float, ...]) -> None:
    # Marigold draws x right, y up, z toward the observer (diffusers, `visualize_normals`).
    raw = np.full((2, 2, 3), drawn, np.float32)
    np.testing.assert_array_equal(normals_from_raw(raw), np.full((2, 2, 3), expected, np.float32))


def test_a_prediction_is_the_pipelines_at_its_own_size(home: Path, picture: np.ndarray) -> None:
    import torch
    from diffusers import MarigoldDepthPipeline, MarigoldNormalsPipeline

    (prediction,) = Imported(TARGET, options(home))([picture])
    given = {
        "image": picture / np.float32(255),
        "processing_resolution": RES,
        "match_input_resolution": False,
    }
    depth = MarigoldDepthPipeline.from_pretrained(home / "depth")
    values = depth(**given, generator=torch.Generator("cpu").manual_seed(0)).prediction[0, ..., 0]
    normals = MarigoldNormalsPipeline.from_pretrained(home / "normals")
    directions = normals(**given, generator=torch.Generator("cpu").manual_seed(0)).prediction[0]
    assert prediction.kind == "affine"
    assert prediction.values.shape == (22, 32)
    assert prediction.values.min() >= 0
    assert prediction.values.max() <= 1
    np.testing.assert_allclose(prediction.values, values, atol=1e-5)
    np.testing.assert_allclose(prediction.normals, directions * [1, -1, -1], atol=1e-4)


def test_bfloat16_is_near_float32(home: Path, picture: np.ndarray) -> None:
    (exact,) = Marigold(**options(home))([picture])
    (rough,) = Marigold(**options(home, dtype="bfloat16"))([picture])
    np.testing.assert_allclose(rough.values, exact.values, atol=0.05)
    assert np.median(np.einsum("hwc,hwc->hw", rough.normals, exact.normals)) > 0.98


def test_photos_of_mixed_sizes_do_not_change_each_other(home: Path, picture: np.ndarray) -> None:
    predictor = Marigold(**options(home, normals=None))
    together = predictor([picture, picture[:, :30].copy()])
    (alone,) = predictor([picture[:, :30].copy()])
    np.testing.assert_array_equal(together[1].values, alone.values)
    assert together[1].normals is None


def test_an_ensemble_tells_where_it_is_unsure(home: Path, picture: np.ndarray) -> None:
    (prediction,) = Marigold(**options(home, normals=None, ensemble=3))([picture])
    assert prediction.confidence.shape == prediction.values.shape
    assert 0 <= prediction.confidence.min() < prediction.confidence.max() <= 1


def test_normals_alone_leave_the_values_out(home: Path, picture: np.ndarray) -> None:
    (prediction,) = Marigold(**options(home, depth=None))([picture])
    assert np.isnan(prediction.values).all()
    np.testing.assert_allclose(np.linalg.norm(prediction.normals, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "scale", "shift", "expected"),
    [
        ("depth", True, True, "affine"),
        ("depth", True, False, "scale"),
        ("depth", False, False, "metric"),
        ("disparity", True, True, "affine_disparity"),
    ],
)
def test_the_checkpoint_says_what_its_values_are(
    parts: dict[str, Any], kind: str, scale: bool, shift: bool, expected: str
) -> None:
    from diffusers import MarigoldDepthPipeline

    flags = {"scale_invariant": scale, "shift_invariant": shift}
    assert kind_of(MarigoldDepthPipeline(**parts, prediction_type=kind, **flags)) == expected


def test_what_cannot_be_loaded_is_one_line(home: Path, picture: np.ndarray, tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none", "nobody/nothing"):
        with pytest.raises(InputError, match="not loadable as diffusers' MarigoldDepthPipeline") as error:
            Marigold(**options(home, depth=str(source)))([picture])
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="normals: a checkpoint of normals, wanted depth or disparity"):
        Marigold(**options(home, depth=str(home / "normals")))([picture])
    with pytest.raises(InputError, match="no checkpoint"):
        Marigold(None, None)
