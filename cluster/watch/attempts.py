"""What a run folder tells of its starts: attempts.jsonl, the newest checkpoint, outcome.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cluster.text_files import named, read_bytes, replace_text, through_no_link
from cluster.watch import heartbeat

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
    start: str = ""
    """Which start it was, as `Attempt` is printed; "" where nobody watches."""


@dataclass(frozen=True)
class Tries:
    """How many starts of a job in a row got no further: heartbeats/tries.json."""

    job: str
    images: int
    """Those of the newest checkpoint, where all of them began."""
    number: int
    start: str
    """The last of them, as `Attempt` is printed."""


def record(run: Path, attempt: Attempt) -> None:
    """Append a line; one that a crash has cut short stays alone."""
    path = run / "attempts.jsonl"
    whole = not path.exists() or read_bytes(path)[-1:] in (b"", b"\n")
    with named(path), open(path, "a", opener=through_no_link) as file:
        file.write(("" if whole else "\n") + json.dumps(asdict(attempt)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def attempts(run: Path) -> list[Attempt]:
    """All starts of the run, the oldest first."""
    path = run / "attempts.jsonl"
    lines = read_bytes(path).decode(errors="replace").splitlines() if path.exists() else []
    return [attempt for line in lines if (attempt := _parse(Attempt, line))]


def fruitless(run: Path, attempt: Attempt) -> int:
    """How many starts of this job in a row, this last one included, have got no further than they
    began; those that were not counted, as SLURM ended them, do not matter."""
    images = newest_images(run)
    if images != attempt.images:
        return 0
    before = _read(Tries, run / "heartbeats" / "tries.json")
    if before is None or (before.job, before.images) != (attempt.job, images):
        return 1
    return before.number + (before.start != str(attempt))


def count(run: Path, attempt: Attempt, number: int) -> None:
    """Keep what `fruitless` said of a start that ended by itself."""
    tries = Tries(attempt.job, newest_images(run), number, str(attempt))
    replace_text(run / "heartbeats" / "tries.json", json.dumps(asdict(tries)) + "\n")


def newest_images(run: Path) -> int:
    """Images that the newest checkpoint has seen; 0 without one. Where its pointer is lost, the
    last that was written to its end counts."""
    folder = run / "checkpoints"
    try:
        name = read_bytes(folder / "latest").decode(errors="replace").strip()
    except FileNotFoundError:
        name = ""
    if not (name.isascii() and name.isdecimal()):
        ends = (path.parent.name for path in folder.glob("[0-9]*/files.json"))
        name = max((end for end in ends if end.isascii() and end.isdecimal()), default="0")
    return int(name)


def read_outcome(run: Path) -> Outcome | None:
    """None while the ranks run, and after they ended without a word."""
    return _read(Outcome, run / "outcome.json")


def write_outcome(
    run: Path,
    outcome: str,
    reason: str,
    images: int,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Leave word of an end for whoever started the ranks, unless the run belongs to another start
    by now."""
    own, current = environment.get(heartbeat.START, ""), heartbeat.current_start(run / "heartbeats")
    if not own or own == current:
        words = json.dumps(asdict(Outcome(outcome, reason, images, own)))
        replace_text(run / "outcome.json", words + "\n")


def record_mistake(words: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tell `watch`, if it started this process, that another start would end alike."""
    if RUN in environment:
        run = Path(environment[RUN])
        write_outcome(run, "mistake", words, newest_images(run), environment)


def clear(run: Path, keep_stop: bool = False) -> None:
    """Forget how the last start ended and, unless it was made during this job, a request to
    stop that was meant for it."""
    for name in ("outcome.json",) if keep_stop else ("outcome.json", "stop"):
        (run / name).unlink(missing_ok=True)


def member(sweep: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The run of this job: the folder itself, or in an array job its own member of the sweep."""
    task = environment.get("SLURM_ARRAY_TASK_ID")
    return sweep if task is None else sweep / f"{int(task):03d}"


def _read(kind: type, path: Path) -> Any:
    try:
        return _parse(kind, read_bytes(path).decode())
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _parse(kind: type, text: str) -> Any:
    """An Attempt, Outcome or Tries; None for a line that is none."""
    try:
        found = kind(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = {"int": int, "str": str}
    fits = all(type(getattr(found, f.name)) is kinds[str(f.type)] for f in fields(kind))
    return found if fits else None
