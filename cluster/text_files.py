"""Small files that others read meanwhile: replaced whole or not at all; errors name the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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


def through_no_link(path: str, flags: int) -> int:
    """An opener: a link that somebody has put in the file's place would lead to another file."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


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
