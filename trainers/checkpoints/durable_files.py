"""Files that survive a power cut: on disk when a function returns, replaced at once or never."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from safetensors.torch import save_file
from torch import Tensor
from zlib_ng import zlib_ng


def fresh(folder: Path) -> None:
    """An empty folder; drafts that a killed run left behind go first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob(".writing-*"):
        shutil.rmtree(stale)
    folder.mkdir()


def store(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file, on disk when this returns, as readable as the umask has it."""
    path.touch()
    mode = path.stat().st_mode
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    os.chmod(path, mode)  # safetensors makes files that their owner alone may read
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    with named(path), open(path, "w", opener=through_no_link) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A full disk is told without a name."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """To be read; OSError for a pipe or device in its place, which might never end, or begin."""
    with named(path), open(path, "rb", opener=at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        yield file


def read_bytes(path: Path) -> bytes:
    """A whole file."""
    with opened(path) as file:
        return file.read()


def at_once(path: str, flags: int) -> int:
    """An opener that waits for nobody at the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def through_no_link(path: str, flags: int) -> int:
    """An opener: a link that somebody has put in the file's place would lead to another file, and
    a pipe would wait for a reader."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def replace_text(path: Path, text: str) -> None:
    """Replace a small file in one go."""
    draft = path.with_name(path.name + ".writing")
    write_text(draft, text)
    os.replace(draft, path)
    sync_folder(path.parent)


def replace_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Replace a safetensors file in one go."""
    draft = path.with_name(path.name + ".writing")
    with named(path):
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o666))
        store(draft, tensors)
    os.replace(draft, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def crc32_of(path: Path) -> int:
    """crc32 of a whole file."""
    value = 0
    with opened(path) as file:
        while block := file.read(2**22):
            value = zlib_ng.crc32(block, value)
    return value
