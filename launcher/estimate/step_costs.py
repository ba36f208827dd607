"""What one training step of a recipe costs: memory, arithmetic and traffic, without a GPU.

The step is the real one, Trainer and all, on fake tensors (trainers/engine/tracing.py).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from launcher.recipe import epochs
from launcher.recipe.building import build, recipe_of
from launcher.recipe.config import Config
from nets.layers.norms import unsynced
from trainers.backends.base import Past
from trainers.backends.optimizers import build_optimizer, counts_steps, moment_names
from trainers.checkpoints.store import Keep, Store
from trainers.ema import Ema
from trainers.engine.tracing import Kernels, LiveMemory, Part, TracedBackend, fake_gpu
from trainers.engine.trainer import Trainer
from trainers.gan import GAN, Batch, Phase
from trainers.player import phase_parameters
from trainers.recipe import OptimizerRecipe
from trainers.schedule import Schedule
from trainers.settings import Needs

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
    shares: dict[str, float]
    """By phase, the share of the steps in which it runs."""


def step_costs(
    config: Config, num_images: int, size: tuple[int, int], num_micro: int = 1
) -> StepCosts:
    """The costs of a step on `num_micro` micro-batches of `num_images`; size: (height, width).

    Traced on fake tensors in a second or two: nothing is computed, no file of weights is read.
    Every phase runs, with all that it will ever train, on moments that exist already."""
    gc.freeze()  # the trainer collects garbage, and what is here already is slow to go through
    try:
        with fake_gpu() as memory:
            return traced(config, num_images, size, memory, num_micro)
    finally:
        gc.unfreeze()


def traced(
    config: Config,
    num_images: int,
    size: tuple[int, int],
    memory: LiveMemory,
    num_micro: int = 1,
    images: int = LATE,
) -> StepCosts:
    """One step of a run that has seen `images` images, on whatever tensors are made here."""
    resolved = epochs.resolve(config, num_samples=10**6)  # a number is asked for; it costs nothing
    share = num_images * num_micro
    schedule = Schedule(constant=images, decay=0)
    recipe = replace(
        recipe_of(resolved, 1), global_batch=share, num_micro=num_micro, schedule=schedule
    )
    kernels = Kernels()
    backend = TracedBackend(kernels)
    gan = build(resolved)
    store = Store(config.run_dir, backend, Keep(1, 0), {})
    ema = Ema(gan, resolved.ema.halflife) if resolved.ema.halflife else None
    trainer = Trainer(gan, recipe, backend, store, lambda position, size=None: iter(()), ema)
    trainer.progress.images = images
    phases = gan.phases(images)
    trainer.progress.step = busiest_step(phases)
    gan.advance(trainer.progress.step, images)
    pasts = {phase.name: stepped(gan, phase, recipe.of(phase.name)) for phase in phases}
    trainer.seat_phases(pasts)
    # What comes before the first phase belongs to the end of the step before.
    kernels.now = (phases[-1].name, "step")
    micro_batches = [raw_batch(config.model.needs, num_images, size) for _ in range(num_micro)]
    memory.peak = memory.live
    with kernels, unsynced(gan):  # this process alone runs the step
        trainer.step(micro_batches)
    trained = {
        seat.phase.name: sum(parameter.numel() for parameter in seat.parameters.values())
        for seat in trainer.seats
    }
    shares = {phase.name: phase.share for phase in phases}
    return StepCosts(memory.peak + yet_to_gather(gan), kernels.parts(), trained, shares)


def busiest_step(phases: Sequence[Phase]) -> int:
    """A step in which as many phases run as ever do."""
    first = max(phase.begin for phase in phases)
    steps = range(first, first + math.lcm(*(phase.every for phase in phases)))
    return max(steps, key=lambda step: sum(phase.due(step) for phase in phases))


def stepped(gan: GAN, phase: Phase, recipe: OptimizerRecipe) -> Past:
    """Moments as they are after the first step."""
    parameters = phase_parameters(gan, phase)
    groups = [{"params": list(parameters.values())}]
    optimizer = build_optimizer(recipe, groups, torch.device("cpu"))
    count = {"step": torch.ones(())} if counts_steps(optimizer) else {}
    return Past(
        {
            name: count | {kind: torch.zeros_like(parameter) for kind in moment_names(optimizer)}
            for name, parameter in parameters.items()
        }
    )


def yet_to_gather(gan: GAN) -> int:
    """Bytes of the images that will have been gathered later than after one step."""
    gathered = [tensor for tensor in gan.own_state().values() if tensor.dim() == 4]
    missing = gan.num_gathered - sum(len(images) for images in gathered)
    return missing * gathered[0][:1].nbytes if gathered else 0


def raw_batch(needs: Needs, num_images: int, size: tuple[int, int]) -> Batch:
    """Zeros in the shapes and dtypes in which the stream gives a batch; size: (height, width)."""

    def member(channels: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(num_images, channels, *size, dtype=dtype)

    if needs.layout == "labels":
        batch = {"label": member(1, torch.uint8), "image": member(3, torch.uint8)}
        batch |= {"inst": member(1, torch.int32)} if needs.inst else {}
        return batch | ({"feat": member(3, torch.uint8)} if needs.features else {})
    names = ("image",) if needs.layout == "images" else ("a", "b")
    batch = {name: member(needs.channels.get(name, 3), torch.uint8) for name in names}
    if needs.classes is not None:
        batch["class"] = torch.zeros(num_images, dtype=torch.int64)
    if needs.attributes:
        batch["attributes"] = torch.zeros(num_images, len(needs.attributes))
    return batch | {draw.name: torch.zeros(num_images, *draw.shape) for draw in needs.draws}
