"""Writes a capture the way a user would have it: a folder of photos, a folder of predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recon.scene import Prediction
from recon.synthetic.capturing import Capture

EXIF_IFD = 0x8769
EXIF_FOCAL_LENGTH_35MM = 0xA405
FULL_FRAME_DIAGONAL_MM = 43.27


def write_photos(capture: Capture, folder: Path) -> None:
    """Writes every photo under its view's name, with the focal length in its EXIF data.

    The focal length is the 35 mm equivalent over the diagonal, rounded to a millimetre as cameras do.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for view in capture.scene.views:
        photo = Image.fromarray(capture.images[view.name])
        diagonal_px = np.hypot(view.camera.width, view.camera.height)
        equivalent_mm = round(float(view.camera.K[0, 0] / diagonal_px * FULL_FRAME_DIAGONAL_MM))
        exif = Image.Exif()
        exif[EXIF_IFD] = {EXIF_FOCAL_LENGTH_35MM: equivalent_mm}
        photo.save(folder / view.name, exif=exif)


def write_predictions(predictions: Mapping[str, Prediction], folder: Path) -> None:
    """Writes NAME.npz for every view: `values`, `kind`, and `normals` and `confidence` if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, prediction in predictions.items():
        optional = {"normals": prediction.normals, "confidence": prediction.confidence}
        arrays: dict[str, Any] = {"values": prediction.values, "kind": np.array(prediction.kind)}
        arrays |= {key: value for key, value in optional.items() if value is not None}
        np.savez_compressed(folder / f"{Path(name).stem}.npz", **arrays)
