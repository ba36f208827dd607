"""How a run is doing: what it leaves in its folder, and SLURM's word if there is SLURM."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ClusterError
from cluster.slurm import queries
from cluster.text_files import at_once, check_regular, named, read_bytes
from cluster.watch import heartbeat
from cluster.watch.attempts import attempts, newest_images, read_outcome
from cluster.watch.heartbeat import Beat
from cluster.watch.listener import LEAST_SILENCE
from launcher.recipe import yaml_files
from launcher.status import job_file
from launcher.status.job_file import Submission
from launcher.text.scalars import is_loss

TAIL = 1 << 16
"""Bytes that surely hold the last row of metrics.jsonl."""


@dataclass(frozen=True)
class Sign:
    """The last sign of life of a rank."""

    beat: Beat
    age: float
    """Seconds, by the clock of the file system."""

    @property
    def silent(self) -> bool:
        return self.age > LEAST_SILENCE and self.beat.doing != "end"


@dataclass(frozen=True)
class Run:
    """What a run folder tells at one moment."""

    folder: Path
    job: str
    """SLURM's number, "" if it was not submitted."""
    state: str
    starts: int
    """How often the ranks were started, over all jobs."""
    step: int
    images: int
    total: int | None
    """Images of the whole schedule; None while it is written in epochs."""
    speed: float | None
    """Images a second, over all ranks."""
    losses: Mapping[str, float]
    saved: int
    """Images of the newest checkpoint; 0 without one."""
    saved_age: float | None
    """Seconds since then."""
    signs: tuple[Sign, ...]
    """By rank."""


def observe(folder: Path, jobs: Jobs) -> Run:
    """Read a run folder. Raises ClusterError if it is none."""
    config, submission = configuration(folder), job_file.read(folder)
    row, signs, saved = last_row(folder), signs_of_life(folder), newest_images(folder)
    return Run(
        folder=folder,
        job=submission.job if submission else "",
        state=state(folder, submission, signs, jobs),
        starts=len(attempts(folder)),
        step=max([row.get("step", 0), *(sign.beat.step for sign in signs)]),
        images=max([row.get("images", 0), saved, *(sign.beat.images for sign in signs)]),
        total=total_images(config),
        speed=row.get("speed/images_per_s"),
        losses={name: value for name, value in row.items() if is_loss(name)},
        saved=saved,
        saved_age=age(folder / "checkpoints" / "latest") if saved else None,
        signs=signs,
    )


class Jobs:
    """SLURM's word on jobs; after a first failure it is not asked again."""

    def __init__(self) -> None:
        self.reachable = shutil.which("scontrol") is not None

    def status(self, job: str) -> queries.Status | None:
        if not self.reachable:
            return None
        try:
            return queries.status(job)
        except ClusterError:
            self.reachable = False
            return None


def state(folder: Path, submission: Submission | None, signs: tuple[Sign, ...], jobs: Jobs) -> str:
    """A few words: SLURM's of a job that waits or runs, else how the ranks left."""
    status = jobs.status(submission.job) if submission else None
    if status is not None and not status.over:
        why = f" ({status.reason})" if status.reason not in ("None", "") else ""
        return status.state + why
    outcome = read_outcome(folder)
    if outcome is not None:
        return outcome.outcome + (f" by {outcome.reason}" if outcome.reason else "")
    if status is not None:
        return status.state
    if any(not sign.silent and sign.beat.doing != "end" for sign in signs):
        return "running"
    return "ended" if (folder / "metrics.jsonl").exists() else "not started"


def configuration(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    try:
        tree = yaml_files.read(read_bytes(path).decode())
    except OSError as error:
        raise ClusterError(
            f"{folder} is no run folder: it has no config.yaml ({error.strerror})."
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"{path} cannot be read as YAML ({error}).") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("schedule"), dict):
        raise ClusterError(f"{path} is not the configuration of a run: it has no schedule.")
    return tree


def total_images(config: Mapping[str, Any]) -> int | None:
    spans = [config["schedule"].get(name) for name in ("constant", "decay")]
    return sum(spans) if all(isinstance(span, int) for span in spans) else None


def last_row(folder: Path) -> dict[str, Any]:
    """The newest scalars; {} before there are any. A row that is being written is left out."""
    try:
        path = folder / "metrics.jsonl"
        with named(path), open(path, "rb", opener=at_once) as file:
            check_regular(file)
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line) if line.endswith(b"}\n") else None
        except (ValueError, RecursionError):  # damaged: the one before tells more
            continue
        if isinstance(row, dict):
            return {name: value for name, value in row.items() if type(value) in (int, float)}
    return {}


def signs_of_life(folder: Path) -> tuple[Sign, ...]:
    place = folder / "heartbeats"
    return tuple(
        Sign(beat, age(place / heartbeat.file_name(beat.rank)) or 0.0)
        for beat in heartbeat.read(place)
    )


def age(path: Path) -> float | None:
    """Seconds since the file was written; None if it has just gone."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return None
