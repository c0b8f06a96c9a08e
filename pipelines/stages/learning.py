"""A network learns the scene from what its photos told, and predicts them anew."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from lotus.data import Told, TrainingSample
from lotus.predictor import LotusPredictor
from lotus.sizes import map_size
from pipelines.graph import ByView
from pipelines.runner import Progress
from pipelines.stages.gaps import held_out_blocks
from pipelines.stages.maps import check_count
from pipelines.stages.photometry import CHECKING_VIEWS
from recon import photometric
from recon.io import images
from recon.photometric import Measurement
from recon.scene import Prediction, Scene, View


@dataclass(frozen=True, eq=False)
class SceneNetwork:
    """A network that has learnt a scene, or stayed as it was."""

    files: Mapping[str, UInt8[np.ndarray, "_n"]]
    """Of its checkpoint, by their names in its folder; none if training did not make it clearly better."""

    before: float | None = None
    """Mean relative error of depth at told pixels that were held out, before training; None if it was not
    tried."""

    after: float | None = None

    is_needed: bool = True
    """False where the photos told nearly everything themselves."""

    @property
    def has_learnt(self) -> bool:
        """Whether it is another network now."""
        return bool(self.files)


@dataclass(frozen=True)
class Tell:
    """Reduces what a photo told, where other views agree, to the size at which a network sees it."""

    predictor: LotusPredictor

    makes: ClassVar[str] = "told"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def __call__(
        self,
        *,
        view: View,
        scene: Scene,
        image: UInt8[np.ndarray, "h w 3"],
        measured: ByView[Measurement],
    ) -> Told:
        """Returns the photo with depth, scene units, and normals; 0 where it told nothing."""
        own, near = measured[view.name], []
        if scene.cloud is not None:
            near = photometric.choose_neighbours(scene, view, count=CHECKING_VIEWS)
        others = [(measured[one.name].depth_map, one.cam_from_world) for one in near if one.name in measured]
        checked = photometric.cross_check(own, view.cam_from_world, others).depth_map
        height, width = image.shape[:2]
        size = map_size(width, height, self.predictor.longer_side(), self.predictor.least_side())
        rows, columns = (
            ((np.arange(count) + 0.5) * full / count).astype(int)
            for count, full in zip(size[::-1], checked.depth.shape, strict=True)
        )
        sample = TrainingSample(
            view.name,
            images.resize_image(image, *size),
            np.ascontiguousarray(checked.depth[rows][:, columns]),
            np.ascontiguousarray(checked.normals[rows][:, columns]),
            np.zeros(size[::-1], bool),
        )
        return Told(sample, held_out_blocks(checked.camera)[rows][:, columns])


@dataclass(frozen=True)
class LearnScene:
    """Trains a network for some minutes on what the photos of a scene told (`lotus.training.scene`).

    Not where they told nearly everything: there is little left to predict.
    """

    predictor: LotusPredictor

    steps: int = 120
    """Steps of training, each on four photos."""

    least_told: ClassVar[float] = 0.02  # share of a photo; less tells no scale and shift
    enough_told: ClassVar[float] = 0.8  # share of all photos
    most_photos: ClassVar[int] = 400  # evenly chosen; all are in memory at once
    helped: ClassVar[float] = 0.6  # share of the error before: noise can be learnt, too, but not so well

    makes: ClassVar[str] = "learnt"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 5

    def __post_init__(self) -> None:
        check_count("learn_steps", self.steps, 1)

    def content(self, view: str | None) -> str:
        """Returns the digest of the network's weights."""
        return self.predictor.content()

    def __call__(self, *, told: ByView[Told], progress: Progress) -> SceneNetwork:
        """Returns what it becomes; as it was where the photos tell too little, or noise."""
        from lotus.training.scene import SceneTraining, learn_scene

        assert self.predictor.depth is not None
        photos = list(told.values())
        if photos and np.mean([(each.sample.depth > 0).mean() for each in photos]) >= self.enough_told:
            return SceneNetwork({}, is_needed=False)
        known = [
            each for each in photos if ((each.sample.depth > 0) & ~each.held_out).mean() > self.least_told
        ]
        known = known[:: -(-len(known) // self.most_photos) or 1]
        learnt = None
        with TemporaryDirectory() as folder:
            if known:
                learnt = learn_scene(
                    self.predictor.depth,
                    known,
                    Path(folder),
                    SceneTraining(steps=self.steps, device=self.predictor.device),
                    progress=lambda done, total: progress(self.makes, done, total),
                )
            if learnt is None:
                return SceneNetwork({})
            has_helped = learnt.after < self.helped * learnt.before
            return SceneNetwork(_files(Path(folder)) if has_helped else {}, learnt.before, learnt.after)


def _files(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): np.frombuffer(file.read_bytes(), np.uint8) for file in files}


@dataclass(frozen=True)
class PredictLearnt:
    """Asks the network that learnt the scene for depth and normals of each undistorted photo.

    If it stayed as it was, so do its predictions.
    """

    predictor: LotusPredictor
    """With the options of the one that learnt."""

    makes: ClassVar[str] = "prediction"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 2
    whole_machine: ClassVar[bool] = True
    batch_size: ClassVar[int] = 32  # for which the network is read once

    def passes_on(self, *, learnt: SceneNetwork) -> str | None:
        """Returns what the result is where there is nothing to do."""
        return None if learnt.has_learnt else "early_prediction"

    def __call__(
        self, *, image: UInt8[np.ndarray, "h w 3"], learnt: SceneNetwork, early_prediction: Prediction
    ) -> Prediction:
        """Returns the prediction of one photo."""
        return self.many([{"image": image, "learnt": learnt, "early_prediction": early_prediction}])[0]

    def many(self, inputs: list[dict[str, Any]]) -> list[Prediction]:
        """Returns the predictions of a few photos."""
        if not inputs[0]["learnt"].has_learnt:
            return [each["early_prediction"] for each in inputs]
        with TemporaryDirectory() as folder:
            for name, content in inputs[0]["learnt"].files.items():
                file = Path(folder) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.tobytes())
            predictor = replace(self.predictor, depth=folder)
            return predictor([each["image"] for each in inputs])
