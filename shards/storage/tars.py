"""The files in a plain tar, found from its headers; nothing is ever extracted."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal, NoReturn

from shards.records import DataError
from shards.storage.store import BLOCK

TAR_BLOCK = 512
_END = 2 * TAR_BLOCK
"""Bytes of zeros that close a tar; most writers add more."""
MAX_HEADER = 2**13
"""Bytes that a tar may say of one file (in pax headers, or as a long name): a path has 4096."""
MAX_GLOBAL = 100
"""Different words that a tar may say of all files that follow: tools write one or two."""
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
"""Kinds of entries whose bytes say something of the next file."""
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
        mode: Literal["r:", "r|"] = "r:" if file.seekable() else "r|"
        with tarfile.open(None, mode, file, tarinfo=_Entry) as tar:
            for entry in tar:
                _check_entry(entry)
                if len(tar.pax_headers) > MAX_GLOBAL:  # copied for every file that has its own
                    raise _Unfit(f"more than {MAX_GLOBAL} global headers: write the tar anew")
                if not entry.isdir():
                    yield TarFile(entry.name, entry.offset_data, entry.size)
            end = tar.offset
    except _Unfit as error:
        raise DataError(f"{where}: {error}.") from error
    except _BROKEN as error:
        raise DataError(f"{where} is no whole, plain tar ({error}): restore it.") from error
    if file.seekable():
        _check_end(file, end, where)


def split_name(name: str) -> tuple[str, str] | None:
    """(key, suffix) of a file, cut at the first dot behind its folder as webdataset does; None for
    a name without either, like that of a hidden file."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (folder + slash + stem, suffix) if stem and suffix else None


class _Unfit(Exception):
    """A sentence about an entry."""


class _Entry(tarfile.TarInfo):
    """An entry that is refused before tarfile takes what a header made to harm says it should: any
    memory, or, of digits, any time."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in _HEADERS and not 0 <= entry.size <= MAX_HEADER:
            raise _Unfit(
                f"a header of {entry.size} bytes, more than {MAX_HEADER}: write the tar anew, with "
                f"short names and without extended attributes (tar --no-xattrs)"
            )
        if entry.type == tarfile.GNUTYPE_SPARSE:
            _refuse(entry)
        return entry

    def _proc_gnusparse_10(self, entry: tarfile.TarInfo, *_: object) -> None:
        _refuse(entry)


def _check_entry(entry: tarfile.TarInfo) -> None:
    if entry.size < 0:  # a reader that believed it would go back, and round for ever
        raise _Unfit(f"a damaged header at byte {entry.offset}: restore it")
    plain = entry.isfile() and not entry.issparse()
    if not plain and not entry.isdir():
        _refuse(entry)


def _refuse(entry: tarfile.TarInfo) -> NoReturn:
    raise _Unfit(
        f"{entry.name!r} is a link, a device or a sparse file: write the tar anew from plain files "
        f"(tar --hard-dereference --dereference)"
    )


def _check_end(file: IO[bytes], end: int, where: str) -> None:
    """Raise DataError unless zeros follow from byte `end` on, and enough of them."""
    file.seek(end)
    size = 0
    while block := file.read(BLOCK):
        if block.count(0) != len(block):
            raise DataError(
                f"{where} goes on behind its end or has a damaged header (at byte {end}): restore "
                f"it, or write tars that were joined as one."
            )
        size += len(block)
    if size < _END:
        raise DataError(
            f"{where} was cut: it lacks the {_END} zero bytes that end a tar; restore it or write "
            f"it anew."
        )
