"""How far packing, verifying and translating have come, and how fast they go."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cluster import standard_streams


def progress_bar(title: str) -> tuple[Bar, Callable[..., None]]:
    """A bar for packing, verifying and translating, and the callback(done, total) that moves it."""
    bar = Bar(
        TextColumn(title),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(file=standard_streams.for_bars()),
    )
    task, since = bar.add_task("", total=None, speed=""), time.monotonic()

    def move(done: int, total: int, unit: str = "pictures") -> None:
        speed = done / max(time.monotonic() - since, 1e-3)
        bar.update(task, completed=done, total=total, speed=f"{unit}, {speed:.3g}/s")

    return bar, move


def pace(num_samples: int, num_bytes: int, seconds: float) -> str:
    """How fast so many bytes of samples were handled, as a closing line tells it."""
    seconds = max(seconds, 1e-3)
    mib = num_bytes / 2**20
    return (
        f"{mib:.1f} MiB in {seconds:.1f} s: {num_samples / seconds:.3g} samples/s, "
        f"{mib / seconds:.3g} MiB/s"
    )
