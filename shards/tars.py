"""The files in a plain tar, found from its headers; nothing is ever extracted."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from shards.records import DataError
from shards.stores import BLOCK

TAR_BLOCK = 512
_END = 2 * TAR_BLOCK
"""Bytes of zeros that close a tar; most writers add more."""
_BROKEN = (
    *(tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, OSError),
    *(RecursionError, MemoryError),
)
"""What tarfile raises, depending on where a header is damaged."""


@dataclass(frozen=True)
class TarFile:
    """A file in a tar: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


def tar_files(file: IO[bytes], where: str) -> Iterator[TarFile]:
    """Every file in a tar, in its order; folders are passed over.

    Raises DataError, naming `where`, for a tar that is damaged or compressed, and for anything in
    it whose bytes do not lie there in one piece: links, devices, sparse files. Of a `file` that can
    seek, the end is checked too: readers take a tar cut between two files for a shorter one."""
    try:
        with tarfile.open(fileobj=file, mode="r:" if file.seekable() else "r|") as tar:
            for entry in tar:
                _check_entry(entry, where)
                if not entry.isdir():
                    yield TarFile(entry.name, entry.offset_data, entry.size)
            end = tar.offset
    except _BROKEN as error:
        raise DataError(f"{where} is no whole, plain tar ({error}): restore it") from error
    if file.seekable():
        _check_end(file, end, where)


def split_name(name: str) -> tuple[str, str] | None:
    """(key, suffix) of a file, cut at the first dot behind its folder as webdataset does; None for
    a name without either, like that of a hidden file."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (folder + slash + stem, suffix) if stem and suffix else None


def _check_entry(entry: tarfile.TarInfo, where: str) -> None:
    if entry.size < 0:  # a reader that believed it would go back, and round for ever
        raise DataError(f"{where} has a damaged header at byte {entry.offset}: restore it")
    plain = entry.isfile() and not entry.issparse()
    if not plain and not entry.isdir():
        raise DataError(
            f"{where}: {entry.name!r} is a link, a device or a sparse file: write the tar anew "
            f"from plain files (tar --hard-dereference --dereference)"
        )


def _check_end(file: IO[bytes], end: int, where: str) -> None:
    """Raise DataError unless zeros follow from byte `end` on, and enough of them."""
    file.seek(end)
    size = 0
    while block := file.read(BLOCK):
        if block.count(0) != len(block):
            raise DataError(
                f"{where} goes on behind its end or has a damaged header (at byte {end}): restore "
                f"it, or write tars that were joined as one"
            )
        size += len(block)
    if size < _END:
        raise DataError(
            f"{where} was cut: it lacks the {_END} zero bytes that end a tar; restore it or write "
            f"it anew"
        )
