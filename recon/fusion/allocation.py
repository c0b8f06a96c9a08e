"""Which blocks of voxels a view touches: those within the truncation distance of the surface that it sees."""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Int64

from recon.fusion.blocks import EMPTY, HALF, KEY_BITS, SIDE, slot_of
from recon.fusion.observations import DIRECTION, TRUST, Frame, observe_rows
from recon.fusion.packing import unpack_direction, unpack_trust, unpack_vote
from recon.jit import compiled, inlined, run_pieces

MIN_COSINE2 = np.float32(np.cos(np.radians(85.0)) ** 2)
# Smaller pixels need not all walk: points three voxels apart miss no cell.
DENSE_BLOCKS2 = np.float32((1.5 / SIDE) ** 2)
SPARSE_BLOCKS2 = np.float32(0.5**2)  # wider pixels could step over a block
CELL_BLOCKS = 1.5 / SIDE  # the corners of the cell that a point lies in, and of one shifted by noise
MAX_SUBPIXELS = 8  # per side; rays of a pixel seen at the worst angle are still closer than a block
MIX = np.int64(0x2545F4914F6CDD1D)  # odd, large
SPARED, LEAST_WALK = np.float32(0.5), np.float32(0.5)  # voxels farther out weigh little
CHUNK = 128  # pixels done at once: a constant size of the scratch space lets loops be vectorised
DEPTH, WIDTH2 = 6, 7  # rows of the scratch space; before them middles and halves of walks
CORNERS = np.array([x << 2 * KEY_BITS | y << KEY_BITS | z for x in (0, 1) for y in (0, 1) for z in (0, 1)])
LOWS, BOXES, WALKS = 0, CHUNK, 2 * CHUNK  # in the scratch space of keys
SLOTS = 2048  # of recently touched blocks, and of boxes and walks, that a thread remembers


def touched_keys(
    arguments: tuple[Any, ...], frame: Frame, first_block: Int64[np.ndarray, "3"], threads: int | None
) -> Int64[np.ndarray, "n"]:
    """Observes a view and returns the keys of all blocks near what it sees, some repeated.

    Both in one pass, while the records of a few rows are in the processor's cache.

    Each pixel walks as far as its voxels have weight, half the truncation distance for sure ones, at most
    all of it; across its surface, along the normal and not along the ray, which would leave gaps at grazing
    angles; pixels wider than half a block on the surface walk several times. The blocks of all voxels around
    the observed point are touched too: in a room's corner no walk meets the one behind both walls.

    Args:
        arguments: Of `observations.observing`; its room is filled.
        frame: Of the view.
        first_block: The block at the frame's origin.
        threads: None means one per processor.
    """
    to_blocks = frame.rotation.T / (SIDE * frame.voxel_size)
    place = (
        np.linalg.inv(frame.K)[:2],
        to_blocks,
        frame.center / SIDE,
        frame.truncation / (SIDE * frame.voxel_size),
        first_block + HALF,
    )
    pairs = (len(arguments[0][0]) + 1) // 2
    return np.concatenate(run_pieces(_see_rows, pairs, threads, arguments, place))


@compiled
@no_type_check
def _line_up(pixels: Any, chunk: int, width: int) -> int:
    """Writes rows and columns of the next pixels of even row and column; returns how many there are."""
    chunks = (width + 2 * CHUNK - 1) // (2 * CHUNK)
    v, first = chunk // chunks * 2, chunk % chunks * 2 * CHUNK
    count = min(CHUNK, (width - first + 1) // 2)
    for i in range(count):
        pixels[0, i], pixels[1, i] = v, first + 2 * i
    return count


@compiled
@no_type_check
def _take(pixels: Any, waiting: int, queue: Any) -> int:
    """Writes rows and columns of the last pixels that wait; returns how many."""
    count = min(waiting, CHUNK)
    for i in range(count):
        pixels[0, i], pixels[1, i] = queue[0, waiting - count + i], queue[1, waiting - count + i]
    return count


@compiled
@no_type_check
def _look(pixels: Any, count: int, view: Any, scratch: Any, words: Any) -> None:
    """Copies depth, direction and trust of pixels."""
    depth, records = view
    for i in range(count):
        v, u = np.uint32(pixels[0, i]), np.uint32(pixels[1, i])
        scratch[DEPTH * CHUNK + i] = depth[v, u]
        words[i] = records[v + np.uint32(1), u + np.uint32(1), DIRECTION]
        words[CHUNK + i] = records[v + np.uint32(1), u + np.uint32(1), TRUST]


@compiled
@no_type_check
def _place(pixels: Any, count: int, place: Any, scratch: Any, words: Any) -> None:
    """Writes middles and halves of the walks of pixels, and squared widths, blocks; -1 for those without."""
    rays, B, center, across, _ = place
    one, half = np.float32(1), np.float32(0.5)
    uu, uv, uw = np.float32(rays[0, 0]), np.float32(rays[0, 1]), np.float32(rays[0, 2])
    vu, vv, vw = np.float32(rays[1, 0]), np.float32(rays[1, 1]), np.float32(rays[1, 2])
    xx, xy, xz = np.float32(B[0, 0]), np.float32(B[0, 1]), np.float32(B[0, 2])
    yx, yy, yz = np.float32(B[1, 0]), np.float32(B[1, 1]), np.float32(B[1, 2])
    zx, zy, zz = np.float32(B[2, 0]), np.float32(B[2, 1]), np.float32(B[2, 2])
    cx, cy, cz = np.float32(center[0]), np.float32(center[1]), np.float32(center[2])
    pixel2, reach = (xx * xx + yx * yx + zx * zx) * uu * uu, np.float32(across)
    for i in range(count):
        v, u = np.float32(pixels[0, i]) + half, np.float32(pixels[1, i]) + half
        ray_u, ray_v, z = uu * u + uv * v + uw, vu * u + vv * v + vw, scratch[DEPTH * CHUNK + i]
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
        scratch[WIDTH2 * CHUNK + i] = width2 if unpack_vote(np.uint32(words[CHUNK + i])) > 0 else -one


@compiled
@no_type_check
def _split(pixel: Any, view: Any, place: Any, scratch: Any) -> int:
    """Writes middles and halves of the walks of a wide pixel's parts; returns how many there are."""
    v, u = pixel
    depth, records = view
    rays, B, center, across, _ = place
    nx, ny, nz = unpack_direction(np.uint32(records[v + 1, u + 1, DIRECTION]))
    _, support = unpack_trust(np.uint32(records[v + 1, u + 1, TRUST]))
    across *= min(max(support - SPARED, LEAST_WALK), np.float32(1))
    x, y, z = _ray(u + 0.5, v + 0.5, rays, B)
    toward = -(nx * x + ny * y + nz * z)
    cosine2 = max(toward * toward / (x * x + y * y + z * z), MIN_COSINE2)
    width = rays[0, 0] * depth[v, u] * np.sqrt((B[0, 0] ** 2 + B[1, 0] ** 2 + B[2, 0] ** 2) / cosine2)
    side = min(1 + int(2 * width), MAX_SUBPIXELS)
    for i in range(side * side):
        x, y, z = _ray(u + (i % side + 0.5) / side, v + (i // side + 0.5) / side, rays, B)
        here = -(nx * x + ny * y + nz * z)
        far = depth[v, u] * max(toward / max(here, 0.5 * toward), 0.5)
        scratch[i], scratch[CHUNK + i] = center[0] + far * x, center[1] + far * y
        scratch[2 * CHUNK + i], scratch[3 * CHUNK + i] = center[2] + far * z, nx * across
        scratch[4 * CHUNK + i], scratch[5 * CHUNK + i] = ny * across, nz * across
    return side * side


@compiled
@no_type_check
def _ray(u: Any, v: Any, rays: Any, B: Any) -> Any:
    x, y = rays[0, 0] * u + rays[0, 1] * v + rays[0, 2], rays[1, 0] * u + rays[1, 1] * v + rays[1, 2]
    return (
        B[0, 0] * x + B[0, 1] * y + B[0, 2],
        B[1, 0] * x + B[1, 1] * y + B[1, 2],
        B[2, 0] * x + B[2, 1] * y + B[2, 2],
    )


@inlined
@no_type_check
def _block(x: Any) -> Any:
    return np.int64(np.int32(np.floor(x)))


@inlined
@no_type_check
def _key(i: Any, j: Any, k: Any) -> Any:
    return (i << 2 * KEY_BITS) + (j << KEY_BITS) + k


@inlined
@no_type_check
def _crossing(start: Any, end: Any) -> Any:
    """Returns where a segment meets the only border between its ends, 0 to 1; 2 if there is none."""
    border = np.floor(max(start, end))
    there = (border - start) / (end - start)
    return there if border > np.floor(min(start, end)) else np.float32(2)


@compiled
@no_type_check
def _sign(count: int, origin: Any, scratch: Any, keys: Any) -> None:
    """Writes which blocks the boxes around the middles of walks are in, and signatures of the walks.

    LOWS: key of the first block of the box. BOXES: the same and three bits, one for each axis along which
    the box reaches into the next block. WALKS: equal if the walks start and end in the same blocks, and, if
    they are not longer than one, meet the same on the way.
    """
    m = np.float32(CELL_BLOCKS)
    first = _key(origin[0], origin[1], origin[2])
    for i in range(count):
        x, y, z = scratch[i], scratch[CHUNK + i], scratch[2 * CHUNK + i]
        dx, dy, dz = scratch[3 * CHUNK + i], scratch[4 * CHUNK + i], scratch[5 * CHUNK + i]
        a, b, c = _block(x - m), _block(y - m), _block(z - m)
        low = first + _key(a, b, c)
        bits = ((_block(x + m) - a) << 2) + ((_block(y + m) - b) << 1) + (_block(z + m) - c)
        keys[LOWS + i], keys[BOXES + i] = low, (low << 3) + bits
        back = _key(_block(x - dx), _block(y - dy), _block(z - dz))
        front = _key(_block(x + dx), _block(y + dy), _block(z + dz))
        p, q, r = _crossing(x - dx, x + dx), _crossing(y - dy, y + dy), _crossing(z - dz, z + dz)
        order = np.int64(p <= q) + np.int64(p <= r) * 2 + np.int64(q <= r) * 4
        keys[WALKS + i] = (back * MIX + front) * MIX + order


@compiled
@no_type_check
def _choose(pixels: Any, size: Any, scratch: Any, chosen: Any, queue: Any) -> Any:
    """Writes which pixels of even row and column walk; adds those around them that walk, too, to a queue.

    Where pixels are small one in four or sixteen is enough. Returns how many are in the queue.
    """
    waiting, height, width = size
    quarter = DENSE_BLOCKS2 / 4
    for i in range(len(chosen)):
        width2 = scratch[WIDTH2 * CHUNK + i]
        coarse = ((pixels[0, i] | pixels[1, i]) & 2) == 0
        chosen[i] = (width2 >= quarter) | ((width2 >= np.float32(0)) & coarse)
    for i in range(len(chosen)):
        width2 = scratch[WIDTH2 * CHUNK + i]
        if width2 < np.float32(0) or width2 >= DENSE_BLOCKS2:
            for k in range(1, 4):
                v, u = pixels[0, i] + (k >> 1), pixels[1, i] + (k & 1)
                if v < height and u < width:
                    queue[0, waiting], queue[1, waiting] = v, u
                    waiting += 1
    return waiting


@compiled
@no_type_check
def _touch_rows(start: int, stop: int, depth: Any, records: Any, place: Any) -> Any:
    """Returns keys of the blocks that pairs of rows of pixels touch, most of them once.

    Arrays are neither assigned nor returned in the inner loops: each time numba would count references.

    `place`: rays from pixels, blocks from the camera frame, the camera's centre in blocks, truncation
    distance in blocks, the block at the frame's origin.
    """
    view, (height, width), origin = (depth, records), depth.shape, place[4]
    scratch, parts = np.empty(8 * CHUNK, np.float32), np.empty(6 * CHUNK, np.float32)
    words = np.empty(2 * CHUNK, np.uint32)
    keys, chosen, every = np.empty(3 * CHUNK, np.int64), np.empty(CHUNK, np.bool_), np.ones(CHUNK, np.bool_)
    pixels, queue = np.empty((2, CHUNK), np.int32), np.empty((2, 4 * CHUNK), np.int32)
    seen, done = np.full(SLOTS, EMPTY), np.full(SLOTS, EMPTY)
    met, found, total = np.empty(8 + 4 + int(6 * place[3]), np.int64), np.empty(8192, np.int64), 0
    chunks, waiting = (width + 2 * CHUNK - 1) // (2 * CHUNK), 0
    chunk, last = start * chunks, stop * chunks
    while chunk < last or waiting > 0:
        from_queue = waiting >= CHUNK or chunk == last
        if from_queue:
            count = _take(pixels, waiting, queue)
            waiting -= count
        else:
            count = _line_up(pixels, chunk, width)
            chunk += 1
        _look(pixels, count, view, scratch, words)
        _place(pixels, count, place, scratch, words)
        _sign(count, origin, scratch, keys)
        if not from_queue:
            waiting = _choose(pixels, (waiting, height, width), scratch, chosen[:count], queue)
        wide = 0
        for i in range(count):
            chosen[i] = scratch[WIDTH2 * CHUNK + i] >= 0 if from_queue else chosen[i]
            wide += scratch[WIDTH2 * CHUNK + i] >= SPARSE_BLOCKS2
        found = _with_room(found, total, (count + wide * MAX_SUBPIXELS**2) * len(met))
        total = _collect(chosen[:count], origin, (scratch, keys), (seen, done, met), (found, total))
        for i in range(count if wide else 0):
            if scratch[WIDTH2 * CHUNK + i] >= SPARSE_BLOCKS2:
                size = _split((pixels[0, i], pixels[1, i]), view, place, parts)
                _sign(size, origin, parts, keys)
                total = _collect(every[:size], origin, (parts, keys), (seen, done, met), (found, total))
    return found[:total]


@compiled
@no_type_check
def _see_rows(start: int, stop: int, arguments: Any, place: Any) -> Any:
    """Observes pairs of rows of pixels and returns keys of the blocks that they touch."""
    pixels, lens, out = arguments
    observe_rows(2 * start, min(2 * stop, len(pixels[0])), pixels, lens, out)
    return _touch_rows(start, stop, pixels[0], out, place)


@compiled
@no_type_check
def _with_room(found: Any, total: int, more: int) -> Any:
    """Returns the first keys in an array that has room for more."""
    if total + more <= len(found):
        return found
    longer = np.empty(2 * total + more, np.int64)
    longer[:total] = found[:total]
    return longer


@inlined
@no_type_check
def _is_new(key: Any, table: Any) -> Any:
    """Returns whether a key was not among the last ones, and remembers it."""
    slot = slot_of(key, SLOTS)
    known = table[slot] == key
    table[slot] = key
    return not known


@inlined
@no_type_check
def _collect(chosen: Any, origin: Any, walks: Any, memory: Any, keys: Any) -> int:
    """Adds keys of the blocks around the middles of walks and on them; returns how many keys there are."""
    scratch, signatures = walks
    seen, done, met = memory
    found, total = keys
    for i in range(len(chosen)):
        if not chosen[i]:
            continue
        count, box = 0, signatures[BOXES + i]
        if box & 7 and _is_new(box, done):  # else the walk meets the only block
            for corner in range(8):
                if corner & box == corner:
                    met[count] = signatures[LOWS + i] + CORNERS[corner]
                    count += 1
        if _is_new(signatures[WALKS + i], done):
            count = _meet(i, scratch, origin, met, count)
        for k in range(count):
            if _is_new(met[k], seen):
                found[total] = met[k]
                total += 1
    return total


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
def _meet(walk: int, scratch: Any, origin: Any, met: Any, count: int) -> int:
    """Adds the keys of the blocks that a walk meets to the first ones; returns how many there are then.

    The walk goes from border to border (Amanatides and Woo, 1987).
    """
    x, dx = np.float64(scratch[walk]), np.float64(scratch[3 * CHUNK + walk])
    y, dy = np.float64(scratch[CHUNK + walk]), np.float64(scratch[4 * CHUNK + walk])
    z, dz = np.float64(scratch[2 * CHUNK + walk]), np.float64(scratch[5 * CHUNK + walk])
    x, y, z, end_x, end_y, end_z = x - dx, y - dy, z - dz, x + dx, y + dy, z + dz
    next_x, spacing_x = _next_border(x, end_x - x)
    next_y, spacing_y = _next_border(y, end_y - y)
    next_z, spacing_z = _next_border(z, end_z - z)
    steps = abs(np.floor(end_x) - np.floor(x)) + abs(np.floor(end_y) - np.floor(y))
    steps += abs(np.floor(end_z) - np.floor(z))
    key = _key(_block(x) + origin[0], _block(y) + origin[1], _block(z) + origin[2])
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
