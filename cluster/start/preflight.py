"""Before torch.distributed: do all processes reach each other, and are they the same program?

NCCL and gloo hang, or fail after half an hour with nobody's name, when a node is missing or runs
another version. So every rank first tells rank 0 who it is, one line of JSON over TCP, and gets a
verdict: everyone goes on, or everyone ends with the same sentence.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace

from cluster.errors import ClusterError
from cluster.start.rendezvous import Rendezvous
from cluster.start.reports import Report, mismatch, parse_report
from cluster.start.topology import World

TIMEOUT = 60.0
DECIDE, CLOSE = 0.8, 0.9
"""Parts of the timeout: when rank 0 decides, so that its word reaches those who began earlier, and
when it leaves at the latest."""
LINGER = 5.0
"""Seconds for which rank 0 still tells latecomers that the start has failed."""
MAX_REPORT = 65536
"""Bytes; whoever sends more is no rank of ours."""
MAX_VERDICT = 1 << 26


def preflight(
    world: World, meeting: Rendezvous, facts: Mapping[str, str], timeout: float = TIMEOUT
) -> tuple[Report, ...]:
    """Meet all ranks; their reports in order of rank. To be called by every rank.

    facts: name -> value, e.g. {"torch": "2.13.0", "code": code_fingerprint(...)}.
    Raises ClusterError on all ranks, within `timeout` seconds, when one is missing, unreachable,
    there twice, or differs."""
    own = Report(meeting.run, world.rank, world.size, socket.gethostname(), 0.0, dict(facts))
    if world.size == 1:
        return (own,)
    start = time.monotonic()
    if world.rank > 0:
        return _ask(own, meeting, start + timeout, timeout)
    with _Desk(own, meeting.preflight_port) as desk:
        error = desk.taken(meeting.port) or desk.wait(start + DECIDE * timeout) or desk.absent()
        desk.answer(error)
        if error:
            desk.turn_away(error, min(start + CLOSE * timeout, time.monotonic() + LINGER))
            raise ClusterError(error)
        return desk.ordered()


class _Desk:
    """Rank 0's side: collects reports, and keeps their connections for the verdict."""

    def __init__(self, own: Report, port: int):
        self.own = own
        self.reports = {own.rank: own}
        self.waiting: list[socket.socket] = []
        self.num_told = 0
        self.halves: dict[socket.socket, bytearray] = {}
        self.selector = selectors.DefaultSelector()
        try:
            self.listener = _server(port, backlog=max(128, own.world))
        except OSError as error:
            raise ClusterError(self.cannot_listen(port, error)) from error
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in (self.listener, *self.waiting, *self.halves):
            connection.close()
        self.selector.close()

    def cannot_listen(self, port: int, error: OSError) -> str:
        reason = os.strerror(error.errno or 0)
        return (
            f"Rank 0 on {self.own.host} cannot listen on port {port} ({reason}): "
            "start again, or set MASTER_PORT so that it and the next port are free."
        )

    def taken(self, port: int) -> str | None:
        """The sentence about a port of torch.distributed that another program holds."""
        try:
            _server(port).close()
        except OSError as error:
            return self.cannot_listen(port, error)
        return None

    def wait(self, deadline: float) -> str | None:
        """Until all ranks are there, one does not fit (the sentence), or time is over."""
        while len(self.reports) < self.own.world and time.monotonic() < deadline:
            for report in self.arrivals(deadline):
                error = mismatch(self.own, report, self.reports.get(report.rank))
                if error:
                    return error
                ahead = report.clock - time.time()
                self.reports[report.rank] = replace(report, clock=ahead)
        return None

    def arrivals(self, deadline: float) -> list[Report]:
        """The reports that the next packets complete."""
        found = []
        for key, _ in self.selector.select(max(0.0, deadline - time.monotonic())):
            if key.fileobj is self.listener:
                self._accept()
            else:
                assert isinstance(key.fileobj, socket.socket)
                found.append(self._read(key.fileobj))
        return [report for report in found if report is not None]

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:  # gone before we looked
            return
        connection.setblocking(False)
        self.halves[connection] = bytearray()
        self.selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> Report | None:
        """A whole report, or None: half of one, or a stranger, who is dropped."""
        try:
            data = connection.recv(MAX_REPORT)
        except OSError:
            data = b""
        line = self.halves[connection]
        line += data
        if data and b"\n" not in line and len(line) < MAX_REPORT:
            return None
        self.selector.unregister(connection)
        del self.halves[connection]
        report = parse_report(bytes(line))
        if report is None:
            connection.close()
            return None
        if report.run != self.own.run:  # came to the wrong port: that run is to fail, not ours
            error = f"{self.own} is of {self.own.run}, not of {report.run}: end the older one."
            _tell(connection, {"error": error})
            return None
        self.waiting.append(connection)
        return report

    def absent(self) -> str | None:
        """The sentence about ranks that never came."""
        missing = [rank for rank in range(self.own.world) if rank not in self.reports]
        if not missing:
            return None
        few = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
        return (
            f"{len(missing)} of {self.own.world} ranks did not report to {self.own} in time "
            f"(missing: {few}; present: {_places(self.ordered())}): look for their own errors, and "
            "whether their nodes reach rank 0's."
        )

    def answer(self, error: str | None) -> None:
        """Tell the verdict to everyone who waits for it."""
        reports = [] if error else [asdict(report) for report in self.ordered()]
        for connection in self.waiting:
            _tell(connection, {"error": error, "reports": reports})
        self.num_told += len(self.waiting)
        self.waiting = []

    def turn_away(self, error: str, deadline: float) -> None:
        """Tell latecomers too, as long as there may be any."""
        while self.num_told < self.own.world - 1 and time.monotonic() < deadline:
            self.arrivals(deadline)
            self.answer(error)

    def ordered(self) -> tuple[Report, ...]:
        return tuple(self.reports[rank] for rank in sorted(self.reports))


def _server(port: int, backlog: int = 1) -> socket.socket:
    """Listens at all addresses of this machine, IPv6 ones too where it has any."""
    if socket.has_dualstack_ipv6():
        with suppress(OSError):  # it may be switched off
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
    return socket.create_server(("", port), backlog=backlog)


def _tell(connection: socket.socket, verdict: dict[str, object]) -> None:
    with connection:
        connection.settimeout(2.0)
        with suppress(OSError):  # whoever waited has ended already
            connection.sendall(json.dumps(verdict).encode() + b"\n")


def _ask(own: Report, meeting: Rendezvous, deadline: float, timeout: float) -> tuple[Report, ...]:
    """The other ranks' side: knock until rank 0 opens, report, wait for the verdict."""
    place = (meeting.address, meeting.preflight_port)
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(place, timeout=min(left, 5.0)) as connection:
                report = json.dumps(asdict(replace(own, clock=time.time())))
                connection.sendall(report.encode() + b"\n")
                verdict = json.loads(_line(connection, deadline))
                reports = tuple(Report(**report) for report in verdict.get("reports", ()))
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, TypeError, AttributeError, RecursionError):
            reason = "something else than rank 0 answers there"
        else:
            if verdict.get("error"):
                raise ClusterError(verdict["error"])
            return reports
        time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
    raise ClusterError(
        f"{own} got no word from rank 0 at {place[0]}:{place[1]} within {timeout:.0f} s "
        f"({reason}): check that rank 0 has started and that its node can be reached from here."
    )


def _line(connection: socket.socket, deadline: float) -> bytes:
    """One line; raises OSError when it does not come in time, or rank 0 has gone."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_VERDICT:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError(0, "rank 0 left without a word")
        line += data
    return bytes(line)


def _places(reports: tuple[Report, ...]) -> str:
    few = ", ".join(map(str, reports[:8]))
    return few + (" ..." if len(reports) > 8 else "")
