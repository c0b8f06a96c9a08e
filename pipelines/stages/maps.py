"""What several stages do to maps."""

import numpy as np
from jaxtyping import Bool

from recon.errors import InputError
from recon.geometry import pixel_centers, sample_depth
from recon.io import images
from recon.scene import Camera, DepthMap, SparseDepth

FEWEST_POINTS = 4  # a scale and a shift, and as many points to judge them by
MIN_SIZE = 16  # pixels; smaller pictures have no neighbourhoods to speak of
MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def check_size(option: str, size: int) -> None:
    """Raises an InputError that names the option if its size is too small."""
    if size < MIN_SIZE:
        raise InputError(f"{option}: {size} pixels, at least {MIN_SIZE} wanted")


def check_positive(option: str, value: float | None) -> None:
    """Raises an InputError that names the option if its value is given and not a number above 0."""
    if value is not None and not 0 < value < np.inf:
        raise InputError(f"{option}: {value:g}, wanted a number above 0")


def check_count(option: str, count: int, least: int) -> None:
    """Raises an InputError that names the option if its number is too small."""
    if count < least:
        raise InputError(f"{option}: {count}, wanted at least {least}")


def resized_mask(mask: Bool[np.ndarray, "h w"], camera: Camera) -> Bool[np.ndarray, "h2 w2"]:
    """Returns a mask at the size of a camera."""
    return images.resize_map(mask.astype(np.float32), camera.width, camera.height) > 0.5


def points_inside(points: SparseDepth, kept: Bool[np.ndarray, "h w"]) -> SparseDepth:
    """Returns the points, pixels of the mask, that lie inside it."""
    inside = points.values_of(kept)
    return SparseDepth(points.uv[inside], points.depth[inside], points.sigma[inside])


def masked(depth_map: DepthMap, kept: Bool[np.ndarray, "h w"]) -> DepthMap:
    """Returns the map without the pixels outside a mask."""
    return DepthMap(
        camera=depth_map.camera,
        depth=np.where(kept, depth_map.depth, 0).astype(np.float32),
        normals=np.where(kept[..., None], depth_map.normals, 0).astype(np.float32),
        sigma=np.where(kept, depth_map.sigma, 0).astype(np.float32),
    )


def enlarged(depth_map: DepthMap, camera: Camera) -> DepthMap:
    """Returns the map at the size of a larger camera, nothing mixed over depth edges; no smaller one."""
    made = depth_map.camera
    if camera.width <= made.width or camera.height <= made.height:
        return depth_map
    centers = pixel_centers(camera.width, camera.height) * [
        made.width / camera.width,
        made.height / camera.height,
    ]
    rows, columns = np.moveaxis(centers, -1, 0)[::-1].astype(np.int64)
    depth = sample_depth(depth_map.depth, centers.reshape(-1, 2)).reshape(rows.shape)
    known = (depth > 0) & (depth_map.depth[rows, columns] > 0)
    return DepthMap(
        camera=camera,
        depth=np.where(known, depth, 0).astype(np.float32),
        normals=np.where(known[..., None], depth_map.normals[rows, columns], 0),
        sigma=np.where(known, depth_map.sigma[rows, columns], 0),
    )
