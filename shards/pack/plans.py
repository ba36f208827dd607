"""What is to be packed: the sets, and their shards as jobs, before a byte is written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from shards.pack.shard_writer import ShardJob
from shards.pixels.storing import Storing
from shards.records import DataError, Names, Record, Samples
from shards.sets.domains import DOMAINS_FILE
from shards.sets.manifest import MANIFEST_FILE
from shards.source.arrangements import DOMAIN_LAYOUTS, choose_layout
from shards.source.labelled import find_labelled
from shards.source.layouts import find_domains, find_records
from shards.source.lists import is_list, read_list
from shards.source.source_files import checked_source

_TAR_BLOCK = 512
Found = dict[str, Samples]
"""By domain, "" where there are none."""


@dataclass(frozen=True)
class PlannedSet:
    """A set to be packed into the folder `out`."""

    out: Path
    layout: str
    jobs: tuple[ShardJob, ...]
    left_out: tuple[str, ...] = ()
    """Keys of the samples that are not packed, since something is wrong with them."""
    names: Names = field(default_factory=dict)
    """Of classes or attributes, by annotation."""


@dataclass(frozen=True)
class Plan:
    """What is to be packed below `out`: a set into itself, or by domain into its sub-folders."""

    out: Path
    sets: tuple[PlannedSet, ...]
    has_domains: bool
    num_labels: int | None
    storing: Storing

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

    def moved(self, folder: Path) -> Plan:
        """The same, to be packed into another folder."""

        def below(out: Path) -> Path:
            return folder / out.relative_to(self.out)

        sets = (
            dataclasses.replace(
                planned,
                out=below(planned.out),
                jobs=tuple(dataclasses.replace(job, out=below(job.out)) for job in planned.jobs),
            )
            for planned in self.sets
        )
        return dataclasses.replace(self, out=folder, sets=tuple(sets))


def make_plan(
    source: Path,
    out: Path,
    *,
    layout: str,
    split: str,
    num_labels: int | None,
    shard_bytes: int,
    storing: Storing,
    left_out: frozenset[Path] = frozenset(),
) -> Plan:
    """Look through the names and sizes of a source; DataError if it cannot be packed.

    left_out: files whose samples are not packed."""
    found = _find(source, layout, split)

    def planned(name: str, samples: Samples) -> PlannedSet:
        records = samples.records
        kept = [record for record in records if left_out.isdisjoint(record.files.values())]
        if not kept:
            raise DataError(f"{source}: nothing can be packed of {len(records)} samples.")
        num_names = {member: len(names) for member, names in samples.names.items()}
        jobs = (
            ShardJob(out / name, number, shard, num_labels, storing, num_names)
            for number, shard in enumerate(_cut(kept, shard_bytes))
        )
        dropped = sorted({record.key for record in records} - {record.key for record in kept})
        return PlannedSet(out / name, samples.layout, tuple(jobs), tuple(dropped), samples.names)

    sets = (planned(name, samples) for name, samples in found.items())
    return Plan(out, tuple(sets), "" not in found, num_labels, storing)


def tar_size(record: Record) -> int:
    """Bytes of a sample in a tar, its files unchanged."""
    sizes = [path.stat().st_size for path in record.files.values()]
    sizes += map(len, record.annotations.values())
    return sum(1 + -(-size // _TAR_BLOCK) for size in sizes) * _TAR_BLOCK


def _find(source: Path, layout: str, split: str) -> Found:
    if is_list(source):
        return {"": read_list(source, layout, split)}
    layout = choose_layout(checked_source(source), layout, split)
    if layout in DOMAIN_LAYOUTS:
        domains = find_domains(source, layout, split)
        return {name: Samples("images", records) for name, records in domains.items()}
    if layout == "labelled":
        return {"": find_labelled(source, split)}
    return {"": Samples(layout, find_records(source, layout, split))}


def _cut(records: list[Record], shard_bytes: int) -> list[tuple[Record, ...]]:
    """Fill one shard after the other, in the order of keys, up to `shard_bytes` of tar."""
    shards: list[list[Record]] = [[]]
    used = 0
    for record in records:
        size = tar_size(record)
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(record)
        used += size
    return [tuple(shard) for shard in shards]
