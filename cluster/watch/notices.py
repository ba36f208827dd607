"""What SLURM has announced to a job: its end, a preemption, or that its time limit is near.

The warning before the time limit is a signal to the batch script, and may come while nobody can
catch it: the time that is left tells as well. In the grace time of a preemption the job's state
stays RUNNING, and only its ranks were told, perhaps before they could hear.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from types import FrameType

from cluster.errors import ClusterError
from cluster.slurm import queries

LAST, LAST_SHARE = 15.0, 0.25
"""Seconds before the time limit at which ranks that have not left are given up, as the job must
still be there to be requeued; and at most so much of the time between the warning and the limit."""
CLOCK = 0.5
"""The share of that time at which the clock speaks if no signal has come."""
EARLY = 60.0
"""Seconds by which SLURM may be early."""


class Notices:
    """All that is known of a job's end; times are those of time.monotonic."""

    def __init__(self, job: str, signal_s: float, say: Callable[[str], None]):
        """signal_s: seconds before the time limit at which the warning comes; 0: not known.
        say: takes the words of a SLURM that does not answer."""
        self.job, self.signal_s, self.say = job, signal_s, say
        self.last_s = min(LAST, LAST_SHARE * signal_s) if signal_s else LAST
        self.terminated = False
        """By SIGTERM: the ranks have been told as well."""
        self.ending = False
        """SLURM is ending the job, or has forgotten it."""
        self.overtime = False
        """That is since its time limit is reached."""
        self.preempted = False
        self.warned_at: float | None = None
        self.limit: float | None = None

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGUSR2, self._note)
        # SLURM gives the ranks this as well: they decide when to leave.
        signal.signal(signal.SIGINT, lambda signum, frame: None)

    @property
    def told(self) -> bool:
        """Whether SLURM is about to end the job, whatever it does; at its time limit it can still
        be requeued."""
        return (self.terminated or self.ending) and not self.overtime

    @property
    def warned(self) -> bool:
        return self.warned_at is not None

    def ask(self) -> None:
        """SLURM's own word; where it gives none, what is known stays."""
        if self.job:
            try:
                self._hear(queries.status(self.job))
            except ClusterError as error:
                self.say(str(error))
        if self.overtime or self.near(CLOCK * self.signal_s):
            self._warn()

    def near(self, seconds: float) -> bool:
        """Whether the time limit is not further away than that, as far as is known."""
        return self.limit is not None and time.monotonic() >= self.limit - seconds

    def look(self) -> None:
        """Notice the time; the limit may have been moved meanwhile, so that SLURM has the word."""
        if not self.warned and self.near(CLOCK * self.signal_s):
            self.ask()

    def time_is_up(self) -> bool:
        """Whether it is the last moment to requeue the job."""
        if self.near(self.last_s):
            self.ask()
        longest = self.signal_s + EARLY if self.signal_s else math.inf
        overdue = self.warned_at is not None and time.monotonic() > self.warned_at + longest
        return overdue or self.near(self.last_s)

    def _hear(self, status: queries.Status | None) -> None:
        self.ending = status is None or status.state != "RUNNING"
        self.overtime = status is not None and status.reason == "TimeLimit"
        self.preempted = status is not None and status.preempted
        left = None if status is None else status.seconds_left
        self.limit = None if left is None else time.monotonic() + left

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGTERM:
            self.terminated = True
        else:
            self._warn()

    def _warn(self) -> None:
        if self.warned_at is None:
            self.warned_at = time.monotonic()
