"""Position n -> (epoch, sample): the order of the data as a pure function.

Position n counts the samples consumed by all ranks together since the start of a run, so n is
the only state of the data. Shuffling sorts a hash of our own: the order outlives any library's
random generator.

A full shuffle may need any shard next. A windowed one reads few shards at a time, so that a cache
can hold them: position n belongs to stream n % streams, each stream keeps its own part of the
shards from epoch to epoch, and mixes the samples of `window` of them, then those of the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from shards.hashing import shuffled


@dataclass(frozen=True)
class Shuffle:
    """How the samples of an epoch are mixed; ValueError if the options contradict each other."""

    kind: Literal["full", "windowed"] = "full"
    window: int = 16
    """Shards whose samples are mixed together."""
    streams: int = 1
    """Parts of the shards that are read side by side."""

    def __post_init__(self) -> None:
        assert self.window > 0 and self.streams > 0, self
        if self.kind == "full" and self.streams > 1:
            raise ValueError(
                f"data.order.streams={self.streams} needs data.order.shuffle=windowed: in a full "
                "shuffle every stream would read all shards"
            )


class Order(ABC):
    """Every sample exactly once an epoch, in an order drawn from (seed, domain, epoch).

    Two sets that are drawn together but unpaired need two domains: with one, sets of equal size
    would meet in the same pairs in every epoch."""

    streams: int = 1
    """Position n belongs to stream n % streams."""

    def __init__(self, shard_sizes: Sequence[int], seed: int, domain: int = 0) -> None:
        """shard_sizes: samples of each shard; samples are numbered shard after shard."""
        self.ends = np.cumsum(np.asarray(shard_sizes, dtype=np.int64))
        self.shard_sizes = np.diff(self.ends, prepend=0)
        self.num_samples = int(self.ends[-1])
        self.seed = seed
        self.domain = domain
        assert self.num_samples > 0 and (self.shard_sizes >= 0).all(), shard_sizes

    @abstractmethod
    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, sample index) at a position >= 0."""

    @abstractmethod
    def shards_ahead(self, position: int, count: int) -> list[int]:
        """Numbers of the shards that the stream of this position needs from there on, the most
        urgent first and each once: those in use, if it keeps to some, and `count` more."""


class FullOrder(Order):
    """All samples mixed; an epoch's order takes 4 bytes a sample (8 from 2**32 samples on)."""

    def locate(self, position: int) -> tuple[int, int]:
        epoch, rank = divmod(position, self.num_samples)
        order = permutation(self.num_samples, self.seed, self.domain, epoch)
        return epoch, int(order[rank])

    def shards_ahead(self, position: int, count: int) -> list[int]:
        count = min(count, int(np.count_nonzero(self.shard_sizes)))
        found: dict[int, None] = {}
        span = 4 * count
        while len(found) < count:
            epoch, rank = divmod(position, self.num_samples)
            order = permutation(self.num_samples, self.seed, self.domain, epoch)
            samples = order[rank : rank + span]
            found |= dict.fromkeys(np.searchsorted(self.ends, samples, side="right").tolist())
            position += len(samples)
            span *= 2  # a shard of few samples may be far
        return list(found)[:count]


@dataclass(frozen=True, eq=False)
class _Pieces:
    """What a stream reads in an epoch: whole shards, but for its first and last; in its order."""

    epoch: int
    shards: np.ndarray
    firsts: np.ndarray
    """The first sample of each piece."""
    ends: np.ndarray
    """Samples of the stream up to the end of each piece."""


@dataclass(frozen=True, eq=False)
class _Group:
    """The samples of `window` pieces, in their order."""

    epoch: int
    number: int
    samples: np.ndarray


class WindowedOrder(Order):
    """The samples of `window` shards mixed, then those of the next, in each of the streams.

    All shards are laid end to end in an order of the run. In each epoch that line is cut into a
    part for each stream, as long as the stream has positions in the epoch: its ends move by fewer
    samples than there are streams. Each stream draws the order of its shards anew."""

    def __init__(
        self, shard_sizes: Sequence[int], seed: int, domain: int, window: int, streams: int
    ) -> None:
        super().__init__(shard_sizes, seed, domain)
        self.window = window
        self.streams = streams
        filled = np.flatnonzero(self.shard_sizes)
        self._line = filled[shuffled(len(filled), seed, domain)]
        self._line_ends = np.cumsum(self.shard_sizes[self._line])
        # A stream only goes on: it needs this epoch, the next, and the group that it is in.
        self._pieces: dict[tuple[int, int], _Pieces] = {}
        self._groups: dict[int, _Group] = {}

    def locate(self, position: int) -> tuple[int, int]:
        epoch, stream, rank = self._place(position)
        group_ends = self._stream(epoch, stream).ends[self.window - 1 :: self.window]
        number = int(np.searchsorted(group_ends, rank, side="right"))
        start = int(group_ends[number - 1]) if number else 0
        return epoch, int(self._group(epoch, stream, number)[rank - start])

    def shards_ahead(self, position: int, count: int) -> list[int]:
        """All of the group, and beyond it as many as have been used up of it, and `count`: so
        the next group comes in shard by shard while this one is read."""
        epoch, stream, rank = self._place(position)
        pieces = self._stream(epoch, stream)
        used_up = int(np.searchsorted(pieces.ends, rank, side="right"))
        end = used_up + self.window + count
        shards = pieces.shards[used_up - used_up % self.window : end].tolist()
        if end > len(pieces.shards):
            shards += self._stream(epoch + 1, stream).shards[: end - len(pieces.shards)].tolist()
        return list(dict.fromkeys(shards))

    def _place(self, position: int) -> tuple[int, int, int]:
        """(epoch, stream, how many samples of the epoch the stream has behind it)."""
        epoch, rank = divmod(position, self.num_samples)
        return epoch, position % self.streams, rank // self.streams

    def _stream(self, epoch: int, stream: int) -> _Pieces:
        slot = (stream, epoch % 2)
        if slot not in self._pieces or self._pieces[slot].epoch != epoch:
            self._pieces[slot] = self._cut(epoch, stream)
        return self._pieces[slot]

    def _cut(self, epoch: int, stream: int) -> _Pieces:
        """The part of the line that belongs to a stream, its pieces in their drawn order."""
        # Each stream's first position, counted from the beginning of the epoch.
        first = (np.arange(self.streams) - epoch * self.num_samples % self.streams) % self.streams
        part_ends = np.cumsum(-((first - self.num_samples) // self.streams))
        end = part_ends[stream]
        start = part_ends[stream - 1] if stream else 0
        touched = slice(
            np.searchsorted(self._line_ends, start, side="right"),
            np.searchsorted(self._line_ends, end, side="left") + 1,
        )
        shards, ends = self._line[touched], self._line_ends[touched]
        starts = ends - self.shard_sizes[shards]
        firsts = self.ends[shards] - ends + np.maximum(starts, start)
        sizes = np.minimum(ends, end) - np.maximum(starts, start)
        drawn = shuffled(len(shards), self.seed, self.domain, epoch, stream)
        return _Pieces(epoch, shards[drawn], firsts[drawn], np.cumsum(sizes[drawn]))

    def _group(self, epoch: int, stream: int, number: int) -> np.ndarray:
        group = self._groups.get(stream)
        if group is None or (group.epoch, group.number) != (epoch, number):
            samples = self._mix(epoch, stream, number)
            group = self._groups[stream] = _Group(epoch, number, samples)
        return group.samples

    def _mix(self, epoch: int, stream: int, number: int) -> np.ndarray:
        pieces = self._stream(epoch, stream)
        group = slice(number * self.window, (number + 1) * self.window)
        sizes = np.diff(pieces.ends, prepend=0)[group]
        firsts = pieces.firsts[group]
        ranges = [np.arange(f, f + size) for f, size in zip(firsts, sizes, strict=True)]
        samples = np.concatenate(ranges)
        return samples[shuffled(len(samples), self.seed, self.domain, epoch, stream, number)]


def order_of(shuffle: Shuffle, shard_sizes: Sequence[int], seed: int, domain: int = 0) -> Order:
    """The order that the options ask for."""
    if shuffle.kind == "full":
        return FullOrder(shard_sizes, seed, domain)
    return WindowedOrder(shard_sizes, seed, domain, shuffle.window, shuffle.streams)


# Workers read ahead across an epoch's end, in two domains: four permutations are in use.
@lru_cache(maxsize=4)
def permutation(num_samples: int, seed: int, domain: int, epoch: int) -> np.ndarray:
    """[num_samples]: the samples of an epoch in their order."""
    order = shuffled(num_samples, seed, domain, epoch)
    order = order.astype(np.min_scalar_type(num_samples))
    order.setflags(write=False)
    return order
