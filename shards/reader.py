"""Read any sample of a packed set: one pread through the index, every member's crc32 checked."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict

from shards.index import ShardSet
from shards.manifest import shard_name
from shards.records import DataError

MAX_OPEN_SHARDS = 64


class Reader:
    """Random access to the samples of a set. It may be copied to other processes: files are
    opened when first read, and pread shares no position."""

    def __init__(self, shard_set: ShardSet) -> None:
        self.shard_set = shard_set
        self._files: OrderedDict[int, int] = OrderedDict()

    def read(self, sample: int) -> dict[str, bytes]:
        """The files of a sample by member, in the order of the layout.

        Raises DataError naming shard, key and member if bytes are missing or altered."""
        index = self.shard_set.index
        starts = {member: int(column.offsets[sample]) for member, column in index.items()}
        ends = {member: starts[member] + int(index[member].sizes[sample]) for member in index}
        start = min(starts.values())
        data = self._pread(sample, start, max(ends.values()) - start)
        files = {
            member: data[starts[member] - start : ends[member] - start] for member in index
        }
        for member, content in files.items():
            if zlib.crc32(content) != int(index[member].crc32s[sample]):
                raise DataError(
                    f"{self.shard_set.names(sample)[member]} was cut or altered after "
                    f"packing (its crc32 is wrong): restore the shard or pack the set anew"
                )
        return files

    def close(self) -> None:
        """Close the shards that are open."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __getstate__(self) -> dict[str, ShardSet]:
        return {"shard_set": self.shard_set}  # descriptors mean nothing to another process

    def __setstate__(self, state: dict[str, ShardSet]) -> None:
        self.__init__(state["shard_set"])

    def __del__(self) -> None:
        self.close()

    def _pread(self, sample: int, start: int, size: int) -> bytes:
        number = int(self.shard_set.shard_numbers[sample])
        try:
            return os.pread(self._descriptor(number), size, start)
        except OSError as error:
            path = self.shard_set.path / shard_name(number)
            raise DataError(
                f"{path} cannot be read ({error.strerror}): restore it or pack the set anew"
            ) from error

    def _descriptor(self, number: int) -> int:
        if number in self._files:
            self._files.move_to_end(number)
        else:
            if len(self._files) >= MAX_OPEN_SHARDS:
                os.close(self._files.popitem(last=False)[1])
            path = self.shard_set.path / shard_name(number)
            self._files[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._files[number]
