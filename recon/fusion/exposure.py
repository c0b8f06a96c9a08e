"""How much brighter or darker a photo is than what the volume holds of the same surfaces."""

from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np
from jaxtyping import Float64, UInt8

from recon.fusion.blocks import EMPTY, HALF, KEY_BITS, VOXEL_NUMBERS
from recon.fusion.integration import RGB, TSDF, WEIGHT
from recon.fusion.observations import LEVEL_XY, LEVEL_Z
from recon.fusion.packing import bits_of, unpack_three
from recon.jit import compiled

if TYPE_CHECKING:
    from recon.fusion.observations import Frame
    from recon.fusion.volume import TSDFVolume
    from recon.scene import DepthMap

SAMPLES = 1200  # pixels looked at, about
MIN_SAMPLES = 100  # fewer say nothing
DARKEST, BRIGHTEST = 24, 247  # levels beyond are clipped or noise
NO_CHANGE = 0.02  # of the logarithm: below, nothing is changed, so that equal exposures stay as they are
MAX_CHANGE = np.log(4.0)  # what is more is another light or another scene


def sampling_step(depth_map: "DepthMap") -> int:
    """Returns which pixels of a view are looked at: one in so many, of rows and columns."""
    return max(1, int(np.sqrt(depth_map.depth.size / SAMPLES)))


def exposure_gains(
    volume: "TSDFVolume",
    depth_map: "DepthMap",
    color: UInt8[np.ndarray, "h w 3"],
    frame: "Frame",
    block: np.ndarray,
) -> Float64[np.ndarray, "3"]:
    """Returns the factors for red, green and blue that bring a photo to the volume's colours.

    The median over the pixels of log(level of the volume where the pixel's point is / level of the pixel); 1
    where too few pixels see what earlier views saw, or where the median is not surely different from 0.

    Args:
        volume: With colours.
        depth_map: Of the view.
        color: Its photo.
        frame: Where the view is.
        block: The block at the frame's origin.
    """
    step = sampling_step(depth_map)
    depth, levels = depth_map.depth[::step, ::step], color[::step, ::step]
    voxels_from_cam = frame.rotation.T / frame.voxel_size
    place = (np.linalg.inv(frame.K)[:2], voxels_from_cam, frame.center, step)
    keys, numbers = np.empty(depth.size, np.int64), np.empty(depth.size, np.int32)
    sample_voxels(depth, place, block + HALF, keys, numbers)
    rows = volume.index.find(keys)
    fused, sure = np.zeros((depth.size, 3), np.float32), np.zeros(depth.size, np.bool_)
    needed = np.zeros(len(volume.index), np.bool_)
    needed[rows[rows >= 0]] = True
    for part in volume.parts(np.flatnonzero(needed)):
        slots = np.full(len(volume.index) + 1, -1, np.int32)  # the last one is of no block
        slots[part] = volume.pages.slots(part, change=False)
        read_colors(slots[rows], numbers, volume.pages.words, fused, sure)
    pixels, fused = levels.reshape(-1, 3)[sure].astype(np.float32), fused[sure]
    return np.array([_gain(fused[:, k], pixels[:, k]) for k in range(3)])


@compiled
@no_type_check
def sample_voxels(depth: Any, place: Any, origin: Any, keys: Any, numbers: Any) -> None:
    """Writes the block and the number of the voxel that each pixel's point is in; EMPTY without depth."""
    rays, B, center, step = place
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            i, z = v * depth.shape[1] + u, np.float64(depth[v, u])
            x, y = (step * u + 0.5), (step * v + 0.5)
            ray_u = rays[0, 0] * x + rays[0, 1] * y + rays[0, 2]
            ray_v = rays[1, 0] * x + rays[1, 1] * y + rays[1, 2]
            a = np.int64(np.floor(center[0] + z * (B[0, 0] * ray_u + B[0, 1] * ray_v + B[0, 2])))
            b = np.int64(np.floor(center[1] + z * (B[1, 0] * ray_u + B[1, 1] * ray_v + B[1, 2])))
            c = np.int64(np.floor(center[2] + z * (B[2, 0] * ray_u + B[2, 1] * ray_v + B[2, 2])))
            numbers[i] = VOXEL_NUMBERS[c & 7, b & 7, a & 7]
            key = ((a >> 3) + origin[0] << 2 * KEY_BITS) | ((b >> 3) + origin[1] << KEY_BITS)
            keys[i] = key | ((c >> 3) + origin[2]) if z > 0 else EMPTY


@compiled
@no_type_check
def read_colors(slots: Any, numbers: Any, words: Any, fused: Any, sure: Any) -> None:
    """Writes the colours of voxels, levels, and whether they are near a surface."""
    for i in range(len(slots)):
        if slots[i] >= 0:
            state, k = words[slots[i]], numbers[i]
            sure[i] = (state[WEIGHT, k] > 0) & (abs(state[TSDF, k]) < 0.5)  # one wait for memory, not two
            red, green, blue = unpack_three(bits_of(state[RGB, k]))
            fused[i, 0], fused[i, 1], fused[i, 2] = red / LEVEL_XY, green / LEVEL_XY, blue / LEVEL_Z


def _gain(fused: np.ndarray, levels: np.ndarray) -> float:
    usable = (np.minimum(fused, levels) > DARKEST) & (np.maximum(fused, levels) < BRIGHTEST)
    if usable.sum() < MIN_SAMPLES:
        return 1.0
    ratios = np.log(fused[usable] / levels[usable])
    middle = _middle(ratios)
    error = 1.48 * _middle(np.abs(ratios - middle)) / np.sqrt(usable.sum())
    if abs(middle) < max(NO_CHANGE, 3 * error):
        return 1.0
    return float(np.exp(np.clip(middle, -MAX_CHANGE, MAX_CHANGE)))


def _middle(values: np.ndarray) -> float:
    """Returns the upper median; `np.median` takes five times as long for a thousand values."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])
