"""What a run folder tells of its starts: attempts.jsonl, the newest checkpoint, outcome.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cluster import heartbeat


RUN = "ORGANZA_RUN"
"""The variable that names the run folder to ranks that `watch` started."""


@dataclass(frozen=True)
class Attempt:
    """One start of the ranks: a line of attempts.jsonl."""

    job: str
    """SLURM's number, as "17" or "17_2"; "" outside of SLURM."""
    restart: int
    """How often SLURM had requeued the job."""
    start: int
    """Number of this start within the job."""
    time: str
    """Local time, ISO 8601."""
    images: int
    """Those of the newest checkpoint, where this start took over."""

    def __str__(self) -> str:
        return f"job {self.job or 'none'}, restart {self.restart}, start {self.start}, {self.time}"


@dataclass(frozen=True)
class Outcome:
    """How the ranks left, if they left in order: outcome.json, written after the last save."""

    outcome: str
    """finished, stopped, or mistake: one of configuration or data, which repeats itself."""
    reason: str
    """What stopped them: SIGTERM, SIGUSR2, SIGINT or stop file; or the mistake."""
    images: int


def record(run: Path, attempt: Attempt) -> None:
    """Append a line; one that a crash has cut short stays alone."""
    path = run / "attempts.jsonl"
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a") as file:
        file.write(("" if whole else "\n") + json.dumps(asdict(attempt)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def attempts(run: Path) -> list[Attempt]:
    """All starts of the run, the oldest first."""
    path = run / "attempts.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [attempt for line in lines if (attempt := _parse(Attempt, line))]


def in_a_row(starts: list[Attempt], job: str, images: int) -> int:
    """How many of the last starts of this job began at the same images, and nobody got further."""
    number = 0
    for attempt in reversed(starts):
        if (attempt.job, attempt.images) != (job, images):
            break
        number += 1
    return number


def newest_images(run: Path) -> int:
    """Images that the newest checkpoint has seen; 0 without one. Where its pointer is lost, the
    last that was written to its end counts."""
    folder = run / "checkpoints"
    try:
        name = (folder / "latest").read_text(errors="replace").strip()
    except FileNotFoundError:
        name = ""
    if not (name.isascii() and name.isdecimal()):
        ends = (path.parent.name for path in folder.glob("[0-9]*/files.json"))
        name = max((end for end in ends if end.isascii() and end.isdecimal()), default="0")
    return int(name)


def read_outcome(run: Path) -> Outcome | None:
    """None while the ranks run, and after they ended without a word."""
    try:
        return _parse(Outcome, (run / "outcome.json").read_text())
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def record_mistake(words: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tell `watch`, if it started this process, that another start would end alike."""
    if RUN in environment:
        run = Path(environment[RUN])
        outcome = Outcome("mistake", words, newest_images(run))
        heartbeat.write(run / "outcome.json", json.dumps(asdict(outcome)) + "\n")


def clear(run: Path) -> None:
    """Forget how the last start ended, and a request to stop that was meant for it."""
    for name in ("outcome.json", "stop"):
        (run / name).unlink(missing_ok=True)


def member(sweep: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The run of this job: the folder itself, or in an array job its own member of the sweep."""
    task = environment.get("SLURM_ARRAY_TASK_ID")
    return sweep if task is None else sweep / f"{int(task):03d}"


def _parse(kind: type, text: str) -> Any:
    """An Attempt or Outcome; None for a line that is none."""
    try:
        values = json.loads(text)
        found = kind(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = {"int": int, "str": str}
    return found if all(type(values[f.name]) is kinds[f.type] for f in fields(kind)) else None
