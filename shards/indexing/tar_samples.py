"""The samples in a tar that any program wrote: its files by key and suffix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shards.records import DataError
from shards.storage.tars import TAR_BLOCK, TarFile, split_name, tar_files

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
"""First bytes of a compressed file -> the format and its opposite."""
_META = re.compile(r"__[^/]*__($|/)")
"""Names of what is no sample, by webdataset's convention."""


@dataclass(frozen=True)
class TarSample:
    """The files of one key, by suffix in lower case."""

    key: str
    files: dict[str, TarFile]


def tar_samples(path: Path) -> list[TarSample]:
    """The samples of a tar, in its order, from its headers alone.

    Keys and suffixes are those of webdataset, which also passes over hidden files and __meta__.
    Raises DataError for a tar that is compressed, cut or damaged, holds a name that is no plain
    relative path, or the files of a key apart or twice: readers would make two samples of them."""
    samples: dict[str, TarSample] = {}
    last = None
    with open(path, "rb") as file:
        _check_plain(file.read(TAR_BLOCK), path)
        file.seek(0)
        for found in tar_files(file, str(path)):
            _check_name(found.name, path)
            parts = split_name(found.name)
            if parts is None or _META.match(found.name):
                continue
            key, suffix = parts[0], parts[1].lower()
            sample = samples.setdefault(key, TarSample(key, {}))
            _check_neighbours(sample, suffix, key == last, path)
            sample.files[suffix] = found
            last = key
    return list(samples.values())


def _check_plain(head: bytes, path: Path) -> None:
    for magic, (name, remedy) in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(
                f"{path} is compressed with {name}, but samples are read by their positions in a "
                f"plain tar: decompress it ({remedy})."
            )
    if path.stat().st_size % TAR_BLOCK:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes, no multiple of {TAR_BLOCK} as a tar has: it "
            f"was cut or is none; restore it."
        )


def _check_name(name: str, path: Path) -> None:
    if not name.isprintable():
        raise DataError(f"{path}: {name!r} has unprintable characters in its name: rename it.")
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(
            f"{path}: {name!r} leads out of the folder that a tar stands for: write the tar anew."
        )


def _check_neighbours(sample: TarSample, suffix: str, follows: bool, path: Path) -> None:
    if suffix in sample.files:
        raise DataError(
            f"{path} holds {sample.files[suffix].name!r} twice (as far as readers can tell): write "
            f"it anew with one file for each key and suffix."
        )
    if sample.files and not follows:
        raise DataError(
            f"{path}: the files of {sample.key!r} are not next to each other, so that readers make "
            f"two samples of them: write the tar in the order of names (tar --sort=name)."
        )
