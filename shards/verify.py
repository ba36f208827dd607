"""Read every byte of a packed set and compare it with its index and manifest."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.census import Census
from shards.images import decode_sample
from shards.index import ShardSet, read_index, shard_file_problems, tar_entries
from shards.manifest import read_manifest, shard_name
from shards.processes import Progress, Tick, run_jobs
from shards.reader import Reader
from shards.records import DataError

MAX_LISTED = 10
"""Problems listed per shard: a bad disk would give thousands."""


@dataclass(frozen=True)
class Summary:
    """What `verify` read, and every problem that it met as one sentence."""

    num_samples: int
    num_shards: int
    num_bytes: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _ShardCheck:
    problems: list[str]
    census: Census


def verify(
    path: Path, *, workers: int | None = None, progress: Progress | None = None
) -> Summary:
    """Check a set in full: sha256 and structure of each tar, crc32 of each member, every image
    decoded, the manifest's totals.

    Raises DataError only if manifest or index are unusable; all else is in Summary.problems."""
    path = Path(path)
    manifest = read_manifest(path)
    problems = shard_file_problems(path, manifest)
    shard_set = read_index(path, manifest)
    whole = [
        number
        for number, shard in enumerate(manifest.shards)
        if _has_size(path / shard_name(number), shard.num_bytes)
    ]
    checks = run_jobs(
        _check_shard,
        [(shard_set, number) for number in whole],
        num_workers=workers,
        total=sum(manifest.shards[number].num_samples for number in whole),
        unit="samples",
        progress=progress,
    )
    problems += [problem for check in checks for problem in check.problems]
    if not problems:
        problems = _check_totals(shard_set, checks)
    return Summary(
        num_samples=manifest.num_samples,
        num_shards=len(manifest.shards),
        num_bytes=sum(shard.num_bytes for shard in manifest.shards),
        problems=tuple(problems),
    )


def _has_size(file: Path, num_bytes: int) -> bool:
    return file.is_file() and file.stat().st_size == num_bytes


def _check_shard(job: tuple[ShardSet, int], tick: Tick) -> _ShardCheck:
    shard_set, number = job
    path = shard_set.path / shard_name(number)
    samples = [int(sample) for sample in np.flatnonzero(shard_set.shard_numbers == number)]
    problems, census = [], Census()
    reader = Reader(shard_set)
    for sample in samples:
        try:
            pixels = decode_sample(reader.read(sample), shard_set.names(sample))
            census.add(shard_set.keys[sample], pixels)
        except DataError as error:
            problems.append(str(error))
        tick()
    with open(path, "rb") as shard:
        digest = hashlib.file_digest(shard, "sha256").hexdigest()
    if digest != shard_set.manifest.shards[number].sha256:
        problems.append(f"{path} was altered after packing (its sha256 is wrong): restore it")
    if _expected_entries(shard_set, samples) != _found_entries(path):
        problems.append(f"{path} does not hold the files that the index lists: restore it")
    return _ShardCheck(_shortened(problems, path), census)


def _expected_entries(shard_set: ShardSet, samples: list[int]) -> list[tuple[str, int, int]]:
    return [
        (
            shard_set.entry_name(sample, member),
            int(shard_set.index[member].offsets[sample]),
            int(shard_set.index[member].sizes[sample]),
        )
        for sample in samples
        for member in sorted(shard_set.members)
    ]


def _found_entries(path: Path) -> list[tuple[str, int, int]]:
    try:
        return [(name, offset, len(content)) for name, offset, content in tar_entries(path)]
    except tarfile.TarError:
        return []  # not even a tar: it holds none of the files


def _shortened(problems: list[str], path: Path) -> list[str]:
    if len(problems) <= MAX_LISTED:
        return problems
    return [*problems[:MAX_LISTED], f"{path} has {len(problems) - MAX_LISTED} more problems"]


def _check_totals(shard_set: ShardSet, checks: list[_ShardCheck]) -> list[str]:
    census = Census()
    for check in checks:
        census.merge(check.census)
    manifest = shard_set.manifest
    agree = (
        sum(census.sizes.values()) == manifest.num_samples == len(shard_set.keys)
        and census.label_ids == manifest.label_ids
        and census.listed_sizes() == manifest.sizes
    )
    if agree:
        return []
    return [f"{shard_set.path}: the totals in the manifest are not those of the shards: pack anew"]
