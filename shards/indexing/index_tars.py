"""Index plain webdataset tars, written by any program, where they lie.

index.json and manifest.json are written beside the tars, which are only read; from then on their
folder is a set like one that was packed. What `pack` checks in source files is checked here: every
image is decoded and counted once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shards.indexing.members import Members, choose_members
from shards.indexing.tar_names import locate
from shards.indexing.tar_samples import TarSample, tar_samples
from shards.pack.shard_writer import WORK_FOLDER as PACK_FOLDER
from shards.pack.shard_writer import Receipt, disk_errors, examine
from shards.pack.workplace import hold
from shards.pixels.census import Census
from shards.processes import Progress, Tick, run_jobs
from shards.records import DataError, Names
from shards.sets.annotations import MAX_NAMES
from shards.sets.index_file import add_row, empty_columns, index_bytes
from shards.sets.manifest import FORMAT, INDEX_FILE, MANIFEST_FILE, VERSION, ShardFile, to_bytes
from shards.sets.shard_set import ShardSet, only_set
from shards.storage.opening import open_store
from shards.storage.sealed import write_atomically
from shards.storage.tars import TarFile

WORK_FOLDER = ".index"
"""Beside the tars while they are indexed. Not that of `pack`, which takes the tars beside its own
for those of an interrupted run, and replaces them."""


@dataclass(frozen=True)
class Indexed:
    """A set that was indexed, opened."""

    shard_set: ShardSet
    endings: dict[str, str]
    """Ending of the files in the tars -> the member that they are."""
    others: Counter[str]
    """Ending -> files that are no member."""
    is_new: bool
    """Whether anything was written: the same index may have been there."""


@dataclass(frozen=True)
class _Listing:
    """What is in a tar."""

    path: Path
    samples: list[TarSample]


@dataclass(frozen=True)
class _ShardJob:
    """A tar, and where the members of its samples lie."""

    path: Path
    samples: tuple[tuple[str, dict[str, TarFile]], ...]
    num_labels: int | None


def index_shards(
    shards: Sequence[str],
    *,
    members: Mapping[str, str],
    num_labels: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Indexed:
    """Write the index and the manifest of the tars in one folder, beside them.

    shards: the folder, or all its tars, also as brace patterns; members: member -> ending of its
    files, guessed if empty; num_labels: refuse label ids from here on; workers: processes, one per
    CPU if None. Raises DataError for anything wrong with the tars or their images, and if another
    index is there; nothing is written then."""
    folder, names = locate(shards)
    with _workplace(folder) as work:
        _check_replaceable(folder)
        listings = run_jobs(
            _list_samples,
            [folder / name for name in names],
            num_workers=workers,
            total=len(names),
            unit="shards",
            progress=progress,
        )
        _check_keys(listings)
        endings = Counter(e for shard in listings for sample in shard.samples for e in sample.files)
        chosen = choose_members(endings, members, str(folder))
        jobs = [_job(listing, chosen, num_labels) for listing in listings]
        receipts = run_jobs(
            _count_shard,
            jobs,
            num_workers=workers,
            total=sum(len(job.samples) for job in jobs),
            unit="samples",
            progress=progress,
        )
        is_new = _commit(folder, work, chosen, jobs, receipts)
    others = Counter({e: n for e, n in endings.items() if e not in chosen.by_ending})
    return Indexed(only_set(open_store(folder)), chosen.by_ending, others, is_new)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder for temporaries beside the tars, held by one program at a time, and then removed."""
    work = folder / WORK_FOLDER
    if (folder / PACK_FOLDER).is_dir() and not (folder / MANIFEST_FILE).exists():
        raise DataError(f"{folder} is an unfinished set: run the same `pack` again to finish it.")
    with hold(folder, work, "indexed") as lock:
        try:
            yield work
        finally:
            lock.close()  # NFS keeps an open file, and so the folder that it is in
            shutil.rmtree(work)


def _check_replaceable(folder: Path) -> None:
    """Raise DataError if files of our names are there that this program did not write."""
    manifest, index = (_content(folder / name) for name in (MANIFEST_FILE, INDEX_FILE))
    ours = {
        MANIFEST_FILE: manifest is None or manifest.get("format") == FORMAT,
        INDEX_FILE: index is None or {"keys", "shards", "members"} == index.keys(),
    }
    for name, is_ours in ours.items():
        if not is_ours:
            raise DataError(
                f"{folder / name} is damaged or was written by another program: move it elsewhere, "
                f"the index of the tars needs its place."
            )


def _content(path: Path) -> dict[str, object] | None:
    """What a JSON file holds; None where there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _list_samples(path: Path, tick: Tick) -> _Listing:
    samples = tar_samples(path)
    if not samples:
        raise DataError(f"{path} holds no samples: remove it or restore what it held.")
    tick()
    return _Listing(path, samples)


def _check_keys(listings: list[_Listing]) -> None:
    """Raise DataError for a key in two shards."""
    homes: dict[str, Path] = {}
    for listing in listings:
        for sample in listing.samples:
            if sample.key in homes:
                raise DataError(
                    f"{listing.path} and {homes[sample.key].name} both hold the key "
                    f"{sample.key!r}: keys name samples; write one of the shards anew with others."
                )
            homes[sample.key] = listing.path


def _job(listing: _Listing, chosen: Members, num_labels: int | None) -> _ShardJob:
    where = str(listing.path)
    picked = tuple((sample.key, chosen.pick(sample, where)) for sample in listing.samples)
    return _ShardJob(listing.path, picked, num_labels)


def _count_shard(job: _ShardJob, tick: Tick) -> Receipt:
    """Decode every image of a tar once."""
    census, columns = Census(), empty_columns(tuple(job.samples[0][1]))
    with open(job.path, "rb") as file:
        for key, picked in job.samples:
            contents = {
                member: os.pread(file.fileno(), found.size, found.offset)
                for member, found in picked.items()
            }
            names = {member: f"{job.path}: {found.name}" for member, found in picked.items()}
            examine(key, contents, names, job.num_labels, census, {"cls": MAX_NAMES})
            for member, found in picked.items():
                suffix = found.name[len(key) + 1 :]
                add_row(columns[member], suffix, found, contents[member])
            tick()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = file.tell()
    shard = ShardFile(job.path.name, len(job.samples), num_bytes, digest)
    return Receipt(shard, columns, census)


def _commit(
    folder: Path, work: Path, chosen: Members, jobs: list[_ShardJob], receipts: list[Receipt]
) -> bool:
    """Write the index, then the manifest; False if both are there already."""
    census = Census()
    for receipt in receipts:
        census.merge(receipt.census)
    index = index_bytes(
        chosen.names,
        [[key for key, _ in job.samples] for job in jobs],
        [receipt.columns for receipt in receipts],
    )
    manifest = to_bytes(
        chosen.layout,
        chosen.names,
        [receipt.file for receipt in receipts],
        hashlib.sha256(index).hexdigest(),
        census,
        _class_names(chosen, census),
    )
    texts = {INDEX_FILE: index, MANIFEST_FILE: manifest}
    if all(_holds(folder / name, text) for name, text in texts.items()):
        return False
    _check_outdated(folder / MANIFEST_FILE, manifest)
    with disk_errors(folder):
        for name, text in texts.items():
            write_atomically(folder / name, text, work)
    return True


def _class_names(chosen: Members, census: Census) -> Names:
    """Tars tell the numbers of classes alone."""
    if "cls" not in chosen.names:
        return {}
    return {"cls": tuple(map(str, range(max(census.annotations)[1] + 1)))}


def _holds(path: Path, text: bytes) -> bool:
    return path.exists() and path.read_bytes() == text


def _check_outdated(path: Path, text: bytes) -> None:
    """Raise DataError if a manifest of today's format says something else: runs may read it."""
    known = _content(path)
    if known is None or _holds(path, text):
        return
    if known.get("version") not in range(1, VERSION):
        raise DataError(
            f"{path} is of other tars, members or images: if no run needs it any more, delete it "
            f"and index again."
        )
