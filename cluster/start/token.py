"""The secret of a run, by which its processes know each other: RUN/.token, for its owner alone.

Every process of a run can read the run folder, and nobody else can read this file. Messages carry
an HMAC by it, so that strangers on the network can neither speak for a rank nor for rank 0.
"""

from __future__ import annotations

import errno
import hmac
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError

FILE = ".token"
BYTES = 32
APPEARS = 10.0
"""Seconds within which a file that another node has made is seen here."""
LAGS = (errno.ENOENT, errno.ESTALE)
"""It is not there, or this node's cache of a network file system is behind."""
FOREIGN = (errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO)
"""A link, another user's, a socket."""


def token_of(run: Path) -> bytes:
    """The run's token, which the first process makes. ClusterError for a file that is not ours
    alone, or that cannot be made."""
    path = run / FILE
    deadline = time.monotonic() + APPEARS
    try:
        run.mkdir(parents=True, exist_ok=True)
        while (token := _read(path)) is None:
            if time.monotonic() > deadline:
                raise ClusterError(f"{path} does not appear: see to the file system of the run.")
            if not _make(path):
                time.sleep(0.1)  # another process has made it, which is not seen here yet
    except OSError as error:
        raise ClusterError(
            f"{path}: {error.strerror}; the ranks know each other by it: see that this user can "
            "write the run folder, and that its file system has hard links."
        ) from error
    return token


def mac(token: bytes, *parts: bytes) -> str:
    """HMAC-SHA256 of several parts, told apart by their lengths."""
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hmac.new(token, message, "sha256").hexdigest()


def _make(path: Path) -> bool:
    """Make the file, whole at once; whether it was this process that did."""
    draft = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(BYTES).encode())
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(draft, path)
            return True
        return False
    finally:
        draft.unlink()


def _read(path: Path) -> bytes | None:
    """None if there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in LAGS:
            return None
        if error.errno in FOREIGN:
            raise _not_ours(path) from error
        raise
    try:
        status = os.fstat(descriptor)
        private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid != os.geteuid():
            raise _not_ours(path)
        text = os.read(descriptor, 2 * BYTES + 1)
    finally:
        os.close(descriptor)
    if not re.fullmatch(rb"[0-9a-f]{%d}" % (2 * BYTES), text):
        raise _not_ours(path)
    return bytes.fromhex(text.decode())


def _not_ours(path: Path) -> ClusterError:
    return ClusterError(
        f"{path} is no file that this user's runs have made for themselves alone (a link, another "
        "owner, or readable by others): remove it; the next start makes it anew. If that is "
        "refused too, the file system keeps no modes: choose another for the run folder."
    )
