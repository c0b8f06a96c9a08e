"""SIFT features of photos, one file per photo, so that a run after a crash goes on where it stopped.

Photos are decoded by us (upright, at most `max_image_size`) and handed to COLMAP as PNG, so every format that
`recon.io.images` reads will do. Keypoints are kept in working pixels: those of the photo as taken divided by
`unit`, the same number in both directions, so a working camera is the photo's camera divided by `unit`.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from recon.errors import ViewError
from recon.io.colmap.options import SfmOptions, load_pycolmap, thread_count
from recon.io.files import replaced

FORMAT = "1"  # of the files; part of their key
Progress = Callable[[str, int, int], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PhotoFeatures:
    """What is known of one photo before matching; keypoints and descriptors stay on disk."""

    name: str
    width: int
    """Of the photo as taken, upright, pixels."""

    height: int
    unit: float
    """Pixels of the photo as taken per working pixel."""

    count: int
    """Number of keypoints."""

    file: Path
    focal_px: float | None
    """From EXIF, pixels of the photo as taken."""

    camera_label: str
    """Maker, model and focal length of the camera as EXIF has them; equal for photos through one lens."""

    position: tuple[float, float] | None
    """GPS latitude and longitude, degrees."""

    def keypoints(self) -> Float32[np.ndarray, "n 2"]:
        """Positions, working pixels."""
        with np.load(self.file) as stored:
            return stored["xy"]

    def descriptors(self) -> UInt8[np.ndarray, "n 128"]:
        """SIFT descriptors, largest scale first as COLMAP orders them."""
        with np.load(self.file) as stored:
            return stored["descriptors"]

    def colors(self) -> UInt8[np.ndarray, "n 3"]:
        """Colour of the photo at each keypoint."""
        with np.load(self.file) as stored:
            return stored["colors"]


def extract_features(
    photos: Mapping[str, Path],
    folder: Path,
    options: SfmOptions,
    *,
    masks: Path | None,
    on_progress: Progress,
) -> tuple[list[PhotoFeatures], dict[str, str]]:
    """Returns the features of every readable photo in the order of `photos`, and the other photos' reasons.

    Args:
        photos: Name -> file.
        folder: Keeps the results; what is there from the same photo, mask and options is used again.
        options: Size and number of features.
        masks: Folder of masks; keypoints where a mask is False are left out.
        on_progress: Called with ("features", photos done, photos in all).
    """
    folder.mkdir(parents=True, exist_ok=True)
    dropped: dict[str, str] = {}
    targets = {name: folder / f"{_key(path, name, masks, options)}.npz" for name, path in photos.items()}
    waiting = [name for name in photos if not targets[name].is_file()]
    batch_size = max(4, 2 * thread_count())
    for start in range(0, len(waiting), batch_size):
        on_progress("features", len(photos) - len(waiting) + start, len(photos))
        batch = {name: photos[name] for name in waiting[start : start + batch_size]}
        dropped |= _extract_batch(batch, targets, options, masks)
    on_progress("features", len(photos), len(photos))
    found = [_load(name, photos[name], targets[name]) for name in photos if name not in dropped]
    return found, dropped


def _key(path: Path, name: str, masks: Path | None, options: SfmOptions) -> str:
    from recon.io.images import read_mask

    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{FORMAT} {options.max_image_size} {options.max_features}".encode())
    try:
        digest.update(path.read_bytes())
        mask = None if masks is None else read_mask(masks, name)
    except (OSError, ViewError) as error:
        digest.update(str(error).encode())
    else:
        digest.update(b"" if mask is None else np.packbits(mask).tobytes() + repr(mask.shape).encode())
    return digest.hexdigest()


def _extract_batch(
    batch: Mapping[str, Path], targets: Mapping[str, Path], options: SfmOptions, masks: Path | None
) -> dict[str, str]:
    scratch = next(iter(targets.values())).parent / "extracting"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    with ThreadPoolExecutor(thread_count()) as threads:
        tasks = [
            threads.submit(_prepare, name, path, scratch / f"{index:06d}.png", options, masks)
            for index, (name, path) in enumerate(batch.items())
        ]
    dropped, prepared = {}, {}
    for index, (name, task) in enumerate(zip(batch, tasks, strict=True)):
        try:
            prepared[name] = (f"{index:06d}.png", *task.result())
        except ViewError as error:
            dropped[name] = str(error)
    if prepared:
        found = _sift(scratch, [working for working, *_ in prepared.values()], options)
        for name, (working, size, image, mask) in prepared.items():
            _store(targets[name], found[working], size, image, mask)
    shutil.rmtree(scratch)
    return dropped


def _prepare(
    name: str, path: Path, working: Path, options: SfmOptions, masks: Path | None
) -> tuple[tuple[int, int], UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h2 w2"] | None]:
    """Writes the picture that COLMAP reads; returns the photo's size, that picture in colour, its mask."""
    import cv2

    from recon.io.images import photo_size, read_mask, read_photo

    size = photo_size(path)
    image = read_photo(path, options.max_image_size)
    mask = None if masks is None else read_mask(masks, name, size=size)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    cv2.imwrite(str(working), gray, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return size, image, mask


def _sift(
    folder: Path, names: Sequence[str], options: SfmOptions
) -> dict[str, tuple[Float32[np.ndarray, "n 2"], UInt8[np.ndarray, "n 128"]]]:
    """SIFT of the pictures in a folder. All other extractors make COLMAP abort: they need ONNX."""
    pycolmap = load_pycolmap()
    extraction = pycolmap.FeatureExtractionOptions(
        type=pycolmap.FeatureExtractorType.SIFT,
        max_image_size=1 << 20,  # the pictures have their size already
        num_threads=min(thread_count(), len(names)),
        use_gpu=False,
        sift=pycolmap.SiftExtractionOptions(max_num_features=options.max_features),
    )
    database_file = folder / "features.db"
    pycolmap.extract_features(
        database_file,
        folder,
        image_names=list(names),
        extraction_options=extraction,
        device=pycolmap.Device.cpu,
    )
    found = {name: (np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8)) for name in names}
    database = pycolmap.Database.open(database_file)
    for image in database.read_all_images():
        if database.num_keypoints_for_image(image.image_id):
            xy = np.array(database.read_keypoints(image.image_id)[:, :2], np.float32)
            found[image.name] = (xy, np.array(database.read_descriptors(image.image_id).data, np.uint8))
    database.close()
    return found


def _store(
    target: Path,
    found: tuple[Float32[np.ndarray, "n 2"], UInt8[np.ndarray, "n 128"]],
    size: tuple[int, int],
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h2 w2"] | None,
) -> None:
    pixels, descriptors = found
    picture_size = np.array([image.shape[1], image.shape[0]])
    unit = max(size) / max(picture_size)
    column, row = np.minimum(pixels.astype(np.int64), picture_size - 1).T
    photo = pixels.astype(np.float64) * (np.array(size) / picture_size)
    keep = np.ones(len(pixels), bool) if mask is None else _at(mask, photo)
    with replaced(target) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            xy=(photo / unit).astype(np.float32)[keep],
            descriptors=descriptors[keep],
            colors=image[row, column][keep],
            size=np.array(size),
            unit=np.array(unit),
        )


def _at(mask: Bool[np.ndarray, "h w"], uv: Float64[np.ndarray, "n 2"]) -> Bool[np.ndarray, "n"]:
    column, row = np.clip(uv.astype(np.int64), 0, np.array(mask.shape)[::-1] - 1).T
    return mask[row, column]


def _load(name: str, path: Path, file: Path) -> PhotoFeatures:
    from recon.io.colmap.exif import camera_label, gps_position
    from recon.io.images import exif_focal_px

    with np.load(file) as stored:
        (width, height), unit, count = stored["size"], stored["unit"], len(stored["xy"])
    return PhotoFeatures(
        name=name,
        width=int(width),
        height=int(height),
        unit=float(unit),
        count=count,
        file=file,
        focal_px=exif_focal_px(path),
        camera_label=camera_label(path),
        position=gps_position(path),
    )
