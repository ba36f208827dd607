"""Read any sample of a packed set: its ranges through the index, every member's crc32 checked."""

from __future__ import annotations

from collections.abc import Collection

from zlib_ng import zlib_ng  # its crc32 is seven times as fast as zlib's

from shards.records import DataError
from shards.sets.shard_set import ShardSet


class Reader:
    """Random access to the samples of a set."""

    def __init__(self, shard_set: ShardSet, without: Collection[str] = ()) -> None:
        """without: members that are left where they are."""
        self.shard_set = shard_set
        self.index = {m: column for m, column in shard_set.index.items() if m not in without}

    def read(self, sample: int) -> dict[str, bytes]:
        """The files of a sample by member, in the order of the layout.

        Raises DataError naming shard, key and member if bytes are missing or altered."""
        files, wrong = self._read(sample)
        if wrong and self.shard_set.store.drop(self.shard_set.shard_name(sample)):
            files, wrong = self._read(sample)
        if wrong:
            raise DataError(
                f"{self.shard_set.names(sample)[wrong[0]]} was cut or altered after packing (its "
                f"crc32 is wrong): restore the shard or pack the set anew."
            )
        return files

    def _read(self, sample: int) -> tuple[dict[str, bytes], list[str]]:
        """The files, and the members whose crc32 is wrong."""
        index = self.index
        shard = self.shard_set.shard_name(sample)
        ranges = [(int(c.offsets[sample]), int(c.sizes[sample])) for c in index.values()]
        files = dict(zip(index, self.shard_set.store.read_ranges(shard, ranges), strict=True))
        crc32s = {member: int(index[member].crc32s[sample]) for member in index}
        return files, [m for m, content in files.items() if zlib_ng.crc32(content) != crc32s[m]]
