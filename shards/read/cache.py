"""A node's cache: whole shards of a slow store are fetched once per node, to be read locally.

Only shards are kept; manifest and index are read through. What cannot be kept is read from the
source: a cache makes no run fail that would have worked without it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from shards.records import DataError
from shards.sets.manifest import ShardFile
from shards.sets.shard_set import ShardSet
from shards.storage.copies import Copies
from shards.storage.store import BLOCK, Store

TRIES = 3
"""Downloads of a shard whose sha256 is wrong."""
REST_S = 10
"""Seconds for which nothing is fetched after there was no room."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Cache:
    """Where a node keeps copies of shards, how many bytes of them, and how many shards ahead of
    their use they are fetched."""

    folder: Path
    limit: int
    ahead: int = 0
    num_nodes: int = 1
    """Nodes that share the streams of an order, each with a cache of its own."""


def cached(shard_set: ShardSet, cache: Cache) -> ShardSet:
    """The same set, read through the node's cache; DataError if its folder cannot be used."""
    for shard in shard_set.manifest.shards:
        if not _SHA256.fullmatch(str(shard.sha256)):  # a digest is not yet a file name
            raise DataError(f"{shard_set.store}: {shard.sha256!r} is no sha256: pack the set anew.")
    copies = Copies(cache.folder, cache.limit)
    copies.prepare()
    shards = {shard.name: shard for shard in shard_set.manifest.shards}
    return replace(shard_set, store=CachedStore(shard_set.store, shards, copies, cache.ahead))


class CachedStore(Store):
    """A store whose shards are read from copies. Any thread may use it."""

    def __init__(
        self, source: Store, shards: dict[str, ShardFile], copies: Copies, ahead: int = 0
    ) -> None:
        super().__init__(source.location)
        self.source = source
        self.remote = source.remote
        self.ahead = ahead
        self._shards = shards
        self._copies = copies
        self._fetcher: _Fetcher | None = None
        self._told = False
        self._altered: set[str] = set()
        self._rests_until = 0.0

    def below(self, name: str) -> Store:
        return self.source.below(name)

    def size(self, name: str) -> int | None:
        return self.source.size(name)

    def tars(self) -> list[str]:
        return self.source.tars()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        data = self._from_copy(name, offset, size) if name in self._shards else None
        return self.source.read_range(name, offset, size) if data is None else data

    def prefetch(self, names: Sequence[str]) -> None:
        """Fetch these shards, in this order, after those that were named before. What goes wrong
        may have passed when the shard is read: that tries anew."""
        if self._fetcher is None or self._fetcher.process != os.getpid():
            self._fetcher = _Fetcher(self._keep)
        self._fetcher.fetch(names)

    def drop(self, name: str) -> bool:
        try:
            dropped = self._copies.drop(self._shards[name].sha256)
        except OSError as error:
            self._tell(error)
            return False
        return dropped or self.source.drop(name)

    def close(self) -> None:
        self.source.close()

    def __reduce__(self) -> tuple[type[CachedStore], tuple[object, ...]]:
        return CachedStore, (self.source, self._shards, self._copies, self.ahead)

    def _from_copy(self, name: str, offset: int, size: int) -> bytes | None:
        """These bytes of the copy; None if there can be none."""
        if self._fetcher is not None:
            self._fetcher.forget(name)
        digest = self._shards[name].sha256
        try:
            data = self._copies.read(digest, offset, size)
            if data is None:
                self._keep(name)
                data = self._copies.read(digest, offset, size)
        except OSError as error:
            self._tell(error)
            return None
        return data

    def _keep(self, name: str) -> None:
        """Have a copy of a shard, if there is room and it is the one that was packed; DataError if
        the source does not give it."""
        shard = self._shards[name]
        if name in self._altered:
            return
        try:
            if self._copies.renew(shard.sha256) or time.monotonic() < self._rests_until:
                return
            self._copies.make(shard.sha256, shard.num_bytes, lambda file: self._fill(shard, file))
        except _Altered as error:
            self._altered.add(name)
            self._tell(error)
        except OSError as error:
            self._rests_until = time.monotonic() + REST_S
            self._tell(error)

    def _fill(self, shard: ShardFile, descriptor: int) -> None:
        for _ in range(TRIES):
            with open(descriptor, "r+b", closefd=False) as file:
                if self._download(shard, file) == shard.sha256:
                    return
        raise _Altered(f"{self.where(shard.name)} has other bytes than were packed")

    def _download(self, shard: ShardFile, file: IO[bytes]) -> str:
        """The sha256 of what came."""
        digest = hashlib.sha256()
        file.seek(0)
        for offset in range(0, shard.num_bytes, BLOCK):
            size = min(BLOCK, shard.num_bytes - offset)
            block = self.source.read_range(shard.name, offset, size)
            digest.update(block)
            file.write(block)
        return digest.hexdigest()

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            reason = error.strerror or error
            print(
                f"The cache in {self._copies.folder} cannot keep all shards ({reason}): the others "
                f"are read from {self.source}, which is slower.",
                file=sys.stderr,
            )


class _Altered(OSError):
    """The sha256 of a shard is wrong again and again; the crc32 tells of each sample whether it is
    whole."""


class _Fetcher:
    """A thread that fetches shards before they are needed."""

    def __init__(self, keep: Callable[[str], None]) -> None:
        self.process = os.getpid()
        """Threads do not follow into a forked process."""
        self._keep = keep
        self._names: dict[str, None] = {}
        self._named = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def fetch(self, names: Sequence[str]) -> None:
        """Fetch these after those that still wait."""
        with self._named:
            self._names.update(dict.fromkeys(names))
            self._named.notify()

    def forget(self, name: str) -> None:
        """Leave a shard to its reader."""
        with self._named:
            self._names.pop(name, None)

    def _run(self) -> None:
        while True:
            with self._named:
                while not self._names:
                    self._named.wait()
                name = next(iter(self._names))
                del self._names[name]
            try:
                self._keep(name)
            except DataError:
                continue  # if it lasts, whoever reads the shard will tell
