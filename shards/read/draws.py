"""Position -> the sample that a source gives there: found, read, decoded and augmented.

A damaged sample ends the run, or another takes its place: drawn by a hash, so that any rank,
worker or resumed run draws the same one, told to whoever watches, and counted against a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shards.hashing import hash64
from shards.pixels.augment import Preprocess
from shards.pixels.images import decode_sample
from shards.read.sources import Source
from shards.records import DataError, Unreachable, decoded_members
from shards.sets.reader import Reader

_TRIES = 8
"""Samples that are tried for one position."""


@dataclass(frozen=True)
class Substitution:
    """A damaged sample, and which one was tried in its place."""

    position: int
    domain: int
    sample: int
    """Number of the damaged sample in its domain."""
    problem: str
    """What is wrong with it: a sentence with shard, key and member."""
    instead: str
    """The key of the other one."""

    def __str__(self) -> str:
        return f"{self.problem} {self.instead} takes its place at position {self.position}."


@dataclass(frozen=True)
class Draw:
    """A sample as it goes into a batch: member -> array [H, W] or [H, W, C]."""

    key: str
    pixels: dict[str, np.ndarray]
    annotations: dict[str, np.ndarray]
    """`class` or `attributes`, if they are read."""
    substitutions: list[Substitution]


class _Sample(NamedTuple):
    """What was read of a sample, by member."""

    number: int
    pixels: dict[str, np.ndarray]
    annotations: dict[str, np.ndarray]


class Drawer:
    """Draws the samples of one source; each worker has a copy."""

    def __init__(
        self, source: Source, preprocess: Preprocess, seed: int, substituting: bool
    ) -> None:
        self.source = source
        self.reader = Reader(source.shard_set, source.annotations.unread)
        self.preprocess = preprocess
        self.seed = seed
        self.substituting = substituting
        self._announced: dict[int, list[int]] = {}

    def draw(self, position: int) -> Draw:
        """The sample at a position; DataError if it is damaged and may not be substituted."""
        source, shard_set = self.source, self.source.shard_set
        epoch, first = source.order.locate(position)
        sample, substitutions = self._undamaged(position, epoch, first)
        number = sample.number
        draw = hash64(self.seed, source.order.domain, epoch, number)
        name = next(iter(shard_set.names(number).values()))
        pixels = self.preprocess.apply(sample.pixels, draw, name)
        named = {source.member or member: array for member, array in pixels.items()}
        return Draw(shard_set.keys[number], named, sample.annotations, substitutions)

    def announce(self, positions: Sequence[int]) -> None:
        """Tell the store, if it asks for it, what the streams of these positions will need."""
        order, shard_set = self.source.order, self.source.shard_set
        if not shard_set.store.ahead:
            return
        firsts = {position % order.streams: position for position in reversed(positions)}
        for stream, position in firsts.items():
            shards = order.shards_ahead(position, shard_set.store.ahead)
            if shards != self._announced.get(stream):
                self._announced[stream] = shards
                shard_set.store.prefetch([shard_set.manifest.shards[n].name for n in shards])

    def _read(self, number: int) -> _Sample:
        source, shard_set = self.source, self.source.shard_set
        channels = {m: source.channels_of(m) for m in decoded_members(shard_set.members)}
        files = self.reader.read(number)
        pixels = decode_sample(files, shard_set.names(number), channels)
        return _Sample(number, pixels, source.annotations.read(shard_set, number, files, self.seed))

    def _undamaged(
        self, position: int, epoch: int, first: int
    ) -> tuple[_Sample, list[Substitution]]:
        """The sample `first`, or the first in its place that can be read."""
        shard_set, domain = self.source.shard_set, self.source.order.domain
        number, substitutions = first, list[Substitution]()
        for attempt in range(_TRIES):
            try:
                return self._read(number), substitutions
            except DataError as error:
                # Other ranks, or this one after a resume, may reach what this one cannot now.
                if not self.substituting or isinstance(error, Unreachable):
                    raise
                draw = hash64(self.seed, domain, epoch, first, attempt)
                instead, problem = draw % shard_set.num_samples, str(error)
            key = shard_set.keys[instead]
            substitutions.append(Substitution(position, domain, number, problem, key))
            number = instead
        raise DataError(
            f"{substitutions[0].problem} {_TRIES - 1} samples drawn in its place are damaged as "
            f"well: `verify` names all that are."
        )


class Allowance:
    """How many damaged samples a process may replace, over all of its workers."""

    def __init__(self, limit: int, report: Callable[[Substitution], None]) -> None:
        self.limit = limit
        self.report = report
        self._damaged: set[tuple[int, int]] = set()

    def spend(self, substitutions: Sequence[Substitution]) -> None:
        """Report them; DataError if there are too many. A sample that comes back in later epochs
        is reported again, but counts once."""
        for substitution in substitutions:
            self._damaged.add((substitution.domain, substitution.sample))
            if len(self._damaged) > self.limit:
                raise DataError(
                    f"{substitution.problem} It is damaged sample number {len(self._damaged)} of "
                    f"this process, and data.substitutes={self.limit} replaces no more: repair "
                    f"the set (`verify` names all that is damaged) or raise data.substitutes."
                )
            self.report(substitution)
