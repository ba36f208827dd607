"""Who does not know the run's token is nobody to the ranks that meet, whatever he says."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.start import desk
from cluster.start.preflight import preflight
from cluster.start.rendezvous import Rendezvous
from cluster.start.reports import Report
from cluster.start.token import FILE, mac, token_of
from cluster.start.topology import World
from tests.cluster.start.test_preflight import FACTS, TOKEN, free_pair, meet, started


def knock(port: int) -> tuple[socket.socket, bytes]:
    """A connection to rank 0, and its greeting."""
    for _ in range(200):
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            return connection, connection.recv(100).strip()
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("rank 0 does not listen")


def report(rank: int = 1, **changes: object) -> bytes:
    said = Report("job 1", rank, 2, "elsewhere", time.time(), FACTS).__dict__ | changes
    return json.dumps(said).encode()


def test_nobody_speaks_for_a_rank_without_the_token() -> None:
    """Neither to take its seat, nor to end the start by what would not fit."""
    port = free_pair()
    with started({0: World(0, 2)}, port, {}, 10.0) as lead:
        for said in (report(), report(facts={"torch": "0"}), report(world=3)):
            for guess in (b"a guess", b"", None):
                connection, greeting = knock(port + 1)
                line = said
                if guess is not None:
                    wrong = mac(guess, b"report", greeting, b"n", said).encode()
                    line = b" ".join((wrong, b"n", said))
                connection.sendall(line + b"\n")
                assert connection.recv(100) == b"unknown\n"
        assert [found for found, _ in meet({1: World(1, 2)}, port=port)] == [2]
        assert [found for found, _ in lead()] == [2]


def test_what_was_heard_in_another_start_is_worth_nothing() -> None:
    said, port = report(), free_pair()
    with started({0: World(0, 2)}, port, {}, 10.0) as lead:
        first, greeting = knock(port + 1)
        heard = b" ".join((mac(TOKEN, b"report", greeting, b"n", said).encode(), b"n", said))
        first.close()
        again, other = knock(port + 1)
        assert other != greeting
        again.sendall(heard + b"\n")
        assert again.recv(100) == b"unknown\n"
        assert [found for found, _ in meet({1: World(1, 2)}, port=port)] == [2]
        assert [found for found, _ in lead()] == [2]


@pytest.mark.parametrize("verdict", [{"error": "Go home."}, {"error": None, "reports": []}])
def test_nobody_speaks_for_rank_0_without_the_token(verdict: dict[str, object]) -> None:
    """Neither to end the start, nor to let a rank go on alone."""
    port, text = free_pair(), json.dumps(verdict).encode()
    with socket.create_server(("127.0.0.1", port + 1)) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"0" * 32 + b"\n")
                        nonce = connection.recv(65536).split(b" ")[1]
                        wrong = mac(b"a guess", b"verdict", b"0" * 32, nonce, text).encode()
                        connection.sendall(wrong + b" " + text + b"\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ClusterError, match="something else than rank 0 of this run answers"):
            preflight(World(1, 2), Rendezvous("127.0.0.1", port, "job 1"), FACTS, TOKEN, 1.0)
        server.shutdown(socket.SHUT_RDWR)


def test_folders_that_are_not_shared_are_told() -> None:
    port = free_pair()
    with (
        started({0: World(0, 2)}, port, {}, 2.0) as lead,
        started({1: World(1, 2)}, port, {}, 2.0, token=b"of another folder") as other,
    ):
        ((found, _),) = lead()
        assert "connections did not know the run's token: the run folder must lie" in found
        ((found, _),) = other()
        assert "something else than rank 0 of this run" in found


def test_silent_connections_are_limited_in_number() -> None:
    port, number = free_pair(), 1100
    with more_files(), started({0: World(0, 2)}, port, {}, 20.0) as lead:
        (rank_0,) = multiprocessing.active_children()
        silent = [knock(port + 1)[0] for _ in range(number)]
        assert len(list(Path(f"/proc/{rank_0.pid}/fd").iterdir())) < desk.MAX_SILENT + 100
        start = time.monotonic()
        assert [found for found, _ in meet({1: World(1, 2)}, port=port, timeout=15.0)] == [2]
        assert [found for found, _ in lead()] == [2]
        assert time.monotonic() - start < 10
        for connection in silent:
            connection.close()


def test_silent_connections_do_not_take_the_last_descriptor() -> None:
    """Where rank 0 may have fewer than there are strangers."""
    port, number, files = free_pair(), 200, (100, 100)
    with started({0: World(0, 2)}, port, {}, 20.0, files=files) as lead:
        silent = [knock(port + 1)[0] for _ in range(number)]
        start = time.monotonic()
        assert [found for found, _ in meet({1: World(1, 2)}, port=port, timeout=15.0)] == [2]
        assert [found for found, _ in lead()] == [2]
        assert time.monotonic() - start < desk.PATIENCE / 2
        for connection in silent:
            connection.close()


def test_slow_connections_are_limited_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they keep the line busy: a letter now and then is no report."""
    monkeypatch.setattr(desk, "PATIENCE", 0.5)
    port = free_pair()
    with started({0: World(0, 2)}, port, {}, 10.0):
        slow, _ = knock(port + 1)
        start = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - start < 5:
                slow.sendall(b"x")
                time.sleep(0.05)


@contextmanager
def more_files() -> Iterator[None]:
    """Descriptors for all the strangers that this process plays."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_ranks_meet_than_a_process_may_open_files_at_first() -> None:
    """Rank 0 keeps a connection of each until the verdict."""
    port, size = free_pair(), 61
    with started({0: World(0, size)}, port, {}, 8.0, files=(40, 4096)) as lead:
        guests = [signed(port, rank, size) for rank in range(1, size)]
        assert [found for found, _ in lead()] == [size]
        for guest in guests:
            guest.close()


def test_too_few_descriptors_for_all_ranks_are_told_at_once() -> None:
    with started({0: World(0, 200)}, free_pair(), {}, 8.0, files=(100, 100)) as lead:
        ((found, seconds),) = lead()
    assert "may open 100 files, too few to meet 200 ranks" in found and "ulimit -n" in found
    assert seconds < 2


def test_a_raised_limit_is_that_of_before_when_the_ranks_have_met() -> None:
    own = Report("job 1", 0, 300, "here", 0.0, FACTS)
    meeting = Rendezvous("127.0.0.1", free_pair(), "job 1")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        with desk.Desk(own, meeting, TOKEN):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 300 + desk.MAX_SILENT
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def signed(port: int, rank: int, size: int) -> socket.socket:
    """A rank that has reported and waits for the verdict."""
    connection, greeting = knock(port + 1)
    said = report(rank, world=size)
    connection.sendall(
        b" ".join((mac(TOKEN, b"report", greeting, b"n", said).encode(), b"n", said)) + b"\n"
    )
    return connection


def test_rank_0_listens_at_its_address_alone() -> None:
    port = free_pair()
    with started({0: World(0, 2)}, port, {}, 10.0, address="127.0.0.2"):
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.2", port + 1), timeout=1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.3", port + 1), timeout=1)


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    token = token_of(run)
    assert token_of(run) == token and len(token) == 32 and token_of(tmp_path / "other") != token
    assert (run / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in run.iterdir()] == [FILE]


@pytest.mark.parametrize("planted", ["link", "fifo", "open", "short", "owner", "folder"])
def test_a_token_that_others_know_is_refused(tmp_path: Path, planted: str) -> None:
    path = tmp_path / FILE
    if planted == "link":
        path.symlink_to(tmp_path / "elsewhere")
        token_of(tmp_path / "run")
        (tmp_path / "run" / FILE).rename(tmp_path / "elsewhere")
    elif planted == "fifo":
        os.mkfifo(path, 0o600)
    elif planted == "folder":
        path.mkdir(0o700)
    else:
        path.write_text("0" * (10 if planted == "short" else 64))
        path.chmod(0o644 if planted == "open" else 0o600)
        if planted == "owner":
            os.chown(path, 12345, -1)
    with pytest.raises(ClusterError, match=r"remove it; the next start makes it anew"):
        token_of(tmp_path)


def test_a_token_that_cannot_be_opened_just_now_is_not_called_foreign(tmp_path: Path) -> None:
    """Whoever removed it then would take it from the other ranks."""
    token_of(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(ClusterError, match="Too many open files") as told:
            token_of(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "remove it" not in str(told.value)
