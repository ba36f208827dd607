"""Processes that never outlive the test's own, and machines made of Linux' name spaces."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

from tests.processes import patience
from tests.processes.patience import wait_for

TIE = ("setpriv", "--pdeathsig", "KILL")
UNSHARE = shlex.split(
    "unshare --net --uts --mount --pid --fork --mount-proc --kill-child=KILL bash -ec"
)


def run(*command: str, check: bool = True) -> str:
    """What a command prints; its error is part of the failure."""
    done = patience.run(command)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
    return done.stdout


class Tied:
    """A process that dies with this one, whatever ends it."""

    def __init__(self, *command: str, log: Path):
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*TIE, *command], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )

    def say(self, line: str) -> None:
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


class Space(Tied):
    """A machine of its own as to network, host name, processes and mounts; disks are shared.

    `script` is its first process; everything in the space ends with it."""

    def __init__(self, script: str, log: Path):
        super().__init__(*UNSHARE, script, log=log)
        outer = self.process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children")
        wait_for(lambda: children.read_text().split(), "process in the new space")
        self.root = children.read_text().split()[0]

    def kill(self) -> None:
        # The kernel ends everything in the space before its first process, and `unshare` waits.
        os.kill(int(self.root), signal.SIGKILL)
        self.process.wait()
        super().kill()

    def run(self, *command: str, check: bool = True) -> str:
        inside = ("nsenter", f"--target={self.root}", "--net", "--uts", "--mount", "--pid", "--")
        return run(*inside, *command, check=check)

    def plug(self, name: str, other: Space | None, other_name: str) -> None:
        """A cable between interface `name` here and `other_name` there (None: this machine)."""
        there = () if other is None else ("netns", other.root)
        run(
            *("ip", "link", "add", name, "netns", self.root, "type", "veth"),
            *("peer", "name", other_name),
            *there,
        )


def allowed() -> bool:
    """Whether this user may make such spaces, and connect them."""
    probe = [*UNSHARE, "ip link add probe type bridge"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True).returncode == 0


def kill_all_with(variable: str) -> None:
    """End the processes that were started with NAME=VALUE in their environment."""
    for path in Path("/proc").glob("[1-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is somebody else's


def remove_tree_of_groups(root: Path) -> None:
    """Control groups are folders that hold no real files: each goes by rmdir."""
    for folder, _, _ in os.walk(root, topdown=False):
        os.rmdir(folder)
