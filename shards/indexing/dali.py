"""Index files for NVIDIA DALI's webdataset reader, as its tool wds2idx writes them (v1.2).

The first line is "v1.2 SAMPLES"; then comes a line for each sample with "SUFFIX OFFSET SIZE NAME"
of every file that it has in the tar, separated by blanks.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from shards.pack.shard_writer import disk_errors
from shards.records import DataError
from shards.sets.shard_set import ShardSet
from shards.storage.sealed import write_atomically
from shards.storage.tars import TarFile, split_name, tar_files

VERSION = "v1.2"


def write_dali(shard_set: ShardSet, out: Path) -> list[Path]:
    """Write NAME.idx into `out` for every NAME.tar of a set, and return their paths.

    Raises DataError for names that the format cannot hold, and rather than to replace a file that
    is no such index."""
    written = []
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for shard in shard_set.manifest.shards:
            path = (out / shard.name).with_suffix(".idx")
            if path.exists() and not path.read_bytes().startswith(b"v1."):
                raise DataError(f"{path} is no index for DALI: move it or choose another --out.")
            write_atomically(path, _dali_text(shard_set, shard.name).encode(), out)
            written.append(path)
    return written


def _dali_text(shard_set: ShardSet, name: str) -> str:
    where = shard_set.store.where(name)
    with shard_set.store.open(name) as file:
        found = [(split_name(entry.name), entry) for entry in tar_files(file, where)]
    named = [(*parts, entry) for parts, entry in found if parts is not None]
    lines = [
        " ".join(_component(suffix, entry, where) for _, suffix, entry in sample)
        for _, sample in groupby(named, key=lambda component: component[0])
    ]
    return "\n".join([f"{VERSION} {len(lines)}", *lines]) + "\n"


def _component(suffix: str, entry: TarFile, where: str) -> str:
    if entry.name.split() != [entry.name]:
        raise DataError(
            f"{where}: {entry.name!r} has blanks, which end a name for DALI: rename it."
        )
    return f"{suffix} {entry.offset} {entry.size} {entry.name}"
