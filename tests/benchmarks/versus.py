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
import sys
from functools import partial
from pathlib import Path

import yaml

from launcher.recipe import config as configuration
from launcher.recipe.building import PRECISIONS
from launcher.recipe.config import Config
from launcher.text.tables import table
from tests.benchmarks import baseline
from tests.benchmarks.race import Options, Row, Runner, Step, configured, parsed, race
from tests.benchmarks.step import made_up, step_of
from trainers.backends.base import Backend
from trainers.engine.to_device import to_device


def main(arguments: list[str]) -> None:
    options = parsed(arguments)
    with configured(options) as config:
        rows = race(runners(config, options.size), options.steps)
    assert len({row["num_parameters"] for row in rows}) == 1, rows
    for row in rows:
        for name in ("seconds", "peak_gib"):
            row[f"{name}_of_ours"] = round(rows[-1][name] / row[name], 3)
    print(as_table(config, options, rows))
    if options.file:
        Path(options.file).write_text(json.dumps(rows, indent=1) + "\n")


def runners(config: Config, size: tuple[int, int]) -> list[Runner]:
    """The plain step in float32 and, if ours has another, in our precision; then ours."""
    text = config.to_yaml()
    precisions = dict.fromkeys(["fp32", config.precision])
    plain = [Runner(f"plain {name}", partial(make_plain, text, size, name)) for name in precisions]
    return [*plain, Runner("organza", partial(make_ours, text, size))]


def make_plain(
    config_yaml: str, size: tuple[int, int], precision: str, backend: Backend
) -> tuple[Step, Row]:
    config = configuration.build(yaml.safe_load(config_yaml), "benchmark")
    plain = baseline.PLAIN[config.gan](config.model, backend.device, PRECISIONS[precision])
    batch = to_device(made_up(config, config.batch.total, size), backend.device)

    def step() -> None:
        plain.update(batch)

    return step, {"precision": precision, "num_parameters": plain.num_parameters}


def make_ours(config_yaml: str, size: tuple[int, int], backend: Backend) -> tuple[Step, Row]:
    config = configuration.build(yaml.safe_load(config_yaml), "benchmark")
    step, trainer = step_of(config, size, backend)
    num_parameters = sum(p.numel() for p in trainer.gan.nets.parameters())
    return step, {"precision": config.precision, "num_parameters": num_parameters}


def as_table(config: Config, options: Options, rows: list[Row]) -> str:
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
    about = f"{config.gan}, {options.size_text}, batch {config.batch.total}"
    device = f"medians of {options.steps} steps; {rows[0]['device']}, torch {rows[0]['torch']}"
    return f"{about}, {device}\n{table(head, lines)}"


if __name__ == "__main__":
    main(sys.argv[1:])
