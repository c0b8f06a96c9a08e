"""The layouts of public RGB-D data sets, one function each."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recon.errors import InputError, ViewError
from recon.geometry import rotation_from_wxyz
from recon.io.images import PHOTO_ENDINGS, photo_size
from recon.io.sequences.intrinsics import Optics, load_json, optics_from_opencv, read_intrinsics
from recon.io.sequences.sequence import Sequence, Shot, gather

MAX_TIME_DIFFERENCE_S = 0.02  # as in the TUM benchmark's tools
TUM_DEPTH_SCALE = 5000.0
# fx fy cx cy and k1 k2 p1 p2 k3 of the colour cameras (TUM RGB-D benchmark, "Intrinsic Camera Calibration").
TUM_CAMERAS = {
    "1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}
SEVEN_SCENES_CAMERA = (585.0, 585.0, 320.0, 240.0)  # of the depth camera, as published
PRIMESENSE_CAMERA = (525.0, 525.0, 319.5, 239.5)  # what Open3D and Redwood assume
VGA = (640, 480)


def read_tum(folder: Path) -> Sequence:
    """Returns a TUM RGB-D folder: rgb.txt, groundtruth.txt and, for depth, depth.txt.

    Photo, depth and pose belong together if their times differ by at most 20 ms; the nearest is taken.

    Raises:
        InputError: A list is damaged, no frame can be used, or the camera is unknown.
    """
    photos, poses = _stamped(folder / "rgb.txt", 1), _stamped(folder / "groundtruth.txt", 7)
    depths = (
        _stamped(folder / "depth.txt", 1) if (folder / "depth.txt").is_file() else _Stamped(np.zeros(0), [])
    )
    optics = _tum_optics(folder, [folder / name for (name,) in photos.words])
    shots = []
    for time, (name,) in zip(photos.times.tolist(), photos.words, strict=True):
        pose, depth = poses.nearest(time), depths.nearest(time)
        shots.append(
            Shot(
                name=name,
                image=folder / name,
                optics=optics,
                world_from_cam=None if pose is None else _tum_pose(folder, pose),
                depth_path=None if depth is None else folder / depth[0],
                timestamp=time,
                fault="no depth within 20 ms" if depths.words and depth is None else "",
            )
        )
    return gather(folder, shots, depth_scale=TUM_DEPTH_SCALE)


def read_seven_scenes(folder: Path) -> Sequence:
    """Returns a 7-Scenes folder: frame-XXXXXX.color, .depth and .pose.txt, in it or in its `frames`.

    Poses and K are the depth camera's.

    Raises:
        InputError: No frame can be used.
    """
    place = folder if any(folder.glob("*.pose.txt")) else folder / "frames"
    prefixes = sorted(path.name.removesuffix(".pose.txt") for path in place.glob("*.pose.txt"))
    images = [_with_photo_ending(place / f"{prefix}.color") for prefix in prefixes]
    optics = _optics(folder, images, SEVEN_SCENES_CAMERA)
    shots = []
    for prefix, image in zip(prefixes, images, strict=True):
        depth = place / f"{prefix}.depth.png"
        shots.append(
            Shot(
                name=image.relative_to(folder).as_posix(),
                image=image,
                optics=optics,
                world_from_cam=_matrix((place / f"{prefix}.pose.txt").read_text(errors="replace")),
                depth_path=depth if depth.is_file() else None,
            )
        )
    return gather(folder, shots)


def read_redwood(folder: Path) -> Sequence:
    """Returns an Open3D/Redwood folder: color (or image, rgb), depth, trajectory.log.

    Photos and depth maps belong together by the number that their names begin with; the n-th pose belongs to
    the n-th photo.

    Raises:
        InputError: The trajectory is damaged, or no frame can be used.
    """
    place = next(folder / name for name in ("color", "image", "rgb") if (folder / name).is_dir())
    images = sorted(path for path in place.iterdir() if path.suffix.lower() in PHOTO_ENDINGS)
    depths = {_number(path): path for path in sorted((folder / "depth").glob("*.png"))}
    poses = _trajectory(folder / "trajectory.log")
    optics = _optics(folder, images, PRIMESENSE_CAMERA)
    shots = []
    for index, image in enumerate(images):
        depth = depths.get(_number(image))
        shots.append(
            Shot(
                name=image.relative_to(folder).as_posix(),
                image=image,
                optics=optics,
                world_from_cam=poses[index] if index < len(poses) else None,
                depth_path=depth,
                fault="" if depth or not depths else f"no depth map has the number of {image.name}",
            )
        )
    return gather(folder, shots)


def read_meta(folder: Path) -> Sequence:
    """Returns a folder with meta.json: `K`, `width`, `height`, `depth_scale` and `frames`.

    A frame has `color`, `depth` (optional) and `pose`, camera to world. K is in OpenCV's pixels.

    Raises:
        InputError: A field is missing, or no frame can be used.
    """
    document = load_json(folder / "meta.json")
    if document.get("pose", "cam_to_world") != "cam_to_world":
        raise InputError(f"meta.json: pose is {document['pose']!r}, wanted 'cam_to_world'")
    try:
        rows = [
            (row["color"], row.get("depth"), np.array(row["pose"], np.float64)) for row in document["frames"]
        ]
        depth_scale = float(document.get("depth_scale", 1000.0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"meta.json: a frame lacks a field or has a wrong one ({error})") from error
    optics = _optics(folder, [folder / color for color, _, _ in rows], None)
    shots = [
        Shot(
            name=color,
            image=folder / color,
            optics=optics,
            world_from_cam=pose if pose.shape == (4, 4) else None,
            depth_path=folder / depth if depth else None,
        )
        for color, depth, pose in rows
    ]
    return gather(folder, shots, depth_scale=depth_scale)


def _optics(folder: Path, images: list[Path], published: tuple[float, float, float, float] | None) -> Optics:
    """The camera that the folder's files tell, else the published one of its data set for 640x480."""
    width, height = _first_size(folder, images)
    optics = read_intrinsics(folder, width, height)
    if optics is not None:
        return optics
    if published is None or (width, height) != VGA:
        raise InputError(f"{folder}: no camera; wanted a file camera-intrinsics.txt with K or fx fy cx cy")
    return optics_from_opencv(_K(published), width, height)


def _first_size(folder: Path, images: list[Path]) -> tuple[int, int]:
    for image in images:
        try:
            return photo_size(image)
        except ViewError:
            continue  # missing or damaged; `gather` or whoever reads it says so
    raise InputError(f"{folder}: none of its {len(images)} photos can be read")


def _K(focal_and_center: tuple[float, float, float, float]) -> Float64[np.ndarray, "3 3"]:
    fx, fy, cx, cy = focal_and_center
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _tum_optics(folder: Path, images: list[Path]) -> Optics:
    """The camera of the sequence that the folder's name or rgb.txt's header tells, else as elsewhere."""
    header = " ".join(
        line for line in (folder / "rgb.txt").read_text(errors="replace").splitlines() if line.startswith("#")
    )
    named = re.search(r"freiburg([123])|(?:^|[\W_])fr([123])(?:[\W_]|$)", f"{folder.resolve().name} {header}")
    if named is None:
        return _optics(folder, images, None)
    pinhole, distortion = TUM_CAMERAS[named[1] or named[2]]
    return optics_from_opencv(_K(pinhole), *VGA, distortion)


@dataclass(frozen=True, eq=False)
class _Stamped:
    """Rows of a TUM list in the order of time."""

    times: Float64[np.ndarray, "n"]
    words: list[list[str]]

    def nearest(self, time: float) -> list[str] | None:
        """The row nearest in time, None if it is too far."""
        after = int(np.searchsorted(self.times, time))
        around = [index for index in (after - 1, after) if 0 <= index < len(self.times)]
        near = [index for index in around if abs(self.times[index] - time) <= MAX_TIME_DIFFERENCE_S]
        return self.words[min(near, key=lambda index: abs(self.times[index] - time))] if near else None


def _stamped(path: Path, columns: int) -> _Stamped:
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        rows.append((_number_or_nan(words[0]), words[1 : 1 + columns]))
        if len(rows[-1][1]) < columns or not np.isfinite(rows[-1][0]):
            raise InputError(f"{path.name}: line {number}: {line[:80]!r}, wanted a time and {columns} more")
    rows.sort()
    return _Stamped(np.array([time for time, _ in rows]), [words for _, words in rows])


def _tum_pose(folder: Path, words: list[str]) -> Float64[np.ndarray, "4 4"]:
    try:
        x, y, z, qx, qy, qz, qw = (float(word) for word in words)
    except ValueError as error:
        raise InputError(f"{folder / 'groundtruth.txt'}: wanted numbers ({error})") from error
    world_from_cam = np.full((4, 4), np.nan)
    if any((qx, qy, qz, qw)):
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = rotation_from_wxyz(np.array([qw, qx, qy, qz]))
        world_from_cam[:3, 3] = x, y, z
    return world_from_cam


def _matrix(text: str) -> Float64[np.ndarray, "4 4"] | None:
    """A 4x4 matrix in text; NaN for words like -1.#IND, None unless there are 16."""
    words = text.split()
    return np.array([_number_or_nan(word) for word in words]).reshape(4, 4) if len(words) == 16 else None


def _number_or_nan(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return np.nan


def _trajectory(path: Path) -> list[Float64[np.ndarray, "4 4"] | None]:
    """Poses of Open3D's .log: a line of three indices, then four lines of a matrix."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    widths = [len(line.split()) for line in lines]
    if not lines or len(lines) % 5 or any(width != 4 for row, width in enumerate(widths) if row % 5):
        raise InputError(
            f"{path.name}: {len(lines)} lines, wanted five for each pose: indices and a 4x4 matrix"
        )
    return [_matrix(" ".join(lines[start + 1 : start + 5])) for start in range(0, len(lines), 5)]


def _number(path: Path) -> int | str:
    digits = re.match(r"\D*(\d+)", path.stem)
    return int(digits[1]) if digits else path.stem


def _with_photo_ending(path: Path) -> Path:
    """The file of that name with some photo ending; with .png if there is none."""
    candidates = [path.with_name(path.name + ending) for ending in PHOTO_ENDINGS]
    return next(
        (candidate for candidate in candidates if candidate.is_file()), path.with_name(f"{path.name}.png")
    )
