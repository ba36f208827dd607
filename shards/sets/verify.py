"""Read every byte of packed sets and compare it with their indexes and manifests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from shards.pixels.census import Census
from shards.pixels.images import decode_sample
from shards.processes import Progress, Tick, run_jobs
from shards.records import DataError
from shards.sets.annotations import read_annotations
from shards.sets.domains import check_domain, has_domains, read_domains
from shards.sets.generations import current
from shards.sets.manifest import read_manifest
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, read_index, shard_file_problems
from shards.storage.opening import open_store
from shards.storage.store import Store
from shards.storage.tars import TarFile, tar_files

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
    location: str | Path, *, workers: int | None = None, progress: Progress | None = None
) -> Summary:
    """Check a set, or all sets of a folder of domains, of the current generation in full:
    sha256 and structure of each tar, crc32 of each member, every image decoded, the manifest's
    totals.

    Raises DataError only if manifest or index (with domains: domains.json) are unusable; all else
    is in Summary.problems."""
    sets, problems = _opened(current(open_store(location)))
    whole = [_whole_shards(shard_set) for shard_set in sets]
    jobs = [shard for shards in whole for shard in shards]
    checks = run_jobs(
        _check_shard,
        jobs,
        num_workers=workers,
        total=sum(shard.num_samples for shard in jobs),
        unit="samples",
        progress=progress,
    )
    remaining = iter(checks)
    for shard_set, parts in zip(sets, whole, strict=True):
        own = list(islice(remaining, len(parts)))
        found = shard_file_problems(shard_set.store, shard_set.manifest)
        found += [problem for check in own for problem in check.problems]
        problems += found or _check_totals(shard_set, own)
    shards = [shard for shard_set in sets for shard in shard_set.manifest.shards]
    return Summary(
        num_samples=sum(shard_set.num_samples for shard_set in sets),
        num_shards=len(shards),
        num_bytes=sum(shard.num_bytes for shard in shards),
        problems=tuple(problems),
    )


def _opened(store: Store) -> tuple[list[ShardSet], list[str]]:
    """The sets to be checked, their shards unseen, and why domains could not be opened: one of them
    must not hide what is wrong with the others."""
    if not has_domains(store):
        return [read_index(store, read_manifest(store))], []
    sets, problems = [], []
    for name in read_domains(store):
        try:
            check_domain(store, name)
            domain = store.below(name)
            sets.append(read_index(domain, read_manifest(domain)))
        except DataError as error:
            problems.append(str(error))
    return sets, problems


def _whole_shards(shard_set: ShardSet) -> list[ShardSet]:
    """Each shard that has its size, alone."""
    return [
        shard_set.only(number)
        for number, shard in enumerate(shard_set.manifest.shards)
        if shard_set.store.size(shard.name) == shard.num_bytes
    ]


def _check_shard(shard_set: ShardSet, tick: Tick) -> _ShardCheck:
    store, (shard,) = shard_set.store, shard_set.manifest.shards
    where = store.where(shard.name)
    problems, census = [], Census()
    reader = Reader(shard_set)
    for sample in range(shard_set.num_samples):
        try:
            files, names = reader.read(sample), shard_set.names(sample)
            annotations = read_annotations(files, names, shard_set.manifest.num_names)
            pixels = decode_sample(files, names, shard_set.manifest.channels)
            census.add(shard_set.keys[sample], files, pixels)
            census.add_annotations(annotations)
        except DataError as error:
            problems.append(str(error))
        tick()
    with store.open(shard.name) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != shard.sha256:
        problems.append(f"{where} was altered after packing (its sha256 is wrong): restore it.")
    problems += _missing_files(shard_set, shard.name)
    return _ShardCheck(_shortened(problems, where), census)


def _missing_files(shard_set: ShardSet, name: str) -> list[str]:
    """Whether the tar holds what the index lists; a tar of others may hold more."""
    store, where = shard_set.store, shard_set.store.where(name)
    try:
        with store.open(name) as file:
            found = set(tar_files(file, where))
    except DataError as error:
        return [str(error)]
    listed = {
        TarFile(shard_set.entry_name(sample, member), int(offsets[sample]), int(sizes[sample]))
        for member in shard_set.members
        for offsets, sizes in [(shard_set.index[member].offsets, shard_set.index[member].sizes)]
        for sample in range(shard_set.num_samples)
    }
    if listed <= found:
        return []
    return [f"{where} does not hold the files that the index lists: restore it."]


def _shortened(problems: list[str], where: str) -> list[str]:
    if len(problems) <= MAX_LISTED:
        return problems
    return [*problems[:MAX_LISTED], f"{where} has {len(problems) - MAX_LISTED} more problems."]


def _check_totals(shard_set: ShardSet, checks: list[_ShardCheck]) -> list[str]:
    census = Census()
    for check in checks:
        census.merge(check.census)
    manifest = shard_set.manifest
    agree = (
        sum(census.sizes.values()) == manifest.num_samples == len(shard_set.keys)
        and census.label_ids == manifest.label_ids
        and census.listed_conversions() == manifest.conversions
        and census.listed_sizes() == manifest.sizes
        and all(
            census.listed_annotations(member, len(names)) == [*names.values()]
            for member, names in manifest.annotations.items()
        )
    )
    if agree:
        return []
    return [
        f"{shard_set.store}: the totals in the manifest are not those of the shards: pack anew."
    ]
