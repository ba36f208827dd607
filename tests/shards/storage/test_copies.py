"""The files of the node's cache: their limit, their locks, and what is left of dead processes."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from shards.records import DataError
from shards.storage.copies import Copies, NoRoom
from tests.shards.sources import contents, give_away

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
    with pytest.raises(DataError, match="it is a link that others may have made"):
        copies_in(tmp_path, SIZE)
    assert contents(elsewhere) == {}


def test_folders_that_other_users_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = copies_in(tmp_path / "scratch" / "me", SIZE)
    copies.folder.chmod(0o770)
    with pytest.raises(DataError, match=f"other users may change {copies.folder}.: choose"):
        copies.prepare()
    copies.folder.chmod(0o700)
    (tmp_path / "scratch").chmod(0o777)
    with pytest.raises(DataError, match=f"other users may change {tmp_path}/scratch, unless"):
        copies.prepare()
    (tmp_path / "scratch").chmod(0o1777)
    copies.prepare()
    give_away(copies.folder, monkeypatch)
    with pytest.raises(DataError, match="belongs to "):
        copies.prepare()


def test_folders_are_made_for_their_owner_alone_to_change(tmp_path: Path) -> None:
    """Whatever the umask, or our own would be refused; others may have theirs beside it."""
    before = os.umask(0)
    try:
        copies = copies_in(tmp_path / "scratch" / "node", SIZE)
    finally:
        os.umask(before)
    modes = [oct(place.stat().st_mode & 0o7777) for place in (copies.folder.parent, copies.folder)]
    assert modes == ["0o755", "0o700"]


def test_a_link_that_changes_later_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "scratch").symlink_to(tmp_path / "disk")
    copies = copies_in(tmp_path / "scratch", SIZE)
    make(copies, A, read_at=1)
    planted = plant(tmp_path / "theirs")
    (tmp_path / "scratch").unlink()
    (tmp_path / "scratch").symlink_to(planted.parent)
    assert copies.read(A, 0, SIZE) == b"a" * SIZE


@pytest.mark.parametrize("piped", [False, True])
def test_what_another_user_has_put_there_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:
    """Someone made the folder above open to all while we read, and another user came."""
    copies = copies_in(tmp_path, SIZE)
    make(copies, A, read_at=1)
    planted = plant(tmp_path / "theirs", piped)
    copies.folder.rename(tmp_path / "gone")
    planted.rename(copies.folder)
    give_away(copies.folder / f"{A}.tar", monkeypatch)
    for use in (
        lambda: copies.read(A, 0, SIZE),
        lambda: make(copies, B, read_at=1),
    ):
        with pytest.raises(PermissionError, match="belongs to somebody|other users may change"):
            use()


def plant(folder: Path, piped: bool = False) -> Path:
    """A cache with a forged copy: its bytes differ, be its crc32s what they may."""
    planted = folder / f"organza-{os.getuid()}"
    planted.mkdir(parents=True)
    copy = planted / f"{A}.tar"
    os.mkfifo(copy) if piped else copy.write_bytes(b"x" * SIZE)
    for name in (f"{B}.part", "lock"):
        (planted / name).write_bytes(b"")
    for path in planted.iterdir():
        path.chmod(0o666)
    return planted
