"""A folder of images -> tar shards, index and manifest; of a source with several domains one such
set each, and domains.json.

A shard is one unit of work, fixed by the source's file sizes alone, so that any number of
processes gives the same bytes. The manifest, or domains.json, comes last. After an interruption
the same command goes on: a finished shard is kept if the sources would still give the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from shards.arrangements import DOMAIN_LAYOUTS, choose_layout
from shards.census import Census, check_label_uses
from shards.domains import DOMAINS_FILE, read_domains, write_domains
from shards.index import ShardSet, open_domain, open_shards
from shards.index_file import index_bytes
from shards.layouts import find_domains, find_records
from shards.manifest import INDEX_FILE, MANIFEST_FILE, read_manifest, to_bytes
from shards.processes import Progress, run_jobs
from shards.records import DataError, Record
from shards.sealed import write_atomically
from shards.stores import open_store
from shards.shard_writer import WORK_FOLDER, Receipt, ShardJob, digest, disk_errors, make_shard
from shards.source_files import checked_source

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
) -> tuple[ShardSet, ...]:
    """Pack the images of a source folder: one set into the folder `out` or, of a source with
    domains, one set for each into its sub-folders. Returns the sets, opened.

    layout: one of SOURCE_LAYOUTS or "auto"; num_labels: refuse label ids from here on; shard_mib:
    the size of a shard in MiB, about; workers: processes, one per CPU if None.
    The same input gives the same bytes. Raises DataError for anything wrong with the data or the
    disk; `out` then stays unfinished, and its finished shards are kept for the next run."""
    if shard_mib < 1:
        raise DataError(f"shard_mib={shard_mib}: a shard needs at least 1 MiB")
    plan = _plan(Path(source), Path(out), layout, split, num_labels, shard_mib * 2**20)
    run = partial(
        run_jobs,
        jobs=plan.jobs,
        num_workers=workers,
        total=sum(len(job.records) for job in plan.jobs),
        unit="samples",
        progress=progress,
    )
    if plan.last_file.exists():
        sets = _open_unchanged(plan)
        _check_digests(plan, sets, run(digest))
        return sets
    with _workplace(plan) as work:
        _commit(plan, run(make_shard), work)
    return _open(plan)


@dataclass(frozen=True)
class _PlannedSet:
    """A set to be packed into the folder `out`."""

    out: Path
    layout: str
    jobs: tuple[ShardJob, ...]


@dataclass(frozen=True)
class _Plan:
    """What is to be packed below `out`: a set into itself, or by domain into its sub-folders."""

    out: Path
    sets: tuple[_PlannedSet, ...]
    has_domains: bool

    @property
    def last_file(self) -> Path:
        """Where it exists, all is finished."""
        return self.out / (DOMAINS_FILE if self.has_domains else MANIFEST_FILE)

    @property
    def jobs(self) -> list[ShardJob]:
        """The shards of all sets."""
        return [job for planned in self.sets for job in planned.jobs]

    @property
    def domains(self) -> list[str]:
        """Names of the sub-folders, in their order."""
        return [planned.out.name for planned in self.sets] if self.has_domains else []


def _plan(
    source: Path, out: Path, layout: str, split: str, num_labels: int | None, shard_bytes: int
) -> _Plan:
    layout = choose_layout(checked_source(source), layout, split)
    if layout in DOMAIN_LAYOUTS:
        domains = find_domains(source, layout, split)
        found = [(out / name, "images", records) for name, records in domains.items()]
    else:
        found = [(out, layout, find_records(source, layout, split))]
    sets = [
        _PlannedSet(folder, packed_as, _cut(folder, records, num_labels, shard_bytes))
        for folder, packed_as, records in found
    ]
    return _Plan(out, tuple(sets), layout in DOMAIN_LAYOUTS)


def _cut(
    out: Path, records: list[Record], num_labels: int | None, shard_bytes: int
) -> tuple[ShardJob, ...]:
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
    return tuple(
        ShardJob(out, number, tuple(shard), num_labels) for number, shard in enumerate(shards)
    )


def _tar_size(record: Record) -> int:
    blocks = (1 + -(-path.stat().st_size // _TAR_BLOCK) for path in record.files.values())
    return sum(blocks) * _TAR_BLOCK


def _open(plan: _Plan) -> tuple[ShardSet, ...]:
    if plan.has_domains:
        return tuple(open_domain(plan.out, name) for name in plan.domains)
    return (open_shards(plan.out),)


def _open_unchanged(plan: _Plan) -> tuple[ShardSet, ...]:
    """What is finished already, if it is of the same domains."""
    if plan.has_domains and list(read_domains(open_store(plan.out))) != plan.domains:
        raise DataError(_other_images(plan))
    return _open(plan)


def _check_digests(plan: _Plan, sets: tuple[ShardSet, ...], digests: list[str]) -> None:
    """Raise DataError unless the sources would give the finished sets again."""
    if digests != [shard.sha256 for found in sets for shard in found.manifest.shards]:
        raise DataError(_other_images(plan))
    num_labels = plan.jobs[0].num_labels
    if num_labels is not None:
        for found in sets:
            check_label_uses(found.label_ids, num_labels, found.store)


def _other_images(plan: _Plan) -> str:
    return (
        f"{plan.out} already holds what was packed from other images or with other options: "
        f"choose another folder or delete this one"
    )


@contextmanager
def _workplace(plan: _Plan) -> Iterator[Path]:
    """OUT/.pack, held by one packer at a time, and .pack of each set, without the temporaries of
    a killed one."""
    out, work = plan.out, plan.out / WORK_FOLDER
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
        _check_strangers(plan)
        folders = {work, *(planned.out / WORK_FOLDER for planned in plan.sets)}
        with disk_errors(out):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                for stale in folder.glob("*.tmp"):
                    stale.unlink()
            for planned in plan.sets:  # one finished set of several would be changed again
                (planned.out / MANIFEST_FILE).unlink(missing_ok=True)
        _check_space(plan)
        yield work
        for folder in folders:
            shutil.rmtree(folder)


def _check_strangers(plan: _Plan) -> None:
    """Raise DataError if what was interrupted in this folder was the packing of other sets."""
    kept = {WORK_FOLDER, *plan.domains}
    for path in sorted(plan.out.iterdir()):
        if path.name not in kept and (plan.has_domains or path.is_dir()):
            raise DataError(
                f"{path} is no part of what is packed into {plan.out}: delete it or choose "
                f"another folder"
            )


def _check_space(plan: _Plan) -> None:
    needed = sum(
        _tar_size(record)
        for job in plan.jobs
        if not job.receipt.exists()
        for record in job.records
    )
    free = shutil.disk_usage(plan.out).free
    if needed > free:
        raise DataError(
            f"{plan.out} has {free / 2**20:.1f} MiB free, but the shards still need "
            f"{needed / 2**20:.1f} MiB: make room or choose another disk"
        )


def _commit(plan: _Plan, receipts: list[Receipt], work: Path) -> None:
    """Write indexes and manifests, and what tells that the whole is finished last."""
    remaining = iter(receipts)
    for planned in plan.sets:
        _commit_set(planned, list(islice(remaining, len(planned.jobs))))
    if plan.has_domains:
        fingerprints = {
            planned.out.name: read_manifest(open_store(planned.out)).fingerprint for planned in plan.sets
        }
        with disk_errors(plan.out):
            write_domains(plan.out, fingerprints, work)


def _commit_set(planned: _PlannedSet, receipts: list[Receipt]) -> None:
    """Write the index, then the manifest: from here on the set exists."""
    out, jobs = planned.out, planned.jobs
    members = tuple(jobs[0].records[0].files)
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
        planned.layout,
        members,
        [receipt.file for receipt in receipts],
        hashlib.sha256(index).hexdigest(),
        census.to_json(),
    )
    with disk_errors(out):
        for shard in out.glob("[0-9]*.tar"):
            if shard not in {job.path for job in jobs}:
                shard.unlink()  # of an interrupted run on other sources, never committed
        write_atomically(out / INDEX_FILE, index, out / WORK_FOLDER)
        write_atomically(out / MANIFEST_FILE, manifest, out / WORK_FOLDER)
