"""Who has a run, and who cannot keep others from it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.text_files import lock_file
from cluster.watch import claim

ANOTHER_USER = 65534


@pytest.fixture()
def run() -> Iterator[Path]:
    """A folder that every user may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_another_user(path: Path) -> str:
    """What becomes of a shared lock."""
    child = os.fork()
    if child == 0:
        os.setuid(ANOTHER_USER)
        try:
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)
        except PermissionError:
            os._exit(1)
        os._exit(0)
    return ("locked", "refused")[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("old", [False, True])
def test_who_may_only_read_cannot_lock(run: Path, old: bool) -> None:
    """Nor where an earlier version has left the file open to all."""
    path = run / ".lock"
    if old:
        path.touch(0o644)
    os.close(lock_file(path))
    assert as_another_user(path) == "refused"
    descriptor = lock_file(path)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o600), (0o077, 0o600), (0o002, 0o660)])
def test_a_group_that_may_write_shares_the_lock(run: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        os.close(lock_file(run / ".lock"))
    finally:
        os.umask(before)
    assert (run / ".lock").stat().st_mode & 0o777 == mode


def test_a_claim_names_who_has_the_run(run: Path) -> None:
    here = claim.own_name({})
    assert claim.take(run, here) is None
    assert claim.take(run, claim.own_name({})) == here
