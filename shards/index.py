"""Open a packed set: where in which shard the bytes of every sample lie.

index.json holds columns: keys, the shard of each sample, and for every member its extension,
offset, size and crc32.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.census import LabelUse
from shards.manifest import INDEX_FILE, Manifest, read_manifest, shard_name
from shards.records import DataError, check_label_ids

Columns = dict[str, Any]


@dataclass(frozen=True, eq=False)
class MemberIndex:
    """Where one member of every sample lies: arrays of length num_samples."""

    extensions: tuple[str, ...]
    offsets: np.ndarray
    sizes: np.ndarray
    crc32s: np.ndarray


@dataclass(frozen=True, eq=False)
class ShardSet:
    """A packed set that was opened: a small value that may travel to other processes."""

    path: Path
    manifest: Manifest
    keys: tuple[str, ...]
    shard_numbers: np.ndarray
    index: dict[str, MemberIndex]

    @property
    def layout(self) -> str:
        """ "labels" or "pairs"."""
        return self.manifest.layout

    @property
    def members(self) -> tuple[str, ...]:
        """The members that every sample has."""
        return self.manifest.members

    @property
    def num_samples(self) -> int:
        """Samples in all shards together."""
        return self.manifest.num_samples

    @property
    def fingerprint(self) -> str:
        """sha256 over all content: a resumed run compares it."""
        return self.manifest.fingerprint

    @property
    def label_ids(self) -> dict[int, LabelUse]:
        """The label ids present, with their pixels and the first key that has them."""
        return self.manifest.label_ids

    @property
    def sizes(self) -> tuple[tuple[int, int, int], ...]:
        """The commonest image sizes: (width, height, samples)."""
        return self.manifest.sizes

    def file_name(self, sample: int, member: str) -> str:
        """What errors call a member of a sample: the shard's path and the name inside it."""
        shard = self.path / shard_name(int(self.shard_numbers[sample]))
        extension = self.index[member].extensions[sample]
        return f"{shard}: {self.keys[sample]}.{member}.{extension}"

    def require(self, layout: str, *, num_labels: int | None = None, inst: bool = False) -> None:
        """Raise DataError unless a run of this layout, number of labels and use of instance maps
        can read the set."""
        if layout != self.layout:
            raise DataError(
                f"{self.path} was packed with layout {self.layout}, but this run reads layout "
                f"{layout}: give another set or pack it with --layout={layout}"
            )
        if inst and "inst" not in self.members:
            raise DataError(
                f"{self.path} holds no instance maps, but this run uses them: pack a source "
                f"with a *_inst/ folder or switch instance edges and features off"
            )
        if num_labels is not None:
            for label_id, use in sorted(self.label_ids.items()):
                name = f"{self.path}: {use.first_key}.label.png (the first of the set)"
                check_label_ids({label_id: use.num_pixels}, num_labels, name)


def open_shards(path: Path) -> ShardSet:
    """Open the set in folder `path` after the cheap checks: manifest, index, sizes of all files.

    Raises DataError at the first thing that is wrong; `verify` also reads every byte."""
    path = Path(path)
    manifest = read_manifest(path)
    for problem in shard_file_problems(path, manifest):
        raise DataError(problem)
    columns = _read_index(path, manifest)
    return ShardSet(
        path=path,
        manifest=manifest,
        keys=tuple(columns["keys"]),
        shard_numbers=np.array(columns["shards"], dtype=np.int64),
        index={
            member: MemberIndex(
                extensions=tuple(column["extension"]),
                offsets=np.array(column["offset"], dtype=np.int64),
                sizes=np.array(column["size"], dtype=np.int64),
                crc32s=np.array(column["crc32"], dtype=np.int64),
            )
            for member, column in columns["members"].items()
        },
    )


def shard_file_problems(path: Path, manifest: Manifest) -> list[str]:
    """Sentences about shards that are missing, of a wrong size, or not in the manifest."""
    problems = []
    expected = {shard_name(number): shard for number, shard in enumerate(manifest.shards)}
    for name, shard in expected.items():
        file = path / name
        if not file.is_file():
            problems.append(f"{file} is missing: restore it or pack the set anew")
        elif file.stat().st_size != shard.num_bytes:
            problems.append(
                f"{file} has {file.stat().st_size} bytes, the manifest says {shard.num_bytes}: "
                f"it was cut or altered; restore it or pack the set anew"
            )
    for file in sorted(path.glob("*.tar")):
        if file.name not in expected:
            problems.append(f"{file} is missing from the manifest: move it out of this folder")
    return problems


def tar_columns(shard: Path, keys: list[str], members: tuple[str, ...]) -> dict[str, Columns]:
    """The columns of one shard, read from the tar itself; it must hold just these samples."""
    columns: dict[str, Columns] = {
        member: {"extension": [], "offset": [], "size": [], "crc32": []} for member in members
    }
    with open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for position, entry in enumerate(tar):
            key, member, extension = entry.name.rsplit(".", 2)
            # TarWriter sorts the members of a sample by name.
            expected = (keys[position // len(members)], sorted(members)[position % len(members)])
            assert (key, member) == expected, (entry.name, expected)
            file.seek(entry.offset_data)
            column = columns[member]
            column["extension"].append(extension)
            column["offset"].append(entry.offset_data)
            column["size"].append(entry.size)
            column["crc32"].append(zlib.crc32(file.read(entry.size)))
    return columns


def index_bytes(
    members: tuple[str, ...], shard_keys: list[list[str]], shards: list[dict[str, Columns]]
) -> bytes:
    """The text of index.json from the keys and the columns of each shard."""
    fields = ("extension", "offset", "size", "crc32")
    content = {
        "keys": [key for keys in shard_keys for key in keys],
        "shards": [number for number, keys in enumerate(shard_keys) for _ in keys],
        "members": {
            member: {
                field: [value for shard in shards for value in shard[member][field]]
                for field in fields
            }
            for member in members
        },
    }
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _read_index(path: Path, manifest: Manifest) -> Columns:
    file = path / INDEX_FILE
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): pack the set anew") from error
    if hashlib.sha256(data).hexdigest() != manifest.index_sha256:
        raise DataError(f"{file} was cut or altered after packing: restore it or pack anew")
    return json.loads(data)
