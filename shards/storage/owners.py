"""Who else on this machine could change what lies in a folder: nobody may, where bytes that were
proven once are read again and again."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_NOBODY = 65534
"""Whom a container shows as the owner where it does not know the true one."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_path(folder: Path) -> None:
    """Raise PermissionError if another user could put something else in the place of `folder`, a
    path without links, or of a folder above it."""
    trusted = {os.geteuid(), root(Path("/proc/self/uid_map").read_text())}
    for place in (folder, *folder.parents):
        status = place.stat()
        if status.st_uid not in trusted:
            _refuse(f"{place} belongs to another user")
        # In a sticky folder, as /tmp is, each user can replace only what is his own.
        if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
            _refuse(f"other users may change {place}, unless you chmod go-w it")


def check_own(status: os.stat_result, path: Path) -> None:
    """Raise PermissionError unless a file or folder is ours, and nobody else may change it."""
    if status.st_uid != os.geteuid():
        _refuse(f"{path} belongs to somebody else")
    if status.st_mode & _OTHERS_WRITE:
        _refuse(f"other users may change {path}")


def root(uid_map: str) -> int:
    """The user id by which the superuser is known, given /proc/self/uid_map: a container that was
    started without rights does not know him."""
    known = any(line.split()[0] == "0" for line in uid_map.splitlines())
    return 0 if known else _NOBODY


def _refuse(why: str) -> None:
    raise PermissionError(errno.EPERM, why)
