"""The folder that is packed into, while it is: held by one packer, free of what is not its own."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from shards.pack.plans import Plan, PlannedSet, tar_size
from shards.pack.shard_writer import WORK_FOLDER, disk_errors
from shards.records import DataError
from shards.sets.manifest import MANIFEST_FILE
from shards.storage.sealed import write_atomically

_TARS = "tars"
"""In the work folder: names of all tars that may be ours."""


@contextmanager
def workplace(plan: Plan) -> Iterator[Path]:
    """OUT/.pack, held by one packer at a time, and .pack of each set, without the temporaries of
    a killed one."""
    out, work = plan.out, plan.out / WORK_FOLDER
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: choose a folder.")
    if out.exists() and any(out.iterdir()) and not work.is_dir():
        raise DataError(f"{out} is not empty and no unfinished set: choose another folder.")
    with hold(out, work, "packed") as lock:
        if plan.last_file.exists():  # the other process ended between our look and our lock
            raise DataError(f"{out} was packed by another process meanwhile: look at it first.")
        _check_strangers(plan)
        strange = [tar for planned in plan.sets for tar in strange_tars(planned)]
        if strange:
            raise DataError(
                f"{strange[0]} was not packed here: move it elsewhere, or choose another folder."
            )
        folders = {work, *(planned.out / WORK_FOLDER for planned in plan.sets)}
        with disk_errors(out):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                for stale in folder.glob("*.tmp"):
                    stale.unlink()
            for planned in plan.sets:
                _remember(planned)
            for planned in plan.sets:  # one finished set of several would be changed again
                (planned.out / MANIFEST_FILE).unlink(missing_ok=True)
        _check_space(plan)
        yield work
        lock.close()  # NFS keeps an open file, and so the folder that it is in
        for folder in folders:
            shutil.rmtree(folder)


def private(path: str, flags: int) -> int:
    """An opener of locks: whoever can open the file could lock it too, and keep others waiting."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


def hold(out: Path, work: Path, doing: str) -> IO[str]:
    """Make the folder `work` inside `out`, for this process alone until the lock is closed."""
    with disk_errors(out):
        if work.is_symlink():
            raise DataError(f"{work} is a link, and what is below it not ours: remove it.")
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / "lock", "w", opener=private)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise DataError(f"{out} is being {doing} by another process: wait for it.") from error
    return lock


def _check_strangers(plan: Plan) -> None:
    """Raise DataError if what was interrupted in this folder was the packing of other sets."""
    kept = {WORK_FOLDER, *plan.domains}
    for path in sorted(plan.out.iterdir()):
        if path.name not in kept and (plan.has_domains or path.is_dir()):
            raise DataError(
                f"{path} is no part of what is packed into {plan.out}: delete it or choose "
                f"another folder."
            )


def strange_tars(planned: PlannedSet) -> list[Path]:
    """Tars in the folder of a set that no run of `pack` there has made, or will make."""
    ours = _remembered(planned) | {job.path.name for job in planned.jobs}
    return [tar for tar in sorted(planned.out.glob("*.tar")) if tar.name not in ours]


def left_tars(planned: PlannedSet) -> list[Path]:
    """Tars of an interrupted run on other sources, never committed."""
    ours = _remembered(planned) - {job.path.name for job in planned.jobs}
    return [planned.out / name for name in sorted(ours) if (planned.out / name).is_file()]


def _remembered(planned: PlannedSet) -> set[str]:
    """Names of the tars that runs of `pack` have been about to write."""
    work = planned.out / WORK_FOLDER
    receipts = {path.name.removesuffix(".json") for path in work.glob("*.tar.json")}
    try:
        return receipts | {*(work / _TARS).read_text(errors="replace").split()}
    except FileNotFoundError:
        return receipts


def _remember(planned: PlannedSet) -> None:
    """Write down what this run is about to write, before it does."""
    names = sorted(_remembered(planned) | {job.path.name for job in planned.jobs})
    work = planned.out / WORK_FOLDER
    write_atomically(work / _TARS, "\n".join(names).encode(), work)


def _check_space(plan: Plan) -> None:
    if plan.storing.photos or plan.storing.background:
        return  # nobody knows yet how large they will be
    needed = sum(
        tar_size(record) for job in plan.jobs if not job.receipt.exists() for record in job.records
    )
    free = shutil.disk_usage(plan.out).free
    if needed > free:
        raise DataError(
            f"{plan.out} has {free / 2**20:.1f} MiB free, but the shards still need "
            f"{needed / 2**20:.1f} MiB: make room or choose another disk."
        )
