"""Which tars a user names: their folder, each of them, or patterns as shells and webdataset know
them (train-{000000..000146}.tar), quoted or not."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

from shards.records import DataError
from shards.sets.manifest import check_shard_name
from shards.storage.local import tars_in

MAX_NAMES = 100_000
_GROUP = re.compile(r"\{([^{}]*)\}")
_COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def locate(shards: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder of the tars that a user named, and their names, sorted.

    Raises DataError unless they are all the tars of one folder."""
    paths = [path for given in shards for path in _paths(given)]
    folders = {path.parent for path in paths}
    if not folders:
        raise DataError("no shards are named: give their folder, or the tars in it.")
    if len(folders) > 1:
        raise DataError(
            f"{', '.join(sorted(map(str, folders))[:3])} are several folders, but the tars of a "
            f"set lie in one: index one folder at a time."
        )
    folder = folders.pop()
    names = sorted({path.name for path in paths})
    for name in names:
        check_shard_name(name, str(folder))
    rest = sorted({*tars_in(folder)} - {*names})
    if rest:
        raise DataError(
            f"{folder} also holds {', '.join(rest[:3])}, but an index is of all tars in a folder: "
            f"give the folder, or move the others out of it."
        )
    return folder, names


def expand(pattern: str) -> list[str]:
    """The names that a pattern stands for, in bash's order; a name without braces is itself.

    {000..146} counts, with as many digits as are written; {a,b} lists; several multiply; others
    are left as they are. Raises DataError for more than MAX_NAMES."""
    parts = _GROUP.split(pattern)
    choices = [
        _choices(part, pattern) if number % 2 else [part] for number, part in enumerate(parts)
    ]
    if math.prod(map(len, choices)) > MAX_NAMES:
        raise DataError(_too_many(pattern))
    return ["".join(words) for words in itertools.product(*choices)]


def _choices(group: str, pattern: str) -> list[str]:
    """What a pair of braces stands for, given the text between them."""
    found = _RANGE.fullmatch(group)
    if not found:
        return group.split(",") if "," in group else ["{" + group + "}"]
    first, last = map(int, found.groups())
    if abs(last - first) >= MAX_NAMES:
        raise DataError(_too_many(pattern))
    padded = any(text.startswith("0") for text in found.groups())
    width = max(map(len, found.groups())) if padded else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _too_many(pattern: str) -> str:
    return f"{pattern} stands for more than {MAX_NAMES} names: give fewer."


def _paths(given: str) -> list[Path]:
    """What one argument names."""
    if "://" in given:
        raise DataError(f"{given}: an index is written beside the tars, so they must be on a disk.")
    if Path(given).is_dir():
        found = [path for path in Path(given).iterdir() if path.suffix in (".tar", *_COMPRESSED)]
        if not found:
            raise DataError(f"{given} holds no *.tar: give the folder of the shards.")
    else:
        found = [Path(name) for name in expand(given)]
    for path in found:
        if not path.is_file():
            raise DataError(f"{path} is no file: give the shards that there are, or their folder.")
        if path.suffix in _COMPRESSED:
            raise DataError(
                f"{path} is compressed, but samples are read by their positions in a plain tar: "
                f"decompress it, or move it out of this folder."
            )
    return found
