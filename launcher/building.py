"""Configuration -> what is trained: the networks, and the numbers of the loop."""

from __future__ import annotations

import torch

from launcher import presets
from launcher.config import Config, ConfigError, gan_module
from trainers.gan import GAN
from trainers.schedule import Schedule
from trainers.trainer import Cadence, Recipe

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(config: Config, training: bool = True) -> GAN:
    """The GAN's networks at their seeded initialisation, equal on all ranks."""
    torch.manual_seed(config.seed)
    model = presets.settled(config.model)
    return gan_module(config.gan, "config").Model(model, training=training)


def recipe_of(config: Config, world: int) -> Recipe:
    """The loop's numbers; refuses batches that the processes cannot share evenly."""
    share, rest = divmod(config.batch.total, world)
    if rest or share == 0:
        raise ConfigError(
            f"batch.total={config.batch.total} cannot be shared by {world} processes: choose a "
            f"multiple (--batch.total={world}), or another number of processes."
        )
    micro = config.batch.micro or share
    if share % micro:
        raise ConfigError(
            f"batch.micro={micro} does not divide the {share} images of each process "
            f"(batch.total={config.batch.total} on {world} processes)."
        )
    if config.batch.total % config.data.order.streams:
        raise ConfigError(
            f"data.order.streams={config.data.order.streams} does not divide "
            f"batch.total={config.batch.total}: choose a divisor, best a multiple of the number "
            "of nodes."
        )
    optim, cadence = config.optim, config.cadence
    return Recipe(
        global_batch=config.batch.total,
        num_micro=share // micro,
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        clip=optim.clip,
        precision=PRECISIONS[config.precision],
        schedule=Schedule(config.schedule.constant, config.schedule.decay),
        cadence=Cadence(cadence.log, cadence.pictures, cadence.save),
    )


def micro_batch_of(recipe: Recipe, world: int) -> int:
    """Images that a rank handles at a time."""
    return recipe.global_batch // world // recipe.num_micro
