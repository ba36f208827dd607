"""Waits that end when nothing moves any more, however slow or busy the machine is.

What moves is told by the processor time of everything below this process; a wait on a machine that
is three times slower takes three times longer, and fails no test.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

QUIET = 60.0
"""Seconds in which next to nothing was done, after which a wait is in vain."""
LITTLE = 0.02
"""Share of a processor that is next to nothing: what looks again and again whether it may go on."""
ENOUGH = 1800.0
"""Seconds after which a wait ends although something still moves."""


class Patience:
    """Ends a wait in which nothing moves."""

    def __init__(self, what: str, quiet: float = QUIET):
        """what: is waited for, for the message; quiet: seconds that may pass without any work."""
        self.what, self.quiet = what, max(quiet, QUIET)
        self.started = self.looked = self.moved = time.monotonic()
        self.done = work_below(os.getpid())

    def check(self) -> None:
        """To be called now and then; AssertionError once the wait is in vain."""
        now = time.monotonic()
        if now - self.looked < 1:
            return
        self.looked, done = now, work_below(os.getpid())
        if not 0 <= done - self.done < LITTLE * (now - self.moved):  # it falls when a process ends
            self.done, self.moved = done, now
        assert now - self.moved < self.quiet, f"no {self.what}: nothing moves for {self.quiet:g} s"
        assert now - self.started < ENOUGH, f"no {self.what} within {ENOUGH:g} s"


def wait_for(
    met: Callable[[], object], what: str = "change", quiet: float = QUIET, every: float = 0.05
) -> float:
    """Ask every so many seconds until `met()`; the seconds it took."""
    patience = Patience(what, quiet)
    while not met():
        patience.check()
        time.sleep(every)
    return time.monotonic() - patience.started


def wait_for_line(path: Path, process: subprocess.Popen[str] | None = None) -> None:
    """Until the file has a whole line; `process`, which writes it, must live so long."""

    def written() -> bool:
        assert process is None or process.poll() is None, process.communicate()[0]
        return path.exists() and path.read_bytes().endswith(b"\n")

    wait_for(written, str(path))


def communicate(process: subprocess.Popen[str], quiet: float = QUIET) -> tuple[str, str]:
    """Standard output and error of a process until its end."""
    patience = Patience(f"end of {process.args}", quiet)
    while True:
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            patience.check()


def run(
    command: Sequence[str], quiet: float = QUIET, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with texts, which is killed only when nothing moves in it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes | options) as process:
        try:
            output, errors = communicate(process, quiet)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def work_below(pid: int) -> float:
    """Seconds of processor time of all processes below one, ended ones included where somebody
    has asked for their end."""
    parents, seconds = {}, {}
    for process, fields in processes():
        parents[process] = int(fields[1])
        seconds[process] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return sum(seconds[process] for process in parents if is_below(process, pid, parents))


def processes() -> Iterator[tuple[int, list[str]]]:
    """(pid, the fields of /proc/PID/stat behind the name) of all that run."""
    for path in Path("/proc").glob("[1-9]*/stat"):
        try:
            yield int(path.parent.name), path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended


def is_below(process: int, root: int, parents: dict[int, int]) -> bool:
    while process in parents and process != root:
        process = parents[process]
        if process == root:
            return True
    return False
