"""One shard of a set: decoded, counted and written by one process, as a whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from shards.pixels.census import Census, LabelUse, label_histogram
from shards.pixels.images import check_checksums, decode_sample, extension
from shards.pixels.storing import KEEP, Storing
from shards.processes import Tick
from shards.records import RGBA, DataError, Record, check_label_ids, pictures
from shards.sets.annotations import SUFFIXES, read_annotations
from shards.sets.index_file import Columns, tar_columns
from shards.sets.manifest import ShardFile, shard_name
from shards.storage.sealed import sync_folder, through_no_link, write_atomically

WORK_FOLDER = ".pack"
"""Below the output folder, until the set is finished: receipts, temporaries and a lock."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ShardJob:
    """One shard to be written."""

    out: Path
    number: int
    records: tuple[Record, ...]
    num_labels: int | None
    storing: Storing = Storing()
    num_names: Mapping[str, int] = field(default_factory=dict)
    """How many classes or attributes there are, by annotation."""

    @property
    def path(self) -> Path:
        """The tar."""
        return self.out / shard_name(self.number)

    @property
    def receipt(self) -> Path:
        """The file beside it that tells a later run what is in the tar."""
        return self.out / WORK_FOLDER / f"{self.path.name}.json"


@dataclass(frozen=True)
class Receipt:
    """What is known about a finished shard."""

    file: ShardFile
    columns: dict[str, Columns]
    census: Census


def make_shard(job: ShardJob, tick: Tick) -> Receipt:
    """Write the shard and its receipt, or keep those of an interrupted run."""
    kept = _kept_receipt(job)
    if kept is not None:
        for _ in job.records:
            tick()
        return kept
    with disk_errors(job.path):
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


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be packed."""

    record: Record
    reason: str


def bad_samples(job: ShardJob, tick: Tick) -> list[BadSample]:
    """All that make_shard() would refuse, without writing anything."""
    found = []
    for record in job.records:
        try:
            _examined(record, job, Census())
        except DataError as error:
            found.append(BadSample(record, str(error)))
        tick()
    return found


def _kept_receipt(job: ShardJob) -> Receipt | None:
    """The receipt of a finished shard, if shard and sources still are what it was made for."""
    try:
        receipt = _parse_receipt(job.receipt.read_bytes())
        with open(job.path, "rb") as shard:
            on_disk = hashlib.file_digest(shard, "sha256").hexdigest()
    except (FileNotFoundError, KeyError):  # none, or that of an older version
        return None
    same = receipt.file.sha256 == on_disk == digest(job, lambda: None)
    return receipt if same else None


def digest(job: ShardJob, tick: Tick) -> str:
    """sha256 of the shard that the sources would give; only photos stored anew are decoded."""
    sink = _HashingSink(None)
    with _tar_writer(sink) as writer:
        for record in job.records:
            writer.write(_tar_sample(record, _stored(record, job.storing, Census())))
            tick()
    return sink.sha256.hexdigest()


def _write_shard(job: ShardJob, path: Path, tick: Tick) -> Receipt:
    census = Census()
    with open(path, "wb", opener=through_no_link) as file:
        sink = _HashingSink(file)
        with _tar_writer(sink) as writer:
            for record in job.records:
                writer.write(_tar_sample(record, _examined(record, job, census)))
                tick()
        file.flush()
        os.fsync(file.fileno())
        num_bytes = file.tell()
    return Receipt(
        file=ShardFile(job.path.name, len(job.records), num_bytes, sink.sha256.hexdigest()),
        columns=tar_columns(path, job.records[0].members),
        census=census,
    )


def _examined(record: Record, job: ShardJob, census: Census) -> dict[str, bytes]:
    """The files of a sample as they are packed, once they are known to be sound."""
    stored = _stored(record, job.storing, census)
    names = {member: str(path) for member, path in record.files.items()}
    names |= {member: f"{record.key}.{SUFFIXES[member]}" for member in record.annotations}
    channels = RGBA if job.storing.background == KEEP else {}
    examine(record.key, stored, names, job.num_labels, census, job.num_names, channels)
    return stored


def examine(
    key: str,
    files: dict[str, bytes],
    names: dict[str, str],
    num_labels: int | None,
    census: Census,
    num_names: Mapping[str, int],
    channels: Mapping[str, int] = {},
) -> None:
    """Decode a sample (num_names: classes or attributes, by annotation; channels: as decode_sample)
    and count it in `census`; DataError, by one of `names`, for what is wrong with a file."""
    for member in pictures(files):
        check_checksums(files[member], names[member])
    annotations = read_annotations(files, names, num_names)
    pixels = decode_sample(files, names, channels)
    if num_labels is not None and "label" in pixels:
        check_label_ids(label_histogram(pixels["label"]), num_labels, names["label"])
    census.add(key, files, pixels)
    census.add_annotations(annotations)


def _read_files(record: Record) -> dict[str, bytes]:
    files = {}
    for member, path in record.files.items():
        try:
            files[member] = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return files


def _stored(record: Record, storing: Storing, census: Census) -> dict[str, bytes]:
    """The files as they are packed; what was done to them is noted in the census."""
    files = {}
    for member, data in _read_files(record).items():
        files[member], notes = storing.stored(data, member, str(record.files[member]))
        census.notes.update(notes)
    return files | record.annotations


def _tar_sample(record: Record, files: dict[str, bytes]) -> dict[str, Any]:
    sample: dict[str, Any] = {"__key__": record.key}
    for member, path in record.files.items():
        sample[f"{member}.{extension(files[member], str(path))}"] = files[member]
    return sample | {SUFFIXES[member]: files[member] for member in record.annotations}


def _tar_writer(sink: _HashingSink) -> Any:
    from webdataset.writer import TarWriter  # it imports torch

    # All that could differ between two runs is fixed; GNU headers take names of any length.
    return TarWriter(
        sink, encoder=False, mtime=0, user="organza", group="organza", format="GNU_FORMAT"
    )


class _HashingSink:
    """A file that hashes what passes through it, on the way to `file` or to nowhere."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return len(data) if self._file is None else self._file.write(data)


def _receipt_bytes(receipt: Receipt) -> bytes:
    content = {
        "file": vars(receipt.file),
        "index": receipt.columns,
        "sizes": [[*size, count] for size, count in receipt.census.sizes.items()],
        "conversions": [[*converted, n] for converted, n in receipt.census.conversions.items()],
        "notes": [[*noted, n] for noted, n in receipt.census.notes.items()],
        "annotations": [[*noted, n] for noted, n in receipt.census.annotations.items()],
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
    for member, kind, count in content["conversions"]:
        census.conversions[member, kind] = count
    for member, words, count in content["notes"]:
        census.notes[member, words] = count
    for member, number, count in content["annotations"]:
        census.annotations[member, number] = count
    for label_id, use in content["label_ids"].items():
        census.label_ids[int(label_id)] = LabelUse(*use)
    return Receipt(ShardFile(**content["file"]), content["index"], census)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into sentences about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DataError(
                f"{path} cannot be written: the disk is full; make room and run the same command "
                f"again, finished shards are kept."
            ) from error
        if error.errno == errno.ELOOP:
            raise DataError(
                f"{error.filename} is a link, which may lead anywhere: remove it."
            ) from error
        raise DataError(
            f"{path} cannot be written: {error.strerror}; choose a place that may be written."
        ) from error
