"""How numbers are packed into 32-bit words: what a pixel tells and what a voxel keeps.

- A unit vector v is kept as the mean (v + 1) / 2: exact along an axis, else to 0.1 degrees and 0.001 of its
  length.
- A weight is the upper half of its float32 and shares a word with a support, in steps of 1 / 64, and a vote
  for free space, in steps of 1 / 63.
- A variance is the upper half of its float32, too, rounded up or down by chance as means are (below), and
  shares a word with a sum of votes.
- A mean of three values in [0, 1] has 11, 11 and 10 bits. A running mean in so few bits would stand still
  once its steps are smaller than a bit; so it is rounded up or down by chance, the chance being a hash of the
  voxel's weight, and is right on average.
"""

from typing import Any, no_type_check

import numpy as np

from recon.jit import inlined

SUPPORT_STEP = np.float32(1 / 64)
MAX_SUPPORT = np.float32(15.98)
VOTE_STEPS = 63  # of one view that sees through
MOST_VOTES = 65535  # of their sum
UPPER, LOWER = np.uint32(0xFFFF0000), np.uint32(0xFFFF)
HIGH_XY, HIGH_Z = np.float32(2046), np.float32(1022)  # of 11 and 10 bits; even, so that 0 in [-1, 1] is exact
HALF_XY, HALF_Z = np.float32(HIGH_XY / 2), np.float32(HIGH_Z / 2)
STEP_XY, STEP_Z = np.float32(2 / HIGH_XY), np.float32(2 / HIGH_Z)
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
def pack_trust(weight: Any, support: Any, vote: Any) -> Any:
    """Returns the word of a weight, cut to 8 bits of mantissa, a support, rounded, and a vote, rounded up."""
    steps = np.uint32(np.int32(min(support, MAX_SUPPORT) / SUPPORT_STEP + np.float32(0.5)))
    votes = np.uint32(np.int32(np.ceil(vote * np.float32(VOTE_STEPS))))
    return np.uint32(np.uint32(bits_of(weight) & UPPER) | np.uint32(np.uint32(steps << np.uint32(6)) | votes))


@inlined
@no_type_check
def unpack_trust(word: Any) -> Any:
    """Returns weight and support."""
    steps = np.float32(np.int32(np.uint32(np.uint32(word & LOWER) >> np.uint32(6))))
    return float_of(np.uint32(word & UPPER)), steps * SUPPORT_STEP


@inlined
@no_type_check
def unpack_vote(word: Any) -> Any:
    """Returns the steps of the vote that shares a word with a weight, float32: integers would be widened."""
    return np.float32(np.int32(np.uint32(word & np.uint32(VOTE_STEPS))))


@inlined
@no_type_check
def pack_variance(variance: Any, chance: Any, votes: Any) -> Any:
    """Returns the word of a variance, rounded by a chance in (0, 1), and the steps of a sum of votes."""
    raised = np.uint32(bits_of(variance) + np.uint32(np.int32(chance * np.float32(65536))))
    return np.uint32(np.uint32(raised & UPPER) | np.uint32(np.int32(votes)))


@inlined
@no_type_check
def unpack_variance(word: Any) -> Any:
    """Returns variance and the steps of the sum of votes, both float32."""
    return float_of(np.uint32(word & UPPER)), np.float32(np.int32(np.uint32(word & LOWER)))


@inlined
@no_type_check
def sum_of_votes(votes: Any, more: Any) -> Any:
    """Returns the steps of a sum of votes with more, or with less; float32, exact."""
    return min(max(votes + more, np.float32(0)), np.float32(MOST_VOTES))


@inlined
@no_type_check
def pack_three(x: Any, y: Any, z: Any) -> Any:
    """Returns the word of three numbers, cut to integers from 0 to 2046, 2046 and 1022."""
    most, zero = np.int32(HIGH_XY), np.int32(0)
    a = np.uint32(min(max(np.int32(x), zero), most))
    b = np.uint32(min(max(np.int32(y), zero), most))
    c = np.uint32(min(max(np.int32(z), zero), np.int32(HIGH_Z)))
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
def pack_direction(x: Any, y: Any, z: Any) -> Any:
    """Returns the word of a unit vector."""
    one, half = np.float32(1), np.float32(0.5)
    return pack_three((x + one) * HALF_XY + half, (y + one) * HALF_XY + half, (z + one) * HALF_Z + half)


@inlined
@no_type_check
def unpack_direction(word: Any) -> Any:
    """Returns x, y, z of the unit vector."""
    one = np.float32(1)
    x, y, z = unpack_three(word)
    return x * STEP_XY - one, y * STEP_XY - one, z * STEP_Z - one


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
