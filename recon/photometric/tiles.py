"""Depth measured in the photos of one view; large ones tile by tile, so that they need no more memory."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from recon.errors import InputError
from recon.geometry import invert, project, transform, unproject
from recon.photometric.matcher import matchers_on
from recon.photometric.pictures import Photo
from recon.photometric.refinement import Measurement, measure
from recon.photometric.sweep import BAND_SIGMAS
from recon.scene import Camera, DepthMap

TILE = 1280  # px, side of a tile at most
WHOLE = 1920  # px, longer side of photos that are measured at once
BEYOND = 64  # px around a tile that are measured with it: a patch of the coarsest level, and what spreads
ALIGNED = 16  # px, of which tiles begin at a multiple: the halved pictures of all have the same pixels
PROBE_STEP = 16  # px between the pixels that tell which part of another photo a tile needs
MARGIN = 64  # px around that part

Rectangle = tuple[int, int, int, int]
"""First column and row, and those after the last ones, px."""


def refine(
    reference: Photo,
    prior: DepthMap,
    neighbours: Sequence[Photo],
    *,
    camera_error_px: float = 0.1,
    threads: int | None = None,
    device: str = "cpu",
) -> Measurement:
    """Returns depth measured in the photos near a prior, not merged with it.

    Args:
        reference: The view whose depth is wanted.
        prior: What is known, of the photo's size: depth to search around (3 sigma to either side, wider only
            where a neighbouring pixel's surface goes on), sigma, and normals, which slant the patches. Pixels
            without prior depth are not measured.
        neighbours: Other photos, of any size, as `choose_neighbours` finds them. Their order does not matter
            but for rounding.
        camera_error_px: Standard deviation of where the cameras put a point in another photo: a part of every
            sigma. SfM's is a tenth to a half of its mean reprojection error.
        threads: None takes one per processor. The result does not depend on it.
        device: Where pixels are matched: "cpu", or a device of torch such as "cuda" ("cpu:0" is torch's own
            way on the processor), where a few pixels that match as well in two places may choose the other.
            About 1 GB of memory is needed there, with four neighbours.

    Raises:
        InputError: The prior has another size than the photo, or there is no such device.
    """
    width, height = reference.camera.width, reference.camera.height
    if (prior.camera.width, prior.camera.height) != (width, height):
        raise InputError(
            f"refine: prior of {prior.camera.width}x{prior.camera.height}, photo of {width}x{height}"
        )
    make_matcher = matchers_on(device, threads)
    if max(width, height) <= WHOLE:
        return measure(reference, prior, neighbours, camera_error_px, make_matcher)
    whole = _nothing(prior.camera)
    for tile in _tiles(width, height):
        left, top, right, bottom = tile
        outer = (
            max(left - BEYOND, 0),
            max(top - BEYOND, 0),
            min(right + BEYOND, width),
            min(bottom + BEYOND, height),
        )
        part, near = _cut(reference, outer), _cut_map(prior, outer)
        found = measure(part, near, _seen_parts(part, near, neighbours), camera_error_px, make_matcher)
        inner = (slice(top - outer[1], bottom - outer[1]), slice(left - outer[0], right - outer[0]))
        for into, one in zip(_arrays(whole), _arrays(found), strict=True):
            into[top:bottom, left:right] = one[inner]
    return whole


def _tiles(width: int, height: int) -> Iterator[Rectangle]:
    """Yields tiles of about equal size that fill a picture."""
    columns, rows = _borders(width), _borders(height)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            yield left, top, right, bottom


def _borders(size: int) -> list[int]:
    count = -(-size // TILE)
    return [*(size * i // count // ALIGNED * ALIGNED for i in range(count)), size]


def _shifted(camera: Camera, rectangle: Rectangle) -> Camera:
    """Returns the camera of a part of a picture."""
    left, top, right, bottom = rectangle
    K = camera.K.copy()
    K[:2, 2] -= [left, top]
    return Camera(K, right - left, bottom - top)


def _cut(photo: Photo, rectangle: Rectangle) -> Photo:
    left, top, right, bottom = rectangle
    image = np.ascontiguousarray(photo.image[top:bottom, left:right])
    return Photo(_shifted(photo.camera, rectangle), photo.cam_from_world, image)


def _cut_map(depth_map: DepthMap, rectangle: Rectangle) -> DepthMap:
    left, top, right, bottom = rectangle
    maps = (depth_map.depth, depth_map.normals, depth_map.sigma)
    cut = (np.ascontiguousarray(one[top:bottom, left:right]) for one in maps)
    return DepthMap(_shifted(depth_map.camera, rectangle), *cut)


def _seen_parts(part: Photo, prior: DepthMap, neighbours: Sequence[Photo]) -> list[Photo]:
    """Returns of other photos what a tile may be compared with; none of those that see nothing of it."""
    rows, columns = (np.arange(PROBE_STEP // 2, size, PROBE_STEP) for size in prior.depth.shape)
    pick = np.ix_(rows, columns)
    depth, sigma = prior.depth[pick], prior.sigma[pick]
    known = depth > 0
    v, u = np.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")
    uv, z = np.stack([u[known], v[known]], axis=1), depth[known].astype(np.float64)
    inverse, half = 1 / z, BAND_SIGMAS * sigma[known] / z**2
    ends = [1 / (inverse + half), 1 / np.maximum(inverse - half, 1e-3 * inverse)]
    world = invert(part.cam_from_world)
    points = [transform(world, unproject(part.camera.K, uv, one)) for one in (z, *ends)]
    found = (_seen_part(np.concatenate(points), photo) for photo in neighbours)
    return [one for one in found if one is not None]


def _seen_part(points: Float64[np.ndarray, "n 3"], photo: Photo) -> Photo | None:
    in_camera = transform(photo.cam_from_world, points)
    uv = project(photo.camera.K, in_camera[in_camera[:, 2] > 0])
    size = np.array([photo.camera.width, photo.camera.height])
    uv = uv[((uv > -MARGIN) & (uv < size + MARGIN)).all(axis=1)]
    if not len(uv):
        return None
    low = np.maximum(uv.min(axis=0) - MARGIN, 0).astype(int) // ALIGNED * ALIGNED
    high = np.minimum(uv.max(axis=0) + MARGIN, size).astype(int)
    return _cut(photo, (int(low[0]), int(low[1]), int(high[0]), int(high[1])))


def _nothing(camera: Camera) -> Measurement:
    shape = (camera.height, camera.width)
    depth, normals = np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32)
    depth_map = DepthMap(camera, depth, normals, np.zeros(shape, np.float32))
    return Measurement(depth_map, np.zeros(shape, np.float32), np.zeros(shape, np.uint8))


def _arrays(measurement: Measurement) -> tuple[np.ndarray, ...]:
    depth_map = measurement.depth_map
    return depth_map.depth, depth_map.normals, depth_map.sigma, measurement.ncc, measurement.outcome
