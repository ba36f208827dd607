"""Generations of a packed folder: what replaces a packed set never disturbs its readers.

    OUT/                     the first generation: tars and manifest.json, or domains.json
    OUT/generation-000002/   the second, whole in itself: it may be given as a set, too
    OUT/current.json         which of them is read, replaced in one step once that one is whole

A run that goes on stays with the generation that it began with, as long as its files are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from shards.records import DataError
from shards.storage.opening import open_store
from shards.storage.sealed import read_sealed, seal, write_atomically
from shards.storage.store import Store

CURRENT_FILE = "current.json"
FORMAT = "organza-current"
VERSION = 1
_FOLDER = "generation-{:06d}"
_MAX_NUMBER = 999_999


def is_generation(name: str) -> bool:
    """Whether a folder's name is one of ours."""
    return re.fullmatch(r"generation-\d{6}", name) is not None


def generation_folder(out: Path, number: int) -> Path:
    """Where a generation, counted from 1, of the packed folder `out` lies."""
    return out if number == 1 else out / _FOLDER.format(number)


def current_number(store: Store) -> int:
    """The generation that a packed folder tells to read; DataError if it is told wrongly."""
    if store.size(CURRENT_FILE) is None:
        return 1
    number = read_sealed(store, CURRENT_FILE, FORMAT, VERSION).get("generation")
    if not isinstance(number, int) or not 1 < number <= _MAX_NUMBER:
        raise DataError(
            f"{store.where(CURRENT_FILE)} names generation {number!r}, which is none: remove the "
            f"file to read the first one."
        )
    return number


def current(store: Store) -> Store:
    """The folder to read: the newest whole generation."""
    return _generation(store, current_number(store))


def generations(store: Store) -> Iterator[Store]:
    """The current folder, then those before it, which may have been deleted."""
    for number in range(current_number(store), 0, -1):
        yield _generation(store, number)


def make_current(out: Path, number: int) -> None:
    """Let all who open `out` from now on read this generation, which is whole; never go back."""
    if number > current_number(open_store(out)):
        data = seal({"generation": number}, FORMAT, VERSION)
        write_atomically(out / CURRENT_FILE, data, generation_folder(out, number))


def _generation(store: Store, number: int) -> Store:
    return store if number == 1 else store.below(_FOLDER.format(number))
