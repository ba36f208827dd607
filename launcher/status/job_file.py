"""What `submit` leaves in a run folder: which job the run has, and the members of a sweep."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.text_files import read_bytes, replace_text


@dataclass(frozen=True)
class Submission:
    """RUN/job.json."""

    job: str
    """As SLURM prints it: "17", or "17_2" for a member of a sweep."""
    submitted: str
    """Local time, ISO 8601."""
    launch: str
    """Who starts the ranks: rank, accelerate, torchrun, deepspeed."""
    log: str
    """File of the batch script and rank 0."""


def write(run: Path, submission: Submission) -> None:
    replace_text(run / "job.json", json.dumps(asdict(submission)) + "\n")


def read(run: Path) -> Submission | None:
    """The run's last submission; None if it was never submitted.

    Raises ClusterError for a file that `submit` has not written."""
    path = run / "job.json"
    if not path.exists():
        return None
    try:
        return Submission(**json.loads(read_bytes(path)))
    except (ValueError, TypeError) as error:
        raise ClusterError(f"{path} is damaged ({error}): remove it or submit again.") from error


def submission(run: Path) -> Submission:
    """As `read`, for a run that must have one."""
    found = read(run)
    if found is None:
        raise ClusterError(f"{run} was not submitted: it has no job.json; give a run folder.")
    return found


def member_folder(sweep: Path, number: int) -> Path:
    """Where `attempts.member` looks for it."""
    return sweep / f"{number:03d}"


def members(run: Path) -> list[Path]:
    """The runs of a sweep in order, or the run itself."""
    numbered = [path for path in run.glob("*/config.yaml") if path.parent.name.isdecimal()]
    return sorted(path.parent for path in numbered) or [run]
