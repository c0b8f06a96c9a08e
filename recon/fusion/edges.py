"""How far each pixel is from the next depth edge, where depth is a mixture of two surfaces."""

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from jaxtyping import UInt8

from recon.geometry import RELATIVE_DEPTH_JUMP
from recon.jit import begin_rows, compiled
from recon.scene import DepthMap

EDGE_RADIUS_PX = 6  # edges farther away do not matter
JUMP_SIGMAS = np.float32(5.0)  # smaller steps may be noise; at 3, noise alone marks one pixel in 90
INSIDE, EDGE = 0, 1  # other marks: bits 1 to 4 for a jump to the neighbours at STEPS
STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # rows and columns


def edge_distances(depth_map: DepthMap, truncation: float, threads: int | None) -> UInt8[np.ndarray, "h w"]:
    """Returns the squared distance of each pixel to the next edge in its row, px^2, at most 36.

    An edge is a pixel without depth or with a neighbour that is not on its surface. Neighbours are if their
    depths differ by less than the truncation distance or than what noise explains; or if the tangent plane of
    either meets the other: a floor at a grazing angle has large steps but no edges.
    """
    distances, finish = begin_edge_distances(depth_map, truncation, threads)
    finish()
    return distances


def begin_edge_distances(
    depth_map: DepthMap, truncation: float, threads: int | None
) -> tuple[UInt8[np.ndarray, "h w"], Callable[[], Any]]:
    """Starts `edge_distances` on all threads but the calling one; returns what they are, and what ends it."""
    rays_from_pixels = np.linalg.inv(depth_map.camera.K)[:2].astype(np.float32)
    maps = tuple(np.ascontiguousarray(m) for m in (depth_map.depth, depth_map.normals, depth_map.sigma))
    distances = np.empty(depth_map.depth.shape, np.uint8)
    squared = np.float32(truncation) ** 2
    arguments = ((*maps, rays_from_pixels), squared, distances)
    return distances, begin_rows(_row_distances, len(distances), threads, *arguments)


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
def _planes_meet(maps: Any, pixel: Any, step: Any, truncation2: Any) -> Any:
    """True where the tangent plane of a pixel or of its neighbour meets the other's point."""
    depth, normals, sigma, rays = maps
    v, u = pixel
    v2, u2 = v + step[0], u + step[1]
    z, z2 = depth[v, u], depth[v2, u2]
    n, n2 = normals[v, u], normals[v2, u2]
    if n[2] == 0 or n2[2] == 0:
        return abs(z - z2) <= np.float32(RELATIVE_DEPTH_JUMP) * min(z, z2)
    s, s2 = sigma[v, u], sigma[v2, u2]
    tolerance2 = max(truncation2, JUMP_SIGMAS * JUMP_SIGMAS * (s * s + s2 * s2))
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
def _mark(here: Any, there: Any, mark: int, truncation2: Any, marks: Any) -> None:
    """Adds the mark of a jump, or of an edge where the neighbour has no depth, to a row of pixels.

    `here` and `there`: depths and sigmas of the pixels and of their neighbours.
    """
    depth, sigma = here
    depth2, sigma2 = there
    zero, sigmas2 = np.float32(0), JUMP_SIGMAS * JUMP_SIGMAS
    jump, edge, inside = np.uint8(mark), np.uint8(EDGE), np.uint8(INSIDE)
    for i in range(len(marks)):
        z, z2, s, s2 = depth[i], depth2[i], sigma[i], sigma2[i]
        far = (z - z2) * (z - z2) > max(truncation2, sigmas2 * (s * s + s2 * s2))
        added = edge if z2 <= zero else (jump if far else inside)
        marks[i] = np.uint8(marks[i] | added)


@compiled
@no_type_check
def _row_distances(start: int, stop: int, maps: Any, truncation2: Any, distances: Any) -> None:
    depth, _, sigma, _ = maps
    width = depth.shape[1]
    marks = np.zeros((width + 7) // 8 * 8, np.uint8)
    eights = marks.view(np.uint64)
    for v in range(start, stop):
        _mark_row(v, (depth, sigma), truncation2, marks[:width])
        squares = distances[v]
        squares[:] = np.uint8(EDGE_RADIUS_PX * EDGE_RADIUS_PX)
        for first in range(len(eights)):
            if eights[first] == 0:
                continue
            for u in range(8 * first, min(8 * first + 8, width)):
                if marks[u] != INSIDE and _is_edge(marks[u], maps, (v, u), truncation2):
                    for u2 in range(max(0, u - EDGE_RADIUS_PX), min(width, u + EDGE_RADIUS_PX + 1)):
                        squares[u2] = min(squares[u2], np.uint8((u2 - u) * (u2 - u)))


@compiled
@no_type_check
def _mark_row(v: int, maps: Any, truncation2: Any, marks: Any) -> None:
    """Writes the marks of a row of pixels."""
    depth, sigma = maps
    height, width = depth.shape
    row = depth[v]
    for u in range(width):
        marks[u] = np.uint8(EDGE) if row[u] <= np.float32(0) else np.uint8(INSIDE)
    for k in range(4):
        dv, du = STEPS[k]
        if 0 <= v + dv < height:
            u0, u1 = max(0, -du), width - max(0, du)
            here = (depth[v, u0:u1], sigma[v, u0:u1])
            there = (depth[v + dv, u0 + du : u1 + du], sigma[v + dv, u0 + du : u1 + du])
            _mark(here, there, 2 << k, truncation2, marks[u0:u1])


@compiled
@no_type_check
def _is_edge(mark: int, maps: Any, pixel: Any, truncation2: Any) -> Any:
    """Returns whether a pixel has no depth, or a neighbour without depth or with another surface."""
    edge = mark & EDGE != 0
    for k in range(4):
        if mark & (2 << k) and not edge:
            edge = not _planes_meet(maps, pixel, STEPS[k], truncation2)
    return edge
