"""Real processes meet on the loopback interface, or fail together with one sentence."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterError
from cluster.start.preflight import preflight
from cluster.start.rendezvous import Rendezvous
from cluster.start.reports import Report, code_fingerprint, parse_report
from cluster.start.topology import World

FACTS = {"organza": "0.1.0", "torch": "2.13.0", "code": "c0de", "config": "c0f1"}
TIMEOUT = 3.0
TOKEN = b"of this run"
Outcome = tuple[Any, float]
"""The error's sentence or the number of reports, and the seconds it took."""


def free_pair() -> int:
    """A port that is free together with the next one."""
    while True:
        port = random.randrange(12000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("", port + 1))
            except OSError:
                continue
        return port


def attend(
    world: World,
    port: int,
    facts: dict[str, str],
    timeout: float,
    result: Any,
    address: str,
    token: bytes,
    files: tuple[int, int] | None,
) -> None:
    """files: how many descriptors the process may have, and may ask for."""
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    start = time.monotonic()
    try:
        found = preflight(world, Rendezvous(address, port, "job 1"), facts, token, timeout)
        result.send((len(found), time.monotonic() - start))
    except ClusterError as error:
        result.send((str(error), time.monotonic() - start))
    os._exit(0)


@contextmanager
def started(
    ranks: dict[int, World],
    port: int,
    facts: dict[int, dict[str, str]],
    timeout: float,
    address: str = "127.0.0.1",
    token: bytes = TOKEN,
    files: tuple[int, int] | None = None,
) -> Iterator[Callable[[], list[Outcome]]]:
    """A process for each of `ranks`; call to wait for what they say, in the same order."""
    context = multiprocessing.get_context("fork")
    processes, ends = [], []
    for key, world in ranks.items():
        end, result = context.Pipe(duplex=False)
        mine = FACTS | facts.get(key, {})
        told = (world, port, mine, timeout, result, address, token, files)
        process = context.Process(target=attend, args=told)
        process.start()
        processes.append(process)
        ends.append(end)
    yield lambda: [end.recv() if end.poll(timeout + 5) else ("hangs", 99.0) for end in ends]
    for process in processes:
        process.kill()
        process.join()


def meet(
    ranks: dict[int, World],
    facts: dict[int, dict[str, str]] | None = None,
    port: int | None = None,
    timeout: float = TIMEOUT,
    address: str = "127.0.0.1",
) -> list[Outcome]:
    with started(ranks, port or free_pair(), facts or {}, timeout, address) as outcomes:
        return outcomes()


def worlds(size: int) -> dict[int, World]:
    return {rank: World(rank, size) for rank in range(size)}


def test_all_ranks_meet() -> None:
    outcomes = meet(worlds(8))
    assert [found for found, _ in outcomes] == [8] * 8
    assert max(seconds for _, seconds in outcomes) < 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="a machine without IPv6")
def test_ranks_meet_over_ipv6() -> None:
    assert [found for found, _ in meet(worlds(2), address="::1")] == [2, 2]


def test_one_process_meets_nobody() -> None:
    (report,) = preflight(World(), Rendezvous("192.0.2.1", 1, ""), FACTS, b"")
    assert report.rank == 0 and report.facts == FACTS


@pytest.mark.parametrize("name", ["organza", "torch", "code", "config", "new"])
def test_a_rank_that_differs_ends_all(name: str) -> None:
    outcomes = meet(worlds(3), {2: {name: "other"}})
    first, seconds = outcomes[0]
    assert {found for found, _ in outcomes} == {first} and seconds < TIMEOUT
    host, ours = socket.gethostname(), FACTS.get(name, "nothing")
    assert f"Rank 2 on {host} has {name} other, but rank 0 on {host} has {ours}:" in first


def test_a_rank_that_never_comes_is_named_to_all_in_time() -> None:
    ranks = worlds(4)
    del ranks[2]
    outcomes = meet(ranks)
    first = outcomes[0][0]
    assert {found for found, _ in outcomes} == {first}
    assert "1 of 4 ranks did not report" in first and "missing: 2;" in first
    assert all(1 < seconds < TIMEOUT for _, seconds in outcomes)


def test_another_count_of_processes_is_named() -> None:
    outcomes = meet({0: World(0, 2), 1: World(1, 4)})
    assert outcomes[0][0] == outcomes[1][0]
    assert "counts 4 processes, but rank 0 on" in outcomes[0][0]


def test_the_same_rank_twice_is_named() -> None:
    outcomes = meet({0: World(0, 3), 1: World(1, 3), 9: World(1, 3)})
    assert len({found for found, _ in outcomes}) == 1
    assert "Rank 1 on" in outcomes[0][0] and "start each node once" in outcomes[0][0]


def test_latecomers_of_a_failed_start_hear_why() -> None:
    port = free_pair()
    ranks = {0: World(0, 3), 1: World(1, 3)}
    with started(ranks, port, {1: {"torch": "2.9"}}, 5.0) as early:
        time.sleep(0.5)
        late = meet({2: World(2, 3)}, port=port)
        assert "torch 2.9" in late[0][0] == early()[0][0]


def test_an_unreachable_master_is_named() -> None:
    ((found, seconds),) = meet({1: World(1, 2)}, timeout=1.0)
    assert "got no word from rank 0 at 127.0.0.1:" in found and "refused" in found
    assert seconds < 1.5


def test_a_silent_master_is_named() -> None:
    port = free_pair()
    with socket.create_server(("127.0.0.1", port + 1)):
        ((found, seconds),) = meet({1: World(1, 2)}, port=port, timeout=1.0)
    assert "got no word from rank 0" in found and "timed out" in found
    assert seconds < 1.5


def test_a_port_that_is_taken_is_named() -> None:
    port = free_pair()
    with socket.create_server(("", port + 1)):
        ((found, _),) = meet({0: World(0, 2)}, port=port)
    assert f"cannot listen on port {port + 1} (Address already in use)" in found


def test_a_taken_port_of_the_process_group_is_told_to_all() -> None:
    port = free_pair()
    with socket.create_server(("127.0.0.1", port)):
        outcomes = meet(worlds(3), port=port)
    first, seconds = outcomes[0]
    assert {found for found, _ in outcomes} == {first} and seconds < TIMEOUT
    assert f"cannot listen on port {port} (Address already in use)" in first


def test_another_program_at_the_port_is_told_from_rank_0() -> None:
    port = free_pair()
    with socket.create_server(("127.0.0.1", port + 1)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        ((found, _),) = meet({1: World(1, 2)}, port=port, timeout=1.0)
        server.shutdown(socket.SHUT_RDWR)
    assert "something else than rank 0 of this run" in found or "reset" in found


STRANGERS = [
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x00\xff\n",
    b"[" * 70000,
    b"null\n",
    b'{"rank": 1}\n',
    json.dumps({**Report("job 1", 1, 2, "x", 0.0, {}).__dict__, "rank": "1"}).encode() + b"\n",
    json.dumps({**Report("job 1", 1, 2, "x", 0.0, {}).__dict__, "facts": [1]}).encode() + b"\n",
    json.dumps(Report("job 2", 1, 2, "x", 0.0, FACTS).__dict__).encode() + b"\n",
]


def test_strangers_do_no_harm() -> None:
    port = free_pair()
    with started({0: World(0, 2)}, port, {}, 10.0) as lead:
        connections = [_knock(port + 1) for _ in STRANGERS]
        for connection, data in zip(connections, STRANGERS, strict=True):
            with suppress(OSError):  # dropped in the middle of what was too long
                connection.sendall(data)
        time.sleep(0.3)
        assert _dropped(connections[3]), "a line without an end fills the memory"
        assert [found for found, _ in meet({1: World(1, 2)}, port=port)] == [2]
        assert [found for found, _ in lead()] == [2]
        for connection in connections:
            connection.close()


def _dropped(connection: socket.socket) -> bool:
    connection.settimeout(2)
    try:
        while connection.recv(4096):  # the greeting
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def _knock(port: int) -> socket.socket:
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("rank 0 does not listen")


def test_a_rank_of_another_run_is_sent_away_alone() -> None:
    port = free_pair()
    with started({0: World(0, 2)}, port, {}, 10.0) as lead:
        _knock(port + 1).close()
        with pytest.raises(ClusterError, match="rank 0 on .* is of job 1, not of job 2"):
            preflight(World(1, 2), Rendezvous("127.0.0.1", port, "job 2"), FACTS, TOKEN, 5.0)
        assert [found for found, _ in meet({1: World(1, 2)}, port=port)] == [2]
        assert [found for found, _ in lead()] == [2]


def test_clocks_are_compared() -> None:
    port = free_pair()
    with started({0: World(0, 2)}, port, {}, 5.0):
        reports = preflight(World(1, 2), Rendezvous("127.0.0.1", port, "job 1"), FACTS, TOKEN, 5.0)
    assert [report.rank for report in reports] == [0, 1]
    assert reports[0].clock == 0 and abs(reports[1].clock) < 1


def test_only_whole_reports_are_taken() -> None:
    report = Report("job 1", 1, 2, "n1", 0.5, FACTS)
    assert parse_report(json.dumps(report.__dict__).encode()) == report
    assert all(parse_report(line) is None for line in STRANGERS[:-1])


def test_equal_code_has_an_equal_fingerprint(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "net" / "sub").mkdir(parents=True)
        (tmp_path / place / "net" / "one.py").write_text("x = 1\n")
        (tmp_path / place / "net" / "sub" / "two.py").write_text("y = 2\n")
    first, second = tmp_path / "a" / "net", tmp_path / "b" / "net"
    (second / "notes.txt").write_text("no code")
    assert code_fingerprint(first) == code_fingerprint(second)
    before = code_fingerprint(second)
    (second / "sub" / "two.py").rename(second / "two.py")
    assert code_fingerprint(second) != before
    (first / "one.py").write_text("x = 2\n")
    assert code_fingerprint(first) != before
