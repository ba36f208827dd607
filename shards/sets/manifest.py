"""manifest.json: what a packed set is. It is written last, so where it exists the set is whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from shards.pixels.census import Census, LabelUse
from shards.pixels.storing import KEEP, Storing
from shards.records import ANNOTATIONS, RGBA, DataError, Names, fits
from shards.sets.annotations import NAMED
from shards.storage.sealed import read_sealed, seal
from shards.storage.store import Store

MANIFEST_FILE = "manifest.json"
INDEX_FILE = "index.json"
FORMAT = "organza-shards"
VERSION = 2
_SHARD_NAME = re.compile(r"\w[\w.+-]*\.tar")


def shard_name(number: int) -> str:
    """What `pack` calls the n-th shard."""
    return f"{number:06d}.tar"


@dataclass(frozen=True)
class ShardFile:
    """One tar of a set."""

    name: str
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
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    conversions: dict[str, dict[str, int]]
    """By member: what its pictures were before they became 8-bit RGB, and how many."""
    label_ids: dict[int, LabelUse]
    notes: dict[str, dict[str, int]]
    """By member: what was done to its files or should be known of them, and to how many."""
    storing: dict[str, Any]
    """What was stored anew, as Storing.to_json() gives it; empty for files as in the source."""
    left_out: tuple[str, ...]
    """Keys of samples of the source that were not packed, since something is wrong with them."""
    annotations: dict[str, dict[str, int]]
    """By annotation, samples of each class or with each attribute, by name in their order."""
    fingerprint: str
    """sha256 of all of the above: equal for equal sets."""

    @property
    def channels(self) -> dict[str, int]:
        """Channels with which every picture of the set can be read, by decoded member."""
        return RGBA if self.storing.get("background") == KEEP else {}

    @property
    def num_names(self) -> dict[str, int]:
        """How many classes or attributes there are, by annotation."""
        return {member: len(names) for member, names in self.annotations.items()}


def to_bytes(
    layout: str,
    members: tuple[str, ...],
    shards: list[ShardFile],
    index_sha256: str,
    census: Census,
    names: Names,
    storing: Storing = Storing(),
    left_out: tuple[str, ...] = (),
) -> bytes:
    """The text of a manifest; names: of the annotations."""
    content = {
        "layout": layout,
        "members": list(members),
        "num_samples": sum(shard.num_samples for shard in shards),
        "shards": [
            {
                "file": shard.name,
                "samples": shard.num_samples,
                "bytes": shard.num_bytes,
                "sha256": shard.sha256,
            }
            for shard in shards
        ],
        "index_sha256": index_sha256,
        **storing.to_json(),
        **({"left_out": list(left_out)} if left_out else {}),
        **census.to_json(),
        **{NAMED[member]: _listed(census, member, own) for member, own in names.items()},
    }
    return seal(content, FORMAT, VERSION)


def _listed(census: Census, member: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """A list, since the order of names is a part of the fingerprint."""
    counts = census.listed_annotations(member, len(names))
    return [{"name": n, "samples": count} for n, count in zip(names, counts, strict=True)]


def read_manifest(store: Store) -> Manifest:
    """The manifest of a set; DataError if it is missing, altered or foreign."""
    content = read_sealed(store, MANIFEST_FILE, FORMAT, VERSION)
    file = store.where(MANIFEST_FILE)
    try:
        manifest = _manifest(content)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{file} is no manifest of this format ({error!r}): pack anew.") from error
    for shard in manifest.shards:
        check_shard_name(shard.name, file)  # a name is not yet a path
    return manifest


def check_shard_name(name: str, where: str) -> None:
    """Raise DataError unless a shard may be called so; `where` says who does."""
    if not _SHARD_NAME.fullmatch(name):
        raise DataError(
            f"{where}: {name!r} cannot be a shard: its name must end in .tar and otherwise hold "
            f"letters, digits, dots, plus, minus or underscores; rename it."
        )


def _manifest(content: dict[str, Any]) -> Manifest:
    if not fits(content["members"], content["layout"]):
        raise ValueError(content["members"])
    annotations = {
        member: _names(content[NAMED[member]])
        for member in content["members"]
        if member in ANNOTATIONS
    }
    return Manifest(
        layout=content["layout"],
        members=tuple(content["members"]),
        num_samples=int(content["num_samples"]),
        shards=tuple(
            ShardFile(
                str(shard["file"]), int(shard["samples"]), int(shard["bytes"]), shard["sha256"]
            )
            for shard in content["shards"]
        ),
        index_sha256=content["index_sha256"],
        sizes=tuple((int(width), int(height), int(n)) for width, height, n in content["sizes"]),
        min_size=_size(*content["min_size"]),
        max_size=_size(*content["max_size"]),
        conversions=_counts(content.get("conversions", {})),
        label_ids={
            int(label_id): LabelUse(int(use["pixels"]), str(use["first_key"]))
            for label_id, use in content["label_ids"].items()
        },
        notes=_counts(content.get("notes", {})),
        storing={name: content[name] for name in Storing.__dataclass_fields__ if name in content},
        left_out=tuple(map(str, content.get("left_out", ()))),
        annotations=annotations,
        fingerprint=content["fingerprint"],
    )


def _counts(content: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {
        member: {words: int(number) for words, number in counts.items()}
        for member, counts in content.items()
    }


def _names(listed: list[dict[str, Any]]) -> dict[str, int]:
    named = {str(one["name"]): int(one["samples"]) for one in listed}
    if not named or len(named) < len(listed) or not all(map(str.isprintable, named)):
        raise ValueError(listed)
    return named


def _size(width: int, height: int) -> tuple[int, int]:
    return int(width), int(height)
