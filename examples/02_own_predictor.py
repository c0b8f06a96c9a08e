"""Your own depth network in the pipeline: any class that turns photos into predictions.

python examples/02_own_predictor.py PHOTOS OUT
recon multi PHOTOS OUT --predictor my_package.my_module:MyPredictor     # the same from the command line
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import pipelines
from pipelines.predictors import Imported
from pipelines.stages import Predict
from recon import Prediction


class FloorAndWall:
    """Stands for a network: near at the bottom of the photo, far at the top."""

    def __call__(self, images: list[np.ndarray]) -> list[Prediction]:
        return [self.predict(image) for image in images]

    def predict(self, image: np.ndarray) -> Prediction:
        height, width = image.shape[:2]
        nearness = np.linspace(0.2, 1.0, height, dtype=np.float32)
        values = np.ascontiguousarray(np.broadcast_to(nearness[:, None], (height, width)))
        # affine_disparity: 1 / depth up to scale and shift, which the sparse points will tell
        return Prediction(values, kind="affine_disparity")


def main(photo_folder: Path, out: Path) -> None:
    photos = pipelines.find_photos(photo_folder, out / "cache")
    predict = Predict(Imported(f"{__name__}:{FloorAndWall.__name__}"))
    pipeline = replace(pipelines.MultiView(), predict=predict)
    outcome = pipelines.run(pipeline, photos, pipelines.DiskStore(out / "cache"), until="aligned")
    for view in outcome.views("aligned"):
        print(f"{view}: {outcome.get('aligned', view).fit.held_out_error:.1%} off")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(f"usage: {__doc__.splitlines()[2]}", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
