"""Before torch.distributed: do all processes reach each other, and are they the same program?

NCCL and gloo hang, or fail after half an hour with nobody's name, when a node is missing or runs
another version. So every rank first tells rank 0 who it is, one line of JSON over TCP, and gets a
verdict: everyone goes on, or everyone ends with the same sentence.

Rank 0 greets each connection with a nonce; reports and verdicts carry an HMAC of it by the run's
token (cluster/start/token.py), so that whoever does not know that, or repeats what he has heard in
another start, is nobody. The lines: NONCE, then MAC NONCE REPORT, then MAC VERDICT.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, replace

from cluster.errors import ClusterError
from cluster.start.desk import MAX_REPORT, Desk
from cluster.start.rendezvous import Rendezvous
from cluster.start.reports import Report
from cluster.start.token import mac
from cluster.start.topology import World

TIMEOUT = 60.0
DECIDE, CLOSE = 0.8, 0.9
"""Parts of the timeout: when rank 0 decides, so that its word reaches those who began earlier, and
when it leaves at the latest."""
LINGER = 5.0
"""Seconds for which rank 0 still tells latecomers that the start has failed."""
MAX_VERDICT = 1 << 26


def preflight(
    world: World,
    meeting: Rendezvous,
    facts: Mapping[str, str],
    token: bytes,
    timeout: float = TIMEOUT,
) -> tuple[Report, ...]:
    """Meet all ranks; their reports in order of rank. To be called by every rank.

    token: the run's secret (cluster/start/token.py).
    facts: name -> value, e.g. {"torch": "2.13.0", "code": code_fingerprint(...)}.
    Raises ClusterError on all ranks, within `timeout` seconds, when one is missing, unreachable,
    there twice, or differs."""
    own = Report(meeting.run, world.rank, world.size, socket.gethostname(), 0.0, dict(facts))
    if world.size == 1:
        return (own,)
    start = time.monotonic()
    if world.rank > 0:
        return _ask(own, meeting, token, start + timeout, timeout)
    with Desk(own, meeting, token) as desk:
        error = desk.taken(meeting.port) or desk.wait(start + DECIDE * timeout) or desk.absent()
        desk.answer(error)
        if error:
            desk.turn_away(error, min(start + CLOSE * timeout, time.monotonic() + LINGER))
            raise ClusterError(error)
        return desk.ordered()


def _ask(
    own: Report, meeting: Rendezvous, token: bytes, deadline: float, timeout: float
) -> tuple[Report, ...]:
    """The other ranks' side: knock until rank 0 opens, report, wait for the verdict."""
    place = (meeting.address, meeting.preflight_port)
    reason, stranger = "no answer", ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(place, timeout=min(left, 5.0)) as connection:
                said = _converse(connection, own, token, deadline)
                if said is None:
                    raise ValueError("no rank 0 of this run")
                verdict = json.loads(said)
                reports = tuple(Report(**report) for report in verdict.get("reports", ()))
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, TypeError, AttributeError, RecursionError):
            stranger = (
                "something else than rank 0 of this run answers there, or the run folder is not "
                "shared by all nodes"
            )
        else:
            if verdict.get("error"):
                raise ClusterError(verdict["error"])
            return reports
        time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
    raise ClusterError(
        f"{own} got no word from rank 0 at {place[0]}:{place[1]} within {timeout:.0f} s "
        f"({stranger or reason}): check that rank 0 has started and that its node can be reached "
        "from here."
    )


def _converse(
    connection: socket.socket, own: Report, token: bytes, deadline: float
) -> bytes | None:
    """Report to rank 0; its verdict, or None if it is not the one of this run."""
    greeting, nonce = _line(connection, deadline, MAX_REPORT), secrets.token_hex(16).encode()
    if not re.fullmatch(rb"[0-9a-f]{32}", greeting):
        return None
    text = json.dumps(asdict(replace(own, clock=time.time()))).encode()
    signed = mac(token, b"report", greeting, nonce, text).encode()
    connection.sendall(b" ".join((signed, nonce, text)) + b"\n")
    told, _, verdict = _line(connection, deadline, MAX_VERDICT).partition(b" ")
    own_mac = mac(token, b"verdict", greeting, nonce, verdict).encode()
    return verdict if hmac.compare_digest(told, own_mac) else None


def _line(connection: socket.socket, deadline: float, longest: int) -> bytes:
    """One line without its end; OSError when it does not come in time, or rank 0 has gone."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < longest:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError(0, "rank 0 left without a word")
        line += data
    return bytes(line).rstrip(b"\n")
