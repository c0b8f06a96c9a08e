"""Where the blocks of a sparse volume are: packed keys and a hash table of them.

A block is 8 x 8 x 8 voxels. Its coordinate is an integer triple on the volume's grid; its key packs the three
into one int64, 21 bits each. A block's voxels are kept in groups of 4 x 2 x 2, x fastest inside and outside:
a group's numbers fill a cache line, and a surface meets fewer of those than of lines along x.
"""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Int32, Int64

from recon.jit import compiled, run_pieces

SIDE = 8  # voxels along the side of a block
BLOCK_VOXELS = SIDE**3
KEY_BITS = 21
HALF = 2 ** (KEY_BITS - 1)
MAX_COORDINATE = HALF - 2  # of a block; two less so that neighbours have keys too
EMPTY = np.int64(-1)
HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, Fibonacci hashing)
GROWTH = 2.0  # of arrays that are full
GROUP = 16  # voxels that are kept together


def _numbers() -> Int64[np.ndarray, "8 8 8"]:
    z, y, x = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")
    return (x & 3) + 4 * (y & 1) + 8 * (z & 1) + GROUP * ((x >> 2) + 2 * (y >> 1) + 8 * (z >> 1))


VOXEL_NUMBERS = _numbers()  # of voxel (x, y, z) of a block at [z, y, x]


def pack(coords: Int32[np.ndarray, "n 3"]) -> Int64[np.ndarray, "n"]:
    """Returns the keys of block coordinates."""
    x, y, z = (coords.astype(np.int64) + HALF).T
    return (x << 2 * KEY_BITS) | (y << KEY_BITS) | z


def unpack(keys: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n 3"]:
    """Returns the block coordinates of keys."""
    mask = 2**KEY_BITS - 1
    parts = [keys >> 2 * KEY_BITS, (keys >> KEY_BITS) & mask, keys & mask]
    return (np.stack(parts, axis=-1) - HALF).astype(np.int32)


class BlockIndex:
    """A hash table from keys to row numbers; rows are given in the order of insertion."""

    def __init__(self) -> None:
        self._count = 0
        self._keys = np.empty(512, np.int64)
        self._coords = np.empty((512, 3), np.int32)
        self._slot_keys = np.full(1024, EMPTY)
        self._slot_rows = np.empty(1024, np.int32)

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> Int64[np.ndarray, "n"]:
        """Keys by row."""
        return self._keys[: self._count]

    @property
    def coords(self) -> Int32[np.ndarray, "n 3"]:
        """Block coordinates by row."""
        return self._coords[: self._count]

    def find(self, keys: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        """Returns the rows of keys, -1 where there is none."""
        rows = np.empty(len(keys), np.int32)
        _find(0, len(keys), keys, self._slot_keys, self._slot_rows, rows)
        return rows

    def rows(self, keys: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "m"]:
        """Returns the rows of keys, each once, in the order they first appear; new keys get new rows."""
        self.reserve(self._count + len(keys))
        table = (self._slot_keys, self._slot_rows, self._keys)
        first = self._count
        rows, self._count = _find_or_insert(keys, first, *table)
        self._coords[first : self._count] = unpack(self._keys[first : self._count])
        return rows

    def neighbors(self, rows: Int64[np.ndarray, "n"], threads: int | None) -> Int32[np.ndarray, "n 27"]:
        """Returns the rows of the 27 blocks around and at some, -1 where there is none, x fastest."""
        steps = np.array([(x, y, z) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)])
        offsets = (steps[:, 0] << 2 * KEY_BITS) + (steps[:, 1] << KEY_BITS) + steps[:, 2]
        keys = (self._keys[rows][:, None] + offsets).ravel()
        near = np.empty(len(keys), np.int32)
        run_pieces(_find, len(keys), threads, keys, self._slot_keys, self._slot_rows, near)
        return near.reshape(-1, 27)

    def reserve(self, most: int) -> None:
        """Makes room for so many keys."""
        if most > len(self._keys):
            larger = max(most, int(GROWTH * len(self._keys)))
            keys, coords = np.empty(larger, np.int64), np.empty((larger, 3), np.int32)
            keys[: self._count], coords[: self._count] = self.keys, self.coords
            self._keys, self._coords = keys, coords
        if 2 * most > len(self._slot_keys):  # longer chains than at half full are slow
            size = 1 << int(4 * most - 1).bit_length()
            self._slot_keys, self._slot_rows = np.full(size, EMPTY), np.empty(size, np.int32)
            _insert(self.keys, self._slot_keys, self._slot_rows)


@compiled
@no_type_check
def slot_of(key: Any, slots: Any) -> Any:
    """Returns where a search for a key starts in a table of some power of two of slots."""
    high = np.uint64(32)  # the lower bits of the product know nothing of the upper ones of the key
    return np.int64(((np.uint64(key) * HASH_MULTIPLIER) >> high) * np.uint64(slots) >> high)


@compiled
@no_type_check
def _find(start: int, stop: int, keys: Any, slot_keys: Any, slot_rows: Any, rows: Any) -> None:
    slots = len(slot_keys)
    for i in range(start, stop):
        slot = slot_of(keys[i], slots)
        while slot_keys[slot] != EMPTY and slot_keys[slot] != keys[i]:
            slot = (slot + 1) & (slots - 1)
        rows[i] = slot_rows[slot] if slot_keys[slot] != EMPTY else -1


@compiled
@no_type_check
def _insert(keys: Any, slot_keys: Any, slot_rows: Any) -> None:
    slots = len(slot_keys)
    for row in range(len(keys)):
        slot = slot_of(keys[row], slots)
        while slot_keys[slot] != EMPTY:
            slot = (slot + 1) & (slots - 1)
        slot_keys[slot] = keys[row]
        slot_rows[slot] = row


@compiled
@no_type_check
def _find_or_insert(keys: Any, count: int, slot_keys: Any, slot_rows: Any, row_keys: Any) -> Any:
    slots, first, found = len(slot_keys), count, 0
    rows, met = np.empty(len(keys), np.int32), np.zeros(count, np.bool_)
    for i in range(len(keys)):
        slot = slot_of(keys[i], slots)
        while slot_keys[slot] != EMPTY and slot_keys[slot] != keys[i]:
            slot = (slot + 1) & (slots - 1)
        if slot_keys[slot] == EMPTY:
            slot_keys[slot], slot_rows[slot], row_keys[count] = keys[i], count, keys[i]
            rows[found] = count
            found += 1
            count += 1
        elif slot_rows[slot] < first and not met[slot_rows[slot]]:
            met[slot_rows[slot]] = True
            rows[found] = slot_rows[slot]
            found += 1
    return rows[:found].copy(), count
