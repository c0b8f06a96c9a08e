"""What each pixel of a depth map says to the voxels that project to it: a plane and how much to trust it."""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, UInt8, UInt32

from recon.fusion.edges import EDGE_RADIUS_PX, edge_distances
from recon.fusion.packing import (
    HIGH_XY,
    HIGH_Z,
    bits_of,
    float_of,
    pack_direction,
    pack_three,
    pack_trust,
    unpack_direction,
)
from recon.jit import compiled, reordered, run_pieces
from recon.scene import DepthMap

DIRECTION, TRUST, OFFSET, COLOR = range(4)  # words of a record
MIN_COSINE = np.float32(np.cos(np.radians(85.0)))  # beyond 85 degrees depth says nothing about the surface
COSINE_WITHOUT_NORMAL = np.float32(0.5)  # a pixel without normal counts like one seen at 60 degrees
MAX_PRECISION = np.float32(4.0)  # no pixel is trusted to better than half a voxel, whatever it says
EDGE_SIGMA_PX = 2.0  # depth is mixed over about this distance from a depth edge
MAX_EDGE_PX2 = EDGE_RADIUS_PX**2  # the weight is within 0.02 % of 1 from here on
MIN_REACH_VOXELS = np.float32(2.0)  # both corners of a cell that the surface cuts are closer than this
REACH_TRUNCATIONS = np.float32(2.0)  # how far a plane is extrapolated along the ray (Voxfield, Pan 2022)
REACH_SIGMAS = np.float32(3.0)
SMOOTH_SIGMAS = np.float32(3.0)  # neighbours that differ by more are another surface
FULL_SIGMAS = np.float32(2.0)  # deviations that noise explains do not cost weight
TAPER_LENGTH = np.float32(0.75)  # of the truncation distance: sure pixels taper from one voxel to four
FREE_WEIGHT = np.float32(1.0)  # of having seen through; how sure the depth behind is does not matter
CHUNK = 640  # pixels done at once: a constant size of the scratch space lets the loops be vectorised
LEVEL_XY, LEVEL_Z = np.float32(HIGH_XY / 255), np.float32(HIGH_Z / 255)

EDGE_WEIGHTS = (1 - np.exp(-np.arange(MAX_EDGE_PX2 + 1) / EDGE_SIGMA_PX**2)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Frame:
    """Where one view is in the grid, in voxels: axes of the grid, origin at the corner of a block near it."""

    K: Float64[np.ndarray, "3 3"]
    rotation: Float64[np.ndarray, "3 3"]
    """Camera from grid."""

    center: Float64[np.ndarray, "3"]
    """Of the camera, voxels."""

    voxel_size: float
    truncation: float


@dataclass(frozen=True, eq=False)
class Observations:
    """The planes of one view, laid out for the kernels, with a border of pixels that say nothing."""

    records: UInt32[np.ndarray, "h2 w2 4"]
    """DIRECTION: the plane's normal n, grid's axes. OFFSET: n . x - offset is the signed distance of x, in
    voxels, in the frame of the view; a float32. TRUST: weight, support, the distance / truncation at which
    the weight has fallen to nothing, and the vote for free space farther out. COLOR: levels / 255. All as in
    `packing`."""


def observe(
    depth_map: DepthMap,
    color: UInt8[np.ndarray, "h w 3"] | None,
    frame: Frame,
    *,
    gains: Float64[np.ndarray, "3"],
    trust: float,
    threads: int | None,
) -> Observations:
    """Returns plane and weight of every pixel.

    The plane goes across the map's normal through the observed point, moved to the mean of its neighbours
    where noise alone sets them apart; without normal, across the optical axis. The weight is a product of

    - precision: min(voxel_size^2 / sigma^2, 4);
    - incidence: (cos(theta) - cos(85 deg)) / (1 - cos(85 deg)), at least 0, theta between ray and normal;
    - distance d to the next depth edge or hole: 1 - exp(-(d / 2 px)^2), which removes flying pixels;
    - `trust`.

    The support is max(1, 3/4 + 2 sigma / truncation): with the taper of `integration`, distances up to two
    sigma keep their full weight; sure pixels let go of voxels behind them soon, for the sake of thin parts.
    It is cut to what the plane has within max(2 truncation, 3 sigma, 2 voxels / cos) along the pixel's ray: a
    plane seen at a grazing angle is not extrapolated far.

    Args:
        depth_map: Of the view.
        color: Its photo, if it has one.
        frame: Where it is.
        gains: Factor of the photo's red, green and blue.
        trust: Of the whole view, at most 1.
        threads: None means one per processor.
    """
    seen = make_room(*depth_map.depth.shape)
    picture = (depth_map, color, edge_distances(depth_map, frame.truncation, threads))
    arguments = observing(seen, picture, frame, gains=gains, trust=trust)
    run_pieces(observe_rows, len(depth_map.depth), threads, *arguments)
    return seen


def make_room(height: int, width: int) -> Observations:
    """Returns room for what a view of this size sees; what is in it means nothing, except for the border."""
    records = np.empty((height + 2, width + 2, 4), np.uint32)
    records[[0, -1]], records[:, [0, -1]] = 0, 0
    return Observations(records)


def observing(
    room: Observations,
    picture: tuple[DepthMap, UInt8[np.ndarray, "h w 3"] | None, UInt8[np.ndarray, "h w"]],
    frame: Frame,
    *,
    gains: Float64[np.ndarray, "3"],
    trust: float,
) -> tuple[Any, ...]:
    """Returns what `observe_rows` needs to do what `observe` does.

    In room that was made before: new memory for each view takes time.

    `picture`: depth map, photo, and what `edge_distances` returns of the map.
    """
    depth_map, color, distances = picture
    width = depth_map.depth.shape[1]
    maps = tuple(np.ascontiguousarray(m) for m in (depth_map.depth, depth_map.normals, depth_map.sigma))
    photo = np.zeros((0, width, 3), np.uint8) if color is None else np.ascontiguousarray(color)
    rays_from_pixels = np.linalg.inv(frame.K)[:2].astype(np.float32)
    turn = np.ascontiguousarray(frame.rotation.T.astype(np.float32))
    lengths = (np.float32(frame.voxel_size), np.float32(frame.truncation), np.float32(trust))
    lens = (rays_from_pixels, turn, frame.center.astype(np.float32), lengths, gains.astype(np.float32))
    return (*maps, photo, distances), lens, room.records


# Rows of the scratch space, CHUNK numbers each.
NX, NY, NZ, TOWARD, COSINE, MOVED, COUNT, NEAREST, DIRECTIONS, TRUSTS, OFFSETS, COLORS = range(12)


@reordered
@no_type_check
def _face(v: int, first: int, count: int, maps: Any, rays: Any, scratch: Any) -> None:
    """Writes the unit normals of pixels, n . ray, and the cosine of the angle."""
    normals = maps[1].reshape(-1)[(v * maps[1].shape[1] + first) * 3 :]
    one, half = np.float32(1), np.float32(0.5)
    y = np.float32(v) + half
    first_u = rays[0, 1] * y + rays[0, 2]
    first_v = rays[1, 1] * y + rays[1, 2]
    du, dv, left = rays[0, 0], rays[1, 0], np.float32(first) + half
    for i in range(count):
        x = np.float32(np.int32(i)) + left
        ray_u, ray_v = du * x + first_u, dv * x + first_v
        nx, ny, nz = normals[3 * i], normals[3 * i + 1], normals[3 * i + 2]
        squared = nx * nx + ny * ny + nz * nz
        none = squared == np.float32(0)
        scale = one / np.sqrt(one if none else squared)
        nx, ny, nz = nx * scale, ny * scale, (-one if none else nz * scale)
        toward = nx * ray_u + ny * ray_v + nz
        cosine = -toward / np.sqrt(ray_u * ray_u + ray_v * ray_v + one)
        scratch[NX * CHUNK + i], scratch[NY * CHUNK + i], scratch[NZ * CHUNK + i] = nx, ny, nz
        scratch[TOWARD * CHUNK + i] = toward
        scratch[COSINE * CHUNK + i] = COSINE_WITHOUT_NORMAL if none else cosine


@compiled
@no_type_check
def _halo(v: int, first: int, count: int, maps: Any, around: Any) -> None:
    """Writes depths and variances of pixels and those around, zero outside the picture; 3 rows."""
    depth, sigma = maps[0], maps[2]
    height, width = depth.shape
    row = CHUNK + 2
    for dv in range(-1, 2):
        z, s = (dv + 1) * row, (dv + 4) * row
        around[z : z + count + 2] = np.float32(0)
        if 0 <= v + dv < height:
            skip, stop = (1 if first == 0 else 0), min(first + count + 1, width)
            depths, sigmas = depth[v + dv, first - 1 + skip : stop], sigma[v + dv, first - 1 + skip : stop]
            into, variances = around[z + skip :], around[s + skip :]
            for i in range(len(depths)):
                into[i] = depths[i]
            for i in range(len(sigmas)):
                variances[i] = sigmas[i] * sigmas[i]


@reordered
@no_type_check
def _smooth(count: int, rays: Any, around: Any, scratch: Any) -> None:
    """Writes how far the surface around each pixel is from it, along its normal, scene units.

    A mean over 3 x 3 pixels, weights 1 2 1 both ways, of n . (X_q - X_p), without those neighbours q that
    noise does not explain. Zero on planes; it takes half of independent noise away and leaves edges.
    """
    zero, four, row = np.float32(0), np.float32(4), CHUNK + 2
    limit = SMOOTH_SIGMAS * SMOOTH_SIGMAS
    for i in range(count):
        scratch[MOVED * CHUNK + i] = zero
        scratch[COUNT * CHUNK + i] = four
    for k in range(9):
        if k == 4:
            continue
        du, dv = k % 3 - 1, k // 3 - 1
        weight = np.float32((2 - abs(du)) * (2 - abs(dv)))
        step_u = rays[0, 0] * np.float32(du) + rays[0, 1] * np.float32(dv)
        step_v = rays[1, 0] * np.float32(du) + rays[1, 1] * np.float32(dv)
        other = around[(dv + 1) * row + du + 1 :]
        for i in range(count):
            z, z2 = around[row + 1 + i], other[i]
            variance = around[4 * row + 1 + i] + other[3 * row + i]
            toward = scratch[TOWARD * CHUNK + i]
            slope = scratch[NX * CHUNK + i] * step_u + scratch[NY * CHUNK + i] * step_v
            above = z2 * (toward + slope) - z * toward
            alike = (z2 > zero) & (above * above <= limit * variance)
            scratch[MOVED * CHUNK + i] += weight * above if alike else zero
            scratch[COUNT * CHUNK + i] += weight if alike else zero


@compiled
@no_type_check
def _nearest_edges(v: int, first: int, count: int, distances: Any, nearest: Any, scratch: Any) -> None:
    """Writes the weights for the distance to the next edge, from the squared distances along rows."""
    height, width = distances.shape
    flat = distances.reshape(-1)
    for i in range(count):
        nearest[i] = np.uint8(MAX_EDGE_PX2)
    for row in range(max(0, v - EDGE_RADIUS_PX + 1), min(height, v + EDGE_RADIUS_PX)):
        rise, along = np.uint8((row - v) * (row - v)), flat[row * width + first :]
        for i in range(count):
            nearest[i] = min(nearest[i], np.uint8(along[i] + rise))
    for i in range(count):
        scratch[NEAREST * CHUNK + i] = EDGE_WEIGHTS[nearest[i]]


@reordered
@no_type_check
def _write(place: Any, count: int, lens: Any, scratch: Any, variances: Any) -> None:
    """Writes what is in the records of a row of pixels, except for colours."""
    v, first = place
    rays, turn, center, lengths, _ = lens
    one, half, zero, tiny = np.float32(1), np.float32(0.5), np.float32(0), np.float32(1e-6)
    voxel, truncation, trust = lengths
    per_voxel, per_truncation, voxel2 = one / voxel, one / truncation, voxel * voxel
    xx, xy, xz, yx, yy, yz = turn[0, 0], turn[0, 1], turn[0, 2], turn[1, 0], turn[1, 1], turn[1, 2]
    zx, zy, zz = turn[2, 0], turn[2, 1], turn[2, 2]
    cx, cy, cz = center[0], center[1], center[2]
    y, left, row = np.float32(v) + half, np.float32(first) + half, CHUNK + 2
    first_u, first_v, du, dv = (
        rays[0, 1] * y + rays[0, 2],
        rays[1, 1] * y + rays[1, 2],
        rays[0, 0],
        rays[1, 0],
    )
    for i in range(count):
        x = np.float32(np.int32(i)) + left
        ray_u, ray_v = du * x + first_u, dv * x + first_v
        z, variance = variances[row + 1 + i], variances[4 * row + 1 + i]
        nx, ny, nz = scratch[NX * CHUNK + i], scratch[NY * CHUNK + i], scratch[NZ * CHUNK + i]
        toward, cosine = scratch[TOWARD * CHUNK + i], scratch[COSINE * CHUNK + i]
        gx, gy, gz = xx * nx + xy * ny + xz * nz, yx * nx + yy * ny + yz * nz, zx * nx + zy * ny + zz * nz
        direction = pack_direction(gx, gy, gz)
        gx, gy, gz = unpack_direction(direction)  # so that rounding turns the plane about the observed point
        rx, ry, rz = (
            xx * ray_u + xy * ray_v + xz,
            yx * ray_u + yy * ray_v + yz,
            zx * ray_u + zy * ray_v + zz,
        )
        along = gx * rx + gy * ry + gz * rz
        moved = scratch[MOVED * CHUNK + i] / scratch[COUNT * CHUNK + i]
        offset = gx * cx + gy * cy + gz * cz + (z * along + moved) * per_voxel
        sigma = np.sqrt(variance)
        weight = min(voxel2 / max(variance, tiny * voxel2), MAX_PRECISION) * trust
        weight *= scratch[NEAREST * CHUNK + i] * (cosine - MIN_COSINE) / (one - MIN_COSINE)
        usable = (z > zero) & (cosine > MIN_COSINE) & (toward < -tiny)
        weight = weight if usable else zero
        reach = max(REACH_TRUNCATIONS * truncation, REACH_SIGMAS * sigma, MIN_REACH_VOXELS * voxel / cosine)
        support = max(TAPER_LENGTH + FULL_SIGMAS * sigma * per_truncation, one)
        support = min(support, -reach * toward * per_truncation)
        support = support if weight > zero else zero
        vote = FREE_WEIGHT * trust * scratch[NEAREST * CHUNK + i] if weight > zero else zero
        scratch[DIRECTIONS * CHUNK + i] = float_of(direction)
        scratch[TRUSTS * CHUNK + i] = float_of(pack_trust(weight, support, vote))
        scratch[OFFSETS * CHUNK + i] = offset if usable else zero


@compiled
@no_type_check
def _paint(v: int, first: int, count: int, photo: Any, gains: Any, scratch: Any) -> None:
    """Writes the colours of a row of pixels."""
    levels = photo.reshape(-1)[(v * photo.shape[1] + first) * 3 :]
    half, most = np.float32(0.5), np.float32(255)
    red, green, blue = gains[0], gains[1], gains[2]
    for i in range(count):
        r = min(np.float32(levels[3 * i]) * red, most) * LEVEL_XY + half
        g = min(np.float32(levels[3 * i + 1]) * green, most) * LEVEL_XY + half
        b = min(np.float32(levels[3 * i + 2]) * blue, most) * LEVEL_Z + half
        scratch[COLORS * CHUNK + i] = float_of(pack_three(r, g, b))


@compiled
@no_type_check
def _join(count: int, scratch: Any, records: Any) -> None:
    """Writes the records of pixels from their words; all four in one loop, or it would not be vectorised."""
    for i in range(count):
        records[4 * i + DIRECTION] = bits_of(scratch[DIRECTIONS * CHUNK + i])
        records[4 * i + TRUST] = bits_of(scratch[TRUSTS * CHUNK + i])
        records[4 * i + OFFSET] = bits_of(scratch[OFFSETS * CHUNK + i])
        records[4 * i + COLOR] = bits_of(scratch[COLORS * CHUNK + i])


@compiled
@no_type_check
def observe_rows(start: int, stop: int, pixels: Any, lens: Any, out: Any) -> None:
    """Writes records and fronts of some rows of pixels; the rest of the arguments is of `observing`."""
    depth, normals, sigma, photo, distances = pixels
    maps = (depth, normals, sigma)
    width, padded = depth.shape[1], out.shape[1]
    flat = out.reshape(-1)
    scratch, around = np.zeros(12 * CHUNK, np.float32), np.zeros(6 * (CHUNK + 2), np.float32)
    nearest = np.empty(CHUNK, np.uint8)
    for v in range(start, stop):
        for first in range(0, width, CHUNK):
            count = min(CHUNK, width - first)
            begin = ((v + 1) * padded + first + 1) * 4
            _face(v, first, count, maps, lens[0], scratch)
            _halo(v, first, count, maps, around)
            _smooth(count, lens[0], around, scratch)
            _nearest_edges(v, first, count, distances, nearest, scratch)
            _write((v, first), count, lens, scratch, around)
            if len(photo):
                _paint(v, first, count, photo, lens[4], scratch)
            _join(count, scratch, flat[begin:])
