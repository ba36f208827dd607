"""What a person sees while a run goes on: a bar on a terminal, a line a tick in a log file."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from launcher.text.scalars import is_loss
from trainers.board.board import Observer
from trainers.checkpoints.checkpoint import Progress


class Terminal(Observer):
    """Progress with speed, losses and time to go, on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def start(self, progress: Progress, total: int, config: str) -> None:
        self.total, self.first, self.since = total, progress.images, time.monotonic()
        where = f"resuming at {progress.images}" if progress.images else "starting"
        print(f"Training: {where} of {total} images.", file=sys.stderr, flush=True)
        # A line wider than the terminal would not be drawn over: what is left goes to the losses.
        self.bar = Bar(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(bar_width=12),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True, ratio=1)),
            console=self.console,
            disable=not self.console.is_terminal,
            expand=True,
        )
        self.task = self.bar.add_task("", total=total, completed=progress.images, losses="")
        self.bar.start()

    def scalars(self, progress: Progress, values: dict[str, float]) -> None:
        speed = values["speed/images_per_s"]
        losses = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if is_loss(name))
        text = f"{speed:.3g} images/s  {losses}"
        self.bar.update(self.task, completed=progress.images, losses=text)
        if not self.console.is_terminal:
            left = self.remaining(progress)
            line = f"{progress.images}/{self.total} images  {left} left  {text}"
            print(line, file=sys.stderr, flush=True)

    def remaining(self, progress: Progress) -> str:
        """Time to go at the mean speed of this start, as h:mm:ss."""
        done = max(progress.images - self.first, 1)
        seconds = (time.monotonic() - self.since) / done * (self.total - progress.images)
        return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"

    def close(self) -> None:
        self.bar.stop()
