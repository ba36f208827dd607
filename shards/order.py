"""Position n -> (epoch, sample): the order of the data as a pure function.

Position n counts the samples consumed by all ranks together since the start of a run, so n is
the only state of the data. Shuffling sorts a hash of our own: the order outlives any library's
random generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Order:
    """Every sample exactly once an epoch, in an order drawn from (seed, domain, epoch).

    Two sets that are drawn together but unpaired need two domains: with one, sets of equal size
    would meet in the same pairs in every epoch."""

    num_samples: int
    seed: int
    domain: int = 0

    def __post_init__(self) -> None:
        assert self.num_samples > 0, self.num_samples

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, sample index) at a position >= 0."""
        epoch, rank_in_epoch = divmod(position, self.num_samples)
        order = permutation(self.num_samples, self.seed, self.domain, epoch)
        return epoch, int(order[rank_in_epoch])


# Workers read ahead across an epoch's end, in two domains: four permutations are in use.
@lru_cache(maxsize=4)
def permutation(num_samples: int, seed: int, domain: int, epoch: int) -> np.ndarray:
    """int64 [num_samples]: the samples of an epoch in their order."""
    start = np.uint64(hash64(seed, domain, epoch))
    # mix64 is a bijection: no two of these are equal, so the order is unique.
    keys = mix64_array(start + np.arange(num_samples, dtype=np.uint64))
    order = np.argsort(keys)
    order.setflags(write=False)
    return order


def hash64(*values: int) -> int:
    """One 64-bit hash of several integers, in their order."""
    state = 0
    for value in values:
        state = mix64(state ^ (value & _MASK))
    return state


def mix64(value: int) -> int:
    """splitmix64 (Steele, Lea, Flood 2014): one well-mixed 64-bit integer from another."""
    return int(mix64_array(np.array([value & _MASK], dtype=np.uint64))[0])


def mix64_array(values: np.ndarray) -> np.ndarray:
    """splitmix64 of each element, uint64 -> uint64; arithmetic wraps at 2**64."""
    z = values + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
