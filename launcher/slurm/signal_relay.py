"""Signals past a launcher that would not survive them, straight to its workers.

torchrun, accelerate and deepspeed die of a signal while they start, and later end their workers
before these could save. So `join` stays in front of them: SLURM tells the task, and the task tells
the workers. The launchers never hear of it, as signals are blocked in them; so they are in the
workers, until the first line of these takes what has come meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster.signals import SIGNALS, StopRequest

MARK = b"LOCAL_RANK="
"""Whoever has this variable is a worker, or descends from one."""
GLANCE = 0.2
"""Seconds between two looks for workers that have not been told yet."""
ALONE = 10.0
"""Seconds for which a launcher may go on without workers once the end was asked for."""


def run(argv: Sequence[str], stop: StopRequest) -> int:
    """Run a launcher to its end; its exit status, 128 + N if signal N ended it.

    stop: once it says so, all workers are told, also those that start later."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what starts now inherits that
    told: set[int] = set()
    launcher, seen = subprocess.Popen(argv), time.monotonic()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    while (status := ended(launcher)) is None:
        launchers, workers = below(launcher.pid) if stop() else ([], [])
        for pid in set(workers) - told:
            send(pid, stop())
        told |= set(workers)
        if workers or stop() in (0, signal.SIGUSR2):  # after a warning they may still come
            seen = time.monotonic()
        elif time.monotonic() > seen + ALONE:  # it waits for another node, or starts them again
            for pid in launchers:
                send(pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def ended(launcher: subprocess.Popen[bytes]) -> int | None:
    """Its exit status, if it ends within a glance."""
    with suppress(subprocess.TimeoutExpired):
        return launcher.wait(GLANCE)
    return None


def send(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def below(launcher: int) -> tuple[list[int], list[int]]:
    """The launcher and what it is made of, and the workers, without what these have started."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    launchers: list[int] = [launcher]
    workers: list[int] = []
    for parent in launchers:  # which grows
        for pid in children[parent]:
            (workers if is_worker(pid) else launchers).append(pid)
    return launchers, workers


def is_worker(pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return any(entry.startswith(MARK) for entry in environment.split(b"\0"))
