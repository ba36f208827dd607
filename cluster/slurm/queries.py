"""SLURM's own commands, as thin functions: sbatch, scontrol, scancel. No shell in between.

States come from `scontrol show job`: many clusters have no accounting (sacct), and older ones no
--json. A job is named as SLURM prints it: "17", or "17_2" for a task of an array.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError

TIMEOUT = 60.0
"""Seconds: the commands themselves retry for a while when the controller does not answer."""
OVER = frozenset(
    ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
    + ("BOOT_FAIL", "DEADLINE")
)
"""States that a job does not leave by itself; those of requeued jobs pass through them."""


@dataclass(frozen=True)
class Status:
    """What SLURM says of a job."""

    job: str
    state: str
    """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, CANCELLED, TIMEOUT, NODE_FAIL ..."""
    reason: str
    """Why it waits or ended; "None" if there is nothing to say."""
    restarts: int
    """How often it was requeued."""
    hosts: str
    """Hostlist of its nodes, "" before it has any."""
    exit_code: int
    """Of the batch script."""
    seconds_left: int | None
    """Until the time limit; None without a limit, the whole limit, as far as SLURM knows it, while
    the job waits."""
    preempted: bool = False
    """Whether it is in the grace time of a preemption, in which it still is RUNNING."""

    @property
    def over(self) -> bool:
        return self.state in OVER


def submit(script: Path) -> str:
    """Hand a batch script in; the job's id."""
    answer = _run("sbatch", "--parsable", "--", str(script))
    return answer.strip().partition(";")[0]


def check(script: Path) -> str:
    """What `sbatch --test-only` says of a script: its options fit this cluster, nothing is queued.

    Raises ClusterError with sbatch's words otherwise."""
    return _run("sbatch", "--test-only", "--", str(script), answer="stderr").strip()


def status(job: str) -> Status | None:
    """The job's state, or None when SLURM has forgotten it (some minutes after its end)."""
    try:
        return parse_status(_run("scontrol", "show", "job", "-o", _job(job)))
    except ClusterError as error:
        if "Invalid job id" in str(error):
            return None
        raise


def cancel(job: str) -> None:
    _run("scancel", _job(job))


def requeue(job: str) -> None:
    """Back to the queue; SLURM ends all of the job's processes, the caller among them."""
    _run("scontrol", "requeue", _job(job))


def step_exists(job: str, step: int) -> bool:
    """Whether SLURM still counts on a step: until all of its nodes have reported its end."""
    return bool(_run("squeue", f"--steps={_job(job)}.{step}", "--noheader", "--format=%i").strip())


def node_address(host: str) -> str:
    """NodeAddr: how SLURM itself reaches a node, an address or a name."""
    return field(_run("scontrol", "show", "node", "-o", "--", host), "NodeAddr")


def parse_status(text: str) -> Status:
    """One line of `scontrol show job -o`; of an array, its first task's."""
    line = text.strip().splitlines()[0]
    job, task = field(line, "ArrayJobId") or field(line, "JobId"), field(line, "ArrayTaskId")
    limit, used = field(line, "TimeLimit"), seconds(field(line, "RunTime")) or 0
    left = None if limit == "Partition_Limit" else seconds(limit)
    hosts = field(line, "NodeList")
    return Status(
        job=f"{job}_{task}" if task else job,
        state=field(line, "JobState"),
        reason=field(line, "Reason"),
        restarts=int(field(line, "Restarts") or 0),
        hosts="" if hosts == "(null)" else hosts,
        exit_code=int(field(line, "ExitCode").partition(":")[0] or 0),
        seconds_left=None if left is None else max(0, left - used),
        preempted=field(line, "PreemptTime") not in ("", "None", "Unknown"),
    )


def field(line: str, name: str) -> str:
    """The value of NAME=VALUE in a line of scontrol, "" if absent."""
    match = re.search(rf"(?:^| ){name}=(\S*)", line)
    return match[1] if match else ""


def seconds(text: str) -> int | None:
    """A time as SLURM writes it ("90", "1:30", "1:00:00", "2-12", "2-12:30:00"); None for no limit.

    A lone number is minutes; after DAYS- the first number is hours."""
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text, re.ASCII)
    if match is None:
        raise ClusterError(
            f"The time {text!r} is not one that SLURM reads: write MINUTES, HOURS:MINUTES:SECONDS, "
            "DAYS-HOURS:MINUTES:SECONDS or UNLIMITED."
        )
    days, (first, second, third) = match[1], (int(part or 0) for part in match.group(2, 3, 4))
    if days is not None or match[4] is not None:
        return ((int(days or 0) * 24 + first) * 60 + second) * 60 + third
    return first * 60 + second


def _job(job: str) -> str:
    if not re.fullmatch(r"\d+(_\d+)?", job, re.ASCII):
        raise ClusterError(f"{job!r} is not a job of SLURM's: give its number, as 17 or 17_2.")
    return job


def _run(*command: str, answer: str = "stdout") -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"{command[0]} is not on this machine: run this on a login node of the cluster."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"{command[0]} got no answer within {TIMEOUT:.0f} s: SLURM's controller is not "
            "reachable; try again later."
        ) from error
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise ClusterError(f"`{' '.join(command)}` failed: {words.removesuffix('.')}.")
    return getattr(done, answer)
