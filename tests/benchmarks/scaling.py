"""Holds the model of communication (cluster/links.py) against real steps of several processes.

    python -m tests.benchmarks.scaling [RECIPE] [--worlds=2,4] [--size=128x64] [--steps=15]
        [--rate=400mbit] [--json=FILE] [--option=value ...]

Processes of this machine, DDP, gloo over the loopback interface. For each world size: all-reduces
are timed and fitted; training steps are timed that do not synchronise, all processes at once; from
both the model predicts the step that synchronises. That one is measured in turn with the others,
so that whatever else the machine does meets all alike.

Over the loopback interface the processors themselves carry the gradients, so that nothing hides for
free unless some are idle. What the model says of a step that hides nothing, and of one that hides
behind its backward, are therefore the two ends between which the measured step should lie.
--rate makes the interface slow (in a network namespace of its own: needs Linux, unshare and tc):
then the gradients take time without taking processors, as between GPUs, and what hides is seen.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor

from cluster.links import BUCKET, Hiding, Link, Update, ring_seconds, step_seconds
from launcher.recipe import config as configuration
from launcher.text.tables import table
from tests.benchmarks.step import WARM_UP, step_of, timed
from tests.processes import gang
from trainers.backends.base import Place, Seat
from trainers.backends.distributed import Replicated

SLIM = {
    "precision": "fp32",
    "model.ngf": "16",
    "model.ndf": "16",
    "model.lambda_vgg": "0",
    "batch.total": "1",
}
"""Many parameters beside little work, as one image is for a fast GPU."""
MESSAGES = tuple(BUCKET // part for part in (16, 8, 4, 2, 1))
"""Bytes of the all-reduces that are timed."""
Row = dict[str, Any]


@dataclass
class Backward:
    """One backward as it was timed, and the gradients as they became ready."""

    started: float
    seconds: float = 0.0
    gradients: list[tuple[float, int]] = field(default_factory=list)
    """(seconds after the start, bytes)."""


class Watched(Replicated):
    """DDP that may leave out the synchronisation, and times each backward."""

    synchronising = True

    def __init__(self, world: int):
        super().__init__(world, timeout=120)
        self.backwards: list[Backward] = []
        """Of one phase after the other."""

    def seat(self, place: Place) -> Seat:
        seat = super().seat(place)
        for parameter in seat.parameters.values():
            parameter.register_post_accumulate_grad_hook(self.gradient)
        return seat

    def accumulate(self, seat: Seat, last: bool) -> AbstractContextManager:
        return super().accumulate(seat, last and self.synchronising)

    def backward(self, seat: Seat, loss: Tensor) -> None:
        self.backwards.append(Backward(time.perf_counter()))
        super().backward(seat, loss)
        now = self.backwards[-1]
        now.seconds = time.perf_counter() - now.started

    def gradient(self, parameter: Tensor) -> None:
        """It is ready."""
        now = self.backwards[-1]
        now.gradients.append((time.perf_counter() - now.started, parameter.nbytes))


def main(arguments: list[str]) -> None:
    flags = dict(a.removeprefix("--").split("=", 1) for a in arguments if a.startswith("--"))
    if "rate" in flags:
        run_apart([a.replace("--rate=", "--slow-rate=") for a in arguments])
    if rate := flags.pop("slow-rate", ""):
        slow_down(rate)
    recipe = next((a for a in arguments if not a.startswith("--")), "pix2pixhd-coarse")
    width, height = map(int, flags.pop("size", "128x64").split("x"))
    worlds = [int(world) for world in flags.pop("worlds", "2,4").split(",")]
    steps, file = int(flags.pop("steps", "15")), flags.pop("json", "")
    config = configuration.load(recipe, SLIM | flags).to_yaml()
    rows = [compared(world, config, (height, width), steps) for world in worlds]
    print(as_table(rows))
    if file:
        Path(file).write_text(json.dumps(rows, indent=1) + "\n")


def run_apart(arguments: list[str]) -> None:
    """Start again in a network namespace of its own; does not return."""
    program = [sys.executable, "-m", "tests.benchmarks.scaling", *arguments]
    os.execvp("unshare", ["unshare", "--map-root-user", "--net", *program])


def slow_down(rate: str) -> None:
    """Let the loopback interface of this namespace carry so much."""
    shape = ["tbf", "rate", rate, "burst", "1mb", "latency", "1s"]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", *shape], check=True)


def compared(world: int, config_yaml: str, size: tuple[int, int], steps: int) -> Row:
    """What was measured with `world` processes beside what the model says, in seconds."""
    ranks = gang.run(world, measure, world, config_yaml, size, steps)
    measured = max(ranks, key=lambda rank: rank["together"])  # the slowest sets the pace
    link = fitted(measured["all_reduce"], world)
    all_reduce = partial(ring_seconds, size=world, link=link)
    updates = [Update(*update) for update in measured["updates"]]
    ends: tuple[Hiding, ...] = ("backward", "nothing")
    hidden, exposed = (step_seconds(updates, all_reduce, hiding) for hiding in ends)
    sent = sum(num_bytes for update in updates for _, num_bytes in update.gradients)
    return {
        "world": world,
        "cores": len(os.sched_getaffinity(0)),
        "gradient_mb": sent / 1e6,
        "latency_s": link.latency,
        "bandwidth_mb_s": link.bandwidth / 1e6,
        "apart_s": measured["apart"],
        "measured_s": measured["together"],
        "hidden_s": hidden,
        "exposed_s": exposed,
    }


def measure(world: int, config_yaml: str, size: tuple[int, int], steps: int) -> Row:
    """Of this rank: medians of steps together and apart, and of all-reduces by their bytes."""
    tree = yaml.safe_load(config_yaml)
    tree["batch"]["total"] *= world  # as many images for each process, whatever their number
    config = configuration.build(tree, "benchmark")
    backend = Watched(world)
    step, _ = step_of(config, size, backend)
    times: dict[bool, list[float]] = {True: [], False: []}
    reductions: dict[int, list[float]] = {num_bytes: [] for num_bytes in MESSAGES}
    backwards = []
    for _ in range(WARM_UP + steps):
        for backend.synchronising in (True, False):
            backend.backwards = []
            dist.barrier()
            times[backend.synchronising].append(timed(step, backend.device))
        backwards.append(backend.backwards)
        for num_bytes, seconds in reductions.items():
            message = torch.zeros(num_bytes // 4)
            dist.barrier()
            seconds.append(timed(partial(dist.all_reduce, message), backend.device))
    together, apart = (median(times[synchronising]) for synchronising in (True, False))
    return {
        "together": together,
        "apart": apart,
        "all_reduce": {num_bytes: median(seconds) for num_bytes, seconds in reductions.items()},
        "updates": list(updates_of(apart, list(zip(*backwards, strict=True)))),
    }


def updates_of(apart: float, phases: Sequence[Sequence[Backward]]) -> Iterator[tuple]:
    """The fields of an Update for each phase of a step that takes `apart` seconds; what is no
    backward is shared out evenly, which changes nothing: nothing hides there."""
    medians = [median([backward.seconds for backward in phase]) for phase in phases]
    rest = (apart - sum(medians)) / len(phases)
    for seconds, phase in zip(medians, phases, strict=True):
        arrivals = zip(*(backward.gradients for backward in phase), strict=True)
        gradients = tuple(
            (median([when for when, _ in arrival]), arrival[0][1]) for arrival in arrivals
        )
        yield rest, seconds, 0.0, gradients


def median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds[WARM_UP:])


def fitted(seconds: dict[int, float], world: int) -> Link:
    """The link whose ring gives these all-reduces: least squares over their bytes."""
    slope, start = statistics.linear_regression(list(seconds), list(seconds.values()))
    hops = 2 * (world - 1)
    return Link("loopback", hops / world / slope, max(start, 0.0) / hops)


def as_table(rows: list[Row]) -> str:
    head = ["processes", "gradients MB", "link", "alone ms", "measured ms", "predicted ms", "ratio"]
    lines = []
    for row in rows:
        measured, hidden, exposed = (
            row[name] * 1e3 for name in ("measured_s", "hidden_s", "exposed_s")
        )
        lines.append(
            [
                str(row["world"]),
                f"{row['gradient_mb']:.1f}",
                f"{row['latency_s'] * 1e6:.0f} us, {row['bandwidth_mb_s']:.0f} MB/s",
                f"{row['apart_s'] * 1e3:.1f}",
                f"{measured:.1f}",
                f"{hidden:.1f} to {exposed:.1f}",
                f"{measured / hidden:.2f} to {measured / exposed:.2f}",
            ]
        )
    about = "Steps that synchronise; predicted: hidden behind backward, to all exposed"
    return f"{about}; {rows[0]['cores']} cores, torch {torch.__version__}\n{table(head, lines)}"


if __name__ == "__main__":
    main(sys.argv[1:])
