"""Marigold (Ke et al. 2024, arXiv 2312.02145 and 2505.09358) through diffusers, as a predictor.

recon multi PHOTOS OUT --predictor pipelines.adapters.marigold:Marigold
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from lotus.devices import resolve_device, resolve_dtype
from recon.errors import InputError
from recon.scene import Prediction

if TYPE_CHECKING:
    import torch

OURS_FROM_MARIGOLD = np.array([1, -1, -1], np.float32)  # x right, y up, z toward the observer (diffusers)
MIN_LENGTH = 0.5  # Marigold's normals are unit; shorter ones are a mean of opposite directions
HALF_TRUST_SPREAD = 0.02  # of the range; runs that differ by this halve the confidence
MAX_REASON = 160  # characters of another library's error
MIN_ENSEMBLE = 3  # diffusers tells an ensemble's spread from here on


@dataclass(frozen=True)
class Marigold:
    """Depth and normals of photos by Marigold's pipelines; maps keep the size that the network works at."""

    depth: str | None = "prs-eth/marigold-depth-v1-1"
    """Checkpoint of depth: a folder in diffusers' layout or a hub id. None leaves the values NaN."""

    normals: str | None = "prs-eth/marigold-normals-v1-1"
    """Checkpoint of normals, likewise. None leaves the normals out."""

    processing_res: int = 768
    """Longer side of the maps, px; Marigold was trained at 768."""

    steps: int | None = None
    """Denoising steps; None is what the checkpoint recommends."""

    ensemble: int = 1
    """Runs with different noise that are merged; from 3 on their spread of depth gives the confidence."""

    seed: int = 0
    """Of the noise; a photo's prediction does not depend on the others."""

    device: str = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""

    dtype: str = "auto"
    """auto: float16 on CUDA, bfloat16 on CPUs that multiply it, else float32."""

    def __post_init__(self) -> None:
        if self.depth is None and self.normals is None:
            raise InputError("Marigold: no checkpoint; wanted one of depth or normals at least")
        if self.processing_res < 8 or self.ensemble < 1:
            raise InputError(
                f"Marigold: processing_res {self.processing_res} and ensemble {self.ensemble}, "
                "wanted at least 8 and 1"
            )

    def __call__(self, images: list[UInt8[np.ndarray, "_h _w 3"]]) -> list[Prediction]:
        """Returns one prediction per uint8 RGB photo, in order.

        Its kind follows the checkpoint: affine (depth up to scale and shift), scale, metric, or
        affine_disparity.

        Raises:
            InputError: A checkpoint cannot be loaded.
        """
        place = resolve_device(self.device)
        number = resolve_dtype(self.dtype, place)
        depth = self.depth and _load("MarigoldDepthPipeline", self.depth, place, number)
        normals = self.normals and _load("MarigoldNormalsPipeline", self.normals, place, number)
        return [self._predict(image, depth, normals) for image in images]

    def _predict(self, image: UInt8[np.ndarray, "_h _w 3"], depth: Any, normals: Any) -> Prediction:
        directions = normals_from_raw(self._run(normals, image).prediction[0]) if normals else None
        if not depth:
            assert directions is not None, "one of both is there"
            return Prediction(np.full(directions.shape[:2], np.nan, np.float32), "affine", directions)
        found, kind, confidence = self._run(depth, image), kind_of(depth), None
        values = found.prediction[0, ..., 0].astype(np.float32)
        if kind in ("scale", "metric"):
            values = np.where(values > 0, values, np.float32(np.nan))
        if found.uncertainty is not None:
            spread = found.uncertainty[0, ..., 0] / HALF_TRUST_SPREAD
            confidence = (1 / (1 + spread**2)).astype(np.float32)
        return Prediction(values, kind, directions, confidence)

    def _run(self, pipeline: Any, image: UInt8[np.ndarray, "_h _w 3"]) -> Any:
        import torch

        return pipeline(
            _shrunk(image, self.processing_res),
            num_inference_steps=self.steps,
            ensemble_size=self.ensemble,
            processing_resolution=0,
            match_input_resolution=False,
            output_uncertainty=self.ensemble >= MIN_ENSEMBLE,
            generator=torch.Generator("cpu").manual_seed(self.seed),
        )


def _shrunk(image: UInt8[np.ndarray, "_h _w 3"], longest: int) -> "Float32[torch.Tensor, '1 3 h w']":
    """Returns a photo in [0, 1] at the working size, as the pipeline resizes it, but always in float32.

    CPUs cannot resize bfloat16 with antialiasing, so the pipeline itself would stop there.
    """
    import torch

    pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
    size = [max(1, side * longest // max(pixels.shape[2:])) for side in pixels.shape[2:]]
    return torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)


def kind_of(pipeline: Any) -> str:
    """Returns the prediction's kind of a depth pipeline, from what its checkpoint says of itself."""
    if pipeline.config.prediction_type == "disparity":
        return "affine_disparity"
    if pipeline.shift_invariant:
        return "affine"
    return "scale" if pipeline.scale_invariant else "metric"


def normals_from_raw(raw: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Returns unit normals in the OpenCV camera frame; (0, 0, 0) where the network gives no direction."""
    length = np.linalg.norm(raw, axis=-1, keepdims=True)
    unit = raw / np.maximum(length, MIN_LENGTH) * OURS_FROM_MARIGOLD
    return np.where(length >= MIN_LENGTH, unit, 0).astype(np.float32)


@lru_cache(maxsize=2)  # depth and normals
def _load(kind: str, source: str, device: "torch.device", dtype: "torch.dtype") -> Any:
    import diffusers

    try:
        with _quiet():
            pipeline = getattr(diffusers, kind).from_pretrained(source, use_safetensors=True)
            pipeline = pipeline.to(device, dtype)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = shorten(str(error), MAX_REASON, placeholder=" ...")
        place = "folder" if Path(source).is_dir() else "no folder here, and as a hub id"
        raise InputError(f"{source}: {place} not loadable as diffusers' {kind} ({reason})") from error
    drawn, wanted = pipeline.config.prediction_type, pipeline.supported_prediction_types
    if drawn is not None and drawn not in wanted:
        raise InputError(f"{source}: a checkpoint of {drawn}, wanted {' or '.join(wanted)}")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps diffusers from warning about what is checked or meant here."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
