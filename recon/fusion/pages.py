"""The blocks' voxels and votes in memory, or beyond a budget in a temporary file.

Rows are what the index gives: 0, 1, 2, ... Slots are places in memory. Without budget slot and row are the
same; with one, the voxels of blocks that were not needed for the longest time make room for others.
"""

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt16

from recon.errors import InputError
from recon.fusion.blocks import BLOCK_VOXELS, GROWTH
from recon.fusion.integration import BLOCK_CELLS
from recon.fusion.packing import MOST_VOTES

ON_DISK = np.int32(-1)
MIN_BLOCKS = 256  # in memory; the blocks around a few must fit
RESERVED_SHARE = 0.5  # of the machine's memory, as addresses without a limit; taken when written to


class Pages:
    """Voxels by block: `words` of shape (slots, channels, 512), float32 or what its bits mean; and votes."""

    def __init__(self, channels: int, budget: int | None, folder: Path | None) -> None:
        """Makes room for nothing.

        Args:
            channels: Words per voxel.
            budget: Most bytes in memory; None means any.
            folder: Where the file is made when it is needed; None means the system's.
        """
        self.block_bytes = 4 * BLOCK_VOXELS * channels
        self.channels, self._folder = channels, folder
        self._most = None if budget is None else max(budget // self.block_bytes, MIN_BLOCKS)
        self.words: Float32[np.ndarray, "slots channels 512"] = self._empty(0)
        self._votes = np.zeros((0, BLOCK_CELLS), np.uint16)
        self._rows = 0
        self._slot_of_row = np.empty(0, np.int32)
        self._row_of_slot = np.empty(0, np.int64)
        self._used = np.empty(0, np.int64)  # when, in calls of `slots`
        self._dirty = np.empty(0, bool)
        self._time = 0
        self._file: IO[bytes] | None = None
        self._on_disk = np.empty(0, bool)

    @property
    def most(self) -> int | None:
        """How many blocks fit into the budget."""
        return self._most

    @property
    def bytes_in_memory(self) -> int:
        """Of blocks in memory."""
        return min(self._rows, len(self.words)) * self.block_bytes

    @property
    def paged(self) -> bool:
        """Whether there are more blocks than fit into the budget."""
        return self._most is not None and self._rows > self._most

    @property
    def free_votes(self) -> UInt16[np.ndarray, "rows 64"]:
        """Sums of votes for free space in a block's cells, in steps, by row; all in memory."""
        return self._votes[: self._rows]

    def add_votes(self, rows: Int[np.ndarray, "n"], votes: UInt16[np.ndarray, "n 64"]) -> None:
        """Adds to the votes of rows, each once."""
        self._votes[rows] = np.minimum(self._votes[rows] + votes.astype(np.uint32), MOST_VOTES)

    def reserve(self, rows: int) -> None:
        """Makes room for so many rows, and has the system give the memory now."""
        fit = self._make_room(rows)
        self.words[self._rows : fit] = 0
        self._votes[self._rows :] = 0

    def extend(self, rows: int) -> None:
        """Adds rows, of zeros, so that there are as many."""
        if rows <= self._rows:
            return
        fit = self._make_room(rows)
        resident = np.arange(self._rows, fit)
        self._slot_of_row[resident] = resident
        self._row_of_slot[resident] = resident
        self._rows = rows

    def slots(self, rows: Int[np.ndarray, "n"], change: bool) -> Int32[np.ndarray, "n"]:
        """Returns where rows are in memory after bringing them there; no more than `most`, each once.

        Args:
            rows: Of blocks.
            change: Whether they will be written to.
        """
        if self._most is None:
            return rows.astype(np.int32)
        self._time += 1
        slots = self._slot_of_row[rows]
        missing = slots == ON_DISK
        if missing.any():
            self._used[slots[~missing]] = self._time
            slots[missing] = self._bring(rows[missing])
        self._used[slots] = self._time
        if change:
            self._dirty[slots] = True
        return slots

    def slot_map(self) -> Int32[np.ndarray, "rows"]:
        """Returns the slot of each row, -1 for those that are on disk."""
        return self._slot_of_row[: self._rows]

    def all_words(self) -> np.ndarray:
        """Returns the words of all rows; of a file, mapped, if not all of them are in memory."""
        if not self.paged:
            return self.words[: self._rows]
        held = np.flatnonzero(self._row_of_slot >= 0)
        self._write(held[self._dirty[held] | ~self._on_disk[self._row_of_slot[held]]])
        assert self._file is not None
        self._fill_holes()
        self._file.flush()
        shape = (self._rows, self.channels, BLOCK_VOXELS)
        return np.memmap(self._file.name, np.float32, "r", shape=shape)

    def _make_room(self, rows: int) -> int:
        """Lengthens what is too short for so many rows; returns how many may be in memory."""
        if rows > len(self._votes):
            larger = np.zeros((max(rows, int(GROWTH * len(self._votes))), BLOCK_CELLS), np.uint16)
            larger[: len(self._votes)] = self._votes
            self._votes = larger
        fit = rows if self._most is None else min(rows, self._most)
        if fit > len(self.words):
            self._grow(self._most or max(fit, int(GROWTH * len(self.words)), self._reserved()))
        if fit > len(self._row_of_slot):
            self._remember(self._most or max(fit, int(GROWTH * len(self._row_of_slot)), MIN_BLOCKS))
        if rows > len(self._slot_of_row):
            grown = max(rows, int(GROWTH * len(self._slot_of_row)), MIN_BLOCKS)
            self._slot_of_row = _longer(self._slot_of_row, grown, ON_DISK)
            self._on_disk = _longer(self._on_disk, grown, False)
        return fit

    def _bring(self, rows: Int[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        slots = (
            np.argpartition(self._used, len(rows) - 1)[: len(rows)] if len(rows) < len(self._used) else None
        )
        slots = np.arange(len(self._used)) if slots is None else np.sort(slots)
        if (self._used[slots] == self._time).any():
            raise InputError(
                f"{len(rows)} blocks at once do not fit into {self._most}; raise the memory limit"
            )
        self._write(slots[self._dirty[slots]])
        leaving = self._row_of_slot[slots]
        self._slot_of_row[leaving[leaving >= 0]] = ON_DISK
        self._slot_of_row[rows], self._row_of_slot[slots] = slots, rows
        known = self._on_disk[rows]
        self.words[slots[~known]] = 0
        self._read(rows[known], slots[known])
        self._dirty[slots] = False
        return slots.astype(np.int32)

    def _write(self, slots: Int[np.ndarray, "n"]) -> None:
        if not len(slots):
            return
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(prefix="volume-", dir=self._folder)  # noqa: SIM115
        slots = slots[np.argsort(self._row_of_slot[slots], kind="stable")]
        rows = self._row_of_slot[slots]
        try:
            for start, stop in _runs(rows):
                self._file.seek(int(rows[start]) * self.block_bytes)
                self._file.write(np.ascontiguousarray(self.words[slots[start:stop]]).data)
        except OSError as error:
            raise InputError(f"{self._file.name}: blocks cannot be kept there: {error.strerror}") from error
        self._on_disk[rows] = True
        self._dirty[slots] = False

    def _read(self, rows: Int[np.ndarray, "n"], slots: Int[np.ndarray, "n"]) -> None:
        order = np.argsort(rows, kind="stable")
        rows, slots = rows[order], slots[order]
        for start, stop in _runs(rows):
            assert self._file is not None
            self._file.seek(int(rows[start]) * self.block_bytes)
            part = np.frombuffer(self._file.read((stop - start) * self.block_bytes), np.float32)
            self.words[slots[start:stop]] = part.reshape(-1, self.channels, BLOCK_VOXELS)

    def _fill_holes(self) -> None:
        assert self._file is not None
        self._file.truncate(self._rows * self.block_bytes)

    def _grow(self, slots: int) -> None:
        words = self._empty(slots)
        words[: len(self.words)] = self.words
        self.words = words

    def _remember(self, slots: int) -> None:
        self._row_of_slot = _longer(self._row_of_slot, slots, -1)
        self._used = _longer(self._used, slots, 0)
        self._dirty = _longer(self._dirty, slots, False)

    def _reserved(self) -> int:
        if not hasattr(os, "sysconf"):
            return MIN_BLOCKS
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(RESERVED_SHARE * machine) // self.block_bytes

    def _empty(self, slots: int) -> Float32[np.ndarray, "slots channels 512"]:
        """Returns words of zeros that take memory where they are written to, in small pages.

        Huge ones, which numpy asks for, have to be put together where memory is in pieces: with them, blocks
        of a view took 0.4 to 9 ms, with small ones 1.5 to 2 ms.
        """
        shape = (slots, self.channels, BLOCK_VOXELS)
        if not slots or not hasattr(mmap, "MAP_ANONYMOUS"):
            return np.zeros(shape, np.float32)
        memory = mmap.mmap(-1, slots * self.block_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return np.frombuffer(memory, np.float32).reshape(shape)


def _longer(array: np.ndarray, length: int, filling: object) -> np.ndarray:
    longer = np.full(length, filling, array.dtype)
    longer[: len(array)] = array
    return longer


def _runs(rows: Int[np.ndarray, "n"]) -> list[tuple[int, int]]:
    """Returns where runs of consecutive numbers start and stop, at most 512 long."""
    bounds = np.flatnonzero(np.diff(rows) != 1) + 1
    bounds = np.union1d(bounds, np.arange(512, len(rows), 512)) if len(rows) > 512 else bounds
    starts = np.concatenate([[0], bounds]).astype(int)
    stops = np.append(starts[1:], len(rows))
    return [(int(a), int(b)) for a, b in zip(starts, stops, strict=True)] if len(rows) else []
