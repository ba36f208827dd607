"""Commands in processes whose interpreter is warm: most of a short one's time goes into imports.

A process that has imported what all commands import waits for words. It forks, and the child goes
on as `python -m launcher` does, in the caller's environment, with its output in a file. Who tests
how a command starts, or sends it signals, starts it himself (`sample.start`).
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.processes.patience import Patience

ROOT = Path(__file__).parents[2]
IMPORTED = ("launcher.commands.cli", "launcher.run.training", "launcher.run.translating")


def run(arguments: list[str], environment: dict[str, str], folder: Path = ROOT) -> tuple[int, str]:
    """`organza ARGUMENTS` in a folder, to its end: exit status, and everything printed."""
    with tempfile.NamedTemporaryFile("r") as output:
        words = {"arguments": arguments, "environment": environment, "output": output.name}
        words |= {"folder": str(folder)}
        line, patience = server(), Patience(f"end of {arguments}")
        line.sendall(json.dumps(words).encode() + b"\n")
        pid = int(read_line(line))
        try:
            while not select.select([line], [], [], 1)[0]:
                patience.check()
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            read_line(line)
            raise
        return int(read_line(line)), output.read()


@cache
def server() -> socket.socket:
    """The line to the process that forks, which ends when it is closed."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.launcher.warm_start", str(theirs.fileno())]
    single = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.Popen(command, cwd=ROOT, env=single, pass_fds=[theirs.fileno()])
    theirs.close()
    return ours


def read_line(line: socket.socket) -> bytes:
    """One line, or what there was until the other side has gone."""
    found = b""
    while not found.endswith(b"\n"):
        more = line.recv(2**16)
        if not more:
            break
        found += more
    return found


def serve(line: socket.socket) -> None:
    """Fork for every line of words, tell the pid, and later the exit status."""
    while words := read_line(line):
        pid = os.fork()
        if pid == 0:
            line.close()
            become(**json.loads(words))
            return
        line.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(arguments: list[str], environment: dict[str, str], output: str, folder: str) -> None:
    """Go on as the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(file, standard)
    os.close(file)
    sys.argv[1:] = arguments
    runpy.run_module("launcher", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    serve(socket.socket(fileno=int(sys.argv[1])))
