"""Index the tars of several domains: a folder without tars, whose sub-folders hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shards.indexing.index_tars import Indexed, index_shards
from shards.pack.shard_writer import disk_errors
from shards.processes import Progress
from shards.records import DataError
from shards.sets.domains import DOMAINS_FILE, check_domain_name, domains_bytes
from shards.sets.generations import is_generation
from shards.source.source_files import sub_folders
from shards.storage.local import tars_in
from shards.storage.sealed import write_atomically


def domain_folders(shards: Sequence[str]) -> list[Path]:
    """The sub-folders with tars, if a user named one folder that holds none itself; else none.
    Generations of a packed set are no domains."""
    if len(shards) != 1 or not Path(shards[0]).is_dir() or tars_in(Path(shards[0])):
        return []
    names = [name for name in sub_folders(Path(shards[0])) if not is_generation(name)]
    folders = [Path(shards[0], name) for name in names]
    return [folder for folder in folders if tars_in(folder)]


def index_domains(
    folders: Sequence[Path],
    *,
    members: Mapping[str, str],
    num_labels: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Indexed]:
    """Index each folder as index_shards() does, then declare them the domains of their parent.

    Raises DataError, too, if a folder holds other samples than single pictures, or if other domains
    were declared before."""
    for folder in folders:
        check_domain_name(folder.name, str(folder))
    found = [
        index_shards(
            [str(folder)],
            members=members,
            num_labels=num_labels,
            workers=workers,
            progress=progress,
        )
        for folder in folders
    ]
    for folder, indexed in zip(folders, found, strict=True):
        if indexed.shard_set.layout not in ("images", "labelled"):
            raise DataError(
                f"{folder} holds samples of layout {indexed.shard_set.layout}, but a domain is of "
                f"single pictures: index it alone, or say which with --members=image=ENDING."
            )
    _declare(folders[0].parent / DOMAINS_FILE, found)
    return found


def _declare(path: Path, found: Sequence[Indexed]) -> None:
    sets = [indexed.shard_set for indexed in found]
    text = domains_bytes({Path(str(one.store)).name: one.fingerprint for one in sets})
    if not path.exists():
        with disk_errors(path):
            write_atomically(path, text, path.parent)
    elif path.read_bytes() != text:
        raise DataError(
            f"{path} is of other domains: if no run needs it any more, delete it and index again."
        )
