"""A folder of images -> tar shards, index and manifest.

A shard is one unit of work, fixed by the source's file sizes alone: its images are decoded,
counted and written by one process, to a temporary file that is then renamed, with a receipt
beside it. The manifest comes last. After an interruption the same command goes on: a finished
shard is kept if the sources would still give the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shards.census import Census, LabelUse, label_histogram
from shards.images import check_checksums, decode_sample, extension
from shards.index import Columns, index_bytes, open_shards, tar_columns
from shards.layouts import find_records
from shards.manifest import (
    INDEX_FILE,
    MANIFEST_FILE,
    Manifest,
    ShardFile,
    read_manifest,
    shard_name,
    sync_folder,
    to_bytes,
    write_atomically,
)
from shards.processes import Progress, Tick, run_jobs
from shards.records import LAYOUTS, DataError, Record, check_label_ids

WORK_FOLDER = ".pack"
_TAR_BLOCK = 512
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ShardJob:
    """One shard to be written."""

    out: Path
    number: int
    records: tuple[Record, ...]
    num_labels: int | None

    @property
    def path(self) -> Path:
        return self.out / shard_name(self.number)

    @property
    def receipt(self) -> Path:
        return self.out / WORK_FOLDER / f"{self.path.name}.json"


@dataclass(frozen=True)
class Receipt:
    """What is known about a finished shard."""

    file: ShardFile
    columns: dict[str, Columns]
    census: Census


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
        raise ValueError(f"shard_mib={shard_mib}: a shard needs at least 1 MiB")
    source, out = Path(source), Path(out)
    jobs = _plan(find_records(source, layout, split), out, num_labels, shard_mib * 2**20)
    if (out / MANIFEST_FILE).exists():
        return _unchanged(out, jobs, workers, progress)
    with _workplace(out, jobs) as work:
        receipts = run_jobs(
            _make_shard,
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
        _digest,
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
    _check_all_labels(out, manifest.label_ids, jobs[0].num_labels)
    return manifest


@contextmanager
def _workplace(out: Path, jobs: list[ShardJob]) -> Iterator[Path]:
    """OUT/.pack, held by one packer at a time, without the temporaries of a killed one."""
    work = out / WORK_FOLDER
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: choose a folder")
    if out.exists() and any(out.iterdir()) and not work.is_dir():
        raise DataError(f"{out} is not empty and no unfinished set: choose another folder")
    with _disk_errors(out):
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
            f"{out} has {free / 2**30:.2f} GiB free, but the shards still need "
            f"{needed / 2**30:.2f} GiB: make room or choose another disk"
        )


def _make_shard(job: ShardJob, tick: Tick) -> Receipt:
    kept = _kept_receipt(job)
    if kept is not None:
        for _ in job.records:
            tick()
        return kept
    with _disk_errors(job.path):
        temporary = job.out / WORK_FOLDER / f"{job.path.name}.tmp"
        try:
            receipt = _write_shard(job, temporary, tick)
            job.receipt.unlink(missing_ok=True)  # it may speak of the shard replaced here
            os.replace(temporary, job.path)
            sync_folder(job.out)
            write_atomically(job.receipt, _receipt_bytes(receipt), job.receipt.parent)
        finally:
            temporary.unlink(missing_ok=True)  # a full disk needs its space back
    return receipt


def _kept_receipt(job: ShardJob) -> Receipt | None:
    """The receipt of a finished shard, if shard and sources still are what it was made for."""
    try:
        receipt = _parse_receipt(job.receipt.read_bytes())
        with open(job.path, "rb") as shard:
            on_disk = hashlib.file_digest(shard, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    same = receipt.file.sha256 == on_disk == _digest(job, lambda: None)
    return receipt if same else None


def _digest(job: ShardJob, tick: Tick) -> str:
    """sha256 of the shard that the sources would give, without decoding them."""
    sink = _HashingSink(io.BytesIO(), keep=False)
    with _tar_writer(sink) as writer:
        for record in job.records:
            writer.write(_tar_sample(record, _read_files(record)))
            tick()
    return sink.sha256.hexdigest()


def _write_shard(job: ShardJob, path: Path, tick: Tick) -> Receipt:
    census = Census()
    with open(path, "wb") as file:
        sink = _HashingSink(file)
        with _tar_writer(sink) as writer:
            for record in job.records:
                files = _read_files(record)
                _examine(record, files, job.num_labels, census)
                writer.write(_tar_sample(record, files))
                tick()
        file.flush()
        os.fsync(file.fileno())
        num_bytes = file.tell()
    keys = [record.key for record in job.records]
    return Receipt(
        file=ShardFile(len(keys), num_bytes, sink.sha256.hexdigest()),
        columns=tar_columns(path, keys, tuple(job.records[0].files)),
        census=census,
    )


def _examine(
    record: Record, files: dict[str, bytes], num_labels: int | None, census: Census
) -> None:
    names = {member: str(path) for member, path in record.files.items()}
    for member, data in files.items():
        check_checksums(data, names[member])
    pixels = decode_sample(files, names)
    if num_labels is not None and "label" in pixels:
        check_label_ids(label_histogram(pixels["label"]), num_labels, names["label"])
    census.add(record.key, pixels)


def _read_files(record: Record) -> dict[str, bytes]:
    files = {}
    for member, path in record.files.items():
        try:
            files[member] = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return files


def _tar_sample(record: Record, files: dict[str, bytes]) -> dict[str, Any]:
    sample: dict[str, Any] = {"__key__": record.key}
    for member, data in files.items():
        sample[f"{member}.{extension(data, str(record.files[member]))}"] = data
    return sample


def _tar_writer(sink: _HashingSink) -> Any:
    from webdataset.writer import TarWriter  # it imports torch

    # All that could differ between two runs is fixed; GNU headers take names of any length.
    return TarWriter(
        sink, encoder=False, mtime=0, user="organza", group="organza", format="GNU_FORMAT"
    )


class _HashingSink:
    """A file that hashes what is written to it and, unless `keep` is false, keeps it."""

    def __init__(self, file: IO[bytes], keep: bool = True) -> None:
        self.sha256 = hashlib.sha256()
        self._write: Callable[[bytes], Any] | None = file.write if keep else None

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        if self._write is not None:
            self._write(data)
        return len(data)


def _receipt_bytes(receipt: Receipt) -> bytes:
    content = {
        "file": vars(receipt.file),
        "columns": receipt.columns,
        "sizes": [[*size, count] for size, count in receipt.census.sizes.items()],
        "label_ids": {
            label_id: [use.num_pixels, use.first_key]
            for label_id, use in receipt.census.label_ids.items()
        },
    }
    return json.dumps(content).encode()


def _parse_receipt(data: bytes) -> Receipt:
    content = json.loads(data)
    census = Census()
    for width, height, count in content["sizes"]:
        census.sizes[width, height] = count
    for label_id, use in content["label_ids"].items():
        census.label_ids[int(label_id)] = LabelUse(*use)
    return Receipt(ShardFile(**content["file"]), content["columns"], census)


def _commit(out: Path, work: Path, jobs: list[ShardJob], receipts: list[Receipt]) -> None:
    """Write the index, then the manifest: from here on the set exists."""
    members = tuple(jobs[0].records[0].files)
    layout = next(name for name, known in LAYOUTS.items() if set(members) <= set(known))
    census = Census()
    for receipt in receipts:
        census.merge(receipt.census)
    _check_all_labels(out, census.label_ids, jobs[0].num_labels)
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
    with _disk_errors(out):
        for shard in out.glob("[0-9]*.tar"):
            if shard not in {job.path for job in jobs}:
                shard.unlink()  # of an interrupted run on other sources, never committed
        write_atomically(out / INDEX_FILE, index, work)
        write_atomically(out / MANIFEST_FILE, manifest, work)


def _check_all_labels(
    out: Path, label_ids: dict[int, LabelUse], num_labels: int | None
) -> None:
    """Shards kept from an earlier run may have been packed under a larger num_labels."""
    if num_labels is not None:
        for label_id, use in sorted(label_ids.items()):
            name = f"{out}: {use.first_key}.label.png (the first of the set)"
            check_label_ids({label_id: use.num_pixels}, num_labels, name)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DataError(
                f"{path} cannot be written: the disk is full; make room and run the same command "
                f"again, finished shards are kept"
            ) from error
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
