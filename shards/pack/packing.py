"""A folder of images, or a list of them -> tar shards, index and manifest; of a source with several
domains one such set each, and domains.json.

A shard is one unit of work, fixed by the source's file sizes alone, so that any number of
processes gives the same bytes. The manifest, or domains.json, comes last. After an interruption
the same command goes on: a finished shard is kept if the sources would still give the same bytes.
What is finished is never changed: other images become another generation beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from shards.pack.plans import Plan, PlannedSet, make_plan
from shards.pack.shard_writer import (
    WORK_FOLDER,
    BadSample,
    Receipt,
    bad_samples,
    digest,
    disk_errors,
    make_shard,
)
from shards.pack.workplace import left_tars, workplace
from shards.pixels.census import Census, check_label_uses
from shards.pixels.storing import Storing
from shards.processes import Progress, run_jobs
from shards.records import DataError
from shards.sets.domains import has_domains, read_domains, write_domains
from shards.sets.generations import current_number, generation_folder, make_current
from shards.sets.index_file import index_bytes
from shards.sets.manifest import INDEX_FILE, MANIFEST_FILE, Manifest, read_manifest, to_bytes
from shards.sets.shard_set import ShardSet, domain_set, only_set, open_all
from shards.storage.opening import open_store
from shards.storage.sealed import through_no_link, write_atomically

BAD_FILE = "bad-files.txt"
"""In the work folder: what is wrong with each sample that cannot be packed, by line."""
LEFT_OUT_FILE = "left-out.txt"
"""Beside the manifest: the same of those that were left out."""
Run = Callable[[Callable[..., Any]], list[Any]]
"""What a function gives for each shard of a plan."""


def pack(
    source: Path,
    out: Path,
    *,
    layout: str = "auto",
    split: str = "train",
    num_labels: int | None = None,
    shard_mib: int = 256,
    storing: Storing = Storing(),
    replace: bool = False,
    leave_out_bad: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[ShardSet, ...]:
    """Pack the images of a source (a folder, or a .csv or .jsonl list): one set into the folder
    `out` or, of a source with domains, one set for each into its sub-folders. Returns the sets,
    opened.

    layout: one of SOURCE_LAYOUTS or "auto"; num_labels: refuse label ids from here on; shard_mib:
    MiB of source files in a shard, about; storing: what is stored in another form; replace: if
    `out` holds other images already, or is damaged, pack a new generation that readers find from
    then on; leave_out_bad: pack the sound samples alone, look for them first, and list the others
    in LEFT_OUT_FILE; workers: processes, one per CPU if None.
    The same input gives the same bytes. Raises DataError for anything wrong with the data or the
    disk; `out` then stays unfinished, and its finished shards are kept for the next run."""
    if shard_mib < 1:
        raise DataError(f"shard_mib={shard_mib}: a shard needs at least 1 MiB.")
    source, out = Path(source), Path(out)
    planned = partial(
        make_plan,
        source,
        out,
        layout=layout,
        split=split,
        num_labels=num_labels,
        shard_bytes=shard_mib * 2**20,
        storing=storing,
    )
    plan, bad = planned(), []
    if leave_out_bad:
        bad = _bad_samples(_runner(plan, workers, progress))
        files = frozenset(path for one in bad for path in one.record.files.values())
        plan = planned(left_out=files)
    number = current_number(open_store(out))
    plan = plan.moved(generation_folder(out, number))
    while _is_finished(plan.out) and not (
        _is_whole(plan.out, replace) and _is_same(plan, _runner(plan, workers, progress))
    ):
        if not replace:
            raise DataError(
                f"{out} already holds what was packed from other images or with other options: "
                f"choose another folder, or --replace=yes to pack a new generation beside it."
            )
        number += 1
        plan = plan.moved(generation_folder(out, number))
    if not _is_finished(plan.out):
        with workplace(plan) as work:
            _commit(plan, _receipts(plan, _runner(plan, workers, progress), work), work)
            if bad:
                _list_bad(plan.out / LEFT_OUT_FILE, bad)
    sets = _open(plan)
    make_current(out, number)
    return sets


def _receipts(plan: Plan, run: Run, work: Path) -> list[Receipt]:
    """All shards, written; DataError that tells of all bad samples, not of the first alone."""
    try:
        return run(make_shard)
    except DataError:
        bad = _bad_samples(run)
        if len(bad) < 2:
            raise
        _list_bad(work / BAD_FILE, bad)
        total = sum(len(job.records) for job in plan.jobs)
        raise DataError(
            f"{len(bad)} of {total} samples cannot be packed, all listed in {work / BAD_FILE}: "
            f"mend them, or choose --bad_files=leave_out. The first: {bad[0].reason}"
        ) from None


def _bad_samples(run: Run) -> list[BadSample]:
    return [bad for found in run(bad_samples) for bad in found]


def _list_bad(file: Path, bad: list[BadSample]) -> None:
    with disk_errors(file), open(file, "w", encoding="utf-8", opener=through_no_link) as lines:
        lines.writelines(f"{one.reason}\n" for one in bad)


def _runner(plan: Plan, workers: int | None, progress: Progress | None) -> Run:
    return partial(
        run_jobs,
        jobs=plan.jobs,
        num_workers=workers,
        total=sum(len(job.records) for job in plan.jobs),
        unit="samples",
        progress=progress,
    )


def _is_finished(folder: Path) -> bool:
    """Whether a set, or several domains, of any images were packed into a folder."""
    store = open_store(folder)
    return has_domains(store) or store.size(MANIFEST_FILE) is not None


def _is_whole(folder: Path, replace: bool) -> bool:
    """Whether what is finished can be opened; DataError if not, unless it may be replaced."""
    try:
        open_all(folder)
    except DataError as error:
        if replace:
            return False
        raise DataError(f"{error} --replace=yes packs it anew, as a new generation.") from error
    return True


def _is_same(plan: Plan, run: Run) -> bool:
    """Whether the sources would give the finished sets again; DataError if they do, but have label
    ids that are refused."""
    store = open_store(plan.out)
    if has_domains(store) != plan.has_domains:
        return False
    if plan.has_domains and list(read_domains(store)) != plan.domains:
        return False
    manifests = [read_manifest(open_store(planned.out)) for planned in plan.sets]
    if any(manifest.storing != plan.storing.to_json() for manifest in manifests):
        return False
    shards = [shard for manifest in manifests for shard in manifest.shards]
    if [shard.num_samples for shard in shards] != [len(job.records) for job in plan.jobs]:
        return False  # without reading a file
    if [shard.sha256 for shard in shards] != run(digest):
        return False
    for planned, manifest in zip(plan.sets, manifests, strict=True):
        if {member: (*names,) for member, names in manifest.annotations.items()} != planned.names:
            return False  # what a number stands for is not in the shards
        _check_labels(plan, manifest, planned.out)
    return True


def _check_labels(plan: Plan, found: Manifest | Census, where: Path) -> None:
    if plan.num_labels is not None:
        check_label_uses(found.label_ids, plan.num_labels, where)


def _check_void(plan: Plan, census: Census, where: Path) -> None:
    """What was not labelled must not be mixed with a label of any map."""
    void = plan.storing.void
    if void is not None:
        void.check([note for _, note in census.notes], where)
        census.notes.pop(("label", void.own_note), None)  # nothing to be told


def _open(plan: Plan) -> tuple[ShardSet, ...]:
    store = open_store(plan.out)
    if plan.has_domains:
        return tuple(domain_set(store, name) for name in plan.domains)
    return (only_set(store),)


def _commit(plan: Plan, receipts: list[Receipt], work: Path) -> None:
    """Write indexes and manifests, and what tells that the whole is finished last."""
    remaining = iter(receipts)
    for planned in plan.sets:
        _commit_set(plan, planned, list(islice(remaining, len(planned.jobs))))
    if plan.has_domains:
        fingerprints = {
            planned.out.name: read_manifest(open_store(planned.out)).fingerprint
            for planned in plan.sets
        }
        with disk_errors(plan.out):
            write_domains(plan.out, fingerprints, work)


def _commit_set(plan: Plan, planned: PlannedSet, receipts: list[Receipt]) -> None:
    """Write the index, then the manifest: from here on the set exists."""
    out, jobs = planned.out, planned.jobs
    members = jobs[0].records[0].members
    census = Census()
    for receipt in receipts:
        census.merge(receipt.census)
    _check_void(plan, census, out)
    _check_labels(plan, census, out)  # a kept shard may be from a run with more labels
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
        census,
        planned.names,
        plan.storing,
        planned.left_out,
    )
    with disk_errors(out):
        for shard in left_tars(planned):
            shard.unlink()
        write_atomically(out / INDEX_FILE, index, out / WORK_FOLDER)
        write_atomically(out / MANIFEST_FILE, manifest, out / WORK_FOLDER)
