r"""Times a training step whose gradients are waited for, travel behind later phases, or as bf16.

    python -m tests.benchmarks.travelling [RECIPE] [--processes=2] [--size=256x256] [--steps=10]
                                          [--option=value ...]

Each way has a trainer of its own in the same processes; they take turns. Prints one JSON line per
way: median step time, and its ratio to plain DDP. Batches are made up; pix2pixHD needs
--model.lambda_vgg=0 or weights. On the CPU the processes talk through gloo on the loopback
interface, where there is little to hide; a slow network is made with

    unshare -rn sh -c 'ip link set lo up; tc qdisc add dev lo root tbf rate 1gbit burst 1mb \
        latency 200ms; python -m tests.benchmarks.travelling'
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import yaml

from launcher.recipe import config as configuration
from tests.benchmarks.step import step_of, timed
from tests.processes import gang
from trainers.backends.opening import open_backend

WARM_UP = 3
"""Rounds that are not timed: DDP arranges its buckets anew in the second."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "overlap": {"overlap": True},
    "bf16": {"travels_as": torch.bfloat16},
    "overlap and bf16": {"overlap": True, "travels_as": torch.bfloat16},
}


def main(arguments: list[str]) -> None:
    flags = dict(a.removeprefix("--").split("=", 1) for a in arguments if a.startswith("--"))
    recipe = next((a for a in arguments if not a.startswith("--")), "cyclegan")
    width, height = map(int, flags.pop("size", "256x256").split("x"))
    world, steps = int(flags.pop("processes", "2")), int(flags.pop("steps", "10"))
    with tempfile.TemporaryDirectory() as folder:
        flags = {"run_dir": folder, "batch.total": str(world)} | flags
        config = configuration.load(recipe, flags).to_yaml()
        seconds = gang.run(world, measure, config, (height, width), world, steps)[0]
    for name, median in seconds.items():
        row = {"way": name, "processes": world, "step_s": round(median, 4)}
        print(json.dumps(row | {"ratio": round(median / seconds["plain"], 3)}))


def measure(config_yaml: str, size: tuple[int, int], world: int, steps: int) -> dict[str, float]:
    """Median seconds of a step, by way, on this rank."""
    config = configuration.build(yaml.safe_load(config_yaml), "benchmark")
    runners: dict[str, Callable[[], None]] = {}
    for name, options in WAYS.items():
        backend = open_backend(world, 600, **options)
        runners[name], _ = step_of(config, size, backend)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(WARM_UP + steps):
        for name, step in runners.items():
            dist.barrier()
            times[name].append(timed(step, backend.device))
    return {name: statistics.median(found[WARM_UP:]) for name, found in times.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
