"""Where the blocks of a sparse volume are: packed keys, a hash table of them, and which ones a view touches.

A block is 8 x 8 x 8 voxels. Its coordinate is an integer triple on the volume's grid; its key packs the three
into one int64, 21 bits each. Voxel (x, y, z) of a block is number x + 8 y + 64 z.
"""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int32, Int64

from recon.fusion.jit import compiled, run_pieces
from recon.fusion.observations import MIN_COSINE, NX, NY, NZ, Observations

SIDE = 8  # voxels along the side of a block
BLOCK_VOXELS = SIDE**3
KEY_BITS = 21
MAX_COORDINATE = 2 ** (KEY_BITS - 1) - 2  # of a block; two less so that neighbours have keys too
FEW_KEYS = 50_000  # fewer are found faster than threads start
EMPTY = np.int64(-1)
HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, Fibonacci hashing)
DENSE_BLOCKS = 0.125  # pixels narrower than one voxel: every second one in both directions is enough
SPARSE_BLOCKS = 0.5  # wider pixels could step over a block
CELL_BLOCKS = 1.5 / SIDE  # the corners of the cell that a point lies in, and of one shifted by noise
MIN_COSINE2 = float(MIN_COSINE) ** 2
MAX_SUBPIXELS = 8  # per side; rays of a pixel seen at the worst angle are still closer than a block
SEEN_SLOTS = 4096  # recently touched blocks that a thread remembers
PLAN_SLOTS = 4096  # recent walks that it remembers


def pack(coords: Int32[np.ndarray, "n 3"]) -> Int64[np.ndarray, "n"]:
    """Returns the keys of block coordinates."""
    x, y, z = (coords.astype(np.int64) + 2 ** (KEY_BITS - 1)).T
    return (x << 2 * KEY_BITS) | (y << KEY_BITS) | z


def unpack(keys: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n 3"]:
    """Returns the block coordinates of keys."""
    mask = 2**KEY_BITS - 1
    parts = [keys >> 2 * KEY_BITS, (keys >> KEY_BITS) & mask, keys & mask]
    return (np.stack(parts, axis=-1) - 2 ** (KEY_BITS - 1)).astype(np.int32)


class BlockIndex:
    """A hash table from keys to row numbers; rows are given in the order of insertion."""

    def __init__(self) -> None:
        self.keys = np.empty(0, np.int64)
        self._slot_keys = np.full(1024, EMPTY)
        self._slot_rows = np.empty(1024, np.int32)

    def find(self, keys: Int64[np.ndarray, "n"], threads: int | None) -> Int32[np.ndarray, "n"]:
        """Returns the rows of keys, -1 where there is none."""
        rows = np.empty(len(keys), np.int32)
        threads = threads if len(keys) > FEW_KEYS else 1
        run_pieces(_find, len(keys), threads, keys, self._slot_keys, self._slot_rows, rows)
        return rows

    def insert(self, keys: Int64[np.ndarray, "n"]) -> None:
        """Adds keys that are not in the table yet, all different."""
        first = len(self.keys)
        self.keys = np.concatenate([self.keys, keys])
        if 2 * len(self.keys) > len(self._slot_keys):  # longer chains than at half full are slow
            size = 1 << int(4 * len(self.keys) - 1).bit_length()
            self._slot_keys, self._slot_rows = np.full(size, EMPTY), np.empty(size, np.int32)
            first = 0
        _insert(self.keys, first, self._slot_keys, self._slot_rows)

    def neighbors(self, rows: Int64[np.ndarray, "n"], threads: int | None) -> Int32[np.ndarray, "n 27"]:
        """Returns the rows of the 27 blocks around and at some, -1 where there is none, x fastest."""
        steps = np.array([(x, y, z) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)])
        offsets = (steps[:, 0] << 2 * KEY_BITS) + (steps[:, 1] << KEY_BITS) + steps[:, 2]
        keys = self.keys[rows][:, None] + offsets
        return self.find(keys.ravel(), threads).reshape(-1, 27)


def touched_keys(
    seen: Observations,
    K: Float64[np.ndarray, "3 3"],
    grid_from_cam: Float64[np.ndarray, "4 4"],
    *,
    voxel_size: float,
    truncation: float,
    threads: int | None,
) -> Int64[np.ndarray, "n"]:
    """Returns the keys of all blocks within the truncation distance of what a view sees, sorted.

    Each pixel walks across its surface, along the normal and not along the ray, which would leave gaps at
    grazing angles; pixels wider than half a block on the surface walk several times. The blocks of all voxels
    around the observed point are touched too: in a room's corner no walk meets the one behind both walls.

    Args:
        seen: Of `observations.observe`.
        K: Intrinsics, px.
        grid_from_cam: To the volume's own frame; its axes are the grid's.
        voxel_size: Scene units.
        truncation: Scene units.
        threads: None means all.
    """
    rays_from_pixels = np.linalg.inv(K)[:2]
    block_from_cam = grid_from_cam[:3] / (SIDE * voxel_size)
    frame = (rays_from_pixels, block_from_cam, truncation**2)
    lists = run_pieces(_touch_rows, len(seen.ranges), threads, (seen.ranges, seen.planes), frame)
    return np.unique(np.concatenate(lists))


@compiled
@no_type_check
def _slot(key: Any, slots: Any) -> Any:
    return np.int64((np.uint64(key) * HASH_MULTIPLIER) >> np.uint64(32)) & (slots - 1)


@compiled
@no_type_check
def _find(start: int, stop: int, keys: Any, slot_keys: Any, slot_rows: Any, rows: Any) -> None:
    slots = len(slot_keys)
    for i in range(start, stop):
        slot = _slot(keys[i], slots)
        while slot_keys[slot] != EMPTY and slot_keys[slot] != keys[i]:
            slot = (slot + 1) & (slots - 1)
        rows[i] = slot_rows[slot] if slot_keys[slot] == keys[i] else -1


@compiled
@no_type_check
def _insert(keys: Any, first: int, slot_keys: Any, slot_rows: Any) -> None:
    slots = len(slot_keys)
    for row in range(first, len(keys)):
        slot = _slot(keys[row], slots)
        while slot_keys[slot] != EMPTY:
            slot = (slot + 1) & (slots - 1)
        slot_keys[slot] = keys[row]
        slot_rows[slot] = row


@compiled
@no_type_check
def _key_at(x: Any, y: Any, z: Any) -> Any:
    """Returns the key of the block that has a point, block units."""
    half = 2 ** (KEY_BITS - 1)
    i, j, k = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
    return (i + half << 2 * KEY_BITS) | (j + half << KEY_BITS) | (k + half)


@compiled
@no_type_check
def _mix(key: Any) -> Any:
    return np.int64(np.uint64(key) * HASH_MULTIPLIER)


@compiled
@no_type_check
def _plan_row(v: int, view: Any, frame: Any, done: Any, walks: Any) -> int:
    """Writes where the pixels of a row walk: middle and half of the walk, block units. Returns how many do.

    A pixel whose walk starts and ends in the same blocks as one lately done has not to.
    """
    ranges, planes = view
    rays, B, across = frame
    count, m = 0, CELL_BLOCKS
    pixel_blocks2 = (B[0, 0] ** 2 + B[0, 1] ** 2 + B[0, 2] ** 2) * rays[0, 0] ** 2  # at depth 1, squared
    for u in range(ranges.shape[1]):
        if not ranges[v, u, 0] <= ranges[v, u, 1]:
            continue
        z = np.float64(0.5) * (ranges[v, u, 0] + ranges[v, u, 1])
        nx, ny, nz = planes[v, u, NX], planes[v, u, NY], planes[v, u, NZ]
        ray_u = rays[0, 0] * (u + 0.5) + rays[0, 1] * (v + 0.5) + rays[0, 2]
        ray_v = rays[1, 0] * (u + 0.5) + rays[1, 1] * (v + 0.5) + rays[1, 2]
        toward = -(nx * ray_u + ny * ray_v + nz)
        cosine2 = toward * toward * across / (ray_u * ray_u + ray_v * ray_v + 1)
        width2 = pixel_blocks2 * z * z / max(cosine2, MIN_COSINE2)  # of the pixel on the surface, blocks
        if width2 < DENSE_BLOCKS**2 and (u | v) & 1:
            continue
        dx = (B[0, 0] * nx + B[0, 1] * ny + B[0, 2] * nz) * across
        dy = (B[1, 0] * nx + B[1, 1] * ny + B[1, 2] * nz) * across
        dz = (B[2, 0] * nx + B[2, 1] * ny + B[2, 2] * nz) * across
        subpixels = 1 if width2 < SPARSE_BLOCKS**2 else min(1 + int(2 * np.sqrt(width2)), MAX_SUBPIXELS)
        for k in range(subpixels * subpixels):
            sub_u, sub_v, sub_z = ray_u, ray_v, z
            if subpixels > 1:
                du = ((k % subpixels) + 0.5) / subpixels - 0.5
                dv = ((k // subpixels) + 0.5) / subpixels - 0.5
                sub_u += rays[0, 0] * du + rays[0, 1] * dv
                sub_v += rays[1, 0] * du + rays[1, 1] * dv
                sub_z *= max(toward / max(-(nx * sub_u + ny * sub_v + nz), 0.5 * toward), 0.5)
            X, Y = sub_u * sub_z, sub_v * sub_z
            x = B[0, 0] * X + B[0, 1] * Y + B[0, 2] * sub_z + B[0, 3]
            y = B[1, 0] * X + B[1, 1] * Y + B[1, 2] * sub_z + B[1, 3]
            w = B[2, 0] * X + B[2, 1] * Y + B[2, 2] * sub_z + B[2, 3]
            low, high = _key_at(x - m, y - m, w - m), _key_at(x + m, y + m, w + m)
            back, front = _key_at(x - dx, y - dy, w - dz), _key_at(x + dx, y + dy, w + dz)
            signature = _mix(_mix(_mix(low) ^ high) ^ back) ^ front
            slot = _slot(signature, PLAN_SLOTS)
            if done[slot] != signature:
                done[slot] = signature
                walks[count, 0], walks[count, 1], walks[count, 2] = x, y, w
                walks[count, 3], walks[count, 4], walks[count, 5] = dx, dy, dz
                count += 1
    return count


@compiled
@no_type_check
def _touch_rows(start: int, stop: int, view: Any, frame: Any) -> Any:
    """Returns keys of the touched blocks, most of them once.

    `frame`: rays from pixels, blocks from the camera frame, squared truncation distance.
    """
    _, block_from_cam, across = frame
    walks = np.empty((view[0].shape[1] * MAX_SUBPIXELS**2, 6))
    seen, done = np.full(SEEN_SLOTS, EMPTY), np.full(PLAN_SLOTS, EMPTY)
    found, count = np.empty(4096, np.int64), 0
    reach = np.sqrt(block_from_cam[0, 0] ** 2 + block_from_cam[0, 1] ** 2 + block_from_cam[0, 2] ** 2)
    met = np.empty(8 + 4 + int(6 * reach * np.sqrt(across)), np.int64)  # normals have length 1 / sqrt(across)
    for v in range(start, stop):
        for i in range(_plan_row(v, view, frame, done, walks)):
            for k in range(_meet(walks[i], met)):
                slot = _slot(met[k], SEEN_SLOTS)
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
def _meet(walk: Any, met: Any) -> Any:
    """Writes the keys of all blocks that have a voxel around the middle of a walk or that the walk meets.

    The walk goes from border to border (Amanatides and Woo, 1987). Returns how many there are.
    """
    m, count = CELL_BLOCKS, 0
    low = _key_at(walk[0] - m, walk[1] - m, walk[2] - m)
    alone = low == _key_at(walk[0] + m, walk[1] + m, walk[2] + m)  # then the walk meets it
    for i in range(0 if alone else 8):
        x, y = walk[0] + (m if i & 1 else -m), walk[1] + (m if i & 2 else -m)
        met[i] = _key_at(x, y, walk[2] + (m if i & 4 else -m))
        count = 8
    x, y, z = walk[0] - walk[3], walk[1] - walk[4], walk[2] - walk[5]
    end_x, end_y, end_z = walk[0] + walk[3], walk[1] + walk[4], walk[2] + walk[5]
    next_x, spacing_x = _next_border(x, end_x - x)
    next_y, spacing_y = _next_border(y, end_y - y)
    next_z, spacing_z = _next_border(z, end_z - z)
    steps = abs(np.floor(end_x) - np.floor(x)) + abs(np.floor(end_y) - np.floor(y))
    steps += abs(np.floor(end_z) - np.floor(z))
    key = _key_at(x, y, z)
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
