"""`index` and `dali`: tars of other programs become sets, and sets are told to DALI."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from launcher.data.packing import conversion_lines, pace_of
from launcher.recipe.config import ConfigError
from launcher.text.progress_bar import progress_bar
from shards.indexing.dali import write_dali
from shards.indexing.index_domains import domain_folders, index_domains
from shards.indexing.index_tars import Indexed, index_shards
from shards.sets.domains import has_domains
from shards.sets.generations import current
from shards.sets.shard_set import open_all
from shards.storage.opening import open_store


def index(shards: Sequence[str], members: Mapping[str, str], num_labels: int, workers: int) -> None:
    """Index tars in place and say what was taken for what; 0 labels: any, 0 workers: one per
    core."""
    folders = domain_folders(shards)
    labels, processes = num_labels or None, workers or None
    bar, move = progress_bar("indexing")
    since = time.monotonic()
    with bar:
        if folders:
            found = index_domains(
                folders, members=members, num_labels=labels, workers=processes, progress=move
            )
        else:
            indexed = index_shards(
                shards, members=members, num_labels=labels, workers=processes, progress=move
            )
            found = [indexed]
    for indexed in found:
        print("\n".join(told(indexed)))
    sets = [indexed.shard_set for indexed in found]
    print(f"Read {pace_of(sets, time.monotonic() - since)}.")


def told(indexed: Indexed) -> Iterator[str]:
    """What was taken for what, line by line."""
    shard_set = indexed.shard_set
    taken = ", ".join(f"{member} = .{ending}" for ending, member in indexed.endings.items())
    unchanged = "" if indexed.is_new else " The same index was there already."
    yield (
        f"{shard_set.store}: {shard_set.num_samples} samples in {len(shard_set.manifest.shards)} "
        f"shards, layout {shard_set.layout} ({taken}).{unchanged}"
    )
    if indexed.others:
        listed = ", ".join(f"{count} .{ending}" for ending, count in indexed.others.most_common())
        yield f"Other files are not read: {listed}."
    yield from conversion_lines(shard_set)


def dali(shards: str, out: Path | None) -> None:
    """Write the .idx files of a set, or of all domains into folders of their names; without `out`
    beside the tars."""
    several = has_domains(current(open_store(shards)))
    for name, shard_set in open_all(shards).items():
        if out is None and shard_set.store.remote:
            raise ConfigError(f"dali: {shards} is a URL: choose a folder with --out=FOLDER.")
        folder = out / name if out and several else out
        paths = write_dali(shard_set, folder or Path(str(shard_set.store)))
        print(f"{shard_set.store}: {len(paths)} files for DALI: {paths[0]} ...")
