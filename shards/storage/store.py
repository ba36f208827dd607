"""Where the files of a packed set lie, read by their names: a folder, or what is like one."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from shards.records import DataError

BLOCK = 2**22
"""Bytes read at a time of a whole file."""
LARGEST = 2**32
"""Bytes: no manifest or index is larger, whatever a server says."""


class Store(ABC):
    """A folder that is only read. It may be copied to other processes: what it holds open is
    opened there anew. str() is what users gave."""

    remote: bool = False
    """Whether each question goes over a network: then few are asked when a set is opened."""
    ahead: int = 0
    """Shards, beyond those in use, that each stream shall announce before it reads them."""

    def __init__(self, location: str) -> None:
        self.location = location

    def __str__(self) -> str:
        return self.location

    def where(self, name: str) -> str:
        """What errors call a file."""
        return f"{self.location}/{name}"

    @abstractmethod
    def below(self, name: str) -> Store:
        """A folder inside this one."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""

    @abstractmethod
    def tars(self) -> list[str]:
        """The names of all *.tar in the folder, sorted; empty where that cannot be known."""

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """These bytes, fewer only at the end of the file; DataError if they cannot be read."""

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several (offset, size) that lie close together: in one request, gaps included."""
        start = min(offset for offset, _ in ranges)
        end = max(offset + size for offset, size in ranges)
        data = self.read_range(name, start, end - start)
        return [data[offset - start : offset - start + size] for offset, size in ranges]

    def read(self, name: str) -> bytes:
        """A whole file; FileNotFoundError if there is none, DataError if it cannot be read."""
        pieces, length = [], 0
        for piece in self.blocks(name):
            pieces.append(piece)
            length += len(piece)
            if length > LARGEST:
                raise DataError(
                    f"{self.where(name)} is longer than {LARGEST / 2**30:g} GiB, as no file of "
                    "this name is: see whether the folder, or its server, is the right one."
                )
        return b"".join(pieces)

    def blocks(self, name: str) -> Iterator[bytes]:
        """A whole file, piece by piece."""
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(self.where(name))
        for offset in range(0, size, BLOCK):
            yield self.read_range(name, offset, min(BLOCK, size - offset))

    def open(self, name: str) -> io.BufferedReader:
        """A whole file, to be read from its beginning."""
        return io.BufferedReader(_Pieces(self.blocks(name)), BLOCK)

    def prefetch(self, names: Sequence[str]) -> None:
        """Told of the shards that a stream uses or will soon need, the most urgent first."""

    def drop(self, name: str) -> bool:
        """Be told that bytes of this shard were wrong; whether it helps to read them anew."""
        return False

    def close(self) -> None:
        """Let go of what is open."""


class _Pieces(io.RawIOBase):
    """A file made of pieces, none of them empty."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
