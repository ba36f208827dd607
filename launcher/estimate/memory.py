"""`model.memory=auto`: what each preset will need, and the fastest that fits on every rank.

An estimate is the traced peak of a step (launcher/estimate/step_costs.py), and what the backend
holds beside it, with an allowance for what no trace shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from launcher.estimate.free_memory import memory_at_hand
from launcher.estimate.gpus import GIB
from launcher.estimate.step_costs import step_costs
from launcher.recipe.building import micro_batch_of
from launcher.recipe.config import Config, ConfigError
from launcher.recipe.data_fit import preprocess_of
from launcher.recipe.memory_presets import SomeConfig, advice, presets, with_preset
from launcher.text.tables import table
from shards.read.sources import Source
from shards.records import size_text
from trainers.backends.base import Backend
from trainers.backends.deepspeed_zero import BUCKET
from trainers.recipe import Recipe

FIXED = GIB
FACTOR = 1.1
"""The allowance, an assumption that no GPU has confirmed yet: 1 GiB for the CUDA context, NCCL's
buffers and the workspaces of cuBLAS and cuDNN, a tenth for the allocator's rounding and gaps."""


@dataclass(frozen=True)
class Work:
    """What a rank is given in a step."""

    num_images: int
    """Images of a micro-batch."""
    size: tuple[int, int]
    """(height, width) of the largest of them."""
    num_micro: int = 1
    """Micro-batches."""
    world: int = 1
    """Ranks that share the step."""


def resolve(
    config: SomeConfig,
    recipe: Recipe,
    sources: tuple[Source, ...],
    backend: Backend,
    local_size: int,
) -> SomeConfig:
    """The configuration to build with: `auto` -> the fastest preset that fits the least memory of
    all ranks, of which `local_size` share this machine. Rank 0 estimates and tells."""
    images = micro_batch_of(recipe, backend.world)
    work = Work(images, largest(config, sources), recipe.num_micro, backend.world)
    own = budget(config, lambda: memory_at_hand(backend.device, local_size))
    mine = torch.tensor(-own, dtype=torch.int64, device=backend.device)
    least = -int(backend.maximum(mine))
    chosen = torch.zeros((), dtype=torch.int64, device=backend.device)
    with backend.together():
        if backend.rank == 0:
            estimates = {
                name: needed(with_preset(config, name), work) for name in presets(config.model)
            }
            print(report(config, work, estimates, least))
            chosen.fill_(fastest(config, work, estimates, least))
    return with_preset(config, presets(config.model)[int(backend.broadcast(chosen))])


def budget(config: Config, at_hand: Callable[[], int]) -> int:
    """Bytes that a process may use: as configured, else what there is."""
    if config.backend.memory_gib is not None:
        return int(config.backend.memory_gib * GIB)
    return at_hand()


def largest(config: Config, sources: tuple[Source, ...]) -> tuple[int, int]:
    """(height, width) of the largest images that the data will give."""
    preprocess = preprocess_of(config)
    sizes = {
        preprocess.output_size(width, height)
        for source in sources
        for width, height, _ in source.shard_set.sizes
    }
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return height, width


def needed(config: Config, work: Work) -> int:
    """Bytes of memory that a rank needs to train with this preset."""
    costs = step_costs(config, work.num_images, work.size, min(work.num_micro, 2))
    peak = costs.peak_bytes
    if work.num_micro > 2:  # each further one keeps its images and what it carries to later phases
        third = step_costs(config, work.num_images, work.size, 3)
        peak += (work.num_micro - 2) * (third.peak_bytes - peak)
    peak += held_by_backend(config, sum(costs.num_trained.values()), work.world)
    return int(FACTOR * peak) + FIXED


def held_by_backend(config: Config, num_trained: int, world: int) -> int:
    """Bytes that the backend adds to the step of one process; negative where it shards more."""
    gradients = 4 * num_trained
    if world == 1:
        return 0
    if config.backend.zero == 0:
        return gradients  # the buckets that are reduced
    # A slice of both moments and of a copy of the parameters, instead of both moments.
    return 4 * BUCKET + 3 * gradients // world - 2 * gradients


def fastest(config: Config, work: Work, estimates: dict[str, int], least: int) -> int:
    """Position of the first preset that fits."""
    for position, num_bytes in enumerate(estimates.values()):
        if num_bytes <= least:
            return position
    name, num_bytes = min(estimates.items(), key=lambda item: item[1])
    smallest = with_preset(config, list(estimates)[-1])
    raise ConfigError(
        f"model.memory=auto: no preset fits, even {name} needs about {gib(num_bytes)} and a "
        f"process has {gib(least)}: {advice(smallest, work.num_images)}"
    )


def report(config: Config, work: Work, estimates: dict[str, int], least: int) -> str:
    """The table of presets."""
    fits = [name for name, num_bytes in estimates.items() if num_bytes <= least]
    rows = [
        [name, gib(num_bytes), "chosen" if [name] == fits[:1] else "yes" if name in fits else "no"]
        for name, num_bytes in estimates.items()
    ]
    images = f"{work.num_images} x {size_text((work.size[1], work.size[0]))}"
    title = (
        f"model.memory=auto: {gib(least)} for a process, micro-batches of {images}, "
        f"{config.precision}, {work.world} processes; estimates, not measurements"
    )
    return f"{title}\n{table(['preset', 'needs', 'fits'], rows)}"


def gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB"
