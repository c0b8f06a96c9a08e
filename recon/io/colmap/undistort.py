"""A COLMAP model as a `Scene` of pinhole views; where each pinhole pixel lies in the photo as taken.

The pinhole camera of a distorted lens keeps the resolution of the photo's centre and shows the largest part
about its axis that has no blank pixel, at most `MAX_FOV_DEG` wide and high: fisheye and equirectangular
photos lose what is beyond, for a pinhole picture would stretch it without end.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from recon.errors import InputError, PipelineError, ViewError
from recon.geometry import pixel_centers, project, rays
from recon.io.colmap.model import ColmapModel, load_reconstruction, observations
from recon.io.colmap.options import load_pycolmap
from recon.scene import Camera, Lens, Scene, SparseCloud, View

MAX_FOV_DEG = 120.0  # a wider pinhole picture stretches its border more than four times
BORDER_SAMPLES = 129  # per side of the picture; distortion is smooth
OUTSIDE_TOLERANCE_PX = 0.01  # lens inversion is iterative


def scene_from_model(model: ColmapModel, photos: Mapping[str, Path], *, max_size: int | None = None) -> Scene:
    """Returns undistorted pinhole views, the sparse points and their undistorted observations.

    `View.lens` is the model's camera at the model's size, None if it already is an ideal pinhole camera.

    Args:
        model: Poses, lenses, points. It may have no points.
        photos: The photo's name in the model -> its file.
        max_size: Longest side of the pinhole cameras, pixels; None: that of the photo.

    Raises:
        PipelineError: No photo of the model is there.
    """
    reconstruction = load_reconstruction(model)
    images = {image.name: image for image in map(reconstruction.image, reconstruction.reg_image_ids())}
    dropped = {name: reason for name, reason in model.dropped.items() if name not in images}
    dropped |= {name: "not in the COLMAP model" for name in photos if name not in images | dropped}
    views = []
    for name in sorted(images):
        try:
            views.append(_view(images[name], photos, max_size))
        except ViewError as error:
            dropped[name] = str(error)
    if not views:
        raise PipelineError(
            f"COLMAP model: none of its {len(images)} photos can be used ({_first_reason(images, dropped)})"
        )
    return Scene(views=tuple(views), cloud=_cloud(model, reconstruction, views), dropped=dropped)


def photo_pixels(
    view: View, photo_width: int, photo_height: int, camera: Camera | None = None
) -> Float64[np.ndarray, "h w 2"]:
    """Returns where in the photo as taken each pixel of a view's pinhole camera lies; NaN outside the photo.

    Args:
        view: Gives the lens; without one the two pictures differ by size only.
        photo_width: Of the photo as taken or a resized copy, pixels; the result is in its pixels.
        photo_height: The same.
        camera: A resized version of `view.camera`, which is the default.
    """
    camera = view.camera if camera is None else camera
    photo = np.array([photo_width, photo_height], float)
    if view.lens is None:
        return pixel_centers(camera.width, camera.height) * photo / [camera.width, camera.height]
    directions = rays(camera.K, camera.width, camera.height).reshape(-1, 3)
    lens_size = np.array([view.lens.width, view.lens.height])
    uv = np.asarray(_lens_camera(view.lens).img_from_cam(directions))
    outside = ~np.all((uv >= -OUTSIDE_TOLERANCE_PX) & (uv <= lens_size + OUTSIDE_TOLERANCE_PX), axis=1)
    uv = np.where(outside[:, None], np.nan, np.clip(uv, 0, lens_size)) * (photo / lens_size)
    return uv.reshape(camera.height, camera.width, 2)


def lens_of(camera: Any) -> Lens:
    """Returns a pycolmap.Camera as a value."""
    return Lens(camera.model_name, np.array(camera.params, float), camera.width, camera.height)


def _lens_camera(lens: Lens) -> Any:
    pycolmap = load_pycolmap()
    if lens.model not in pycolmap.CameraModelId.__members__:
        raise InputError(f"Lens.model: {lens.model!r}, wanted one of COLMAP's camera models")
    camera = pycolmap.Camera(model=lens.model, width=lens.width, height=lens.height, params=lens.params)
    if not camera.verify_params():
        raise InputError(f"Lens: {len(lens.params)} parameters do not fit the camera model {lens.model}")
    return camera


def pinhole_camera(lens: Lens) -> Camera:
    """Returns the pinhole camera that shows a lens's picture without blank pixels (see the module's text).

    Square pixels; the size is that of the lens's picture up to the stretch that undistortion needs.

    Raises:
        ViewError: The lens folds the picture or shows none of it ahead.
    """
    return _pinhole_camera(lens.model, tuple(lens.params), lens.width, lens.height)


@lru_cache(maxsize=256)
def _pinhole_camera(model: str, params: tuple[float, ...], width: int, height: int) -> Camera:
    camera = _lens_camera(Lens(model, np.array(params), width, height))
    (left, top), (right, bottom) = _visible_box(camera)
    center = np.asarray(camera.img_from_cam(np.array([[0, 0, 1.0], [1e-4, 0, 1], [0, 1e-4, 1]])))
    focal = float(np.sqrt(abs(np.linalg.det(center[1:] - center[0]))) * 1e4)
    if not (np.isfinite(focal) and focal > 0 and right > left and bottom > top):
        raise ViewError(
            f"{model} lens {params}: shows nothing straight ahead, no pinhole picture is possible"
        )
    size = np.maximum(1, np.floor([focal * (right - left), focal * (bottom - top)]))
    K = np.array([[focal, 0, -left * focal], [0, focal, -top * focal], [0, 0, 1]])
    return Camera(K, int(size[0]), int(size[1]))


def _visible_box(camera: Any) -> Float64[np.ndarray, "2 2"]:
    """Lowest and highest x / z and y / z of the largest box, about the axis, that the photo fills."""
    limit = np.tan(np.radians(MAX_FOV_DEG / 2))
    ((cu, cv),) = np.asarray(camera.img_from_cam(np.array([[0, 0, 1.0]])))
    middles = np.array([[0, cv], [cu, 0], [camera.width, cv], [cu, camera.height]])
    seen = np.asarray(camera.cam_ray_from_img(middles))
    along = np.array([seen[0, 0], seen[1, 1], seen[2, 0], seen[3, 1]])
    ahead = np.array([seen[0, 2], seen[1, 2], seen[2, 2], seen[3, 2]])
    sign = np.array([-1, -1, 1, 1])
    narrow = np.isfinite(along) & (ahead > 0) & (np.abs(along) < limit * ahead)
    reach = np.where(narrow, along / np.where(narrow, ahead, 1), sign * limit)
    box = np.maximum(reach * sign, 0).reshape(2, 2) * [[-1], [1]]
    inside, outside = 0.0, 1.0
    if _filled(camera, box):
        return box
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if _filled(camera, box * middle) else (inside, middle)
    return box * inside


def _filled(camera: Any, box: Float64[np.ndarray, "2 2"]) -> bool:
    """Whether the box's border lies in the photo and the lens maps it there without folding."""
    (left, top), (right, bottom) = box
    x, y = np.linspace(left, right, BORDER_SAMPLES), np.linspace(top, bottom, BORDER_SAMPLES)
    sides = [(x, top), (x, bottom), (left, y), (right, y)]
    border = np.concatenate([np.stack(np.broadcast_arrays(u, v, 1.0), axis=1) for u, v in sides])
    uv = np.asarray(camera.img_from_cam(border))
    tolerance = OUTSIDE_TOLERANCE_PX / 2
    size = np.array([camera.width, camera.height])
    if not ((uv >= -tolerance) & (uv <= size + tolerance)).all():
        return False
    back = np.asarray(camera.cam_ray_from_img(uv))
    return bool(np.abs(back * border[:, 2:] / back[:, 2:] - border).max() < 1e-3)


def _view(image: Any, photos: Mapping[str, Path], max_size: int | None) -> View:
    from recon.io.images import photo_size, same_ratio

    if image.name not in photos:
        raise ViewError("in the COLMAP model, but not among the photos")
    width, height = photo_size(photos[image.name])
    lens = lens_of(image.camera)
    if not same_ratio((width, height), (lens.width, lens.height)):
        raise ViewError(f"the photo has {width}x{height} pixels, the model's {lens.width}x{lens.height}")
    ideal = image.camera.is_perspective_pinhole() and image.camera.is_undistorted()
    if ideal:
        K = np.array(image.camera.calibration_matrix(), float)
        camera = Camera(K, lens.width, lens.height).resized(width, height)
    else:
        camera = _magnified(pinhole_camera(lens), max(width / lens.width, height / lens.height))
    cam_from_world = np.eye(4)
    cam_from_world[:3] = image.cam_from_world().matrix()
    return View(
        name=image.name,
        camera=camera.fitted(min(max_size or max(width, height), max(width, height))),
        cam_from_world=cam_from_world,
        image=photos[image.name],
        lens=None if ideal else lens,
    )


def _magnified(camera: Camera, factor: float) -> Camera:
    return camera.resized(max(1, round(camera.width * factor)), max(1, round(camera.height * factor)))


def _cloud(model: ColmapModel, reconstruction: Any, views: list[View]) -> SparseCloud | None:
    """The points that the views see; None if the model has none."""
    lenses = {image.name: image.camera for image in reconstruction.images.values()}
    keypoints = observations(model)
    seen, uv = [], []
    for index, view in enumerate(views):
        records = keypoints[view.name][keypoints[view.name]["point_id"] >= 0]
        pixels = _undistorted(lenses[view.name], view, records["xy"])
        good = np.isfinite(pixels).all(axis=1)
        seen.append(np.stack([records["point_id"], np.full(len(records), index)], axis=1)[good])
        uv.append(pixels[good])
    return _gather(reconstruction, np.concatenate(seen).astype(np.int64), np.concatenate(uv))


def _undistorted(lens: Any, view: View, xy: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    if not len(xy):
        return np.zeros((0, 2))
    directions = np.asarray(lens.cam_ray_from_img(np.ascontiguousarray(xy)))
    return project(view.camera.K, directions)


def _gather(
    reconstruction: Any, seen: Int64[np.ndarray, "m 2"], uv: Float64[np.ndarray, "m 2"]
) -> SparseCloud | None:
    ids, rows = np.unique(seen[:, 0], return_inverse=True)
    if not len(ids):
        return None
    points = [reconstruction.point3D(point_id) for point_id in ids.tolist()]
    return SparseCloud(
        points=np.array([point.xyz for point in points], float),
        colors=np.array([point.color for point in points], np.uint8),
        errors=np.array([point.error for point in points], float),
        seen=np.stack([rows.reshape(-1), seen[:, 1]], axis=1).astype(np.int64),
        uv=uv,
    )


def _first_reason(images: Mapping[str, Any], dropped: Mapping[str, str]) -> str:
    names = [name for name in sorted(images) if name in dropped]
    return f"{names[0]}: {dropped[names[0]]}" if names else "it has none"
