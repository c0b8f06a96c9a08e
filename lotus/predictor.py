"""The default predictor of the pipelines: options only; the networks are loaded when it is first called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lotus.checkpoints import (
    DEFAULT_RES,
    UNET,
    check_task,
    find_checkpoint,
    fingerprint,
    is_generative,
    load,
    processing_res_of,
    tasks_of,
)
from lotus.devices import DTYPES
from recon.errors import InputError
from recon.scene import Prediction

if TYPE_CHECKING:
    from lotus.model import LotusModel

    Models = tuple[tuple[LotusModel, str] | None, LotusModel | None]

MIN_PROCESSING_RES = 32  # px; less are a few latent cells that no network tells anything from
MAX_PROCESSING_RES = 8192  # px; there the networks' maps of one photo alone take hundreds of gigabytes
LEAST_SIDE = 128  # px, of the shorter side; what `lotus-tiny` needs of a wide photo
SMALL_BYTES = 200_000_000  # of a denoiser's weights
KINDS = {"depth": "affine", "disparity": "affine_disparity"}


@dataclass(frozen=True)
class LotusPredictor:
    """Depth or disparity, and normals, of photos by one or two Lotus checkpoints.

    A joint checkpoint, such as the embedded `lotus-tiny`, gives both.

    Example:
        predictor = LotusPredictor("lotus-tiny")
        predictor = LotusPredictor("jingheya/lotus-depth-d-v2-0-disparity", "jingheya/lotus-normal-d-v1-1")
        first, second = predictor([photo, another])
    """

    depth: str | None
    """Checkpoint of depth or disparity: hub id, folder or lotus-tiny. None leaves the values NaN."""

    normals: str | None = None
    """Checkpoint of normals. None takes those of a joint depth checkpoint, else leaves them out."""

    space: str = "auto"
    """What the depth checkpoint draws: depth or disparity. auto reads it from the checkpoint's name."""

    processing_res: int | None = None
    """Longer side of the maps, px, rounded to a multiple of 8; 0: the photo's. Default: what the checkpoint
    was trained at, longer where that leaves a strip; 768 for the published ones."""

    device: str = "auto"
    """auto: CUDA where there is a GPU, else the CPU; or cpu, cuda, cuda:1, mps."""

    dtype: str = "auto"
    """auto: float16 on CUDA, bfloat16 on CPUs that multiply it, else float32; or one of these."""

    seed: int = 0
    """Of the noise of generative checkpoints (lotus-...-g-...); all photos of a size see the same."""

    seeds: int = 1
    """Runs with different noise whose mean is taken; their spread lowers the confidence. Generative only."""

    steps: int = 1
    """Denoising steps of generative checkpoints. The published ones were trained for one."""

    flip: bool = False
    """Also predicts the mirrored photo: twice the time, less bias, and a confidence from the spread."""

    scales: tuple[float, ...] = (1.0,)
    """Sizes to predict at, in units of processing_res, such as 1 0.75; maps have the first one's scale."""

    detail: int = 1
    """Maps this many times longer, at most the photo's size: overlapping tiles, fitted to the whole."""

    batch_size: int = 4
    """Most photos given to the networks at once."""

    compile: bool = False
    """Compiles the networks (torch.compile) when a size is first seen; worth it from some dozen photos on."""

    def __post_init__(self) -> None:
        if self.depth is None and self.normals is None:
            raise InputError("LotusPredictor: no checkpoint; wanted one of depth or normals at least")
        if self.space not in ("auto", *KINDS):
            raise InputError(f"LotusPredictor: space {self.space!r}, wanted auto, depth or disparity")
        for name, least in (
            ("processing_res", 0),
            ("seeds", 1),
            ("steps", 1),
            ("detail", 1),
            ("batch_size", 1),
        ):
            if (getattr(self, name) or 0) < least:
                raise InputError(f"LotusPredictor: {name} {getattr(self, name)}, wanted at least {least}")
        if self.processing_res and not MIN_PROCESSING_RES <= self.processing_res <= MAX_PROCESSING_RES:
            raise InputError(
                f"LotusPredictor: processing_res {self.processing_res}, wanted {MIN_PROCESSING_RES} to "
                f"{MAX_PROCESSING_RES}, or 0 for the photo's own size"
            )
        if self.dtype.removeprefix("torch.") not in ("auto", *DTYPES):
            raise InputError(f"LotusPredictor: dtype {self.dtype!r}, wanted auto, {', '.join(DTYPES)}")
        if not self.scales or not all(0.25 <= scale <= 4 for scale in self.scales):
            raise InputError(f"LotusPredictor: scales {self.scales}, wanted some between 0.25 and 4")
        if self.normals:
            check_task(self.normals, "normal")
            drawn = tasks_of(self.normals)
            if drawn and "normal" not in drawn:
                raise InputError(f"{self.normals}: by its name a {drawn[0]} checkpoint, wanted normals")

    def __call__(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Returns one prediction per uint8 RGB photo (h, w, 3), in order, at the working size.

        Its kind is affine for a depth checkpoint, affine_disparity for a disparity one. The photos' sizes may
        differ; a photo's prediction does not depend on the others.

        Raises:
            InputError: A checkpoint cannot be loaded, its space is unknown, or a photo is not uint8 RGB.
        """
        from lotus.sizes import map_size

        models = self.models()
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise InputError(
                    f"photo {index}: {image.dtype} {image.shape}, wanted uint8 (height, width, 3)"
                )
            size = map_size(image.shape[1], image.shape[0], self.longer_side(), self.least_side())
            groups.setdefault(size, []).append(index)
        predictions: dict[int, Prediction] = {}
        for size, members in groups.items():
            found = self._predict([images[index] for index in members], size, models)
            predictions.update(zip(members, found, strict=True))
        return [self._detailed(image, predictions[index], models) for index, image in enumerate(images)]

    def _predict(
        self, images: Sequence[np.ndarray], size: tuple[int, int], models: "Models"
    ) -> list[Prediction]:
        """Returns the predictions of pictures at one size, batch by batch."""
        from lotus.inference import ensemble, predict

        depth, normals = models
        passes = ensemble(self.seed, self.seeds, self.flip, self.scales)
        starts = range(0, len(images), self.batch_size)
        batches = [images[start : start + self.batch_size] for start in starts]
        found = [predict(batch, size, passes, depth=depth, normals=normals) for batch in batches]
        return [prediction for batch in found for prediction in batch]

    def _detailed(self, image: np.ndarray, whole: Prediction, models: "Models") -> Prediction:
        """Returns the prediction with the detail of tiles that are as large as the whole's map."""
        from lotus.sizes import map_size
        from lotus.tiling import merge, tile_corners
        from recon.io.images import resize_image

        (height, width), (tile_height, tile_width) = image.shape[:2], whole.values.shape
        size = map_size(width, height, min(max(tile_width, tile_height) * self.detail, max(width, height)))
        if size[0] <= tile_width or size[1] <= tile_height:
            return whole
        large, corners = resize_image(image, *size), tile_corners(size, (tile_width, tile_height))
        crops = [large[top : top + tile_height, left : left + tile_width] for left, top in corners]
        return merge(whole, self._predict(crops, (tile_width, tile_height), models), corners, size)

    def check(self) -> None:
        """Raises what a call would raise of the checkpoints, before torch or a network is loaded.

        Raises:
            InputError: A checkpoint is not there, its space is unknown, or seeds or steps find no noise.
        """
        takes_noise = [is_generative(source) for source in (self.depth, self.normals) if source]
        for name in ("seeds", "steps"):
            if getattr(self, name) > 1 and not any(takes_noise):
                raise InputError(
                    f"{getattr(self, name)} {name} want a generative checkpoint (lotus-...-g-...)"
                )
        if self.depth:
            self.kind()

    def models(self) -> "Models":
        """Returns the loaded depth model with its prediction's kind, and the normals model.

        Raises:
            InputError: As for a call.
        """
        self.check()
        depth = (self._load(self.depth), self.kind()) if self.depth else None
        normals = self.normals_source()
        return depth, self._load(normals) if normals else None

    def normals_source(self) -> str | None:
        """Returns the checkpoint that draws the normals, which may be a joint one of depth."""
        return self.normals or (self.depth if self.is_joint() else None)

    def is_joint(self) -> bool:
        """Returns whether the checkpoint of depth draws normals, too."""
        return self.depth is not None and tasks_of(self.depth)[1:] == ("normal",)

    def learns_scenes(self) -> bool:
        """Returns whether one small network draws disparity and normals: a processor trains it in minutes."""
        if self.depth is None or tasks_of(self.depth) != ("disparity", "normal"):
            return False
        return (find_checkpoint(self.depth) / UNET).stat().st_size < SMALL_BYTES

    def longer_side(self) -> int:
        """Returns the longer side of the maps, px; 0 for the photo's."""
        if self.processing_res is not None:
            return self.processing_res
        return processing_res_of(self.depth or self.normals or "") or DEFAULT_RES

    def least_side(self) -> int:
        """Returns the least shorter side of the maps, px; 0 where the size is chosen or the published one.

        Half of the size that a checkpoint says it works best at, but no more than LEAST_SIDE.
        """
        said = processing_res_of(self.depth or self.normals or "")
        return min(said // 2, LEAST_SIDE) if said and self.processing_res is None else 0

    def _load(self, source: str) -> "LotusModel":
        steps = self.steps if is_generative(source) else 1
        return load(source, self.device, self.dtype, steps=steps, compile=self.compile)

    def kind(self) -> str:
        """Returns the kind of the predictions' values.

        Raises:
            InputError: Neither the option nor the checkpoint says whether it draws depth or disparity, or the
                checkpoint says another than the option.
        """
        drawn = tasks_of(self.depth) if self.depth else ("depth",)
        space = (drawn[0] if drawn else None) if self.space == "auto" else self.space
        if space not in KINDS:
            found = "a normals checkpoint by its name" if space else "its name does not say what it draws"
            raise InputError(
                f"{self.depth}: {found}; say depth or disparity (option space: lotus --task, recon --space)"
            )
        if self.depth:
            check_task(self.depth, space)
        return KINDS[space]

    def content(self) -> str:
        """Returns a digest of the checkpoints' files; it changes when a checkpoint is trained on."""
        sources = (self.depth, self.normals)
        return " ".join(fingerprint(source) if source else "none" for source in sources)
