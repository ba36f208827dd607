"""Where each rank's words go: rank 0 keeps the job's log, the others have files of their own.

RUN/logs/job-17.log                          the batch script and rank 0
RUN/logs/attempt-0-1/n2-rank00003.log        rank 3: restart 0 of the job, its second srun
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from cluster.text_files import through_no_link

FOLDER = "ORGANZA_LOGS"
"""Variable by which `join` tells workers, of whatever launcher, where their logs belong."""
_job_log: int | None = None
"""Once this process writes into a file of its own: where it wrote before."""


def attempt_folder(run: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of this start's logs."""
    restart, step = (environment.get(f"SLURM_{n}", "0") for n in ("RESTART_COUNT", "STEP_ID"))
    return run / "logs" / f"attempt-{restart}-{step}"


def divert(folder: Path, rank: int) -> None:
    """From here on all that this process prints goes to its own file, C++ libraries included."""
    global _job_log
    host = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{host}-rank{rank:05d}.log"
    # A launcher that restarts its workers comes here again.
    log = through_no_link(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sys.stdout.flush()
    sys.stderr.flush()
    _job_log = os.dup(2)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    assert isinstance(sys.stdout, TextIOWrapper)  # Python's own
    sys.stdout.reconfigure(line_buffering=True)

    def excepthook(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        traceback.print_exception(kind, error, trace)
        tell(f"organza (rank {rank}): {kind.__name__}: {error} (traceback in {path})")

    sys.excepthook = excepthook


def tell(sentence: str) -> None:
    """The last words of a rank with a file of its own belong in the job's log as well."""
    if _job_log is not None:
        os.write(_job_log, f"{sentence}\n".encode())
