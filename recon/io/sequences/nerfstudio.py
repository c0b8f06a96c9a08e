"""transforms.json of nerfstudio, Polycam and Blender's NeRF scenes."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import InputError, ViewError
from recon.io.images import PHOTO_ENDINGS, photo_size, same_ratio
from recon.io.sequences.intrinsics import Optics, load_json
from recon.io.sequences.sequence import Sequence, Shot, gather
from recon.scene import Camera, Lens

NAMES = ("transforms.json", "transforms_train.json")
DEPTH_SCALE = 1000.0  # nerfstudio's default: millimetres
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])  # y up, looking along -z
LENSES = {  # camera_model: COLMAP's model and its distortion in COLMAP's order
    "OPENCV": ("OPENCV", ("k1", "k2", "p1", "p2")),
    "PINHOLE": ("OPENCV", ("k1", "k2", "p1", "p2")),
    "SIMPLE_PINHOLE": ("OPENCV", ("k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", ("k1", "k2", "k3", "k4")),
}


def read_transforms(folder: Path) -> Sequence:
    """Returns a folder with transforms.json: intrinsics, shared or per frame, and OpenGL poses.

    Poses are camera to world. cx and cy are COLMAP's, and ours, not OpenCV's: nerfstudio copies them. Depth
    (`depth_file_path`) is in millimetres; without any the unit of the poses is unknown.

    Raises:
        InputError: A field is missing or wrong, the camera model is unknown, or no frame can be used.
    """
    path = next(folder / name for name in NAMES if (folder / name).is_file())
    document = load_json(path)
    rows = document.get("frames")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path.name}: wanted a field 'frames' with a list of frames")
    shots = [_shot(path, number, {**document, **row}) for number, row in enumerate(rows)]
    has_depth = any(shot.depth_path is not None for shot in shots)
    return gather(folder, shots, depth_scale=DEPTH_SCALE, is_metric=has_depth)


def _shot(path: Path, number: int, fields: dict[str, Any]) -> Shot:
    try:
        name = Path(fields["file_path"]).as_posix()
        opengl = np.array(fields["transform_matrix"], np.float64)
        depth = path.parent / fields["depth_file_path"] if fields.get("depth_file_path") else None
        image = _existing(path.parent / name)
        optics, fault = _frame_optics(path, image, fields), ""
    except ViewError as error:
        optics, fault = None, str(error)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name}: frame {number}: a field is missing or wrong ({error})") from error
    return Shot(
        name=name if image.name == Path(name).name else f"{name}{image.suffix}",
        image=image,
        optics=optics,
        world_from_cam=opengl @ OPENGL_FROM_OPENCV if opengl.shape == (4, 4) else None,
        depth_path=depth,
        fault=fault,
    )


def _existing(path: Path) -> Path:
    """Blender's scenes leave the ending out."""
    candidates = [path, *(path.with_name(path.name + ending) for ending in PHOTO_ENDINGS)]
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def _frame_optics(path: Path, image: Path, fields: dict[str, Any]) -> Optics:
    photo_width, photo_height = photo_size(image)
    width, height = int(fields.get("w", photo_width)), int(fields.get("h", photo_height))
    if not same_ratio((photo_width, photo_height), (width, height)):
        raise ViewError(
            f"the photo has {photo_width}x{photo_height} pixels, {path.name} says {width}x{height}"
        )
    if "fl_x" in fields:
        focal_x = float(fields["fl_x"])
    elif "camera_angle_x" in fields:
        focal_x = width / (2 * np.tan(float(fields["camera_angle_x"]) / 2))
    else:
        raise KeyError("fl_x")
    focal_y = float(fields.get("fl_y", focal_x))
    center = float(fields.get("cx", width / 2)), float(fields.get("cy", height / 2))
    model = str(fields.get("camera_model", "OPENCV"))
    if model not in LENSES:
        raise InputError(f"{path.name}: camera_model {model!r}, wanted one of {', '.join(LENSES)}")
    distortion = tuple(float(fields.get(name, 0.0)) for name in LENSES[model][1])
    return _shared_optics(
        (focal_x, focal_y, *center),
        (LENSES[model][0], distortion),
        (width, height),
        (photo_width, photo_height),
    )


@lru_cache(maxsize=1024)  # frames with the same numbers share their objects, and what is kept by object
def _shared_optics(
    pinhole: tuple[float, ...],
    distortion: tuple[str, tuple[float, ...]],
    size: tuple[int, int],
    photo: tuple[int, int],
) -> Optics:
    fx, fy, cx, cy = pinhole
    camera = Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), *size)
    model, values = distortion
    straight = model == "OPENCV" and not any(values)  # a fisheye without coefficients is a fisheye still
    lens = None if straight else Lens(model, np.array([*pinhole, *values]), *size)
    return Optics(camera.resized(*photo), lens)
