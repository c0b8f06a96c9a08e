"""Depth estimation models of transformers (Depth Anything, DPT, ZoeDepth, GLPN, Depth Pro) as a predictor.

recon multi PHOTOS OUT --predictor pipelines.adapters.transformers_depth:TransformersDepth
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from lotus.devices import resolve_device, resolve_dtype
from recon.errors import InputError
from recon.scene import PREDICTION_KINDS, Prediction

if TYPE_CHECKING:
    import torch

MAX_REASON = 160  # characters of another library's error
KINDS = {"dpt": "affine_disparity", "zoedepth": "metric", "glpn": "metric", "depth_pro": "metric"}


@dataclass(frozen=True)
class TransformersDepth:
    """Depth or disparity of photos by a model of transformers; it has no normals.

    Maps are as long as the network's, in the photo's ratio of sides.
    """

    model: str = "depth-anything/Depth-Anything-V2-Small-hf"
    """A folder in transformers' layout or a hub id."""

    kind: str = "auto"
    """What the model's numbers are, as in Prediction; auto knows Depth Anything (affine_disparity, its metric
    versions metric), DPT (affine_disparity), ZoeDepth, GLPN and Depth Pro (metric)."""

    device: str = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""

    dtype: str = "auto"
    """auto: float16 on CUDA, bfloat16 on CPUs that multiply it, else float32."""

    def __post_init__(self) -> None:
        if self.kind not in ("auto", *PREDICTION_KINDS):
            raise InputError(
                f"TransformersDepth: kind {self.kind!r}, wanted auto, {', '.join(PREDICTION_KINDS)}"
            )

    def __call__(self, images: list[UInt8[np.ndarray, "_h _w 3"]]) -> list[Prediction]:
        """Returns one prediction per uint8 RGB photo, in order.

        Raises:
            InputError: The model cannot be loaded, or what its numbers are is unknown.
        """
        place = resolve_device(self.device)
        processor, model = _load(self.model, place, resolve_dtype(self.dtype, place))
        kind = kind_of(model.config) if self.kind == "auto" else self.kind
        if kind is None:
            raise InputError(f"{self.model}: a {model.config.model_type} model; say its kind of values")
        return [_predict(image, processor, model, kind) for image in images]


def kind_of(config: Any) -> str | None:
    """Returns the prediction's kind of a model; None where the type does not tell."""
    if config.model_type == "depth_anything":
        return {"relative": "affine_disparity", "metric": "metric"}[config.depth_estimation_type]
    return KINDS.get(config.model_type)


def _predict(image: UInt8[np.ndarray, "h w 3"], processor: Any, model: Any, kind: str) -> Prediction:
    """Returns one prediction; photos are given singly, for their sizes differ."""
    import torch

    inputs = processor(images=image, return_tensors="pt", input_data_format="channels_last")
    with torch.inference_mode():
        outputs = model(pixel_values=inputs["pixel_values"].to(model.device, model.dtype))
    outputs.predicted_depth = outputs.predicted_depth.float()
    height, width = image.shape[:2]
    factor = max(outputs.predicted_depth.shape[-2:]) / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    options = {"source_sizes": [(height, width)]} if model.config.model_type == "zoedepth" else {}
    (found,) = processor.post_process_depth_estimation(outputs, target_sizes=[size], **options)
    values = found["predicted_depth"].cpu().numpy().astype(np.float32)
    if kind in ("metric", "scale"):
        values = np.where(values > 0, values, np.float32(np.nan))
    return Prediction(values, kind)


@lru_cache(maxsize=1)
def _load(source: str, device: "torch.device", dtype: "torch.dtype") -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    try:
        processor = AutoImageProcessor.from_pretrained(source)
        model = AutoModelForDepthEstimation.from_pretrained(source, use_safetensors=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        reason = shorten(str(error), MAX_REASON, placeholder=" ...")
        place = "folder" if Path(source).is_dir() else "no folder here, and as a hub id"
        raise InputError(
            f"{source}: {place} not loadable as a depth model of transformers ({reason})"
        ) from error
    return processor, model.to(device, dtype).eval()
