"""Configuration -> what is trained: the networks, and the numbers of the loop."""

from __future__ import annotations

import torch

from launcher.recipe import memory_presets
from launcher.recipe.config import Config, ConfigError, gan_module
from launcher.recipe.data_fit import check_micro_batch
from launcher.recipe.epochs import ImageSchedule, ResolvedConfig
from launcher.recipe.optim_options import OptimNumbers
from trainers.gan import GAN
from trainers.parts.pretrained import shapes_alone
from trainers.recipe import Cadence, OptimizerRecipe, Recipe
from trainers.schedule import Schedule

MOST_PARAMETERS = 2 * 10**9
"""Ten times the largest network of the papers."""
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(config: Config, training: bool = True) -> GAN:
    """The GAN's networks at their seeded initialisation, equal on all ranks."""
    torch.manual_seed(config.seed)
    model = memory_presets.settled(config.model)
    return gan_module(config.gan, "config").Model(model, training=training)


def check_networks(config: Config) -> None:
    """Refuse networks that nobody means, before they are built."""
    with torch.device("meta"), shapes_alone():
        gan = build(config)
    number = sum(parameter.numel() for parameter in gan.nets.parameters())
    if number > MOST_PARAMETERS:
        sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in gan.nets.items()}
        largest = max(sizes, key=sizes.__getitem__)
        raise ConfigError(
            f"The networks have {number / 1e9:.1f} thousand million parameters, {largest} alone "
            f"{sizes[largest] / 1e9:.1f}: {number * 16 / 2**30:.0f} GiB with gradients and "
            "moments. Widths double with each halving: lower num_downsamples, side, ngf or ndf "
            "below `model`."
        )


def num_micro_of(config: Config, world: int) -> int:
    """Micro-batches of a process in one step; refuses batches that cannot be shared evenly."""
    if world > 1 and config.model.only_alone:
        raise ConfigError(
            f"gan={config.gan} with these options trains on one process: {config.model.only_alone}."
        )
    for option, total in config.model.batch_sizes.items():
        num_micro_in(config, total, option, world)
    return num_micro_in(config, config.batch.total, "batch.total", world)


def num_micro_in(config: Config, total: int, option: str, world: int) -> int:
    """The same of a step of `total` images, which `option` says."""
    share, rest = divmod(total, world)
    if rest or share == 0:
        raise ConfigError(
            f"{option}={total} cannot be shared by {world} processes: choose a multiple "
            f"(--{option}={world}), or another number of processes."
        )
    micro = config.batch.micro or share
    check_micro_batch(micro, config.model.needs)
    if share % micro:
        raise ConfigError(
            f"batch.micro={micro} does not divide the {share} images of each process "
            f"({option}={total} on {world} processes)."
        )
    if total % config.data.order.streams:
        raise ConfigError(
            f"data.order.streams={config.data.order.streams} does not divide {option}={total}: "
            "choose a divisor, best a multiple of the number of nodes."
        )
    return share // micro


def recipe_of(config: ResolvedConfig, world: int) -> Recipe:
    """The loop's numbers; refuses batches that the processes cannot share evenly."""
    optim, cadence = config.optim, config.cadence
    return Recipe(
        global_batch=config.batch.total,
        num_micro=num_micro_of(config, world),
        micro_batch=config.batch.micro,
        optimizer=optimizer_of(optim),
        clip=optim.clip,
        precision=PRECISIONS[config.precision],
        schedule=schedule_of(config.schedule),
        cadence=Cadence(cadence.log, cadence.pictures, cadence.save),
        reset_moments=optim.reset_moments,
        players={name: optimizer_of(optim.of(name)) for name in optim.players},
    )


def optimizer_of(section: OptimNumbers) -> OptimizerRecipe:
    """The numbers of an optimizer as torch names them."""
    return OptimizerRecipe(
        lr=section.lr,
        kind=section.kind,
        betas=(section.beta1, section.beta2),
        eps=section.eps,
        weight_decay=section.weight_decay,
        momentum=section.momentum,
        alpha=section.alpha,
    )


def schedule_of(section: ImageSchedule) -> Schedule:
    usual = {"plateau": 0.2}.get(section.kind, 0.1)
    return Schedule(
        section.constant,
        section.decay,
        section.kind,
        section.step,
        usual if section.gamma is None else section.gamma,
        section.patience,
        section.threshold,
    )


def micro_batch_of(recipe: Recipe, world: int) -> int:
    """Images that a rank handles at a time."""
    return recipe.global_batch // world // recipe.num_micro
