"""Which layout a folder has."""

from pathlib import Path

from recon.errors import InputError
from recon.io.sequences.layouts import read_meta, read_redwood, read_seven_scenes, read_tum
from recon.io.sequences.nerfstudio import NAMES, read_transforms
from recon.io.sequences.sequence import Sequence


def read_sequence(folder: Path) -> Sequence:
    """Returns the posed frames of a folder in any layout we know.

    Raises:
        InputError: No such folder, no layout that we know, or none of its frames can be used.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: {'a file' if folder.exists() else 'no such folder'}, wanted a folder of frames"
        )
    if (folder / "rgb.txt").is_file() and (folder / "groundtruth.txt").is_file():
        return read_tum(folder)
    if any(folder.glob("*.pose.txt")) or any((folder / "frames").glob("*.pose.txt")):
        return read_seven_scenes(folder)
    photos = any((folder / name).is_dir() for name in ("color", "image", "rgb"))
    if photos and (folder / "trajectory.log").is_file():
        return read_redwood(folder)
    if any((folder / name).is_file() for name in NAMES):
        return read_transforms(folder)
    if (folder / "meta.json").is_file():
        return read_meta(folder)
    raise InputError(
        f"{folder}: no sequence found; looked for rgb.txt with groundtruth.txt (TUM), *.pose.txt (7-Scenes), "
        "trajectory.log with color/ (Open3D), transforms.json (nerfstudio, Polycam), meta.json"
    )
