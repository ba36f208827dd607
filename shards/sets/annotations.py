"""What a picture shows, as bytes in a shard: KEY.cls holds the decimal number of its class, and
KEY.attributes.json a list of 0 and 1, one for each attribute. Stock webdataset decodes both.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Collection, Mapping

import numpy as np

from shards.records import DataError

MAX_NAMES = 2**16
"""Classes or attributes of a set: more are a column or a file of something else."""
NAMED = {"cls": "classes", "attributes": "attributes"}
"""Annotation -> what its names are called in a manifest."""
SUFFIXES = {"cls": "cls", "attributes": "attributes.json"}
"""What stands behind the key in a shard, by member."""
_CLASS = re.compile(rb"[0-9]{1,5}")
_ATTRIBUTES = re.compile(rb"\[[01](?:, ?[01])*\]")


def sorted_names(names: Collection[str], member: str, where: object) -> tuple[str, ...]:
    """The names of all classes or attributes, in the order of their numbers; DataError if `where`
    has too many of them."""
    if len(names) > MAX_NAMES:
        raise DataError(
            f"{where} has {len(names)} {NAMED[member]}, but at most {MAX_NAMES} are taken: give "
            f"many samples the same."
        )
    return tuple(sorted(names))


def normal_name(text: str) -> str:
    """A name as it is stored: with accents composed, as those of keys."""
    return unicodedata.normalize("NFC", text)


def class_bytes(name: str, names: tuple[str, ...]) -> bytes:
    """The content of KEY.cls; names: all classes, sorted."""
    return str(bisect_left(names, name)).encode()


def attribute_bytes(own: Collection[str], names: tuple[str, ...]) -> bytes:
    """The content of KEY.attributes.json of a sample that has its `own` attributes."""
    return json.dumps([int(name in own) for name in names], separators=(",", ":")).encode()


def read_annotations(
    files: Mapping[str, bytes], where: Mapping[str, str], counts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """What the annotations among the files of a sample say: cls an int64, attributes float32 [K] of
    0 and 1.

    where: what errors call the files; counts: by member, how many classes or attributes there are.
    Raises DataError for anything that was not packed so."""
    readers = {"cls": _read_class, "attributes": _read_attributes}
    return {
        member: readers[member](data, where[member], counts[member])
        for member, data in files.items()
        if member in readers
    }


def _read_class(data: bytes, where: str, num_classes: int) -> np.ndarray:
    if not _CLASS.fullmatch(data) or int(data) >= num_classes:
        raise DataError(
            f"{where} is {_shown(data)}, but a class is a decimal number below {num_classes}: "
            f"restore the file, or leave classes out (`index --members=image=ENDING`)."
        )
    return np.array(int(data), dtype=np.int64)


def _read_attributes(data: bytes, where: str, num_attributes: int) -> np.ndarray:
    flags = re.findall(rb"[01]", data) if _ATTRIBUTES.fullmatch(data) else []
    if len(flags) != num_attributes:
        raise DataError(
            f"{where} is {_shown(data)}, but attributes are a JSON list of {num_attributes} "
            f"numbers, each 0 or 1: restore the file, or pack the set anew."
        )
    return np.array(flags, dtype=np.float32)


def _shown(data: bytes) -> str:
    """The beginning of what somebody wrote, escaped."""
    return ascii(data[:20].decode(errors="replace")) + ("..." if len(data) > 20 else "")
