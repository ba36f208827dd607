"""A folder of whole shards that all processes of a machine share, within a limit of bytes.

    SHA256.tar    a whole shard, named by its content; its mtime is when it was last read
    SHA256.part   one that is being made by whoever has it locked: by nobody after a SIGKILL
    lock          locked for the moment in which room is made, or a copy gets its name

All locks are flock's, so the system lets go of them with their process. Nothing is synced to the
disk: after a power cut the crc32 of each sample tells what is left. That proves nothing against
people, so no other user may be able to change the folder, or to put another in its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from shards.records import DataError
from shards.storage.owners import check_own, check_path

_OWN_FILE = re.compile(r"[0-9a-f]{64}\.(tar|part)")


class NoRoom(OSError):
    """The limit leaves no room: a sentence."""


class Copies:
    """The copies in a sub-folder of `folder`, `limit` bytes of them at most. A small value that may
    travel to other processes. Its methods raise OSError for whatever the disk does."""

    def __init__(self, folder: Path, limit: int) -> None:
        # One for each user: nobody else can put files there, or be refused. Links are followed
        # once: who changes them later leads nobody elsewhere.
        self.folder = Path(os.path.realpath(folder)) / f"organza-{os.geteuid()}"
        self.limit = limit

    def prepare(self) -> None:
        """Make the folder; DataError if it cannot be used."""
        try:
            for place in reversed(self.folder.parents):
                place.mkdir(mode=0o755, exist_ok=True)
            check_path(self.folder.parent)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            found = self.folder.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise PermissionError(errno.EPERM, "it is a link that others may have made")
            check_own(found, self.folder)
            with self._all():
                pass
        except OSError as error:
            raise DataError(
                f"data.cache.folder: {self.folder} cannot be used ({error.strerror}): choose a "
                f"local folder of each node that may be written to, or null for none."
            ) from error

    def renew(self, digest: str) -> bool:
        """Let a copy count as just read; whether there is one."""
        try:
            os.utime(self._copy(digest), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def read(self, digest: str, offset: int, size: int) -> bytes | None:
        """These bytes of a copy; None if there is none."""
        try:
            with _locked(self._copy(digest), os.O_RDONLY, fcntl.LOCK_SH) as file:
                os.utime(file)
                return os.pread(file, size, offset)
        except FileNotFoundError:
            return None

    def make(self, digest: str, size: int, fill: Callable[[int], None]) -> None:
        """Have `fill` write a copy into a descriptor, unless somebody else has made one.

        Waits for whoever is making it. NoRoom if the limit forbids it."""
        draft, copy = self.folder / f"{digest}.part", self._copy(digest)
        with _locked(draft, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
            if copy.exists():
                draft.unlink()
                return
            try:
                self._reserve(file, size)
                fill(file)
                with self._all():  # whoever makes room must not take it for gone
                    os.rename(draft, copy)
            except BaseException:
                draft.unlink()
                raise

    def drop(self, digest: str) -> bool:
        """Remove a copy; whether there was one. Who is reading it may finish."""
        try:
            self._copy(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def _reserve(self, draft: int, size: int) -> None:
        """Give a draft its full size, so that others count it, and remove what was read longest
        ago to make room. Drafts that nobody is making go first."""
        os.ftruncate(draft, 0)
        if size > self.limit:
            raise NoRoom(f"a shard of {size / 2**30:.3f} GiB is larger than data.cache.limit_gib")
        with self._all():
            files = sorted(self._files(), key=lambda file: (file[0].suffix, file[1].st_mtime_ns))
            used = sum(status.st_size for _, status in files)
            for path, status in files:
                if used + size <= self.limit:
                    break
                used -= status.st_size if _removed(path) else 0
            if used + size > self.limit:
                raise NoRoom("data.cache.limit_gib leaves no room beside the shards in use")
            os.posix_fallocate(draft, 0, size)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self.folder):
            if _OWN_FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                try:
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it was dropped meanwhile

    def _copy(self, digest: str) -> Path:
        return self.folder / f"{digest}.tar"

    def _all(self) -> AbstractContextManager[int]:
        return _locked(self.folder / "lock", os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)


def _removed(path: Path) -> bool:
    """Remove a file unless somebody reads or makes it."""
    try:
        with _locked(path, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB):
            path.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True


@contextmanager
def _locked(path: Path, flags: int, lock: int) -> Iterator[int]:
    """A locked descriptor of the file at `path`: the one that is there once the lock is ours.
    PermissionError if somebody else may have put it there."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would not open otherwise
    while True:
        file = os.open(path, flags, 0o600)
        try:
            check_own(os.fstat(file), path)
            fcntl.flock(file, lock)
            if _is_at(path, file):
                yield file
                return
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile has the lock as well
            os.close(file)


def _is_at(path: Path, file: int) -> bool:
    """Whether an open file has been neither renamed nor removed."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False
