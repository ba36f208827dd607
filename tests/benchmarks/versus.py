"""Times a training step of ours against a plain one (tests/benchmarks/baseline.py), in one run.

    python -m tests.benchmarks.versus [RECIPE] [--size=2048x1024] [--steps=10] [--json=FILE]
        [--option=value ...]

The plain step in float32 comes first, then, for --precision=bf16, the plain one in autocast, then
ours. Each runs in a process of its own and they take turns, so that whatever else the machine does
meets all alike. Prints the medians and the peak of the memory (the allocator's on a GPU, else the
resident set), both also as ratios of ours to the plain ones. One image a step unless --batch.total
says otherwise. Batches are made up; the perceptual network gets random weights unless
--model.vgg_weights are given.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import yaml

from launcher import config as configuration
from launcher.config import Config
from launcher.tables import table
from launcher.wiring import PRECISIONS
from tests.benchmarks import baseline
from tests.benchmarks.step import WARM_UP, device_name, made_up, random_vgg, step_of, timed
from trainers.backends import Backend
from trainers.stats import peak_memory_gib
from trainers.trainer import to_device

OURS = "organza"
Row = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A step to be timed: ours, or the plain one in a precision of its own."""

    name: str
    config_yaml: str
    size: tuple[int, int]
    precision: str


def main(arguments: list[str]) -> None:
    flags = dict(a.removeprefix("--").split("=", 1) for a in arguments if a.startswith("--"))
    recipe = next((a for a in arguments if not a.startswith("--")), "earth-full")
    width, height = map(int, flags.pop("size", "2048x1024").split("x"))
    steps, file = int(flags.pop("steps", "10")), flags.pop("json", "")
    flags.setdefault("batch.total", "1")
    with tempfile.TemporaryDirectory() as folder:
        if gan_of(recipe) == "pix2pixhd":
            flags.setdefault("model.vgg_weights", random_vgg(recipe, flags, Path(folder)))
        config = configuration.load(recipe, flags)
        rows = race(contestants(config, (height, width)), steps)
    print(as_table(config, f"{width}x{height}", steps, rows))
    if file:
        Path(file).write_text(json.dumps(rows, indent=1) + "\n")


def gan_of(recipe: str) -> str:
    return yaml.safe_load(configuration.recipe_path(recipe).read_text())["gan"]


def contestants(config: Config, size: tuple[int, int]) -> list[Contestant]:
    """The plain step in float32 and, if ours has another, in our precision; then ours."""
    text = config.to_yaml()
    precisions = dict.fromkeys(["fp32", config.precision])
    plain = [Contestant(f"plain {name}", text, size, name) for name in precisions]
    return [*plain, Contestant(OURS, text, size, config.precision)]


def race(runners: Sequence[Contestant], steps: int) -> list[Row]:
    """Let each make a step in turn; a row for each."""
    context = get_context("spawn")
    lines = []
    for runner in runners:
        here, there = context.Pipe()
        context.Process(target=serve, args=(runner, there), daemon=True).start()
        lines.append(here)
    times: list[list[float]] = [[] for _ in runners]
    for _ in range(WARM_UP + steps):
        for line, measured in zip(lines, times):
            line.send("step")
            measured.append(line.recv())
    rows = []
    for runner, line, measured in zip(runners, lines, times):
        line.send("end")
        rows.append(
            {
                "step": runner.name,
                "precision": runner.precision,
                "seconds": statistics.median(measured[WARM_UP:]),
                **line.recv(),
            }
        )
    for row in rows:
        for name in ("seconds", "peak_gib"):
            row[f"{name}_of_ours"] = round(rows[-1][name] / row[name], 3)
    assert len({row["num_parameters"] for row in rows}) == 1, rows
    return rows


def serve(runner: Contestant, line: Connection) -> None:
    """Make a step whenever told to, and tell how long it took; in the end what it needed."""
    config = configuration.build(yaml.safe_load(runner.config_yaml), "benchmark")
    backend = Backend()
    torch.manual_seed(0)
    if runner.name == OURS:
        step, trainer = step_of(config, runner.size, backend)
        num_parameters = sum(p.numel() for p in trainer.gan.nets.parameters())
    else:
        make = baseline.UPDATES[config.gan]
        update, num_parameters = make(config.model, backend.device, PRECISIONS[runner.precision])
        batch = to_device(made_up(config, config.batch.total, runner.size), backend.device)

        def step() -> None:
            update(batch)

    while line.recv() == "step":
        line.send(timed(step, backend.device))
    peak = peak_memory_gib(backend.device)
    facts = {"device": device_name(backend.device), "torch": torch.__version__}
    line.send({"peak_gib": peak, "num_parameters": num_parameters, **facts})


def as_table(config: Config, size: str, steps: int, rows: list[Row]) -> str:
    lines = [
        [
            row["step"],
            f"{row['seconds'] * 1e3:.1f}",
            f"{row['seconds_of_ours']:.2f}",
            f"{row['peak_gib']:.2f}",
            f"{row['peak_gib_of_ours']:.2f}",
        ]
        for row in rows
    ]
    head = ["step", "ms", "ours is", "peak GiB", "ours is"]
    about = f"{config.gan}, {size}, batch {config.batch.total}, medians of {steps} steps"
    return f"{about}; {rows[0]['device']}, torch {rows[0]['torch']}\n{table(head, lines)}"


if __name__ == "__main__":
    main(sys.argv[1:])
