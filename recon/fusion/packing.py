"""How numbers are packed into 32-bit words: what a pixel tells and what a voxel keeps.

- A unit vector is two 16-bit numbers on the unfolded octahedron (Meyer et al. 2010): 3e-5 apart anywhere.
- A weight is the upper half of its float32 and shares a word with a support, in steps of 1 / 4096.
- A mean of three values in [0, 1] has 11, 11 and 10 bits. A running mean in so few bits would stand still
  once its steps are smaller than a bit; so it is rounded up or down by chance, the chance being a hash of the
  voxel's weight, and is right on average.
"""

from typing import Any, no_type_check

import numpy as np

from recon.jit import inlined

OCTAHEDRON = np.float32(32767)
SUPPORT_STEP = np.float32(1 / 4096)
MAX_SUPPORT = np.float32(15.99)
HIGH_XY, HIGH_Z = np.float32(2047), np.float32(1023)  # largest values of 11 and 10 bits
DITHER = np.float32(1 / 1024)
MIXER = np.uint32(0x9E3779B1)  # 2^32 / golden ratio, odd (Knuth)


@inlined
@no_type_check
def bits_of(value: Any) -> Any:
    """Returns the word that holds a float32."""
    return np.float32(value).view(np.uint32)


@inlined
@no_type_check
def float_of(word: Any) -> Any:
    """Returns the float32 that a word holds."""
    return np.uint32(word).view(np.float32)


@inlined
@no_type_check
def _low(word: Any) -> Any:
    return np.float32(np.int32(np.int32(np.uint32(word << np.uint32(16))) >> np.int32(16)))


@inlined
@no_type_check
def _high(word: Any) -> Any:
    return np.float32(np.int32(np.int32(word) >> np.int32(16)))


@inlined
@no_type_check
def _halves(low: Any, high: Any) -> Any:
    """Returns two numbers of the size of int16 as one word, rounded."""
    half = np.float32(0.5)
    a = np.uint32(np.int32(np.floor(low + half))) & np.uint32(0xFFFF)
    b = np.uint32(np.int32(np.floor(high + half))) & np.uint32(0xFFFF)
    return np.uint32(np.uint32(a) | np.uint32(np.uint32(b) << np.uint32(16)))


@inlined
@no_type_check
def pack_direction(x: Any, y: Any, z: Any) -> Any:
    """Returns the word of a vector's direction."""
    one, zero = np.float32(1), np.float32(0)
    scale = one / (abs(x) + abs(y) + abs(z))
    a, b = x * scale, y * scale
    folded_a = (one - abs(b)) if a >= zero else (abs(b) - one)
    folded_b = (one - abs(a)) if b >= zero else (abs(a) - one)
    behind = z < zero
    return _halves((folded_a if behind else a) * OCTAHEDRON, (folded_b if behind else b) * OCTAHEDRON)


@inlined
@no_type_check
def unpack_direction(word: Any) -> Any:
    """Returns x, y, z of the unit vector."""
    one, zero, step = np.float32(1), np.float32(0), np.float32(1) / OCTAHEDRON
    a, b = _low(word) * step, _high(word) * step
    z = one - abs(a) - abs(b)
    fold = max(-z, zero)
    x = a - fold if a >= zero else a + fold
    y = b - fold if b >= zero else b + fold
    scale = one / np.sqrt(x * x + y * y + z * z)
    return x * scale, y * scale, z * scale


@inlined
@no_type_check
def pack_trust(weight: Any, support: Any) -> Any:
    """Returns the word of a weight, cut to 8 bits of mantissa, and a support, rounded."""
    steps = np.uint32(np.int32(min(support, MAX_SUPPORT) / SUPPORT_STEP + np.float32(0.5)))
    return np.uint32(np.uint32(bits_of(weight) & np.uint32(0xFFFF0000)) | steps)


@inlined
@no_type_check
def unpack_trust(word: Any) -> Any:
    """Returns weight and support."""
    steps = np.float32(np.int32(np.uint32(word & np.uint32(0xFFFF))))
    return float_of(np.uint32(word & np.uint32(0xFFFF0000))), steps * SUPPORT_STEP


@inlined
@no_type_check
def pack_three(x: Any, y: Any, z: Any) -> Any:
    """Returns the word of three numbers, cut to integers from 0 to 2047, 2047 and 1023."""
    most, zero = np.int32(2047), np.int32(0)
    a = np.uint32(min(max(np.int32(x), zero), most))
    b = np.uint32(min(max(np.int32(y), zero), most))
    c = np.uint32(min(max(np.int32(z), zero), np.int32(1023)))
    high = np.uint32(np.uint32(b << np.uint32(11)) | np.uint32(c << np.uint32(22)))
    return np.uint32(a | high)


@inlined
@no_type_check
def unpack_three(word: Any) -> Any:
    """Returns the three numbers, float32."""
    x = np.float32(np.int32(np.uint32(word & np.uint32(2047))))
    y = np.float32(np.int32(np.uint32(np.uint32(word >> np.uint32(11)) & np.uint32(2047))))
    return x, y, np.float32(np.int32(np.uint32(word >> np.uint32(22))))


@inlined
@no_type_check
def chances(word: Any) -> Any:
    """Returns three numbers in (0, 1) that look random and depend on a word."""
    half, mask = np.float32(0.5), np.uint32(1023)
    mixed = np.uint32(np.uint32(word ^ np.uint32(word >> np.uint32(15))) * MIXER)
    mixed = np.uint32(mixed ^ np.uint32(mixed >> np.uint32(13)))
    a = np.float32(np.int32(np.uint32(np.uint32(mixed >> np.uint32(2)) & mask)))
    b = np.float32(np.int32(np.uint32(np.uint32(mixed >> np.uint32(12)) & mask)))
    c = np.float32(np.int32(np.uint32(mixed >> np.uint32(22))))
    return (a + half) * DITHER, (b + half) * DITHER, (c + half) * DITHER
