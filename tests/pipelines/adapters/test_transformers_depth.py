"""Depth models of transformers' own classes, tiny and untrained; never the hub."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.adapters.transformers_depth import TransformersDepth, kind_of
from pipelines.predictors import Imported
from recon.errors import InputError

os.environ["HF_HUB_OFFLINE"] = "1"
TARGET = "pipelines.adapters.transformers_depth:TransformersDepth"
LOCAL = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the checkpoints relative and metric of Depth Anything."""
    import torch
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("depth_anything")
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    sizes = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
    processor = DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    )
    for kind, scale in (("relative", 1), ("metric", 20)):
        config = DepthAnythingConfig(
            backbone_config=backbone, **sizes, head_hidden_size=8, depth_estimation_type=kind, max_depth=scale
        )
        model = DepthAnythingForDepthEstimation(config)
        for weights in model.parameters():  # as initialised, the head is the same everywhere
            torch.nn.init.normal_(weights, std=0.2)
        torch.nn.init.constant_(model.head.conv3.bias, 0.5)
        model.save_pretrained(home / kind)
        processor.save_pretrained(home / kind)
    return home


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    v, u = np.mgrid[:90, :120]
    return np.stack([v * 2, u * 2, (u * v) % 256], axis=-1).astype(np.uint8)


def reference(folder: Path, picture: np.ndarray) -> np.ndarray:
    """What the model gives for the pixels of its processor, at its own size."""
    import torch
    from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

    pixels = AutoImageProcessor.from_pretrained(folder)(images=picture, return_tensors="pt")
    with torch.inference_mode():
        return DepthAnythingForDepthEstimation.from_pretrained(folder)(**pixels).predicted_depth[0].numpy()


def test_disparity_is_the_models_in_the_photos_ratio(home: Path, picture: np.ndarray) -> None:
    (prediction,) = Imported(TARGET, {"model": str(home / "relative"), **LOCAL})([picture])
    raw = reference(home / "relative", picture)
    assert prediction.kind == "affine_disparity"
    assert prediction.normals is None
    assert prediction.values.shape == (round(90 * raw.shape[1] / 120), raw.shape[1])
    rows = (np.arange(prediction.values.shape[0]) + 0.5) * raw.shape[0] / prediction.values.shape[0]
    nearest = raw[np.clip(rows.astype(int), 0, raw.shape[0] - 1)]
    assert np.ptp(raw) > 0
    assert np.abs(prediction.values - nearest).max() < 0.5 * np.ptp(raw)
    assert prediction.values.mean() == pytest.approx(raw.mean(), rel=0.02)


def test_a_photo_whose_ratio_the_network_keeps_is_not_resampled(home: Path, picture: np.ndarray) -> None:
    square = np.ascontiguousarray(picture[:, :90])
    (prediction,) = TransformersDepth(str(home / "relative"), **LOCAL)([square])
    np.testing.assert_allclose(prediction.values, reference(home / "relative", square), atol=1e-5)


def test_metric_versions_are_metric(home: Path, picture: np.ndarray) -> None:
    (prediction,) = TransformersDepth(str(home / "metric"), **LOCAL)([picture])
    assert prediction.kind == "metric"
    known = prediction.values[np.isfinite(prediction.values)]
    assert known.size
    assert 0 < known.min() <= known.max() <= 20


def test_photos_of_mixed_sizes_do_not_change_each_other(home: Path, picture: np.ndarray) -> None:
    predictor = TransformersDepth(str(home / "relative"), **LOCAL)
    other = np.ascontiguousarray(picture[:70])
    together, (alone,) = predictor([picture, other]), predictor([other])
    np.testing.assert_array_equal(together[1].values, alone.values)


def test_bfloat16_is_near_float32(home: Path, picture: np.ndarray) -> None:
    (exact,) = TransformersDepth(str(home / "metric"), **LOCAL)([picture])
    (rough,) = TransformersDepth(str(home / "metric"), device="cpu", dtype="bfloat16")([picture])
    assert np.abs(rough.values / exact.values - 1).max() < 0.1


def test_the_model_type_says_what_its_values_are() -> None:
    from transformers import DPTConfig, GLPNConfig, PretrainedConfig

    assert kind_of(DPTConfig()) == "affine_disparity"
    assert kind_of(GLPNConfig()) == "metric"
    assert kind_of(PretrainedConfig()) is None


def test_a_kind_that_is_said_is_taken(home: Path, picture: np.ndarray) -> None:
    (prediction,) = TransformersDepth(str(home / "relative"), kind="affine", **LOCAL)([picture])
    assert prediction.kind == "affine"
    with pytest.raises(InputError, match="kind 'inverse', wanted auto, metric"):
        TransformersDepth(kind="inverse")


def test_what_cannot_be_loaded_is_one_line(picture: np.ndarray, tmp_path: Path) -> None:
    sources: list[Any] = [tmp_path, tmp_path / "none", "nobody/nothing"]
    for source in sources:
        with pytest.raises(InputError, match="not loadable as a depth model of transformers") as error:
            TransformersDepth(str(source), **LOCAL)([picture])
        assert "\n" not in str(error.value)
