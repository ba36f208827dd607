"""What one training step of a recipe costs: memory, arithmetic and traffic, without a GPU.

The step is the real one, Trainer and all, on fake tensors (trainers/tracing.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from launcher import spans
from launcher.config import Config
from launcher.wiring import build, recipe_of
from trainers.checkpoint import Keep, Store
from trainers.ema import Ema
from trainers.gan import Batch, Needs
from trainers.tracing import Kernels, Part, TracedBackend, fake_gpu
from trainers.trainer import Trainer

LATE = 10**15
"""Images after which no phase is held back any more (fix_global): the larger step."""


@dataclass(frozen=True)
class StepCosts:
    """One training step of one rank: rank 0, which also keeps the moving average."""

    peak_bytes: int
    """Live tensors at the highest point: states, gradients, activations, batches."""
    parts: tuple[Part, ...]
    """In the order in which they run."""
    num_trained: dict[str, int]
    """Parameters by phase."""


def step_costs(
    config: Config, num_images: int, size: tuple[int, int], num_micro: int = 1
) -> StepCosts:
    """The costs of a step on `num_micro` micro-batches of `num_images`; size: (height, width).

    Traced on fake tensors in about a second: nothing is computed, no file of weights is read.
    Every phase runs, with all that it will ever train, on moments that exist already."""
    config = spans.resolve(config, num_samples=10**6)  # a number is asked for; it costs nothing
    share = num_images * num_micro
    recipe = replace(recipe_of(config, 1), global_batch=share, num_micro=num_micro)
    with fake_gpu() as memory:
        kernels = Kernels()
        backend = TracedBackend(kernels)
        gan = build(config)
        store = Store(config.run_dir, backend, Keep(1, 0), {})
        ema = Ema(gan, config.ema.halflife) if config.ema.halflife else None
        trainer = Trainer(gan, recipe, backend, store, lambda position: iter(()), ema)
        micros = [raw_batch(config.model.needs, num_images, size) for _ in range(num_micro)]
        step(trainer, micros)  # Adam makes its moments
        memory.peak = memory.live
        with kernels:
            step(trainer, micros)
        trained = {
            seat.phase.name: sum(p.numel() for p in seat.parameters.values())
            for seat in trainer.seats
        }
        return StepCosts(memory.peak, kernels.parts(), trained)


def step(trainer: Trainer, micro_batches: list[Batch]) -> None:
    """One step in which every phase is due, all of it."""
    trainer.progress.images, trainer.progress.step = LATE, 0
    trainer.seat_phases()
    trainer.step(micro_batches)


def raw_batch(needs: Needs, num_images: int, size: tuple[int, int]) -> Batch:
    """Zeros in the shapes and dtypes in which the stream gives a batch; size: (height, width)."""

    def member(channels: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(num_images, channels, *size, dtype=dtype)

    if needs.layout == "labels":
        batch = {"label": member(1, torch.uint8), "image": member(3, torch.uint8)}
        return batch | ({"inst": member(1, torch.int32)} if needs.inst else {})
    names = ("image",) if needs.layout == "images" else ("a", "b")
    return {name: member(3, torch.uint8) for name in names}
