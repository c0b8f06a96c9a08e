"""A volume's voxels and votes on a device of torch, and what `integration`'s kernels do, done there.

The formulas are those of `recon/fusion/reference.py`. A step is an operation of torch on the voxels of many
blocks, float32 in the kernels' order, so that pixels, weights and chances of rounding are the kernels' own;
only where these add and multiply in one step may the last bits differ. A voxel has one pixel in a view, so
nothing depends on the order in which a device works.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, UInt16

from recon.errors import InputError
from recon.fusion.blocks import BLOCK_VOXELS, GROWTH, SIDE
from recon.fusion.integration import (
    BLOCK_CELLS,
    CELL_MARGIN,
    GRADIENT,
    LEAST_BEHIND,
    LEAST_SHARE,
    LEAST_VOXELS_BEHIND,
    LESS_1,
    LESS_2,
    MIN_VARIANCE,
    OUTLIER_SIGMAS2,
    RGB,
    SURER,
    TAPER_BEHIND,
    TINY,
    TSDF,
    VARIANCE,
    VOTES,
    VOXELS,
    WEIGHT,
)
from recon.fusion.observations import COLOR, DIRECTION, OFFSET, TAPER_LENGTH, TRUST
from recon.fusion.packing import (
    DITHER,
    HIGH_XY,
    HIGH_Z,
    MIXER,
    MOST_VOTES,
    STEP_XY,
    STEP_Z,
    SUPPORT_STEP,
    VOTE_STEPS,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 2048  # blocks updated at once: a million voxels, whose numbers on the way fill 0.2 GB of the device
SIGNED_MIXER = int(MIXER.view(np.int32))  # the product's lower 32 bits are the same


class DevicePages:
    """Voxels and votes by block on a device; the rows that `slots` was asked for last are on the host, too.

    To the rest of the fusion it is what `pages.Pages` is. What is written to `words` is sent back before
    anything else is done with the device's.
    """

    paged = False
    most = 16384
    """Blocks that are looked at on the host at once, 168 MB with colours; to extract a surface, all."""

    def __init__(self, channels: int, device: "torch.device") -> None:
        """Makes room for nothing.

        Args:
            channels: Words per voxel.
            device: Of torch.
        """
        import torch

        self.block_bytes = 4 * BLOCK_VOXELS * channels
        self.channels = channels
        self.device_words = torch.zeros((0, channels, BLOCK_VOXELS), device=device)
        self.device_votes = torch.zeros((0, BLOCK_CELLS), dtype=torch.int32, device=device)
        self.words = np.zeros((0, channels, BLOCK_VOXELS), np.float32)
        self._held: np.ndarray = np.zeros(0, np.int64)  # rows, by slot
        self._changed = False
        self._rows = 0

    @property
    def free_votes(self) -> UInt16[np.ndarray, "rows 64"]:
        """Sums of votes by row, in steps; on the host, not to be written to."""
        return self.device_votes[: self._rows].cpu().numpy().astype(np.uint16)

    def add_votes(self, rows: Int[np.ndarray, "n"], votes: UInt16[np.ndarray, "n 64"]) -> None:
        """Adds to the votes of rows, each once."""
        self.cast(self.put(rows), self.put(votes.astype(np.int32)))

    def cast(self, rows: "Tensor", votes: "Tensor") -> None:
        """Adds steps of votes, or takes them away, on the device."""
        self.device_votes[rows] = (self.device_votes[rows] + votes).clamp(0, MOST_VOTES)

    def extend(self, rows: int) -> None:
        """Adds rows, of zeros, so that there are as many.

        Raises:
            InputError: The device has no memory for them.
        """
        if rows > len(self.device_words):
            self.reserve(max(rows, int(GROWTH * self._rows)))
        self._rows = max(rows, self._rows)

    def reserve(self, room: int) -> None:
        """Makes room for so many rows.

        Raises:
            InputError: The device has no memory for them.
        """
        import torch

        if room > len(self.device_words):
            try:
                self.device_words = _longer(self.device_words, room)
                self.device_votes = _longer(self.device_votes, room)
            except torch.OutOfMemoryError as error:
                raise InputError(
                    f"{self.device_words.device}: no room for {room} blocks of {self.block_bytes} bytes; "
                    "take larger voxels, or the device cpu"
                ) from error

    def slots(self, rows: Int[np.ndarray, "n"], change: bool) -> Int32[np.ndarray, "n"]:
        """Returns where rows are in `words` after bringing them there; those that were there leave.

        Args:
            rows: Of blocks, each once.
            change: Whether they will be written to.
        """
        if not np.array_equal(rows, self._held):  # else they are there: another volume may be this one
            self.leave()
            self.words = np.empty((len(rows), self.channels, BLOCK_VOXELS), np.float32)
            for part in _chunks(len(rows)):
                self.words[part] = self.device_words[self.put(rows[part])].cpu().numpy()
            self._held = rows.copy()
        self._changed |= change
        return np.arange(len(rows), dtype=np.int32)

    def slot_map(self) -> Int32[np.ndarray, "rows"]:
        """Returns the slot of each row after bringing all of them."""
        return self.slots(np.arange(self._rows), change=False)

    def all_words(self) -> Float32[np.ndarray, "rows channels 512"]:
        """Returns the words of all rows."""
        self.leave()
        return self.device_words[: self._rows].cpu().numpy()

    def leave(self) -> None:
        """Sends back the rows that are on the host and forgets them there."""
        if self._changed:
            self.device_words[self.put(self._held)] = self.put(self.words)
        self.words = np.empty((0, self.channels, BLOCK_VOXELS), np.float32)
        self._held, self._changed = self._held[:0].copy(), False

    def put(self, array: np.ndarray) -> "Tensor":
        """Returns an array on the device."""
        import torch

        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device_words.device)


def fuse_blocks(
    pages: DevicePages,
    blocks: tuple[Int[np.ndarray, "n"], Float64[np.ndarray, "n 3"]],
    view: tuple[Any, ...],
    seen: "Tensor",
) -> None:
    """Updates the voxels of some blocks with the planes of one view.

    Args:
        pages: Of the volume; changed.
        blocks: Rows, each once; corners in the frame of the view, voxels.
        view: As for `integration.fuse_blocks`.
        seen: Records of `observations.Observations`, flat, int32, on the device.
    """
    import torch

    pages.leave()
    camera, lattice, per_truncation, sign = view
    lattice = pages.put(lattice)
    states = pages.device_words.view(-1)
    for part in _chunks(len(blocks[0])):
        rows, corners = pages.put(blocks[0][part].astype(np.int64)), blocks[1][part]
        pixels, _ = _project(pages, corners, camera, lattice)
        near = seen[pixels]  # (blocks, 512, 4)
        plane = _plane(pages, corners, VOXELS, float(per_truncation), near)
        weights, words = _weigh(float(per_truncation), plane, near), states.view(torch.int32)
        at, voxels = _chosen(weights > 0, rows, pages.channels)
        near, measured = near.view(-1, 4), (plane[0].view(-1)[at], weights.view(-1)[at])
        share, chances = _average(states, voxels, float(sign), measured)
        for kind, new in ((GRADIENT, DIRECTION), (RGB, COLOR))[: pages.channels - GRADIENT]:
            place = voxels + BLOCK_VOXELS * kind
            words[place] = _mixed(words[place], near[at, new], share, chances)
        at, voxels = _chosen(plane[0] > plane[1], rows, pages.channels)
        word = words[voxels + BLOCK_VOXELS * VARIANCE]
        votes = (word & 0xFFFF) + int(sign) * (near[at, TRUST] & VOTE_STEPS)
        words[voxels + BLOCK_VOXELS * VARIANCE] = (word & ~0xFFFF) | votes.clamp(0, MOST_VOTES)


def carve_blocks(
    pages: DevicePages,
    blocks: tuple[Int32[np.ndarray, "n 3"], Int[np.ndarray, "3"], Bool[np.ndarray, "n"]],
    view: tuple[Any, ...],
    seen: "Tensor",
) -> None:
    """Adds the votes for free space of one view to blocks that it sees no surface in.

    Args:
        pages: Of the volume; changed.
        blocks: Coordinates of all blocks, by row; block at the origin of the view's frame; which have
            surfaces.
        view: As for `integration.carve_blocks`.
        seen: Records of `observations.Observations`, flat, int32, on the device.
    """
    import torch

    camera, lattice, per_truncation, planes, sign = view
    corners = (blocks[0] - blocks[1]) * float(SIDE)
    visible = (corners @ planes[:, :3].T + planes[:, 3] >= 0).all(axis=1)
    visible = np.flatnonzero(visible & ~blocks[2])
    lattice = pages.put(lattice)
    margin = float(CELL_MARGIN * per_truncation)
    for part in _chunks(len(visible)):
        rows, some = pages.put(visible[part]), corners[visible[part]]
        near = seen[_project(pages, some, camera, lattice)[0]]  # (blocks, 64, 4)
        distance, support = _plane(pages, some, VOTES, float(per_truncation), near)
        pages.cast(
            rows, int(sign) * torch.where(distance > support + margin, near[..., TRUST] & VOTE_STEPS, 0)
        )


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, CHUNK):
        yield slice(start, start + CHUNK)


def _longer(rows: "Tensor", length: int) -> "Tensor":
    longer = rows.new_zeros((length, *rows.shape[1:]))
    longer[: len(rows)] = rows
    return longer


def _project(
    pages: DevicePages, corners: Float64[np.ndarray, "n 3"], camera: tuple[Any, ...], lattice: "Tensor"
) -> tuple["Tensor", "Tensor"]:
    """Returns the numbers of the pixels of blocks' lattices, in a padded picture, 0 outside, and depths.

    Both (n, lattice). The corners are projected on the host, in float64, as not every device has it.
    """
    import torch

    P, width, height = camera
    x, y, z = corners.T[..., None]
    starts = P[:, 0] * x + P[:, 1] * y + P[:, 2] * z + P[:, 3]
    first = pages.put(starts.astype(np.float32))[..., None]  # (n, 3, 1)
    depths = first[:, 2] + lattice[2]
    inverse = 1 / depths
    u, v = (first[:, 0] + lattice[0]) * inverse, (first[:, 1] + lattice[1]) * inverse
    inside = (depths > 0) & (u >= 0) & (u < float(width)) & (v >= 0) & (v < float(height))
    pixels = (v.long() + 1) * (int(width) + 2) + u.long() + 1
    return torch.where(inside, pixels, 0), depths


def _plane(
    pages: DevicePages,
    corners: Float64[np.ndarray, "n 3"],
    lattice: Float32[np.ndarray, "3 lattice"],
    per_truncation: float,
    near: "Tensor",
) -> tuple["Tensor", "Tensor"]:
    """Returns distances / truncation of blocks' lattices to their planes, and supports, both (n, lattice)."""
    import torch

    x, y, z = pages.put(corners.astype(np.float32)).T[..., None] + pages.put(lattice)[:, None]
    nx, ny, nz = _three(near[..., DIRECTION])
    nx, ny, nz = nx * float(STEP_XY) - 1, ny * float(STEP_XY) - 1, nz * float(STEP_Z) - 1
    distance = nx * x + ny * y + nz * z - near[..., OFFSET].view(torch.float32)
    return distance * per_truncation, (near[..., TRUST] >> 6 & 1023) * float(SUPPORT_STEP)


def _weigh(per_truncation: float, plane: tuple["Tensor", "Tensor"], near: "Tensor") -> "Tensor":
    """Returns the weights of blocks' voxels, (n, 512)."""
    import torch

    distance, support = plane
    weight = (near[..., TRUST] & ~0xFFFF).view(torch.float32)
    least = max(float(LEAST_BEHIND), float(LEAST_VOXELS_BEHIND) * per_truncation)
    surer = torch.minimum(support + support - float(LESS_2), support - float(LESS_1))
    behind = torch.maximum(surer, support.clamp(max=least))
    before = (support - distance) * float(1 / TAPER_LENGTH)
    taper = torch.minimum(before, (behind + distance) * float(1 / TAPER_BEHIND))
    return weight * taper.clamp(0, 1)


def _chosen(mask: "Tensor", rows: "Tensor", channels: int) -> tuple["Tensor", "Tensor"]:
    """Returns which of blocks' voxels are in a mask, counted over all blocks, and where their words start."""
    import torch

    at = torch.nonzero(mask.view(-1))[:, 0]
    return at, rows[at // BLOCK_VOXELS] * (channels * BLOCK_VOXELS) + at % BLOCK_VOXELS


def _average(
    states: "Tensor", voxels: "Tensor", sign: float, measured: tuple["Tensor", "Tensor"]
) -> tuple["Tensor", tuple["Tensor", ...]]:
    """Updates means, weights and variances of voxels; returns the share of the new, and chances of rounding.

    Args:
        states: Words of all voxels, flat; changed.
        voxels: Places of their first words.
        sign: 1 to add, -1 to take away.
        measured: Distances / truncation and weights.
    """
    import torch

    places = [voxels + BLOCK_VOXELS * kind for kind in (TSDF, WEIGHT)]
    mean, old = (states[place] for place in places)
    words, place = states.view(torch.int32), voxels + BLOCK_VOXELS * VARIANCE
    votes, variance = words[place] & 0xFFFF, (words[place] & ~0xFFFF).view(torch.float32)
    distance, weight = measured
    change = distance.clamp(-1, 1) - mean
    squared = change * change
    limit = float(OUTLIER_SIGMAS2) * variance.clamp(min=float(MIN_VARIANCE))
    robust = weight * torch.sqrt(limit / torch.maximum(squared, limit))
    weight = torch.where(old > float(SURER) * weight, robust, weight)
    total = old + sign * weight
    total = torch.where(total > float(LEAST_SHARE) * weight, total, 0)
    share = torch.where(total > 0, sign * weight / total.clamp(min=float(TINY)), 0)
    variance = ((1 - share) * (variance + share * squared)).clamp(min=0)
    chances = _chances(total.view(torch.int32))
    raised = variance.view(torch.int32) + (chances[2] * 65536).int()
    words[place] = (raised & ~0xFFFF) | votes
    states[places[0]], states[places[1]] = mean + share * change, total
    return share, chances


def _three(words: "Tensor") -> tuple["Tensor", "Tensor", "Tensor"]:
    """Returns the three numbers in each word, float32."""
    return (words & 2047).float(), (words >> 11 & 2047).float(), (words >> 22 & 1023).float()


def _chances(words: "Tensor") -> tuple["Tensor", ...]:
    """Returns three numbers in (0, 1) for each word, as `packing.chances` does."""
    mixed = (words ^ (words >> 15 & 0x1FFFF)) * SIGNED_MIXER  # masks: shifts of signed words keep the sign
    mixed = mixed ^ (mixed >> 13 & 0x7FFFF)
    return tuple(((mixed >> low & 1023).float() + 0.5) * float(DITHER) for low in (2, 12, 22))


def _mixed(old: "Tensor", new: "Tensor", share: "Tensor", chances: tuple["Tensor", ...]) -> "Tensor":
    """Returns the words of three means after a share of them has been replaced."""
    means = zip(_three(old), _three(new), chances, (HIGH_XY, HIGH_XY, HIGH_Z), strict=True)
    x, y, z = ((a + share * (b - a) + chance).clamp(0, float(high)).int() for a, b, chance, high in means)
    return x | y << 11 | z << 22
