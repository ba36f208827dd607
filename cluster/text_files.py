"""Small files that others read meanwhile: replaced whole or not at all; errors name the file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def replace_text(path: Path, text: str) -> None:
    """Readers see the old text or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with named(path):
            with open(draft, "w", opener=through_no_link) as file:
                file.write(text)
            draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def read_bytes(path: Path) -> bytes:
    """A whole file; OSError for a pipe or device in its place, which might never end, or begin."""
    with named(path), open(path, "rb", opener=at_once) as file:
        check_regular(file)
        return file.read()


def check_regular(file: IO[bytes]) -> None:
    """OSError for what is no file of bytes."""
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise OSError(errno.EINVAL, "is no file")


def at_once(path: str, flags: int) -> int:
    """An opener that waits for nobody at the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def through_no_link(path: str, flags: int) -> int:
    """An opener: a link that somebody has put in the file's place would lead to another file, and
    a pipe would wait for a reader."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def lock_file(path: Path) -> int:
    """A descriptor to lock by. The file is its owner's, and that of a group which may write here:
    whoever can open it could lock it too, and keep the run from starting."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o660)
    status = os.fstat(descriptor)
    wanted = 0o660 if status.st_mode & 0o020 else 0o600
    if status.st_uid == os.geteuid() and status.st_mode & 0o777 != wanted:
        os.fchmod(descriptor, wanted)
    return descriptor


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A full disk is told without a name, and a draft's name tells nobody anything."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
