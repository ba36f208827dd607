"""A folder of images -> tar shards, index and manifest.

A shard is one unit of work, fixed by the source's file sizes alone, so that any number of
processes gives the same bytes. The manifest comes last. After an interruption the same command
goes on: a finished shard is kept if the sources would still give the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.census import Census, check_label_uses
from shards.index import index_bytes, open_shards
from shards.layouts import find_records
from shards.manifest import (
    INDEX_FILE,
    MANIFEST_FILE,
    Manifest,
    read_manifest,
    to_bytes,
    write_atomically,
)
from shards.processes import Progress, run_jobs
from shards.records import LAYOUTS, DataError, Record
from shards.shard_writer import WORK_FOLDER, Receipt, ShardJob, digest, disk_errors, make_shard

_TAR_BLOCK = 512


def pack(
    source: Path,
    out: Path,
    *,
    layout: str = "auto",
    split: str = "train",
    num_labels: int | None = None,
    shard_mib: int = 256,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Pack the images of a source folder into the folder `out`.

    layout: "labels", "pairs" or "auto"; num_labels: refuse label ids from here on; shard_mib: the
    size of a shard in MiB, about; workers: processes, one per CPU if None.
    The same input gives the same bytes. Raises DataError for anything wrong with the data or the
    disk; `out` then still holds no manifest, and the finished shards are kept for the next run."""
    if shard_mib < 1:
        raise DataError(f"shard_mib={shard_mib}: a shard needs at least 1 MiB")
    source, out = Path(source), Path(out)
    jobs = _plan(find_records(source, layout, split), out, num_labels, shard_mib * 2**20)
    if (out / MANIFEST_FILE).exists():
        return _unchanged(out, jobs, workers, progress)
    with _workplace(out, jobs) as work:
        receipts = run_jobs(
            make_shard,
            jobs,
            num_workers=workers,
            total=sum(len(job.records) for job in jobs),
            unit="samples",
            progress=progress,
        )
        _commit(out, work, jobs, receipts)
    return read_manifest(out)


def _plan(
    records: list[Record], out: Path, num_labels: int | None, shard_bytes: int
) -> list[ShardJob]:
    """Fill one shard after the other, in the order of keys, up to `shard_bytes` of tar."""
    shards: list[list[Record]] = [[]]
    used = 0
    for record in records:
        size = _tar_size(record)
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(record)
        used += size
    return [
        ShardJob(out, number, tuple(shard), num_labels) for number, shard in enumerate(shards)
    ]


def _tar_size(record: Record) -> int:
    blocks = (1 + -(-path.stat().st_size // _TAR_BLOCK) for path in record.files.values())
    return sum(blocks) * _TAR_BLOCK


def _unchanged(
    out: Path, jobs: list[ShardJob], workers: int | None, progress: Progress | None
) -> Manifest:
    """The manifest of a finished set, if the sources would give the same set again."""
    manifest = open_shards(out).manifest
    digests = run_jobs(
        digest,
        jobs,
        num_workers=workers,
        total=sum(len(job.records) for job in jobs),
        unit="samples",
        progress=progress,
    )
    if digests != [shard.sha256 for shard in manifest.shards]:
        raise DataError(
            f"{out} already holds a set packed from other images or with other options: choose "
            f"another folder or delete this one"
        )
    if jobs[0].num_labels is not None:
        check_label_uses(manifest.label_ids, jobs[0].num_labels, out)
    return manifest


@contextmanager
def _workplace(out: Path, jobs: list[ShardJob]) -> Iterator[Path]:
    """OUT/.pack, held by one packer at a time, without the temporaries of a killed one."""
    work = out / WORK_FOLDER
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: choose a folder")
    if out.exists() and any(out.iterdir()) and not work.is_dir():
        raise DataError(f"{out} is not empty and no unfinished set: choose another folder")
    with disk_errors(out):
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / "lock", "w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{out} is being packed by another process: wait for it") from error
        for stale in work.glob("*.tmp"):
            stale.unlink()
        _check_space(out, jobs)
        yield work
        shutil.rmtree(work)


def _check_space(out: Path, jobs: list[ShardJob]) -> None:
    needed = sum(
        _tar_size(record) for job in jobs if not job.receipt.exists() for record in job.records
    )
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out} has {free / 2**20:.1f} MiB free, but the shards still need "
            f"{needed / 2**20:.1f} MiB: make room or choose another disk"
        )


def _commit(out: Path, work: Path, jobs: list[ShardJob], receipts: list[Receipt]) -> None:
    """Write the index, then the manifest: from here on the set exists."""
    members = tuple(jobs[0].records[0].files)
    layout = next(name for name, known in LAYOUTS.items() if set(members) <= set(known))
    census = Census()
    for receipt in receipts:
        census.merge(receipt.census)
    if jobs[0].num_labels is not None:  # a kept shard may be from a run with more labels
        check_label_uses(census.label_ids, jobs[0].num_labels, out)
    index = index_bytes(
        members,
        [[record.key for record in job.records] for job in jobs],
        [receipt.columns for receipt in receipts],
    )
    manifest = to_bytes(
        layout,
        members,
        [receipt.file for receipt in receipts],
        hashlib.sha256(index).hexdigest(),
        census.to_json(),
    )
    with disk_errors(out):
        for shard in out.glob("[0-9]*.tar"):
            if shard not in {job.path for job in jobs}:
                shard.unlink()  # of an interrupted run on other sources, never committed
        write_atomically(out / INDEX_FILE, index, work)
        write_atomically(out / MANIFEST_FILE, manifest, work)
