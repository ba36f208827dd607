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


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A full disk is told without a name, and a draft's name tells nobody anything."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
