"""Whether the ranks go on, as far as their heartbeats tell, and which of them hold up the others.

Clocks of other nodes are not trusted: what counts is when the reader saw a beat change, by the
reader's own clock. Nothing here reads a clock or a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.watch.heartbeat import Beat

LEAST_SILENCE, GREATEST_SILENCE = 60.0, 300.0
"""Seconds: a rank may write nothing for a while because its file system is busy."""
NUM_NAMED = 4
"""Of more ranks, the sentence gives the number only."""


@dataclass
class Heard:
    """A rank's last beat, and by the reader's clock since when it is the same."""

    beat: Beat
    changed: float


class Listener:
    """Hears the ranks of one start; times are seconds of one clock that never goes back."""

    def __init__(self, now: float, timeout_s: float):
        """timeout_s: how long a step, a save or the start may take."""
        self.timeout_s = timeout_s
        self.silence_s = silence(timeout_s)
        self.moved = now
        """When a rank last went on to something else."""
        self.began = self.heard = now
        self.ranks: dict[int, Heard] = {}

    def hear(self, beats: Iterable[Beat], now: float) -> None:
        if now - self.heard > self.silence_s / 2:
            self._was_away(now)
        self.heard = now
        for beat in beats:
            before = self.ranks.get(beat.rank)
            if before is None or before.beat != beat:
                self.ranks[beat.rank] = Heard(beat, now)
            if before is None or _place(before.beat) != _place(beat):
                self.moved = now

    def complaint(self, now: float) -> str:
        """The sentence about ranks that are silent or do not go on; "" while all is well."""
        limit = self.silence_s
        if not self.ranks:
            silent = now - self.began > limit
            return f"No rank has given a sign of life within {limit:g} s." if silent else ""
        mute = [heard.beat for heard in self.ranks.values() if now - heard.changed > limit]
        gone = [beat for beat in mute if beat.doing != "end"]
        if gone:
            words = f"For {limit:g} s there has been no sign of life from"
            return f"{words} {named(gone)}."
        if len(mute) == len(self.ranks):
            return f"All ranks have left, but for {limit:g} s their launcher has not ended."
        if now - self.moved > self.timeout_s:
            return f"No rank has gone on for {self.timeout_s:g} s: {self._reason(now)}."
        return ""

    def _reason(self, now: float) -> str:
        still = [heard.beat for heard in self.ranks.values() if heard.beat.doing != "end"]
        mute = [b for b in still if now - self.ranks[b.rank].changed > self.silence_s / 2]
        return f"there is no sign of life from {named(mute)}" if mute else suspects(still)

    def _was_away(self, now: float) -> None:
        """The reader itself was held up, as by the file system: it knows nothing of that time."""
        self.began = self.moved = now
        for heard in self.ranks.values():
            heard.changed = now


def silence(timeout_s: float) -> float:
    """Seconds without a beat after which a rank is given up."""
    return max(LEAST_SILENCE, min(timeout_s, GREATEST_SILENCE))


def suspects(beats: Sequence[Beat]) -> str:
    """Of ranks that stand still, those that the others wait for, as far as one can tell.

    Ranks wait for each other in the collectives of a step: who computes at the greatest step waits
    for whoever is behind, or still has no data, or saves."""
    if not beats:
        return "all have left"
    furthest = (max(beat.step for beat in beats), "step")
    behind = [beat for beat in beats if (beat.step, beat.doing) != furthest]
    if 0 < len(behind) < len(beats):
        return f"the others, at step {furthest[0]}, wait for {named(behind)}"
    return f"all stand at one place, {named(beats)}"


def named(beats: Sequence[Beat]) -> str:
    """Each rank with its host, process and place; of many, the first ones."""
    ranks = sorted(beats, key=lambda beat: beat.rank)
    more = [f"{len(ranks) - NUM_NAMED} more"] if len(ranks) > NUM_NAMED else []
    words = [str(beat) for beat in ranks[:NUM_NAMED]] + more
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _place(beat: Beat) -> tuple[int, str, int]:
    return beat.step, beat.doing, beat.pid
