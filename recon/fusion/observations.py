"""What each pixel of a depth map says to the voxels that project to it: a plane and how much to trust it."""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, UInt8

from recon.fusion.jit import compiled, run_pieces
from recon.geometry import RELATIVE_DEPTH_JUMP
from recon.scene import DepthMap

NX, NY, NZ, OFFSET, WEIGHT, SUPPORT = range(6)
MIN_COSINE = np.float32(np.cos(np.radians(85.0)))  # beyond 85 degrees depth says nothing about the surface
COSINE_WITHOUT_NORMAL = np.float32(0.5)  # a pixel without normal counts like one seen at 60 degrees
MAX_PRECISION = np.float32(4.0)  # no pixel is trusted to better than half a voxel, whatever it says
EDGE_SIGMA_PX = 3.0  # depth is mixed over about this distance from a depth edge
EDGE_RADIUS_PX = 8  # the weight is within 0.1 % of 1 from here on
JUMP_SIGMAS = np.float32(5.0)  # smaller steps may be noise; at 3, noise alone marks one pixel in 90
MIN_REACH_VOXELS = np.float32(2.0)  # both corners of a cell that the surface cuts are closer than this
REACH_TRUNCATIONS = np.float32(2.0)  # how far a plane is extrapolated along the ray (Voxfield, Pan 2022)
REACH_SIGMAS = np.float32(3.0)
SMOOTH_SIGMAS = np.float32(3.0)  # neighbours that differ by more are another surface
FULL_SIGMAS = np.float32(2.0)  # deviations that noise explains do not cost weight
TAPER_LENGTH = np.float32(0.75)  # of the truncation distance: sure pixels taper from one voxel to four

EDGE_WEIGHTS = (1 - np.exp(-np.arange(EDGE_RADIUS_PX**2 + 1) / EDGE_SIGMA_PX**2)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Observations:
    """The planes of one view, laid out for the kernels: most voxels need only the small array."""

    ranges: Float32[np.ndarray, "h w 2"]
    """Smallest and largest z at which the pixel's plane counts, camera frame; NaN where it says nothing."""

    planes: Float32[np.ndarray, "h w 6"]
    """NX, NY, NZ, OFFSET: n . x - offset is the signed distance / truncation of x, camera frame. WEIGHT.
    SUPPORT: distance / truncation at which the weight has fallen to nothing."""

    colors: UInt8[np.ndarray, "rows w 3"]
    """The photo; no rows where there is none."""


def observe(
    depth_map: DepthMap,
    color: UInt8[np.ndarray, "h w 3"] | None,
    *,
    voxel_size: float,
    truncation: float,
    threads: int | None,
) -> Observations:
    """Returns plane and weight of every pixel.

    The plane goes across the map's normal through the observed point, moved to the mean of its neighbours
    where noise alone sets them apart; without normal, across the optical axis. The weight is a product of

    - precision: min(voxel_size^2 / sigma^2, 4);
    - incidence: (cos(theta) - cos(85 deg)) / (1 - cos(85 deg)), at least 0, theta between ray and normal;
    - distance d to the next depth edge or hole: 1 - exp(-(d / 3 px)^2), which removes flying pixels.

    The support is max(1, 3/4 + 2 sigma / truncation): with the taper of `integration`, distances up to two
    sigma keep their full weight; sure pixels let go of voxels behind them soon, for the sake of thin parts.
    """
    height, width = depth_map.depth.shape
    rays_from_pixels = np.linalg.inv(depth_map.camera.K)[:2].astype(np.float32)
    maps = tuple(
        np.ascontiguousarray(values)
        for values in (depth_map.depth, depth_map.normals, depth_map.sigma, rays_from_pixels)
    )
    distances = np.empty((height, width), np.uint8)
    run_pieces(_row_distances, height, threads, maps, np.float32(truncation) ** 2, distances)
    seen = Observations(
        ranges=np.empty((height, width, 2), np.float32),
        planes=np.empty((height, width, 6), np.float32),
        colors=np.empty((0, width, 3), np.uint8) if color is None else np.ascontiguousarray(color),
    )
    lengths = np.array([voxel_size, truncation], np.float32)
    pixels = (*maps, distances)
    run_pieces(_observe_rows, height, threads, pixels, lengths, (seen.ranges, seen.planes))
    return seen


@compiled
@no_type_check
def _plane_depth(normal: Any, z: Any, ray_u: Any, ray_v: Any, step_u: Any, step_v: Any) -> Any:
    """Depth that a pixel's tangent plane has at a neighbour's ray; infinite where the plane turns away."""
    here = normal[0] * ray_u + normal[1] * ray_v + normal[2]
    there = here + normal[0] * step_u + normal[1] * step_v
    if there > np.float32(-1e-6):
        return np.float32(np.inf)
    return z * here / there


@compiled
@no_type_check
def _planes_meet(maps: Any, pixel: Any, step: Any, tolerance2: Any) -> Any:
    """True where the tangent plane of a pixel or of its neighbour meets the other's point."""
    depth, normals, _, rays = maps
    v, u = pixel
    v2, u2 = v + step[0], u + step[1]
    z, z2 = depth[v, u], depth[v2, u2]
    n, n2 = normals[v, u], normals[v2, u2]
    if n[2] == 0 or n2[2] == 0:
        return abs(z - z2) <= np.float32(RELATIVE_DEPTH_JUMP) * min(z, z2)
    x, y = np.float32(u) + np.float32(0.5), np.float32(v) + np.float32(0.5)
    ray_u = rays[0, 0] * x + rays[0, 1] * y + rays[0, 2]
    ray_v = rays[1, 0] * x + rays[1, 1] * y + rays[1, 2]
    step_u = rays[0, 0] * step[1] + rays[0, 1] * step[0]
    step_v = rays[1, 0] * step[1] + rays[1, 1] * step[0]
    miss = _plane_depth(n, z, ray_u, ray_v, step_u, step_v) - z2
    miss2 = _plane_depth(n2, z2, ray_u + step_u, ray_v + step_v, -step_u, -step_v) - z
    return miss * miss <= tolerance2 or miss2 * miss2 <= tolerance2


@compiled
@no_type_check
def _row_distances(start: int, stop: int, maps: Any, truncation2: Any, distances: Any) -> None:
    """Writes the distance of each pixel to the next edge in its row, px, at most EDGE_RADIUS_PX.

    An edge is a pixel without depth or with a neighbour that is not on its surface. Neighbours are if their
    depths differ by less than the truncation distance or than what noise explains; or if the tangent plane of
    either meets the other: a floor at a grazing angle has large steps but no edges.
    """
    depth, _, sigma, _ = maps
    height, width = depth.shape
    edge = np.empty(width, np.bool_)
    for v in range(start, stop):
        edge[:] = depth[v] <= 0
        for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            if not 0 <= v + dv < height:
                continue
            for u in range(max(0, -du), width - max(0, du)):
                z, z2 = depth[v, u], depth[v + dv, u + du]
                s, s2 = sigma[v, u], sigma[v + dv, u + du]
                tolerance2 = max(truncation2, JUMP_SIGMAS * JUMP_SIGMAS * (s * s + s2 * s2))
                if (z - z2) * (z - z2) > tolerance2 or z2 <= 0:
                    edge[u] |= z2 <= 0 or not _planes_meet(maps, (v, u), (dv, du), tolerance2)
        last = -EDGE_RADIUS_PX
        for u in range(width):
            last = u if edge[u] else last
            distances[v, u] = min(u - last, EDGE_RADIUS_PX)
        last = width - 1 + EDGE_RADIUS_PX
        for u in range(width - 1, -1, -1):
            last = u if edge[u] else last
            distances[v, u] = min(distances[v, u], last - u)


@compiled
@no_type_check
def _squared_distances(v: int, distances: Any, nearest: Any) -> None:
    """Writes the squared distance of each pixel of row v to the next edge, px^2, from those along rows."""
    height, width = distances.shape
    nearest[:] = EDGE_RADIUS_PX * EDGE_RADIUS_PX
    for row in range(max(0, v - EDGE_RADIUS_PX), min(height, v + EDGE_RADIUS_PX + 1)):
        rise = np.int16((row - v) * (row - v))
        for u in range(width):
            across = np.int16(distances[row, u])
            nearest[u] = min(nearest[u], np.int16(across * across + rise))


@compiled
@no_type_check
def _smoothing(v: int, maps: Any, normal_row: Any, sums: Any) -> None:
    """Writes how far the surface around each pixel of row v is from it, along its normal, scene units.

    A mean over 3 x 3 pixels, weights 1 2 1 both ways, of n . (X_q - X_p), without those neighbours q that
    noise does not explain. Zero on planes; it takes half of independent noise away and leaves edges.

    Args:
        v: Row.
        maps: Depth, normals, sigma, rays from pixels.
        normal_row: Of `_face_row`.
        sums: (2, w): the mean is written to the first row.
    """
    depth, _, sigma, rays = maps
    height, width = depth.shape
    zero = np.float32(0)
    sums[:, :] = zero
    for dv in range(max(-1, -v), min(2, height - v)):
        for du in range(-1, 2):
            weight = np.float32((2 - abs(du)) * (2 - abs(dv)))
            step_u = rays[0, 0] * np.float32(du) + rays[0, 1] * np.float32(dv)
            step_v = rays[1, 0] * np.float32(du) + rays[1, 1] * np.float32(dv)
            low, high = max(0, -du), width - max(0, du)
            z, z2 = depth[v, low:high], depth[v + dv, low + du : high + du]
            s, s2 = sigma[v, low:high], sigma[v + dv, low + du : high + du]
            nx, ny, toward = normal_row[0, low:high], normal_row[1, low:high], normal_row[2, low:high]
            total, count = sums[0, low:high], sums[1, low:high]
            for i in range(high - low):  # without branches and with flat arrays, so that it is vectorised
                above = z2[i] * (toward[i] + nx[i] * step_u + ny[i] * step_v) - z[i] * toward[i]
                variance = s[i] * s[i] + s2[i] * s2[i]
                alike = (z2[i] > zero) & (above * above <= SMOOTH_SIGMAS * SMOOTH_SIGMAS * variance)
                total[i] += weight * above if alike else zero
                count[i] += weight if alike else zero
    for u in range(width):
        sums[0, u] /= max(sums[1, u], np.float32(1))


@compiled
@no_type_check
def _face_row(v: int, maps: Any, normal_row: Any) -> None:
    """Writes x, y of row v's unit normals, n . ray, z, and the cosine of the angle; zeros without normal."""
    _, normals, _, rays = maps
    one, y = np.float32(1), np.float32(v) + np.float32(0.5)
    for u in range(normals.shape[1]):
        x = np.float32(u) + np.float32(0.5)
        ray_u = rays[0, 0] * x + rays[0, 1] * y + rays[0, 2]
        ray_v = rays[1, 0] * x + rays[1, 1] * y + rays[1, 2]
        nx, ny, nz = normals[v, u, 0], normals[v, u, 1], normals[v, u, 2]
        scale = one / max(np.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-12))
        toward = (nx * ray_u + ny * ray_v + nz) * scale
        normal_row[0, u], normal_row[1, u], normal_row[2, u] = nx * scale, ny * scale, toward
        normal_row[3, u], normal_row[4, u] = (
            nz * scale,
            -toward / np.sqrt(ray_u * ray_u + ray_v * ray_v + one),
        )


@compiled
@no_type_check
def _observe_rows(start: int, stop: int, pixels: Any, lengths: Any, out: Any) -> None:
    depth, normals, sigma, rays, distances = pixels
    maps = (depth, normals, sigma, rays)
    ranges, planes = out
    width = depth.shape[1]
    voxel_size, truncation = lengths
    nearest, normal_row = np.empty(width, np.int16), np.empty((5, width), np.float32)
    sums, one = np.empty((2, width), np.float32), np.float32(1)
    for v in range(start, stop):
        _squared_distances(v, distances, nearest)
        _face_row(v, maps, normal_row)
        _smoothing(v, maps, normal_row, sums)
        for u in range(width):
            z, weight = depth[v, u], EDGE_WEIGHTS[nearest[u]]
            nx, ny, nz = normal_row[0, u], normal_row[1, u], normal_row[3, u]
            toward, cosine = normal_row[2, u], normal_row[4, u]
            offset = z * toward + sums[0, u]
            if nx == 0 and ny == 0 and nz == 0:
                nz, offset, cosine = -one, -z, COSINE_WITHOUT_NORMAL
            if z <= 0 or nearest[u] == 0 or cosine <= MIN_COSINE:
                ranges[v, u, 0] = ranges[v, u, 1] = np.nan
                planes[v, u, WEIGHT] = np.float32(0)
                continue
            spread = sigma[v, u] / voxel_size
            weight *= min(one / (spread * spread), MAX_PRECISION) * (cosine - MIN_COSINE) / (one - MIN_COSINE)
            reach = max(REACH_TRUNCATIONS * truncation, REACH_SIGMAS * sigma[v, u])
            reach = max(reach, MIN_REACH_VOXELS * voxel_size / cosine)
            ranges[v, u, 0], ranges[v, u, 1] = z - reach, z + reach
            planes[v, u, NX], planes[v, u, NY], planes[v, u, NZ] = nx, ny, nz
            planes[v, u, OFFSET] = offset
            for i in range(4):
                planes[v, u, i] /= truncation
            planes[v, u, WEIGHT] = weight
            planes[v, u, SUPPORT] = max(TAPER_LENGTH + FULL_SIGMAS * sigma[v, u] / truncation, one)
