"""Random numbers that come with a sample (noise, codes, interpolation weights), as data.

They follow from the run's seed, the sample's position in the run and their name alone: any number
of ranks and workers, and a run that goes on, draw the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from shards.hashing import hash64, mix64_array


@dataclass(frozen=True)
class Noise:
    """Numbers of one kind that every sample gets."""

    name: str
    """What they are called in a batch."""
    shape: tuple[int, ...]
    distribution: Literal["uniform", "normal"]
    """uniform in [0, 1), or normal with mean 0 and deviation 1."""

    def at(self, seed: int, position: int) -> np.ndarray:
        """float32 [*shape]: the numbers of the sample at a position."""
        kind = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")
        start, count = hash64(seed, kind, position), prod(self.shape)
        if self.distribution == "uniform":
            # As many bits as float32 has: rounding would give 1 now and then.
            values = (_bits(start, count) >> np.uint64(40)) * 2.0**-24
        else:
            values = _normal(_bits(start, 2 * count))
        return values.astype(np.float32).reshape(self.shape)


def _bits(start: int, count: int) -> np.ndarray:
    return mix64_array(np.uint64(start) + np.arange(count, dtype=np.uint64))


def _normal(bits: np.ndarray) -> np.ndarray:
    """Two uint64 for each number, by Box and Muller (1958)."""
    above_zero = ((bits[::2] >> np.uint64(11)) + np.uint64(1)) * 2.0**-53
    turn = (bits[1::2] >> np.uint64(11)) * 2.0**-53
    return np.sqrt(-2 * np.log(above_zero)) * np.cos(2 * np.pi * turn)
