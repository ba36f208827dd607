"""`status`, `runs`, `logs`, `cancel`, `stop`: what a user asks about runs, and of them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import ClusterError
from cluster.slurm import queries
from launcher.status import job_file
from launcher.status.run_state import Jobs, Run, configuration, observe
from launcher.text.tables import table

INSIDE = {"board", "checkpoints", "logs", "heartbeats"}
"""Folders of a run that hold no further runs."""
RANK_LOGS = "logs/attempt-*/*-rank*.log"


def find_runs(folder: Path) -> Iterator[Path]:
    """Run folders at or below `folder`."""
    for place, folders, files in os.walk(folder, onerror=tell_unreadable):
        folders[:] = sorted(set(folders) - INSIDE)
        if "config.yaml" in files:
            yield Path(place)


def runs(folder: Path) -> None:
    """Print a table of all runs below a folder."""
    jobs = Jobs()
    rows = [row(folder, run, jobs) for run in find_runs(folder)]
    if not rows:
        raise ClusterError(f"{folder} holds no run folder: none below it has a config.yaml.")
    print(table(["run", "job", "state", "images", "images/s", "losses", "checkpoint"], rows))


def row(folder: Path, place: Path, jobs: Jobs) -> list[str]:
    """One run of the table; one that cannot be read is listed as that."""
    name = "." if place == folder else str(place.relative_to(folder))
    try:
        run = observe(place, jobs)
    except (ClusterError, OSError) as error:
        print(error, file=sys.stderr)
        return [name, "", "unreadable", "", "", "", ""]
    return [name, run.job, run.state, progress(run), speed(run), losses(run), saved(run)]


def tell_unreadable(error: OSError) -> None:
    print(f"{error.filename} cannot be read: {error.strerror}.", file=sys.stderr)


def status(folder: Path) -> None:
    """Print what is known of one run, or the table of a sweep."""
    if job_file.members(folder) != [folder]:
        return runs(folder)
    run = observe(folder, Jobs())
    rows = [
        ("state", run.state + (f", job {run.job}" if run.job else "")),
        ("starts", str(run.starts)),
        ("progress", f"{progress(run)} images, step {run.step}, {speed(run)} images/s"),
        ("losses", losses(run)),
        ("checkpoint", saved(run)),
        *(("ranks", line) for line in about_ranks(run)),
    ]
    print(table(["run", str(folder)], rows))


def progress(run: Run) -> str:
    return f"{run.images}/{run.total or '?'}"


def speed(run: Run) -> str:
    return "-" if run.speed is None else f"{run.speed:.3g}"


def losses(run: Run) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in run.losses.items()) or "-"


def saved(run: Run) -> str:
    if run.saved_age is None:
        return "none"
    return f"at {run.saved} images, {duration(run.saved_age)} ago"


def duration(seconds: float) -> str:
    """Two units at most: 45 s, 12 min, 3 h 5 min, 2 d 4 h."""
    minutes = int(seconds) // 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def about_ranks(run: Run) -> Iterator[str]:
    """Silent ranks or, if all are well, the slowest; nothing when nobody has given a sign."""
    if not run.signs:
        return
    silent = [sign for sign in run.signs if sign.silent]
    slowest = min(run.signs, key=lambda sign: (sign.beat.step, -sign.age))
    yield f"{len(run.signs)}, of which {len(silent)} silent"
    for sign in silent or [slowest]:
        kind = "silent" if silent else "slowest"
        yield f"{kind}: {sign.beat}, last sign {duration(sign.age)} ago"


def cancel(folder: Path) -> None:
    """End the run's job, or those of a sweep; the ranks save as soon as they are told."""
    for run in job_file.members(folder):
        job = job_file.submission(run).job
        found = queries.status(job)
        if found is None or found.over:
            state = found.state if found else "SLURM has forgotten it"
            print(f"Job {job} of {run} has ended already ({state}).")
            continue
        queries.cancel(job)
        print(f"Cancelled job {job} of {run}.")


def stop(folder: Path) -> None:
    """Ask the ranks to save and leave; unlike `cancel`, without SLURM."""
    for run in job_file.members(folder):
        configuration(run)
        (run / "stop").touch()
        print(f"{run}: all ranks will save and leave after the step in flight.")


def print_log(folder: Path, rank: int) -> None:
    """The newest log of a rank; rank 0's is the job's.

    Raises ClusterError with what there is when that rank has none."""
    path = newest_log(folder, rank)
    if path is None:
        there = sorted({int(p.stem.rpartition("rank")[2]) for p in folder.glob(RANK_LOGS)})
        listed = ", ".join(map(str, there)) or "none"
        raise ClusterError(
            f"{folder / 'logs'} has no log of rank {rank}; ranks with a log: {listed}. Rank 0 "
            "writes to the job's log, others once their job has started."
        )
    print(f"==> {path} <==")
    with open(path, errors="replace") as file:
        shutil.copyfileobj(file, sys.stdout)


def newest_log(folder: Path, rank: int) -> Path | None:
    if rank > 0:
        found = folder.glob(RANK_LOGS.replace("rank*", f"rank{rank:05d}"))
    else:
        submission = job_file.read(folder)
        own = [Path(submission.log)] if submission else []
        found = (path for path in own or folder.glob("logs/job-*.log") if path.exists())
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
