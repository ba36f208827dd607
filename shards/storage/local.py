"""A packed set in a folder of this machine, or on a file system that it shares with others."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from shards.records import DataError
from shards.storage.store import Store

MAX_OPEN_FILES = 64


class Folder(Store):
    """A folder on a local or shared file system; pread shares no position between processes. Any
    thread may use it: a cache fetches while others read."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.path = Path(location)
        self._open: OrderedDict[str, int] = OrderedDict()
        self._using = threading.Lock()

    def below(self, name: str) -> Folder:
        return Folder(str(self.path / name))

    def size(self, name: str) -> int | None:
        path = self.path / name
        return path.stat().st_size if path.is_file() else None

    def tars(self) -> list[str]:
        return tars_in(self.path)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        try:
            with self._using:  # else another thread may close the descriptor, or reopen it
                return os.pread(self._descriptor(name), size, offset)
        except OSError as error:
            raise DataError(
                f"{self.where(name)} cannot be read ({error.strerror}): restore it or pack the "
                f"set anew."
            ) from error

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        # Cutting up what one call has read would copy it: three times the cost of all else here.
        return [self.read_range(name, offset, size) for offset, size in ranges]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> str:
        return self.location  # descriptors mean nothing to another process

    def __setstate__(self, location: str) -> None:
        Folder.__init__(self, location)

    def __del__(self) -> None:
        self.close()

    def _descriptor(self, name: str) -> int:
        if name in self._open:
            self._open.move_to_end(name)
        else:
            if len(self._open) >= MAX_OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[name]


def tars_in(folder: Path) -> list[str]:
    """Names of the tars in a folder. OSError, unlike from a glob, if it cannot be looked into."""
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".tar")
