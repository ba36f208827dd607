"""Who starts the ranks of a run: one watch at a time, or one `train` by hand.

RUN/heartbeats/claim is locked by that process until it ends, however it ends, and names it. The
claim comes before anything else is written: a second copy of a job leaves the first one alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

from cluster.errors import ClusterError
from cluster.text_files import lock_file, named

LONGEST = 4096
"""Bytes: no name of a holder is longer."""
WRITTEN = 3.0
"""Seconds within which a holder has written its name."""


@dataclass(frozen=True)
class Holder:
    """A process that starts the ranks of a run."""

    job: str
    """SLURM's number, as "17" or "17_2"; "" outside of SLURM."""
    restart: int
    """How often SLURM had requeued the job."""
    host: str
    pid: int
    since: str
    """Local time, ISO 8601."""

    def __str__(self) -> str:
        who = f"job {self.job}" if self.job else f"process {self.pid}"
        return f"{who} on {self.host}, since {self.since}"


def own_name(environment: Mapping[str, str] = os.environ) -> Holder:
    """This process, as a holder."""
    job, restart = (environment.get(f"SLURM_{name}", "") for name in ("JOB_ID", "RESTART_COUNT"))
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return Holder(job, int(restart or 0), socket.gethostname(), os.getpid(), now)


def take(run: Path, name: Holder) -> Holder | None:
    """Claim the run until this process ends: None, or who has it already.

    Raises ClusterError where the file system has no locks."""
    path = run / "heartbeats" / "claim"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + WRITTEN
    while True:
        descriptor = lock_file(path)
        if locked(descriptor, run):
            with named(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(asdict(name)).encode() + b"\n", 0)
                os.fsync(descriptor)
            return None  # the lock lasts as long as the open file
        holder = _parse(os.pread(descriptor, LONGEST, 0))
        os.close(descriptor)
        if holder is not None or time.monotonic() > deadline:
            return holder or Holder("", 0, "a node", 0, "a moment ago")
        time.sleep(0.1)


def refusal(run: Path, who: object) -> str:
    """The sentence for whoever comes second."""
    return (
        f"{run} is in the hands of {who}: wait for its end, or choose another run_dir. Nothing "
        "was changed."
    )


def locked(descriptor: int, run: Path) -> bool:
    """Lock a file of the run folder, unless another process has. Raises ClusterError where there
    are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ClusterError(
            f"run_dir={run} lies on a file system without locks ({error.strerror}): choose "
            "another, or mount it with them (Lustre: -o flock)."
        ) from error
    return True


def _parse(text: bytes) -> Holder | None:
    """None while whoever has just locked the file has not written its name yet."""
    try:
        values = json.loads(text)
        return Holder(**{field.name: values[field.name] for field in fields(Holder)})
    except (ValueError, TypeError, KeyError):
        return None
