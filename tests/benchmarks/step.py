"""Times a training step of a recipe under every memory preset, side by side in one run.

    python -m tests.benchmarks.step [RECIPE] [--size=2048x1024] [--steps=5] [--option=value ...]

Prints one JSON line per preset: median step time, images/s, peak memory (the allocator's on a
GPU, else the resident set, each preset in a process of its own) and both as ratios to the first
preset. One process with batch.total 1 unless told otherwise. Batches are made up; without
--model.vgg_weights the perceptual network gets random ones.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from launcher.recipe import config as configuration
from launcher.recipe.building import build, recipe_of
from launcher.recipe.config import Config
from launcher.recipe.epochs import resolve
from nets.losses.perceptual import Vgg
from nets.memory.remat import PRESETS
from shards.processes import keep_freed_memory
from trainers.backends.base import Backend, Seat
from trainers.board.stats import peak_memory_gib
from trainers.checkpoints.store import Keep, Store
from trainers.engine.compilation import compile_parts
from trainers.engine.to_device import to_device
from trainers.engine.trainer import Trainer
from trainers.gan import Batch

WARM_UP = 2
"""Steps that are not timed."""
Gradients = dict[str, dict[str, Tensor]]
"""By player and name."""


def main(arguments: list[str]) -> None:
    flags = dict(a.removeprefix("--").split("=", 1) for a in arguments if a.startswith("--"))
    recipe = next((a for a in arguments if not a.startswith("--")), "earth-full")
    width, height = map(int, flags.pop("size", "2048x1024").split("x"))
    steps = int(flags.pop("steps", "5"))
    flags.setdefault("batch.total", "1")
    presets = [flags.pop("model.memory")] if "model.memory" in flags else list(PRESETS)
    with tempfile.TemporaryDirectory() as folder:
        flags.setdefault("model.vgg_weights", random_vgg(recipe, flags, Path(folder)))
        rows: list[dict[str, Any]] = []
        for preset in presets:
            config = configuration.load(recipe, flags | {"model.memory": preset})
            rows.append(in_own_process(config, (height, width), steps))
            for name in ("step_s", "peak_gib"):
                rows[-1][f"{name}_ratio"] = round(rows[-1][name] / rows[0][name], 3)
            print(json.dumps(rows[-1]), flush=True)


def random_vgg(recipe: str, flags: dict[str, str], folder: Path) -> str:
    """A file of random weights: they take as long as real ones."""
    name = configuration.load(recipe, flags).model.vgg
    path = folder / f"{name}.safetensors"
    save_file(Vgg(name).state_dict(), path)
    return str(path)


def in_own_process(config: Config, size: tuple[int, int], steps: int) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (config.to_yaml(), size, steps))


def measure(config_yaml: str, size: tuple[int, int], steps: int) -> dict[str, Any]:
    """One line of the table, on this process alone."""
    config = configuration.build(yaml.safe_load(config_yaml), "benchmark")
    backend = Backend()
    even_ground()
    step, _ = step_of(config, size, backend)
    times = [timed(step, backend.device) for _ in range(WARM_UP + steps)][WARM_UP:]
    median = statistics.median(times)
    return {
        "recipe": f"{config.gan} {config.model.stage}",
        "memory": config.model.memory,
        "precision": config.precision,
        "size": f"{size[1]}x{size[0]}",
        "batch": config.batch.total,
        "device": device_name(backend.device),
        "torch": torch.__version__,
        "steps": steps,
        "step_s": round(median, 4),
        "images_per_s": round(config.batch.total / median, 3),
        "peak_gib": round(peak_memory_gib(backend.device), 3),
    }


def even_ground() -> None:
    """What holds for all that are compared, on a GPU: float32 is float32 (by default convolutions
    round it to TF32's 10 bits), and each takes the fastest algorithm for its shapes."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def step_of(
    config: Config,
    size: tuple[int, int],
    backend: Backend,
    *,
    dtype: torch.dtype = torch.float32,
    fixed: bool = False,
) -> tuple[Callable[[], None], Trainer]:
    """A training step of ours on a batch that lies on the device; size: (height, width).

    All parameters train, the larger step; `fixed`: as in a run's first model.fix_global images."""
    if backend.device.type == "cpu":
        keep_freed_memory()
    config = resolve(config, num_samples=10**6)
    gan = build(config).to(backend.device, dtype)
    store = Store(config.run_dir, backend, Keep(1, 0), {})
    recipe = recipe_of(config, backend.world)
    compilation = compile_parts(gan, config.compile, backend)
    trainer = Trainer(
        gan, recipe, backend, store, lambda position: iter(()), compilation=compilation
    )
    if not fixed:
        trainer.progress.images = getattr(config.model, "fix_global", 0)
    trainer.seat_phases()
    share = config.batch.total // backend.world // recipe.num_micro
    micro = to_device(made_up(config, share, size), backend.device)
    return lambda: trainer.step([micro] * recipe.num_micro), trainer


class Recording(Backend):
    """Keeps the gradients of the last step of each player."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients: Gradients = {}

    def step(self, seat: Seat, clip: float | None) -> Tensor:
        found = {name: p.grad.clone() for name, p in seat.parameters.items() if p.grad is not None}
        self.gradients[seat.phase.name] = found
        return super().step(seat, clip)


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds that a step takes."""
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def made_up(config: Config, count: int, size: tuple[int, int]) -> Batch:
    """A raw batch as the stream would give it; size: (height, width)."""
    draw = torch.Generator().manual_seed(0)

    def picture() -> Tensor:
        return torch.randint(0, 256, (count, 3, *size), generator=draw, dtype=torch.uint8)

    if config.model.needs.layout in ("pairs", "unpaired"):
        return {"a": picture(), "b": picture()}
    blocks = (count, 1, size[0] // 16, size[1] // 16)
    label = torch.randint(0, config.model.num_labels, blocks, generator=draw)
    label = label.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return {"label": label.to(torch.uint8), "inst": label.int() * 1000, "image": picture()}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main(sys.argv[1:])
