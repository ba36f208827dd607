"""The files of the node's cache: their limit, their locks, and what is left of dead processes."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from shards.copies import Copies, NoRoom
from shards.records import DataError
from tests.shards.sources import contents

SIZE = 100
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def copies_in(folder: Path, limit: int) -> Copies:
    copies = Copies(folder, limit)
    copies.prepare()
    return copies


def make(copies: Copies, digest: str, read_at: int) -> None:
    """A copy that was last read at this second."""
    copies.make(digest, SIZE, lambda file: os.write(file, digest[:1].encode() * SIZE))
    os.utime(copies.folder / f"{digest}.tar", (read_at, read_at))


def test_what_was_read_longest_ago_goes_first(tmp_path: Path) -> None:
    copies = copies_in(tmp_path, 2 * SIZE)
    make(copies, A, read_at=1)
    make(copies, B, read_at=2)
    assert copies.read(A, 98, 10) == b"aa"
    make(copies, C, read_at=3)
    assert copies.read(B, 0, 1) is None
    os.utime(copies.folder / f"{A}.tar", (1, 1))
    assert copies.renew(A) and not copies.renew(B)
    make(copies, B, read_at=4)
    assert copies.renew(A) and copies.renew(B) and not copies.renew(C), "one that is soon needed"


def test_what_nobody_makes_goes_before_all_others(tmp_path: Path) -> None:
    copies = copies_in(tmp_path, 2 * SIZE)
    make(copies, A, read_at=1)
    (copies.folder / f"{C}.part").write_bytes(b"c" * SIZE)
    make(copies, B, read_at=2)
    assert contents(copies.folder).keys() == {"lock", f"{A}.tar", f"{B}.tar"}
    (copies.folder / f"{C}.part").write_bytes(b"x" * 9 * SIZE)
    make(copies, C, read_at=3)
    assert copies.read(C, 0, 9 * SIZE) == b"c" * SIZE


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    copies = copies_in(tmp_path, SIZE)
    with pytest.raises(ZeroDivisionError):
        copies.make(A, SIZE, lambda file: 1 // 0)
    with pytest.raises(NoRoom, match="larger than data.cache.limit_gib"):
        copies.make(A, SIZE + 1, lambda file: None)
    assert contents(copies.folder).keys() == {"lock"}


def test_no_copy_gets_its_name_while_room_is_made(tmp_path: Path) -> None:
    """Whoever makes room would miss it, or take the draft for removed: above the limit."""
    copies = copies_in(tmp_path, SIZE)
    filling, go_on = threading.Event(), threading.Event()

    def fill(file: int) -> None:
        filling.set()
        go_on.wait(20)

    making = threading.Thread(target=copies.make, args=(A, SIZE, fill), daemon=True)
    making.start()
    assert filling.wait(20)
    with open(copies.folder / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        go_on.set()
        making.join(0.3)
        assert making.is_alive() and not copies.renew(A)
    making.join(20)
    assert copies.renew(A)


def test_a_process_forked_meanwhile_keeps_no_lock(tmp_path: Path) -> None:
    copies = copies_in(tmp_path, SIZE)
    wait, leave = os.pipe()
    children = []

    def fork(file: int) -> None:
        children.append(os.fork())
        if not children[0]:
            os.close(leave)
            os.read(wait, 1)
            os._exit(0)

    copies.make(A, SIZE, fork)
    try:
        make(copies, B, read_at=1)
    finally:
        os.close(leave)
        os.waitpid(children[0], 0)
    assert copies.renew(B) and not copies.renew(A)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="data.cache.folder: .*file/organza-.* cannot be used"):
        copies_in(tmp_path / "file", SIZE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"organza-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(DataError, match="belongs to somebody else"):
        copies_in(tmp_path, SIZE)
    assert contents(elsewhere) == {}
