"""Real process groups for tests: fork, gloo on the loopback interface, many checks in one gang."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from tests.processes.patience import wait_for


def run(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call work(*arguments) on `world` ranks at once; their results by rank.

    `work` finds RANK and WORLD_SIZE in the environment, as under a launcher, and opens its own
    backend. Results must be plain Python. An exception on any rank is raised here."""
    context = multiprocessing.get_context("fork")
    port = free_port()
    members = []
    for rank in range(world):
        reader, writer = context.Pipe(duplex=False)
        member = context.Process(target=_member, args=(rank, world, port, writer, work, arguments))
        member.start()
        writer.close()
        members.append((member, reader))
    try:
        results = [_receive(reader) for _, reader in members]
    finally:
        for member, _ in members:
            member.kill()
            member.join()
    for rank, (ok, value) in enumerate(results):
        assert ok, f"rank {rank} of {world}:\n{value}"
    return [value for _, value in results]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _receive(reader: Connection) -> tuple[bool, Any]:
    wait_for(partial(reader.poll, 1), "answer of a rank")
    try:
        return reader.recv()
    except EOFError:
        return False, "died without an answer"


def _member(
    rank: int, world: int, port: int, writer: Any, work: Callable[..., Any], arguments: tuple
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    import torch

    # Every trainer collects garbage; what the parent left is none, and going through it is slow.
    gc.freeze()
    # A parent that has used OpenMP threads cannot hand them to a fork: one thread needs none.
    torch.set_num_threads(1)
    try:
        writer.send((True, work(*arguments)))
    except BaseException:  # noqa: B036 - everything is passed on to the parent
        writer.send((False, traceback.format_exc()))
    writer.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter exit with live gloo threads aborts now and then.
    os._exit(0)
