"""Signs of life: each rank keeps a small file in RUN/heartbeats that says where it is.

A rank that hangs or whose node is gone cannot say so itself: its file stops changing, and `watch`
sees that. The file also works the other way: RUN/heartbeats/start names the start that the run
belongs to, and a rank that an earlier start has left behind ends itself when it reads another name.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from cluster.standard_streams import visible
from cluster.text_files import read_bytes, replace_text

INTERVAL = 5.0
"""Seconds between two beats."""
START = "ORGANZA_START"
"""The variable that tells ranks to which start they belong; absent where nobody watches."""
DOING = {
    "start": "starting",
    "data": "waiting for data",
    "step": "computing",
    "save": "saving",
    "end": "leaving",
}


@dataclass(frozen=True)
class Beat:
    """What a rank said last."""

    rank: int
    host: str
    pid: int
    step: int
    images: int
    doing: str
    """One of DOING; "end" once the rank has left in order."""
    beats: int
    """How often the rank has said something."""
    time: float
    """Seconds since 1970 by the clock of the rank's own node."""

    def __str__(self) -> str:
        doing = DOING.get(self.doing, self.doing)
        return f"rank {self.rank} on {self.host} (pid {self.pid}, step {self.step}, {doing})"


class Heart:
    """Writes where this rank is, every INTERVAL seconds, in a thread of its own.

    Nothing that goes wrong here may hurt the training: a full disk is told once on stderr, and a
    file system that hangs holds up this thread alone."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank = folder, rank
        self.place = ("start", 0, 0)
        self.beats = 0
        self.failing = False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> Heart:
        self.thread.start()
        return self

    def pulse(self, doing: str, step: int, images: int) -> None:
        """What this rank does next: data, step or save. Costs no more than an assignment."""
        self.place = (doing, step, images)

    def stop(self) -> None:
        """The last beat says that the rank left in order."""
        self.place = ("end", *self.place[1:])
        self.over.set()
        if self.thread.is_alive():
            self.thread.join(INTERVAL)  # the process may end while the file system hangs

    def _run(self) -> None:
        while True:
            last = self.over.is_set()
            try:
                self._beat()
                self.failing = False
            except OSError as error:
                self._complain(error)
            if last:
                return
            self.over.wait(INTERVAL)

    def _beat(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        own, current = os.environ.get(START), current_start(self.folder)
        if own and current and own != current:
            self._leave(own, current)
        doing, step, images = self.place
        self.beats += 1
        host, pid = socket.gethostname(), os.getpid()
        beat = Beat(self.rank, host, pid, step, images, doing, self.beats, time.time())
        replace_text(self.folder / file_name(self.rank), json.dumps(asdict(beat)) + "\n")

    def _leave(self, own: str, current: str) -> None:
        """Whoever started this rank has given it up, perhaps because its node was out of reach."""
        try:
            print(
                f"Rank {self.rank} belongs to the start {own}, but the run has been started again "
                f"({current}): it ends itself.",
                file=sys.stderr,
                flush=True,
            )
        finally:
            # The main thread may hang in a collective, and must not save any more.
            os.kill(os.getpid(), signal.SIGKILL)

    def _complain(self, error: OSError) -> None:
        if not self.failing:
            self.failing = True
            follows = "the watch, which hears nothing else, will give this rank up as silent"
            if not os.environ.get(START):
                follows = "the training goes on, but nobody can see that it does"
            print(
                f"Rank {self.rank} cannot write its heartbeat ({error}): make room there, or "
                f"{follows}.",
                file=sys.stderr,
                flush=True,
            )


def read(folder: Path) -> list[Beat]:
    """The last beat of each rank, by rank; files that are no whole beat are left out."""
    beats = [_parse(path) for path in sorted(folder.glob("rank*.json"))]
    return sorted((beat for beat in beats if beat), key=lambda beat: beat.rank)


def begin(folder: Path, name: str) -> None:
    """From now on the run belongs to the start `name`: ranks of others end themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "start", name + "\n")


def clear(folder: Path) -> None:
    """Forget the beats of earlier starts, perhaps of more ranks."""
    for path in folder.glob("rank*.json"):
        path.unlink(missing_ok=True)


def current_start(folder: Path) -> str:
    """The start that the run belongs to; "" if nobody watches it."""
    try:
        return read_bytes(folder / "start").decode().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def file_name(rank: int) -> str:
    return f"rank{rank:05d}.json"


def _parse(path: Path) -> Beat | None:
    kinds = {"int": int, "str": str, "float": float}
    try:
        values = json.loads(read_bytes(path))
        beat = Beat(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    fits = all(type(values[field.name]) is kinds[str(field.type)] for field in fields(Beat))
    if not fits or path.name != file_name(beat.rank):
        return None
    return replace(beat, host=visible(beat.host), doing=visible(beat.doing))
