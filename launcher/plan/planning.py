"""`plan`: what a recipe will need on given GPUs, before anybody has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from launcher.estimate import memory
from launcher.estimate.gpus import GIB, Card, cards_of
from launcher.estimate.memory import Work
from launcher.estimate.step_costs import step_costs
from launcher.plan.expected_data import ExpectedData, expected_data, whole
from launcher.plan.report import heading, sections
from launcher.plan.step_time import Fleet, Outlook
from launcher.recipe import epochs
from launcher.recipe.building import check_networks, micro_batch_of, recipe_of
from launcher.recipe.config import Config, ConfigError, load
from launcher.recipe.data_fit import (
    check_data,
    check_least,
    check_multiple,
    check_side,
)
from launcher.recipe.errors import config_errors
from launcher.recipe.memory_presets import SomeConfig, advice, is_auto, presets, with_preset
from launcher.text.tables import table
from shards.records import size_text


def fleet_of(world: str, gpus: str) -> Fleet:
    """--world and --gpus."""
    fleet = Fleet(whole("world", world), whole("gpus", gpus))
    if not fleet.even:
        raise ConfigError(
            f"plan: --world={world} cannot be spread evenly over nodes of {gpus} GPUs: choose a "
            f"multiple of {gpus}, or correct --gpus."
        )
    return fleet


def plan(
    recipe: str, gpu: str, fleet: Fleet, size: str, images: str, overrides: Mapping[str, str]
) -> None:
    """Print the plan, section by section; size and images: "" for what is known here."""
    if not gpu:
        raise ConfigError("plan: which GPU? --gpu=H200 names a card, --gpu=24G all of that memory.")
    cards = cards_of(gpu)
    given = load(recipe, overrides)
    if given.backend.world not in (None, fleet.num_gpus):
        raise ConfigError(
            f"plan: --world={fleet.num_gpus}, but backend.world={given.backend.world} lets no "
            "other number of processes train: correct one of them."
        )
    check_networks(given)
    data = expected_data(given, size, images)
    config = epochs.resolve(given, data.num_images)
    numbers = recipe_of(config, fleet.num_gpus)
    micro_batch = micro_batch_of(numbers, fleet.num_gpus)
    check(config, data, micro_batch)
    width, height = data.trained(config)
    work = Work(micro_batch, (height, width), numbers.num_micro, fleet.num_gpus)
    print(heading(recipe, config, gpu, fleet, work, data))
    most = memory.largest(config, data.sources) if data.sources else work.size
    config = with_memory_told(config, cards, replace(work, size=most))
    costs = step_costs(config, work.num_images, work.size, work.num_micro)
    for section in sections(Outlook(config, cards, fleet, data, work, costs)):
        print(f"\n{section}")


def check(config: Config, data: ExpectedData, micro_batch: int) -> None:
    """Refuse pictures that training would refuse."""
    if data.sources:
        with config_errors():
            check_data(config, data.sources, micro_batch)
    else:
        size, needs = data.trained(config), config.model.needs
        check_least(size, needs, "The data set")
        check_multiple(size, needs.multiple, "The data set")
        check_side(size, needs, "The data set")


def with_memory_told(config: SomeConfig, cards: tuple[Card, ...], work: Work) -> SomeConfig:
    """Print what each preset needs; `auto` becomes the fastest that fits.

    Raises ConfigError if auto finds none; any other preset is planned with all the same."""
    names = presets(config.model)
    variants = [with_preset(config, name) for name in names] or [config]
    needs = [memory.needed(variant, work) for variant in variants]
    least = memory.budget(config, lambda: min(card.usable_bytes for card in cards))
    rows = [
        [name, f"{num_bytes / GIB:.2f}", "yes" if num_bytes <= least else "no"]
        for name, num_bytes in zip(names or ["(no presets)"], needs, strict=True)
    ]
    largest = size_text((work.size[1], work.size[0]))
    print(
        f"\nMemory of a GPU for pictures of {largest}, the largest; a process may count on "
        f"{least / GIB:.1f} GiB"
    )
    print(table(["model.memory", "GiB", "fits"], rows), flush=True)
    if is_auto(config.model):
        estimates = dict(zip(names, needs, strict=True))
        config = with_preset(config, names[memory.fastest(config, work, estimates, least)])
    chosen = variants.index(config)
    if needs[chosen] > least:
        print(f"It does not fit: {advice(config, work.num_images)}")
    elif names:
        print(f"Planned with model.memory={names[chosen]}.")
    return config
