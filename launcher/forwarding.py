"""Signals past a launcher that would not survive them, straight to its workers.

deepspeed dies of USR2 and leaves its workers behind, and on TERM it ends them with all their data
processes before they could save. So `join` stays in front of it: SLURM tells the task, and the task
tells the workers.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

FORWARDED = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
MARK = b"LOCAL_RANK="
"""Whoever has this variable is a worker, or descends from one."""


def run(argv: Sequence[str]) -> int:
    """Run a launcher to its end; its exit status, 128 + N if signal N ended it."""
    # Without control groups SLURM tells the whole tree; what is ignored here is ignored there too.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    launcher = subprocess.Popen(argv)

    def forward(signum: int, frame: FrameType | None) -> None:
        found = workers(launcher.pid)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
        if not found:  # nothing is begun that could be saved
            launcher.send_signal(signal.SIGTERM)

    for signum in FORWARDED:
        signal.signal(signum, forward)
    status = launcher.wait()
    return status if status >= 0 else 128 - status


def workers(launcher: int) -> list[int]:
    """The workers below a process, without what they have started themselves."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            parent = stat.read_text().rpartition(")")[2].split()[1]
            children[int(parent)].append(int(stat.parent.name))
    found, launchers = [], [launcher]
    while launchers:
        for pid in children[launchers.pop()]:
            (found if is_worker(pid) else launchers).append(pid)
    return found


def is_worker(pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return any(entry.startswith(MARK) for entry in environment.split(b"\0"))
