"""Random numbers as pure functions of integers: a hash of our own outlives any library's."""

from __future__ import annotations

import numpy as np

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def shuffled(length: int, *values: int) -> np.ndarray:
    """int64 [length]: 0 .. length - 1 in an order drawn from the values."""
    start = np.uint64(hash64(*values))
    # mix64 is a bijection: no two of these are equal, so the order is unique.
    return np.argsort(mix64_array(start + np.arange(length, dtype=np.uint64)))


def hash64(*values: int) -> int:
    """One 64-bit hash of several integers, in their order."""
    state = 0
    for value in values:
        state = mix64(state ^ (value & _MASK))
    return state


def mix64(value: int) -> int:
    """splitmix64 (Steele, Lea, Flood 2014): one well-mixed 64-bit integer from another."""
    # Not by the array's, which takes thirty times as long for one: each sample draws several.
    z = (value + _GOLDEN) & _MASK
    z = ((z ^ z >> 30) * _FACTORS[0]) & _MASK
    z = ((z ^ z >> 27) * _FACTORS[1]) & _MASK
    return z ^ z >> 31


def mix64_array(values: np.ndarray) -> np.ndarray:
    """splitmix64 of each element, uint64 -> uint64; arithmetic wraps at 2**64."""
    z = values + np.uint64(_GOLDEN)
    z ^= z >> np.uint64(30)
    z *= np.uint64(_FACTORS[0])
    z ^= z >> np.uint64(27)
    z *= np.uint64(_FACTORS[1])
    z ^= z >> np.uint64(31)
    return z
