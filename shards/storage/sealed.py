"""JSON files that say of which format they are and carry a fingerprint, written at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.records import DataError
from shards.storage.store import Store


def seal(content: dict[str, Any], format_name: str, version: int) -> bytes:
    """The text of such a file: the same content gives the same bytes."""
    content = {"format": format_name, "version": version, **content}
    content["fingerprint"] = fingerprint_of(content)
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def fingerprint_of(content: dict[str, Any]) -> str:
    """sha256 of all entries but the fingerprint itself."""
    rest = {name: value for name, value in content.items() if name != "fingerprint"}
    canonical = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


def read_sealed(store: Store, name: str, format_name: str, version: int) -> dict[str, Any]:
    """The content of such a file; DataError if it is missing, altered or foreign."""
    file = store.where(name)
    try:
        content = json.loads(store.read(name))
    except FileNotFoundError as error:
        raise DataError(
            f"{store} holds no {name}, so it is no finished set: pack it (again)."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read ({error}): pack the set anew.") from error
    if not isinstance(content, dict) or content.get("format") != format_name:
        kind = name.removesuffix(".json")
        raise DataError(f"{file} is not the {kind} of a packed set: point at one that is.")
    if content.get("version") != version:
        raise DataError(
            f"{file} has format version {content.get('version')}, but this program reads "
            f"{version}: `index` the set where it lies, or pack it anew."
        )
    if content.get("fingerprint") != fingerprint_of(content):
        raise DataError(f"{file} was altered after packing (its fingerprint is wrong): pack anew.")
    return content


def write_atomically(path: Path, data: bytes, work: Path) -> None:
    """Replace a file at once or not at all; `work` is a folder on its file system."""
    temporary = work / f"{path.name}.tmp"
    with open(temporary, "wb", opener=through_no_link) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def through_no_link(path: str, flags: int) -> int:
    """An opener: a link that somebody has put in the file's place would lead to another file, and
    a pipe would wait for a reader."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A full disk is told without a name, and a draft's name tells nobody anything."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
