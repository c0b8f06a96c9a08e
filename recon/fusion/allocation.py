"""Which blocks of voxels a view touches: those within the truncation distance of the surface that it sees."""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Int64

from recon.fusion.blocks import EMPTY, HALF, KEY_BITS, SIDE, slot_of
from recon.fusion.observations import DIRECTION, TRUST, VOTE, Frame, Observations
from recon.fusion.packing import unpack_direction, unpack_trust
from recon.jit import compiled, run_pieces
from recon.scene import DepthMap

MIN_COSINE2 = np.float32(np.cos(np.radians(85.0)) ** 2)
DENSE_BLOCKS2 = (1.5 / SIDE) ** 2  # smaller pixels need not all walk: points three voxels apart miss no cell
SPARSE_BLOCKS = 0.5  # wider pixels could step over a block
CELL_BLOCKS = 1.5 / SIDE  # the corners of the cell that a point lies in, and of one shifted by noise
MAX_SUBPIXELS = 8  # per side; rays of a pixel seen at the worst angle are still closer than a block
MIX_1, MIX_2 = np.int32(0x2545F491), np.int32(0x19E3779B)  # odd, large
SPARED, LEAST_WALK = np.float32(0.5), np.float32(0.5)  # voxels farther out weigh little
CHUNK = 256  # pixels done at once: a constant size of the scratch space lets loops be vectorised
DEPTH, VOTES, WIDTH2 = 6, 7, 8  # rows of the scratch space; before them middles and halves of walks
SEEN_SLOTS = 4096  # recently touched blocks that a thread remembers
PLAN_SLOTS = 8192  # recent walks that it remembers


def touched_keys(
    seen: Observations,
    depth_map: DepthMap,
    frame: Frame,
    first_block: Int64[np.ndarray, "3"],
    threads: int | None,
) -> Int64[np.ndarray, "n"]:
    """Returns the keys of all blocks near what a view sees, some repeated.

    Each pixel walks as far as its voxels have weight, half the truncation distance for sure ones, at most
    all of it; across its surface, along the normal and not along the ray, which would leave gaps at grazing
    angles; pixels wider than half a block on the surface walk several times. The blocks of all voxels around
    the observed point are touched too: in a room's corner no walk meets the one behind both walls.

    Args:
        seen: Of `observations.observe`.
        depth_map: Of the view.
        frame: Of the view.
        first_block: The block at the frame's origin.
        threads: None means one per processor.
    """
    depth = np.ascontiguousarray(depth_map.depth)
    to_blocks = frame.rotation.T / (SIDE * frame.voxel_size)
    place = (
        np.linalg.inv(frame.K)[:2],
        to_blocks,
        frame.center / SIDE,
        frame.truncation / (SIDE * frame.voxel_size),
        first_block + HALF,
    )
    rows = (len(depth) + 1) // 2
    return np.concatenate(run_pieces(_touch_rows, rows, threads, depth, seen.records, seen.fronts, place))


@compiled
@no_type_check
def _key_at(x: Any, y: Any, z: Any, origin: Any) -> Any:
    """Returns the key of the block that has a point, block units, frame of the view."""
    i, j, k = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
    return (i + origin[0] << 2 * KEY_BITS) | (j + origin[1] << KEY_BITS) | (k + origin[2])


@compiled
@no_type_check
def _mix(key: Any) -> Any:
    return np.int64(np.uint64(key) * np.uint64(0x9E3779B97F4A7C15))


@compiled
@no_type_check
def _surface(pixel: Any, depth: Any, records: Any, place: Any) -> Any:
    """Returns a pixel's ray, depth, normal in the grid, n . ray and its width on the surface, blocks."""
    v, u = pixel
    rays, to_blocks, _, _, _ = place
    nx, ny, nz = unpack_direction(np.uint32(records[v + 1, u + 1, DIRECTION]))
    ray_u = rays[0, 0] * (u + 0.5) + rays[0, 1] * (v + 0.5) + rays[0, 2]
    ray_v = rays[1, 0] * (u + 0.5) + rays[1, 1] * (v + 0.5) + rays[1, 2]
    z = np.float64(depth[v, u])
    B = to_blocks
    x = B[0, 0] * ray_u + B[0, 1] * ray_v + B[0, 2]
    y = B[1, 0] * ray_u + B[1, 1] * ray_v + B[1, 2]
    w = B[2, 0] * ray_u + B[2, 1] * ray_v + B[2, 2]
    toward = -(nx * x + ny * y + nz * w)
    cosine2 = max(toward * toward / (x * x + y * y + w * w), MIN_COSINE2)
    pixel2 = (B[0, 0] ** 2 + B[1, 0] ** 2 + B[2, 0] ** 2) * (rays[0, 0] * z) ** 2
    return (ray_u, ray_v, z), (nx, ny, nz, toward), pixel2 / cosine2


@compiled
@no_type_check
def _plan(pixel: Any, depth: Any, records: Any, place: Any, memory: Any) -> int:
    """Adds the walks of a pixel to those in memory: middle and half of each, block units.

    Except such as start and end in the same blocks as one lately done. Returns how many there are now.
    """
    count, done, walks = memory
    ray, normal, width2 = _surface(pixel, depth, records, place)
    rays, B, center, across, origin = place
    m = CELL_BLOCKS
    _, support = unpack_trust(np.uint32(records[pixel[0] + 1, pixel[1] + 1, TRUST]))
    across *= min(max(support - SPARED, LEAST_WALK), np.float32(1))
    dx, dy, dz = normal[0] * across, normal[1] * across, normal[2] * across
    subpixels = 1 if width2 < SPARSE_BLOCKS**2 else min(1 + int(2 * np.sqrt(width2)), MAX_SUBPIXELS)
    for k in range(subpixels * subpixels):
        ray_u, ray_v, z = ray
        if subpixels > 1:
            du = ((k % subpixels) + 0.5) / subpixels - 0.5
            dv = ((k // subpixels) + 0.5) / subpixels - 0.5
            ray_u += rays[0, 0] * du + rays[0, 1] * dv
            ray_v += rays[1, 0] * du + rays[1, 1] * dv
        x = B[0, 0] * ray_u + B[0, 1] * ray_v + B[0, 2]
        y = B[1, 0] * ray_u + B[1, 1] * ray_v + B[1, 2]
        w = B[2, 0] * ray_u + B[2, 1] * ray_v + B[2, 2]
        if subpixels > 1:
            here = -(normal[0] * x + normal[1] * y + normal[2] * w)
            z *= max(normal[3] / max(here, 0.5 * normal[3]), 0.5)
        x, y, w = center[0] + z * x, center[1] + z * y, center[2] + z * w
        low, high = _key_at(x - m, y - m, w - m, origin), _key_at(x + m, y + m, w + m, origin)
        back = _key_at(x - dx, y - dy, w - dz, origin)
        front = _key_at(x + dx, y + dy, w + dz, origin)
        signature = _mix(_mix(_mix(low) ^ high) ^ back) ^ front
        slot = slot_of(signature, PLAN_SLOTS)
        if done[slot] != signature:
            done[slot] = signature
            walks[count, 0], walks[count, 1], walks[count, 2] = x, y, w
            walks[count, 3], walks[count, 4], walks[count, 5] = dx, dy, dz
            count += 1
    return count


@compiled
@no_type_check
def _pick(pixel: Any, count: int, view: Any, scratch: Any, words: Any) -> None:
    """Copies depth, vote and direction of every second pixel from one on."""
    v, u = pixel
    depth, records, fronts = view
    for i in range(count):
        scratch[DEPTH * CHUNK + i] = depth[v, u + 2 * i]
        scratch[VOTES * CHUNK + i] = fronts[v + 1, u + 2 * i + 1, VOTE]
        words[i] = records[v + 1, u + 2 * i + 1, DIRECTION]
        words[CHUNK + i] = records[v + 1, u + 2 * i + 1, TRUST]


@compiled
@no_type_check
def _place(pixel: Any, count: int, place: Any, scratch: Any, words: Any) -> None:
    """Writes middles and halves of the walks of every second pixel, and squared widths, blocks."""
    rays, B, center, across, _ = place
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    y, left = np.float32(pixel[0]) + half, np.float32(pixel[1]) + half
    first_u = np.float32(rays[0, 1]) * y + np.float32(rays[0, 2])
    first_v = np.float32(rays[1, 1]) * y + np.float32(rays[1, 2])
    du, dv, reach = np.float32(rays[0, 0]), np.float32(rays[1, 0]), np.float32(across)
    xx, xy, xz = np.float32(B[0, 0]), np.float32(B[0, 1]), np.float32(B[0, 2])
    yx, yy, yz = np.float32(B[1, 0]), np.float32(B[1, 1]), np.float32(B[1, 2])
    zx, zy, zz = np.float32(B[2, 0]), np.float32(B[2, 1]), np.float32(B[2, 2])
    cx, cy, cz = np.float32(center[0]), np.float32(center[1]), np.float32(center[2])
    pixel2 = (xx * xx + yx * yx + zx * zx) * du * du
    for i in range(count):
        u = np.float32(np.int32(2 * i)) + left
        ray_u, ray_v, z = du * u + first_u, dv * u + first_v, scratch[DEPTH * CHUNK + i]
        nx, ny, nz = unpack_direction(np.uint32(words[i]))
        _, support = unpack_trust(np.uint32(words[CHUNK + i]))
        half_walk = reach * min(max(support - SPARED, LEAST_WALK), one)
        x, y, w = xx * ray_u + xy * ray_v + xz, yx * ray_u + yy * ray_v + yz, zx * ray_u + zy * ray_v + zz
        toward = nx * x + ny * y + nz * w
        cosine2 = max(toward * toward / (x * x + y * y + w * w), MIN_COSINE2)
        width2 = pixel2 * z * z / cosine2
        scratch[i], scratch[CHUNK + i], scratch[2 * CHUNK + i] = cx + z * x, cy + z * y, cz + z * w
        scratch[3 * CHUNK + i], scratch[4 * CHUNK + i] = nx * half_walk, ny * half_walk
        scratch[5 * CHUNK + i] = nz * half_walk
        scratch[WIDTH2 * CHUNK + i] = width2 if scratch[VOTES * CHUNK + i] > zero else -one


@compiled
@no_type_check
def _sign(count: int, scratch: Any, signatures: Any) -> None:
    """Writes hashes of the blocks around a walk's middle and of its ends; equal if those are."""
    m = np.float32(CELL_BLOCKS)
    for i in range(count):
        one, two = np.int32(0), np.int32(0)
        for a in range(3):
            x, d = scratch[a * CHUNK + i], scratch[(a + 3) * CHUNK + i]
            one = np.int32(np.int32(one * MIX_1) + np.int32(np.floor(x - m)))
            one = np.int32(np.int32(one * MIX_1) + np.int32(np.floor(x + m)))
            two = np.int32(np.int32(two * MIX_2) + np.int32(np.floor(x - d)))
            two = np.int32(np.int32(two * MIX_2) + np.int32(np.floor(x + d)))
        signatures[i], signatures[CHUNK + i] = one, two


@compiled
@no_type_check
def _plan_rows(v: int, view: Any, place: Any, scratch: Any, done: Any, walks: Any) -> int:
    """Writes the walks of two rows of pixels; where they are small, of one in four or sixteen."""
    depth, records, fronts = view
    numbers, words, signatures = scratch
    height, width = depth.shape
    found = 0
    for first in range(0, width, 2 * CHUNK):
        count = min(CHUNK, (width - first + 1) // 2)
        _pick((v, first), count, view, numbers, words)
        _place((v, first), count, place, numbers, words)
        _sign(count, numbers, signatures)
        for i in range(count):
            width2 = numbers[WIDTH2 * CHUNK + i]
            if width2 >= 0 and width2 < DENSE_BLOCKS2:
                if width2 < DENSE_BLOCKS2 / 4 and (i & 1 or v & 2):
                    continue
                signature = np.int64(signatures[i]) << 32 ^ np.int64(signatures[CHUNK + i])
                slot = slot_of(signature, PLAN_SLOTS)
                if done[slot] != signature:
                    done[slot] = signature
                    for a in range(6):
                        walks[found, a] = numbers[a * CHUNK + i]
                    found += 1
                continue
            for k in range(4):
                v2, u2 = v + (k >> 1), first + 2 * i + (k & 1)
                if v2 < height and u2 < width and fronts[v2 + 1, u2 + 1, VOTE] > 0:
                    found = _plan((v2, u2), depth, records, place, (found, done, walks))
    return found


@compiled
@no_type_check
def _touch_rows(start: int, stop: int, depth: Any, records: Any, fronts: Any, place: Any) -> Any:
    """Returns keys of the touched blocks, most of them once.

    `place`: rays from pixels, blocks from the camera frame, the camera's centre in blocks, truncation
    distance in blocks, the block at the frame's origin.
    """
    walks = np.empty((2 * depth.shape[1] * MAX_SUBPIXELS**2, 6))
    scratch = (np.empty(9 * CHUNK, np.float32), np.empty(2 * CHUNK, np.uint32), np.empty(2 * CHUNK, np.int32))
    view = (depth, records, fronts)
    seen, done = np.full(SEEN_SLOTS, EMPTY), np.full(PLAN_SLOTS, EMPTY)
    found, count = np.empty(4096, np.int64), 0
    met = np.empty(8 + 4 + int(6 * place[3]), np.int64)
    for v in range(start, stop):
        for i in range(_plan_rows(2 * v, view, place, scratch, done, walks)):
            for k in range(_meet(walks[i], place[4], met)):
                slot = slot_of(met[k], SEEN_SLOTS)
                if seen[slot] == met[k]:
                    continue
                seen[slot] = met[k]
                if count == len(found):
                    longer = np.empty(2 * count, np.int64)
                    longer[:count] = found
                    found = longer
                found[count] = met[k]
                count += 1
    return found[:count]


@compiled
@no_type_check
def _next_border(place: Any, along: Any) -> Any:
    """Returns where on a segment the first border is met, and the spacing of the borders; 0 to 1."""
    if along == 0:
        return np.inf, np.inf
    inside = place - np.floor(place)
    return (1 - inside if along > 0 else inside) / abs(along), 1 / abs(along)


@compiled
@no_type_check
def _meet(walk: Any, origin: Any, met: Any) -> Any:
    """Writes the keys of all blocks that have a voxel around the middle of a walk or that the walk meets.

    The walk goes from border to border (Amanatides and Woo, 1987). Returns how many there are.
    """
    m, count = CELL_BLOCKS, 0
    low = _key_at(walk[0] - m, walk[1] - m, walk[2] - m, origin)
    alone = low == _key_at(walk[0] + m, walk[1] + m, walk[2] + m, origin)  # then the walk meets it
    for i in range(0 if alone else 8):
        x, y = walk[0] + (m if i & 1 else -m), walk[1] + (m if i & 2 else -m)
        met[i] = _key_at(x, y, walk[2] + (m if i & 4 else -m), origin)
        count = 8
    x, y, z = walk[0] - walk[3], walk[1] - walk[4], walk[2] - walk[5]
    end_x, end_y, end_z = walk[0] + walk[3], walk[1] + walk[4], walk[2] + walk[5]
    next_x, spacing_x = _next_border(x, end_x - x)
    next_y, spacing_y = _next_border(y, end_y - y)
    next_z, spacing_z = _next_border(z, end_z - z)
    steps = abs(np.floor(end_x) - np.floor(x)) + abs(np.floor(end_y) - np.floor(y))
    steps += abs(np.floor(end_z) - np.floor(z))
    key = _key_at(x, y, z, origin)
    for _ in range(int(steps) + 1):
        met[count] = key
        count += 1
        if next_x <= next_y and next_x <= next_z:
            key += (1 if end_x > x else -1) << 2 * KEY_BITS
            next_x += spacing_x
        elif next_y <= next_z:
            key += (1 if end_y > y else -1) << KEY_BITS
            next_y += spacing_y
        else:
            key += 1 if end_z > z else -1
            next_z += spacing_z
    return count
