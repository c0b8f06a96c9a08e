"""Solid textures: the colour of a material at points in space. Compiled; imported where it is needed only.

A texture is value noise in octaves plus layers of coloured blobs, each layer about half the size of the one
before it. Nothing repeats, and colour depends on the point alone, so all views agree on it.
"""

from typing import no_type_check

import numpy as np
from numba import njit

BLOB_LAYERS = 6
NOISE_OCTAVES = 6
LACUNARITY = 0.53  # size ratio of successive layers; not 1/2, so that their lattices never line up
EMPTY_CELLS = 0.5  # share of a layer's cells without a blob; fewer would look like confetti
# A rotation that lines up with no wall: turns of 0.7, 1.1 and 0.4 rad about x, y and z.
_TILT = np.array(
    [
        [0.41779, -0.17664, 0.89121],
        [0.82663, 0.48098, -0.29219],
        [-0.37705, 0.85877, 0.34697],
    ]
)


@no_type_check
@njit(cache=True)
def _mixed(h: np.uint64) -> np.uint64:
    """Returns the bits of `h` well mixed (the finaliser of SplitMix64: Steele, Lea, Flood 2014)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@no_type_check
@njit(cache=True)
def _hash(x: int, y: int, z: int, salt: int) -> np.uint64:
    h = np.uint64(x) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(y) * np.uint64(0xC2B2AE3D27D4EB4F)
    return _mixed(
        h + np.uint64(z) * np.uint64(0x165667B19E3779F9) + np.uint64(salt) * np.uint64(0xD6E8FEB86659FD93)
    )


@no_type_check
@njit(cache=True)
def _unit(h: np.uint64, part: int) -> float:
    """Returns one of several independent numbers in [0, 1) from one hash."""
    return np.float64(_mixed(h + np.uint64(part)) >> np.uint64(11)) * 2.0**-53


@no_type_check
@njit(cache=True)
def _value_noise(x: float, y: float, z: float, salt: int) -> float:
    """Returns smooth noise in [-1, 1] with a lattice of spacing 1."""
    bx, by, bz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    fx, fy, fz = x - bx, y - by, z - bz
    wx, wy, wz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for corner in range(8):
        i, j, k = corner & 1, corner >> 1 & 1, corner >> 2
        weight = (wx if i else 1 - wx) * (wy if j else 1 - wy) * (wz if k else 1 - wz)
        total += weight * np.float64(_hash(bx + i, by + j, bz + k, salt) >> np.uint64(11)) * 2.0**-53
    return 2 * total - 1


@no_type_check
@njit(cache=True)
def _octaves(x: float, y: float, z: float, footprint: float, salt: int) -> float:
    """Returns fractal noise; octaves finer than two footprints are left out, as they would alias."""
    total, size, gain = 0.0, 1.0, 0.5
    for octave in range(NOISE_OCTAVES):
        keep = min(1.0, max(0.0, size / (2 * footprint) - 1))
        if keep <= 0:
            break
        total += keep * gain * _value_noise(x / size, y / size, z / size, salt + octave)
        size *= LACUNARITY
        gain *= 0.75
    return total


@no_type_check
@njit(cache=True)
def _blob(x: float, y: float, z: float, footprint: float, salt: int) -> tuple[float, np.uint64]:
    """Returns how much of a sample the blob of its unit cell covers, and that blob's hash."""
    bx, by, bz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    h = _hash(bx, by, bz, salt)
    if _unit(h, 0) < EMPTY_CELLS:  # a cell without a blob
        return 0.0, h
    radius = 0.25 + 0.25 * _unit(h, 1)
    dx = x - bx - radius - (1 - 2 * radius) * _unit(h, 2)
    dy = y - by - radius - (1 - 2 * radius) * _unit(h, 3)
    dz = z - bz - radius - (1 - 2 * radius) * _unit(h, 4)
    is_cube = _unit(h, 5) < 0.5
    distance = max(abs(dx), abs(dy), abs(dz)) if is_cube else np.sqrt(dx * dx + dy * dy + dz * dz)
    return min(1.0, max(0.0, (radius - distance) / footprint + 0.5)), h


@no_type_check
@njit(cache=True, nogil=True)
def solid_color(
    points: np.ndarray, footprints: np.ndarray, material: np.ndarray, salt: int, color: np.ndarray
) -> None:
    """Writes the linear colour (n, 3) of one material at points (n, 3).

    Args:
        points: Float64, already divided by the material's coarsest feature size.
        footprints: Width of a sample in the same unit; finer detail is faded out.
        material: Float64 (5,): red, green, blue, contrast of the noise, contrast of the blobs.
        salt: Makes one material's pattern differ from another's.
        color: Float64 (n, 3), output.
    """
    for i in range(len(points)):
        footprint = max(footprints[i], 1e-9)
        x = _TILT[0, 0] * points[i, 0] + _TILT[0, 1] * points[i, 1] + _TILT[0, 2] * points[i, 2]
        y = _TILT[1, 0] * points[i, 0] + _TILT[1, 1] * points[i, 1] + _TILT[1, 2] * points[i, 2]
        z = _TILT[2, 0] * points[i, 0] + _TILT[2, 1] * points[i, 1] + _TILT[2, 2] * points[i, 2]
        light = (
            np.exp(1.2 * material[3] * _octaves(x, y, z, footprint, 100 + salt)) if material[3] > 0 else 1.0
        )
        for channel in range(3):
            color[i, channel] = material[channel] * light
        size = 1.0
        for layer in range(BLOB_LAYERS if material[4] > 0 else 0):
            keep = min(1.0, max(0.0, size / (3 * footprint) - 1))
            if keep <= 0:
                break
            cover, h = _blob(x / size, y / size, z / size, footprint / size, 1000 + 31 * layer + salt)
            weight = keep * cover * material[4]
            shade = np.exp(2.4 * _unit(h, 6) - 1.6)
            for channel in range(3):
                target = shade * (0.85 * material[channel] + 0.35 * _unit(h, 7 + channel) ** 2)
                color[i, channel] += weight * (target - color[i, channel])
            size *= LACUNARITY
