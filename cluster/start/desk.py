"""Rank 0's side of `preflight`: who comes, who is who he says, and the verdict for all."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import json
import os
import resource
import secrets
import selectors
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from cluster.errors import ClusterError
from cluster.start.rendezvous import Rendezvous, is_loopback
from cluster.start.reports import Report, mismatch, parse_report
from cluster.start.token import mac

MAX_REPORT = 65536
"""Bytes; whoever sends more is no rank of ours."""
MAX_SILENT = 256
"""Connections beyond one for each rank; then the oldest of those that keep their report back go."""
OTHER_FILES = 64
"""Descriptors that a process needs for other things than connections, at most."""
PATIENCE = 10.0
"""Seconds after which a connection without a report goes."""


class Desk:
    """Rank 0's side: collects reports, and keeps their connections for the verdict."""

    def __init__(self, own: Report, meeting: Rendezvous, token: bytes):
        self.own = own
        self.token = token
        self.reports = {own.rank: own}
        self.waiting: list[Guest] = []
        self.num_told = 0
        self.num_strangers = 0
        self.halves: dict[socket.socket, Guest] = {}
        """Connections whose reports are not whole yet, the oldest first."""
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._raise_limit()
        self.selector = selectors.DefaultSelector()
        port = meeting.preflight_port
        try:
            self.listener = _server(meeting.address, port, backlog=max(128, own.world))
        except OSError as error:
            raise ClusterError(self.cannot_listen(port, error)) from error
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *exception: object) -> None:
        guests = (guest.connection for guest in self.waiting)
        for connection in (self.listener, *guests, *self.halves):
            connection.close()
        self.selector.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)

    def _raise_limit(self) -> None:
        """Room for a connection of each rank until the verdict: systems give a process 1024
        descriptors at first, and more if it asks."""
        soft, hard = (
            sys.maxsize if limit == resource.RLIM_INFINITY else limit for limit in self.limits
        )
        least = self.own.world + OTHER_FILES
        if hard < least:
            raise ClusterError(
                f"Rank 0 on {self.own.host} may open {hard} files, too few to meet "
                f"{self.own.world} ranks: have its limit raised to {least} or more (ulimit -n)."
            )
        wanted = min(least + MAX_SILENT, hard)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, self.limits[1]))

    def cannot_listen(self, port: int, error: OSError) -> str:
        reason = os.strerror(error.errno or 0)
        return (
            f"Rank 0 on {self.own.host} cannot listen on port {port} ({reason}): "
            "start again, or set MASTER_PORT so that it and the next port are free."
        )

    def taken(self, port: int) -> str | None:
        """The sentence about a port of torch.distributed that another program holds."""
        try:
            _server("", port).close()
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
        self._drop_silent()
        left = deadline - time.monotonic()
        for key, _ in self.selector.select(max(0.0, min(left, PATIENCE))):
            if key.fileobj is self.listener:
                self._accept()
            elif key.fileobj in self.halves:  # not just dropped for another
                assert isinstance(key.fileobj, socket.socket)
                found.append(self._read(key.fileobj))
        return [report for report in found if report is not None]

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError as error:  # gone before we looked
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            return
        connection.setblocking(False)
        guest = Guest(connection, secrets.token_hex(16).encode(), time.monotonic())
        with suppress(OSError):  # gone already, as reading will tell
            connection.send(guest.greeting + b"\n")
        self.halves[connection] = guest
        self.selector.register(connection, selectors.EVENT_READ)

    def _drop_silent(self) -> None:
        """Connections that keep their reports back do not keep others out: ranks speak at once, and
        knock again if they are sent away."""
        many = len(self.halves) + len(self.waiting) - MAX_SILENT - self.own.world
        late = time.monotonic() - PATIENCE
        for number, guest in enumerate([*self.halves.values()]):
            if number < many or guest.since < late:
                self._forget(guest.connection).close()

    def _make_room(self) -> None:
        """For the next connection, when there is no descriptor left."""
        if self.halves:
            self._forget(next(iter(self.halves))).close()
        else:
            time.sleep(0.1)  # others' files, as of the whole system: they may close some

    def _forget(self, connection: socket.socket) -> socket.socket:
        self.selector.unregister(connection)
        del self.halves[connection]
        return connection

    def _read(self, connection: socket.socket) -> Report | None:
        """A whole report, or None: half of one, or a stranger, who is dropped."""
        try:
            data = connection.recv(MAX_REPORT)
        except OSError:
            data = b""
        guest = self.halves[connection]
        guest.line += data
        if data and b"\n" not in guest.line and len(guest.line) < MAX_REPORT:
            return None
        self._forget(connection)
        report = guest.report(self.token)
        if report is None:
            self.num_strangers += bool(guest.line)
            with connection, suppress(OSError):
                connection.send(b"unknown\n")
            return None
        if report.run != self.own.run:  # came to the wrong port: that run is to fail, not ours
            error = f"{self.own} is of {self.own.run}, not of {report.run}: end the older one."
            guest.tell({"error": error}, self.token)
            return None
        self.waiting.append(guest)
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
            f"whether their nodes reach rank 0's.{self._strangers()}"
        )

    def _strangers(self) -> str:
        if not self.num_strangers:
            return ""
        return (
            f" {self.num_strangers} connections did not know the run's token: the run folder must "
            "lie on a file system that all nodes share."
        )

    def answer(self, error: str | None) -> None:
        """Tell the verdict to everyone who waits for it."""
        reports = [] if error else [asdict(report) for report in self.ordered()]
        for guest in self.waiting:
            guest.tell({"error": error, "reports": reports}, self.token)
        self.num_told += len(self.waiting)
        self.waiting = []

    def turn_away(self, error: str, deadline: float) -> None:
        """Tell latecomers too, as long as there may be any."""
        while self.num_told < self.own.world - 1 and time.monotonic() < deadline:
            self.arrivals(deadline)
            self.answer(error)

    def ordered(self) -> tuple[Report, ...]:
        return tuple(self.reports[rank] for rank in sorted(self.reports))


@dataclass
class Guest:
    """A connection to rank 0."""

    connection: socket.socket
    greeting: bytes
    """The nonce that it was sent."""
    since: float
    line: bytearray = field(default_factory=bytearray)
    nonce: bytes = b""
    """The one that it has sent itself."""

    def report(self, token: bytes) -> Report | None:
        """What it has said, if it knows the token."""
        told, nonce, text = (bytes(self.line).rstrip(b"\n").split(b" ", 2) + [b"", b""])[:3]
        self.nonce = nonce
        own = mac(token, b"report", self.greeting, nonce, text).encode()
        return parse_report(text) if hmac.compare_digest(told, own) else None

    def tell(self, verdict: dict[str, object], token: bytes) -> None:
        """The last word, which ends the connection."""
        text = json.dumps(verdict).encode()
        signed = mac(token, b"verdict", self.greeting, self.nonce, text).encode()
        with self.connection:
            self.connection.settimeout(2.0)
            with suppress(OSError):  # whoever waited has ended already
                self.connection.sendall(signed + b" " + text + b"\n")


def _server(address: str, port: int, backlog: int = 1) -> socket.socket:
    """Listens at `address` alone where that is one of this machine's, and means the same to others;
    else at all, IPv6 ones too where it has any."""
    if address:
        family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        # A machine's own name may mean 127.0.1.1 on itself alone.
        if is_loopback(address) or not ipaddress.ip_address(place[0]).is_loopback:
            try:
                return socket.create_server(place[:2], family=family, backlog=backlog)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # as behind a translated address
                    raise
    if socket.has_dualstack_ipv6():
        with suppress(OSError):  # it may be switched off
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
    return socket.create_server(("", port), backlog=backlog)


def _places(reports: tuple[Report, ...]) -> str:
    few = ", ".join(map(str, reports[:8]))
    return few + (" ..." if len(reports) > 8 else "")
