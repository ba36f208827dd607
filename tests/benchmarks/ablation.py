"""What each saving of our training step is worth: the step with it, and with it switched off.

    python -m tests.benchmarks.ablation [RECIPE] [--size=2048x1024] [--steps=10] [--json=FILE]
        [--only=TEXT] [--option=value ...]

A row for each saving that the recipe has (tests/benchmarks/savings.py), or for those whose name
contains the text. Our step and the one
without the saving run in processes of their own and take turns; the row has the medians and the
memory peak of the latter (the allocator's on a GPU, else the resident set), and both as multiples
of ours. That the numbers stay the same is shown with slim networks and small images, in float64:
by the largest difference between the gradients of one step, relative to the largest gradient of its
player; where these are equal bit for bit, between the weights after it. Batches are made up, and
the perceptual network gets random weights unless --model.vgg_weights are given.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from launcher.recipe import config as configuration
from launcher.recipe.config import Config
from launcher.text.tables import table
from tests.benchmarks.race import Options, Row, Runner, Step, configured, parsed, race
from tests.benchmarks.savings import BY_NAME, SAVINGS, Saving, Swaps
from tests.benchmarks.step import Gradients, Recording, step_of
from trainers.backends.base import Backend

SLIM = 8
"""Width of the networks whose numbers are compared."""
FOR_EVER = 10**9
"""Images that no benchmark reaches."""
Outcome = Gradients
"""The same with the weights after the step."""


def main(arguments: list[str]) -> None:
    options = parsed(arguments)
    text = options.overrides.pop("only", "")
    with configured(options) as config:
        savings = [s for s in SAVINGS if s.applies(config) and text in s.name]
        if not savings:
            raise SystemExit(f"{options.recipe} has no saving with --only={text} in its name")
        rows = []
        for number, saving in enumerate(savings, start=1):
            print(f"{number} of {len(savings)}: {saving.name}", file=sys.stderr, flush=True)
            rows.append(compared(config, options, saving))
    print(as_table(config, options, rows))
    if options.file:
        Path(options.file).write_text(json.dumps(rows, indent=1) + "\n")


def compared(config: Config, options: Options, saving: Saving) -> Row:
    """One row: what the saving costs where it is missing."""
    text = adapted(config, saving).to_yaml()
    runners = [
        Runner(name, partial(make, text, options.size, saving.name, off))
        for name, off in (("ours", False), (saving.name, True))
    ]
    ours, row = race(runners, options.steps)
    for name in ("seconds", "peak_gib"):
        row[f"{name}_to_ours"] = round(row[name] / ours[name], 3)
    outcomes = (outcome(config, saving, off) for off in (False, True))
    return row | {"precision": config.precision, **difference(*outcomes)}


def make(
    config_yaml: str, size: tuple[int, int], name: str, off: bool, backend: Backend
) -> tuple[Step, Row]:
    """A step of ours, maybe with the saving `off` for as long as the process lives."""
    config, saving = configuration.build(yaml.safe_load(config_yaml), "benchmark"), BY_NAME[name]
    swaps = Swaps()
    if off:
        saving.switch_off(swaps, config)
    whole, _ = step_of(config, size, backend, fixed=saving.fixed)

    def step() -> None:
        whole()
        swaps.check()

    return step, {}


def difference(ours: Outcome, theirs: Outcome) -> Row:
    """The largest relative difference of the numbers."""
    players = ours.keys() - {"weights"}
    # Where a gradient is but rounding, Adam's first step is of full length in either direction.
    parts = players if any(differ(ours[p], theirs[p]) for p in players) else {"weights"}
    return {
        "compared": "weights" if "weights" in parts else "gradients",
        "difference": max(relative(theirs[part], ours[part]) for part in parts),
    }


def outcome(config: Config, saving: Saving, off: bool) -> Outcome:
    """Of one step with slim networks on the smallest images."""
    config, backend = adapted(config, saving, slim=True), Recording()
    needs = config.model.needs
    side = -(-max(needs.min_side, needs.multiple) // 32) * 32
    dtype = torch.float64 if saving.precise else torch.float32
    with Swaps() as swaps:
        if off:
            saving.switch_off(swaps, config)
        size = (side, 2 * side)
        step, trainer = step_of(config, size, backend, dtype=dtype, fixed=saving.fixed)
        step()
        swaps.check()
    return backend.gradients | {"weights": trainer.gan.nets.state_dict()}


def adapted(config: Config, saving: Saving, slim: bool = False) -> Config:
    """For the saving to show; `slim`: with narrow networks, without autocast where it can be."""
    tree = config.model_dump(mode="json")
    if saving.fixed:
        tree["model"]["fix_global"] = FOR_EVER
    if slim:
        narrow(tree["model"])
        tree["precision"] = "fp32" if saving.precise else config.precision
    return configuration.build(tree, "benchmark")


def narrow(section: dict[str, Any]) -> None:
    """In place; also without dropout, which draws in the order of the layout in memory."""
    for name, value in section.items():
        if isinstance(value, dict):
            narrow(value)
        elif name in ("ngf", "ndf"):
            section[name] = min(value, SLIM)
        elif name == "dropout":
            section[name] = 0.0


def differ(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return not all(torch.equal(ours[name], theirs[name]) for name in ours)


def relative(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> float:
    gap = max((theirs[name] - ours[name]).abs().max().item() for name in ours)
    return gap / max(tensor.abs().max().item() for tensor in ours.values())


def as_table(config: Config, options: Options, rows: list[Row]) -> str:
    lines = [
        [
            row["step"],
            f"{row['seconds'] * 1e3:.1f}",
            f"{row['seconds_to_ours']:.2f}",
            f"{row['peak_gib']:.2f}",
            f"{row['peak_gib_to_ours']:.2f}",
            "bit for bit" if not row["difference"] else f"{row['difference']:.0e}",
        ]
        for row in rows
    ]
    head = ["instead", "ms", "x ours", "peak GiB", "x ours", "numbers differ by"]
    about = f"{config.gan}, {options.size_text}, batch {config.batch.total}, {config.precision}"
    device = f"medians of {options.steps} steps; {rows[0]['device']}, torch {rows[0]['torch']}"
    return f"{about}, {device}\n{table(head, lines)}"


if __name__ == "__main__":
    main(sys.argv[1:])
