"""index.json: where in which shard the bytes of every sample lie.

It holds columns: keys, the shard of each sample, and for every member its suffix (the name in the
tar is KEY.SUFFIX), offset, size and crc32.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

from shards.records import DataError
from shards.sets.manifest import INDEX_FILE, Manifest
from shards.sets.texts import Texts
from shards.storage.store import Store
from shards.storage.tars import TarFile, split_name, tar_files

Columns = dict[str, Any]
_FIELDS = ("suffix", "offset", "size", "crc32")


@dataclass(frozen=True, eq=False)
class MemberIndex:
    """Where one member of every sample lies: arrays of length num_samples."""

    suffixes: Texts
    offsets: np.ndarray
    sizes: np.ndarray
    crc32s: np.ndarray

    def part(self, first: int, end: int) -> MemberIndex:
        """That of the samples from `first` to before `end`."""
        own = slice(first, end)
        return MemberIndex(self.suffixes[own], self.offsets[own], self.sizes[own], self.crc32s[own])


@dataclass(frozen=True, eq=False)
class Index:
    """The content of index.json: arrays of length num_samples."""

    keys: Texts
    shard_numbers: np.ndarray
    members: dict[str, MemberIndex]


def empty_columns(members: tuple[str, ...]) -> dict[str, Columns]:
    """Columns of one shard, by member, to which add_row() adds."""
    return {member: {field: [] for field in _FIELDS} for member in members}


def add_row(columns: Columns, suffix: str, found: TarFile, content: bytes) -> None:
    """Note where one member of the next sample lies."""
    values = (suffix, found.offset, found.size, zlib_ng.crc32(content))
    for field, value in zip(_FIELDS, values, strict=True):
        columns[field].append(value)


def tar_columns(shard: Path, members: tuple[str, ...]) -> dict[str, Columns]:
    """The columns of one packed shard (its files are KEY.MEMBER.EXTENSION), read from the tar."""
    columns = empty_columns(members)
    with open(shard, "rb") as file:
        for found in tar_files(file, str(shard)):
            name = split_name(found.name)
            assert name is not None, f"not packed by us: {found.name}"
            suffix = name[1]
            content = os.pread(file.fileno(), found.size, found.offset)
            add_row(columns[suffix.partition(".")[0]], suffix, found, content)
    return columns


def index_bytes(
    members: tuple[str, ...], shard_keys: list[list[str]], shards: list[dict[str, Columns]]
) -> bytes:
    """The text of index.json from the keys and the columns of each shard."""
    content = {
        "keys": [key for keys in shard_keys for key in keys],
        "shards": [number for number, keys in enumerate(shard_keys) for _ in keys],
        "members": {
            member: {
                field: [value for shard in shards for value in shard[member][field]]
                for field in _FIELDS
            }
            for member in members
        },
    }
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def read_index_file(store: Store, manifest: Manifest) -> Index:
    """The index of a set; DataError if it is missing, altered, or points outside its shards."""
    file = store.where(INDEX_FILE)
    try:
        data = store.read(INDEX_FILE)
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing: restore it or pack the set anew.") from error
    if hashlib.sha256(data).hexdigest() != manifest.index_sha256:
        raise DataError(f"{file} was cut or altered after packing: restore it or pack anew.")
    try:
        index = _parsed(json.loads(data), manifest)
        sound = _is_sound(index, manifest)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f"{file} is no index of this format ({error!r}): pack anew.") from error
    if not sound:
        raise DataError(f"{file} contradicts the manifest beside it: pack the set anew.")
    return index


def _parsed(columns: Columns, manifest: Manifest) -> Index:
    return Index(
        keys=Texts(columns["keys"]),
        shard_numbers=np.array(columns["shards"], dtype=np.int64),
        members={
            member: MemberIndex(
                suffixes=Texts(columns["members"][member]["suffix"]),
                offsets=np.array(columns["members"][member]["offset"], dtype=np.int64),
                sizes=np.array(columns["members"][member]["size"], dtype=np.int64),
                crc32s=np.array(columns["members"][member]["crc32"], dtype=np.int64),
            )
            for member in manifest.members
        },
    )


def _is_sound(index: Index, manifest: Manifest) -> bool:
    """Whether every column has a value for each sample, inside the shard that is named."""
    count, numbers = manifest.num_samples, index.shard_numbers
    shard_counts = [shard.num_samples for shard in manifest.shards]
    if not len(index.keys) == len(numbers) == count == sum(shard_counts) > 0:
        return False
    in_turn = np.repeat(range(len(shard_counts)), shard_counts)
    if not np.array_equal(numbers, in_turn):  # samples lie shard after shard
        return False
    shard_bytes = np.array([shard.num_bytes for shard in manifest.shards])[numbers]
    return all(
        len(column.suffixes) == len(column.crc32s) == len(column.sizes) == len(column.offsets)
        and len(column.offsets) == count
        and column.offsets.min() >= 0
        and column.sizes.min() >= 0
        and bool((column.offsets <= shard_bytes - column.sizes).all())
        for column in index.members.values()
    )
