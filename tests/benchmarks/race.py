"""Training steps that take turns, each in a process of its own.

Whatever else the machine does meets all alike, and each has a peak of memory of its own.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from launcher.recipe import config as configuration
from launcher.recipe.config import Config
from tests.benchmarks.step import WARM_UP, device_name, even_ground, random_vgg, timed
from trainers.backends.base import Backend
from trainers.board.stats import peak_memory_gib

Row = dict[str, Any]
Step = Callable[[], None]


@dataclass(frozen=True)
class Runner:
    """A step to be timed."""

    name: str
    make: Callable[[Backend], tuple[Step, Row]]
    """Called in the runner's process: the step, and what its row tells beside its cost."""


@dataclass(frozen=True)
class Options:
    """The command line of a race: [RECIPE] [--size=WxH] [--steps=N] [--json=FILE] [--a.b=value]."""

    recipe: str
    size: tuple[int, int]
    """(height, width)."""
    steps: int
    file: str
    overrides: dict[str, str]

    @property
    def size_text(self) -> str:
        return f"{self.size[1]}x{self.size[0]}"


def parsed(arguments: Sequence[str]) -> Options:
    flags = dict(a.removeprefix("--").split("=", 1) for a in arguments if a.startswith("--"))
    recipe = next((a for a in arguments if not a.startswith("--")), "earth-full")
    width, height = map(int, flags.pop("size", "2048x1024").split("x"))
    steps, file = int(flags.pop("steps", "10")), flags.pop("json", "")
    return Options(recipe, (height, width), steps, file, {"batch.total": "1"} | flags)


@contextmanager
def configured(options: Options) -> Iterator[Config]:
    """The recipe as overridden; a perceptual network has random weights unless some are given."""
    flags = options.overrides
    with tempfile.TemporaryDirectory() as folder:
        config = configuration.load(options.recipe, flags)
        if has_vgg(config) and "model.vgg_weights" not in flags:
            weights = random_vgg(options.recipe, flags, Path(folder))
            config = configuration.load(options.recipe, flags | {"model.vgg_weights": weights})
        yield config


def has_vgg(config: Config) -> bool:
    return getattr(config.model, "lambda_vgg", 0) > 0


def race(runners: Sequence[Runner], steps: int) -> list[Row]:
    """Let each make a step in turn; a row for each, with the median of its times."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not for every runner
    lines = []
    for runner in runners:
        here, there = context.Pipe()
        context.Process(target=_serve, args=(runner, there), daemon=True).start()
        there.close()  # so that a runner's death ends the wait for its answer
        lines.append(here)
    times: list[list[float]] = [[] for _ in runners]
    for _ in range(WARM_UP + steps):
        for line, measured in zip(lines, times, strict=True):
            line.send("step")
            measured.append(line.recv())
    rows = []
    for runner, line, measured in zip(runners, lines, times, strict=True):
        line.send("end")
        median = statistics.median(measured[WARM_UP:])
        rows.append({"step": runner.name, "seconds": median, **line.recv()})
    return rows


def _serve(runner: Runner, line: Connection) -> None:
    """Make a step whenever told to, and tell how long it took; in the end what it needed."""
    backend = Backend()
    even_ground()
    torch.manual_seed(0)
    step, facts = runner.make(backend)
    while line.recv() == "step":
        line.send(timed(step, backend.device))
    peak = peak_memory_gib(backend.device)
    about = {"device": device_name(backend.device), "torch": torch.__version__}
    line.send({"peak_gib": peak, **facts, **about})
