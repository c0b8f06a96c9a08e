"""Frames of a video that are worth a reconstruction: sharp, and apart by enough motion."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.errors import InputError
from recon.io.images.photos import write_image
from recon.io.images.resampling import resize_image

VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".wmv", ".3gp")
ANALYSIS_SIZE = 640  # longer side, px: small enough to be fast, large enough to see motion blur
MIN_MOTION = 0.04  # of the longer side between kept frames: neighbours still share nine tenths
REFERENCE_STEP = 0.02  # of the longer side; drift below is measured against one frame, so noise cannot add up
LOST_MOTION = 0.25  # of the longer side: what a cut or a whip pan counts as
MIN_TRACKED_SHARE = 0.3
MIN_CORNERS = 8
CENTRAL_SHARE = 0.6  # of a stretch of motion: frames outside lie too close to the next stretch

Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


def is_video(path: Path) -> bool:
    """Returns True for a file with the ending of a video."""
    return path.is_file() and path.suffix.lower() in VIDEO_ENDINGS


def extract_frames(
    video: Path,
    folder: Path,
    *,
    max_frames: int = 200,
    min_motion: float = MIN_MOTION,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Writes the frames that `choose_frames` takes as frame_000123.jpg (its number in the video).

    Decodes the video twice: once to measure motion and sharpness, once to write. Frames that an earlier call
    left in the folder are removed.

    Args:
        video: Any format that OpenCV's FFmpeg decodes; turned upright by its metadata.
        folder: Made if it is missing.
        max_frames: Most frames to keep.
        min_motion: Least motion between kept frames, share of the longer side.
        on_progress: Called as (done, total) with frames decoded.

    Raises:
        InputError: The file is missing or no video.
    """
    report = on_progress or (lambda done, total: None)
    sharpness, motion = _measure(video, report)
    kept = set(choose_frames(sharpness, motion, max_frames, min_motion).tolist())
    for old in folder.glob("frame_??????.jpg"):
        old.unlink()
    paths = []
    for number, read in _frames(video):
        if number in kept:
            paths.append(folder / f"frame_{number:06d}.jpg")
            write_image(paths[-1], read())
        report(len(sharpness) + number + 1, 2 * len(sharpness))
    logger.info("%s: %d of %d frames kept", video.name, len(paths), len(sharpness))
    return paths


def choose_frames(
    sharpness: Float64[np.ndarray, "n"],
    motion: Float64[np.ndarray, "n"],
    max_frames: int,
    min_motion: float = MIN_MOTION,
) -> Int64[np.ndarray, "k"]:
    """Returns the frames to keep: the sharpest of each of k stretches of equal motion, in order.

    Only frames of the same stretch are compared, for they show the same things. A camera that stands still
    gives one frame however long it stands.

    Args:
        sharpness: Of each frame, any unit.
        motion: Way of the picture content from the first frame on, never falling, share of the longer side.
        max_frames: Most frames to keep.
        min_motion: Length of a stretch at least.
    """
    count = max(1, min(max_frames, int(motion[-1] / min_motion)))
    position = motion / max(motion[-1], min_motion) * count
    stretch = np.minimum(position.astype(np.int64), count - 1)
    central = np.abs(position - stretch - 0.5) <= CENTRAL_SHARE / 2
    # Sorted by stretch, then central frames first, then sharpest, then earliest: the first of each is kept.
    order = np.lexsort((-sharpness, ~central, stretch))
    _, firsts = np.unique(stretch[order], return_index=True)
    return order[firsts]


def _measure(video: Path, report: Progress) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Sharpness (variance of the Laplacian) and way (see `choose_frames`) of every frame."""
    import cv2

    sharpness: list[float] = []
    motion: list[float] = []
    start, reference = 0.0, None
    total = _frame_count(video)
    for number, read in _frames(video):
        grey = _small_grey(read())
        sharpness.append(float(cv2.Laplacian(grey, cv2.CV_32F).var()))
        way = 0.0 if reference is None else _displacement(reference, grey)
        motion.append(start + way)
        if reference is None or way >= REFERENCE_STEP:
            start, reference = start + way, grey
        report(number + 1, 2 * max(total, number + 1))
    if not motion:
        raise InputError(f"{video}: no frame of it can be decoded; wanted a video")
    return np.array(sharpness), np.maximum.accumulate(motion)


def _small_grey(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2"]:
    import cv2

    height, width = frame.shape[:2]
    factor = min(1.0, ANALYSIS_SIZE / max(height, width))
    small = resize_image(frame, max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def _displacement(reference: UInt8[np.ndarray, "h w"], grey: UInt8[np.ndarray, "h w"]) -> float:
    """Median way of corners between two frames (pyramidal Lucas-Kanade), share of the longer side."""
    import cv2

    corners = cv2.goodFeaturesToTrack(reference, 200, 0.01, 8)
    if corners is None or len(corners) < MIN_CORNERS:
        # From a blank picture nothing can be tracked: blank again is no motion, anything else is.
        seen = cv2.goodFeaturesToTrack(grey, 200, 0.01, 8)
        return 0.0 if seen is None or len(seen) < MIN_CORNERS else LOST_MOTION
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        reference, grey, corners, np.zeros_like(corners), winSize=(21, 21), maxLevel=4
    )
    found, moved = np.asarray(found), np.asarray(moved)
    tracked = found.ravel() == 1
    if tracked.mean() < MIN_TRACKED_SHARE:
        return LOST_MOTION
    way = np.linalg.norm((moved - corners).reshape(-1, 2)[tracked], axis=1)
    return float(np.median(way) / max(grey.shape))


@contextmanager
def _capture(video: Path) -> Iterator[Any]:
    import cv2

    if not video.is_file():
        raise InputError(f"{video}: no such file; wanted a video")
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise InputError(f"{video}: cannot be decoded; wanted a video")
        yield capture
    finally:
        capture.release()


def _frame_count(video: Path) -> int:
    """What the container says, which may be wrong or 0."""
    import cv2

    with _capture(video) as capture:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


def _frames(video: Path) -> Iterator[tuple[int, Callable[[], UInt8[np.ndarray, "h w 3"]]]]:
    """Number of each frame and how to read it as RGB; a frame that is not read costs no conversion."""
    with _capture(video) as capture:
        number = 0
        while capture.grab():
            yield number, lambda: np.ascontiguousarray(capture.retrieve()[1][..., ::-1])
            number += 1
