"""Who does not know the run's token is nobody to the ranks that meet, whatever he says."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from cluster.errors import ClusterError
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
            connection, greeting = knock(port + 1)
            wrong = mac(b"a guess", b"report", greeting, b"n", said).encode()
            connection.sendall(b" ".join((wrong, b"n", said)) + b"\n")
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


def test_nobody_speaks_for_rank_0_without_the_token() -> None:
    port = free_pair()
    with (
        started({0: World(0, 2)}, port, {}, 1.5, token=b"another run's"),
        pytest.raises(ClusterError, match="something else than rank 0 of this run answers there"),
    ):
        preflight(World(1, 2), Rendezvous("127.0.0.1", port, "job 1"), FACTS, TOKEN, 1.0)


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


def test_silent_connections_keep_nobody_out() -> None:
    port, number = free_pair(), 1100
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    try:
        with started({0: World(0, 2)}, port, {}, 20.0) as lead:
            silent = [knock(port + 1)[0] for _ in range(number)]
            start = time.monotonic()
            assert [found for found, _ in meet({1: World(1, 2)}, port=port, timeout=15.0)] == [2]
            assert [found for found, _ in lead()] == [2]
            assert time.monotonic() - start < 10
            for connection in silent:
                connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


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
