"""What `lotus predict` keeps beside its maps: the settings that made them, and of which photos.

`predictions.json` in OUT has `settings` and, for each name, the digest of the photo whose maps are there. A
photo is done where its maps are there and neither it nor the settings changed; a second run does the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from lotus.devices import resolve_device, resolve_dtype
from lotus.predictor import LotusPredictor
from recon.errors import InputError
from recon.io.files import replaced

FILE = "predictions.json"
VERSION = 2  # raised when the same settings give other maps
NO_SETTINGS = ("device", "batch_size", "compile")  # of a predictor; the same maps up to rounding


@dataclass(frozen=True)
class Record:
    """Which photos have maps made with which settings."""

    settings: dict[str, Any]
    photos: dict[str, str]
    """Digest of the photo's file by name."""

    def holds(self, out: Path, name: str, photo: Path) -> bool:
        """Returns whether the maps of a photo are in OUT under a name."""
        return (
            name in self.photos and (out / f"{name}.npz").is_file() and self.photos[name] == digest_of(photo)
        )

    def with_photos(self, photos: Mapping[str, str]) -> "Record":
        """Returns the record with more photos done."""
        return replace(self, photos={**self.photos, **photos})


def settings_of(predictor: LotusPredictor) -> dict[str, Any]:
    """Returns what decides a predictor's maps, as JSON gives it back.

    Raises:
        InputError: A checkpoint or the device is not there.
    """
    options = {name: value for name, value in asdict(predictor).items() if name not in NO_SETTINGS}
    resolved = {
        "dtype": str(resolve_dtype(predictor.dtype, resolve_device(predictor.device))),
        "processing_res": predictor.longer_side(),
        "weights": predictor.content(),
        "version": VERSION,
    }
    plain: dict[str, Any] = json.loads(json.dumps(options | resolved))
    return plain


def read_record(out: Path) -> Record | None:
    """Returns the record of a folder; None where there is none, or none that can be read."""
    try:
        record = json.loads((out / FILE).read_text())
        return Record(dict(record["settings"]), dict(record["photos"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(out: Path, record: Record) -> None:
    """Writes the record of a folder.

    Raises:
        InputError: It cannot be written.
    """
    with replaced(out / FILE) as path:
        path.write_text(json.dumps({"settings": record.settings, "photos": record.photos}, indent=1) + "\n")


def digest_of(photo: Path) -> str:
    """Returns a digest of a photo's file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return sha256(photo.read_bytes()).hexdigest()[:24]
    except OSError as error:
        raise InputError(f"{photo}: cannot read ({error.strerror})") from error
