"""Small text files that people write: lists, tables of ids."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TextIO


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """A file of UTF-8 text, with or without the mark that spreadsheets begin with. OSError for a
    pipe or device in its place, which might never begin, or end."""
    file = open(path, encoding="utf-8-sig", newline=newline, opener=_at_once)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no file, but a pipe or a device", str(path))


def _at_once(path: str, flags: int) -> int:
    """Without waiting for somebody at the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
