"""How much brighter or darker a photo is than what the volume holds of the same surfaces."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, UInt8

from recon.fusion.blocks import SIDE, pack
from recon.fusion.integration import RGB, TSDF, WEIGHT
from recon.geometry import unproject

if TYPE_CHECKING:
    from recon.fusion.observations import Frame
    from recon.fusion.volume import TSDFVolume
    from recon.scene import DepthMap

SAMPLES = 1200  # pixels looked at
MIN_SAMPLES = 100  # fewer say nothing
DARKEST, BRIGHTEST = 8, 247  # levels beyond are clipped or noise
NO_CHANGE = 0.02  # of the logarithm: below, nothing is changed, so that equal exposures stay as they are
MAX_CHANGE = np.log(4.0)  # what is more is another light or another scene


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
    step = max(1, int(np.sqrt(depth_map.depth.size / SAMPLES)))
    v, u = np.nonzero(depth_map.depth[::step, ::step] > 0)
    v, u = v * step, u * step
    points = unproject(frame.K, np.stack([u, v], axis=-1) + 0.5, depth_map.depth[v, u].astype(np.float64))
    voxels = np.floor(points / frame.voxel_size @ frame.rotation + frame.center).astype(np.int64)
    rows = volume.index.find(pack((voxels // SIDE + block).astype(np.int32)))
    place = (voxels % SIDE) @ [1, SIDE, SIDE * SIDE]
    known = rows >= 0
    slots = np.full(len(rows), -1, np.int32)
    slots[known] = volume.pages.slot_map()[rows[known]]
    known &= slots >= 0
    words = volume.pages.words
    slots, place, levels = slots[known], place[known], color[v[known], u[known]].astype(np.float64)
    held = words[slots, RGB, place].view(np.uint32)
    fused = np.stack([held & 2047, held >> 11 & 2047, held >> 22], axis=-1) * (255 / np.array([2047, 2047, 1023]))
    sure = (words[slots, WEIGHT, place] > 0) & (np.abs(words[slots, TSDF, place]) < 0.5)
    return np.array([_gain(fused[sure, k], levels[sure, k]) for k in range(3)])


def _gain(fused: np.ndarray, levels: np.ndarray) -> float:
    usable = (np.minimum(fused, levels) > DARKEST) & (np.maximum(fused, levels) < BRIGHTEST)
    if usable.sum() < MIN_SAMPLES:
        return 1.0
    ratios = np.log(fused[usable] / levels[usable])
    middle = float(np.median(ratios))
    error = 1.48 * float(np.median(np.abs(ratios - middle))) / np.sqrt(usable.sum())
    if abs(middle) < max(NO_CHANGE, 3 * error):
        return 1.0
    return float(np.exp(np.clip(middle, -MAX_CHANGE, MAX_CHANGE)))
