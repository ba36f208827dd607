"""Signals only set a flag; the loop saves and leaves when it sees it."""

from __future__ import annotations

import signal
import time
from types import FrameType

IMPATIENCE = 3.0
"""Seconds: launchers repeat a signal to their workers at once, a person does so later."""


class StopRequest:
    """Remembers that SIGINT or SIGTERM asked this process to leave; call it to ask.

    A second SIGINT some seconds later ends the process at once, without saving."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.since = 0.0

    def install(self) -> StopRequest:
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)
        return self

    def __call__(self) -> bool:
        return self.signum is not None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self.since = signum, time.monotonic()
        elif signum == signal.SIGINT and time.monotonic() - self.since > IMPATIENCE:
            signal.default_int_handler(signum, frame)
