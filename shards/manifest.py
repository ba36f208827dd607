"""manifest.json: what a packed set is. It is written last, so where it exists the set is whole."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.census import LabelUse
from shards.records import LAYOUTS, DataError

MANIFEST_FILE = "manifest.json"
INDEX_FILE = "index.json"
FORMAT = "organza-shards"
VERSION = 1


def shard_name(number: int) -> str:
    """File name of the n-th shard."""
    return f"{number:06d}.tar"


@dataclass(frozen=True)
class ShardFile:
    """One tar of a set."""

    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Totals of a packed set. Sizes are (width, height)."""

    layout: str
    members: tuple[str, ...]
    num_samples: int
    shards: tuple[ShardFile, ...]
    index_sha256: str
    sizes: tuple[tuple[int, int, int], ...]
    """The commonest sizes: (width, height, images)."""
    num_distinct_sizes: int
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    label_ids: dict[int, LabelUse]
    fingerprint: str
    """sha256 of all of the above: equal for equal sets."""


def to_bytes(
    layout: str,
    members: tuple[str, ...],
    shards: list[ShardFile],
    index_sha256: str,
    census: dict[str, Any],
) -> bytes:
    """The text of a manifest; `census` as Census.to_json gives it."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout,
        "members": list(members),
        "num_samples": sum(shard.num_samples for shard in shards),
        "shards": [
            {
                "file": shard_name(number),
                "samples": shard.num_samples,
                "bytes": shard.num_bytes,
                "sha256": shard.sha256,
            }
            for number, shard in enumerate(shards)
        ],
        "index_sha256": index_sha256,
        **census,
    }
    content["fingerprint"] = _fingerprint(content)
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(path: Path) -> Manifest:
    """The manifest of the set in folder `path`; DataError if it is missing, altered or foreign."""
    file = path / MANIFEST_FILE
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{path} holds no {MANIFEST_FILE}, so it is no finished set: pack it (again)"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): pack the set anew") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{file} is not the manifest of a packed set: point at one that is")
    if content.get("version") != VERSION:
        raise DataError(
            f"{file} has format version {content.get('version')}, but this program reads "
            f"{VERSION}: pack the set anew"
        )
    if content.get("fingerprint") != _fingerprint(content):
        raise DataError(f"{file} was altered after packing (its fingerprint is wrong): pack anew")
    return _manifest(content)


def write_atomically(path: Path, data: bytes, work: Path) -> None:
    """Replace a file at once or not at all; `work` is a folder on its file system."""
    temporary = work / f"{path.name}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fingerprint(content: dict[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "fingerprint"}
    canonical = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _manifest(content: dict[str, Any]) -> Manifest:
    assert content["layout"] in LAYOUTS, content["layout"]
    return Manifest(
        layout=content["layout"],
        members=tuple(content["members"]),
        num_samples=content["num_samples"],
        shards=tuple(
            ShardFile(shard["samples"], shard["bytes"], shard["sha256"])
            for shard in content["shards"]
        ),
        index_sha256=content["index_sha256"],
        sizes=tuple((width, height, count) for width, height, count in content["sizes"]),
        num_distinct_sizes=content["num_distinct_sizes"],
        min_size=tuple(content["min_size"]),
        max_size=tuple(content["max_size"]),
        label_ids={
            int(label_id): LabelUse(use["pixels"], use["first_key"])
            for label_id, use in content["label_ids"].items()
        },
        fingerprint=content["fingerprint"],
    )
