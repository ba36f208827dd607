"""Signals only set a flag; the loop saves and leaves when it sees it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

IMPATIENCE = 3.0
"""Seconds: launchers repeat a signal to their workers at once, a person does so later."""
GLANCE = 5.0
"""Seconds between looks for the stop file: it lies on a shared disk."""
STOP_FILE = 1
"""What `StopRequest` answers for the stop file: no signal of interest has this number."""


class StopRequest:
    """Remembers why this process was asked to leave; call it to ask: 0, or the number of the
    reason, which is STOP_FILE or that of SIGINT, SIGTERM or SIGUSR2.

    A second SIGINT some seconds later ends the process at once, without saving."""

    def __init__(self) -> None:
        self.number = 0
        self.since = 0.0
        self.file: Path | None = None
        self.next_look = 0.0

    def install(self) -> StopRequest:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(signum, self._note)
        return self

    def look_for(self, file: Path) -> None:
        """From now on this file, once it is there, asks to leave too."""
        self.file = file

    def __call__(self) -> int:
        if self.file is not None and not self.number and time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + GLANCE
            if self.file.exists():
                self.number = STOP_FILE
        return self.number

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self.since = signum, time.monotonic()
        elif signum == signal.SIGINT and time.monotonic() - self.since > IMPATIENCE:
            signal.default_int_handler(signum, frame)


def reason(number: int) -> str:
    """The name of what `StopRequest` answers: "SIGTERM", "stop file", "" for 0."""
    if number == STOP_FILE:
        return "stop file"
    return signal.Signals(number).name if number else ""
