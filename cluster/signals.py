"""Signals only set a flag; the loop saves and leaves when it sees it.

`hold` is for the first line of a program: a warning may come while torch is still imported."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType

IMPATIENCE = 3.0
"""Seconds: launchers repeat a signal to their workers at once, a person does so later."""
GLANCE = 5.0
"""Seconds between looks for the stop file: it lies on a shared disk."""
STOP_FILE = 255
"""What `StopRequest` answers for the stop file: no signal has this number."""
WARNINGS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What schedulers, launchers and a terminal that goes tell a worker."""
SIGNALS = (*WARNINGS, signal.SIGINT)
TERMINALS = tuple(stream for stream in (1, 2) if os.isatty(stream))
_held: list[int] = []
_told: set[int] = set()
"""All signals that were noted, answered or not."""


def hold() -> None:
    """Keep warnings until a `StopRequest` is there to answer them; an interrupt ends the program
    at once, since nothing is begun."""
    for signum in wanted(WARNINGS):
        signal.signal(signum, _keep)
    for signum in wanted((signal.SIGINT,)):
        signal.signal(signum, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # `join` keeps them from a launcher


def release() -> None:
    """The end of `hold` for a program that does not wait for warnings: what came ends it now."""
    for signum in wanted(WARNINGS):
        signal.signal(signum, signal.SIG_DFL)
    for signum in _held:
        os.kill(os.getpid(), signum)
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def held() -> int:
    """The first warning that came since `hold`; 0 without one."""
    return _held[0] if _held else 0


def terminated() -> bool:
    """Whether somebody has asked this process to end."""
    return signal.SIGTERM in _told


def wanted(signals: tuple[int, ...]) -> list[int]:
    """All but those that whoever started us has us ignore: nohup does so with SIGHUP."""
    return [signum for signum in signals if signal.getsignal(signum) is not signal.SIG_IGN]


def _keep(signum: int, frame: FrameType | None) -> None:
    _held.append(signum)
    _told.add(signum)


def _leave(signum: int, frame: FrameType | None) -> None:
    os.write(2, b"organza: interrupted before anything was begun.\n")
    os._exit(128 + signum)


class StopRequest:
    """Remembers why this process was asked to leave; call it to ask: 0, or the number of the
    reason, which is STOP_FILE or that of a signal.

    A second SIGINT some seconds later ends the process at once, without saving."""

    def __init__(self) -> None:
        self.number = 0
        self.since = 0.0
        self.file: Path | None = None
        self.next_look = 0.0

    def install(self) -> StopRequest:
        for signum in SIGNALS:
            if signum is signal.SIGHUP and not wanted((signum,)):
                continue
            signal.signal(signum, self._note)
        for held in _held:
            self._note(held, None)
        _held.clear()
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
        _told.add(signum)
        if signum == signal.SIGHUP:
            leave_terminal()
        if not self.number:
            self.number, self.since = signum, time.monotonic()
        elif signum == signal.SIGINT and time.monotonic() - self.since > IMPATIENCE:
            signal.default_int_handler(signum, frame)


def leave_terminal() -> None:
    """A terminal that is gone answers every word with an error, which must not end the save."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in TERMINALS:
        os.dup2(nowhere, stream)
    os.close(nowhere)


def reason(number: int) -> str:
    """The name of what `StopRequest` answers: "SIGTERM", "stop file", "" for 0."""
    if number == STOP_FILE:
        return "stop file"
    return signal.Signals(number).name if number else ""
