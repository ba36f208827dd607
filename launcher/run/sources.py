"""The data of a run: the packed sets that its GAN reads, and its stream of batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from launcher.recipe.config import Config, ConfigError
from launcher.recipe.data_fit import preprocess_of
from launcher.run import run_folder
from shards.read.annotated import Annotations
from shards.read.cache import Cache
from shards.read.draws import Substitution
from shards.read.noise import Noise
from shards.read.order import Shuffle
from shards.read.sources import Source, open_sources
from trainers.backends.base import Backend
from trainers.engine.stream import Stream
from trainers.gan import Batch
from trainers.recipe import Recipe


def sources_of(config: Config, cache: Cache | None = None) -> tuple[Source, ...]:
    """The packed sets that the GAN reads, maybe through this node's cache; of the generation that
    the run began with, if it has."""
    data, needs = config.data, config.model.needs
    layout = needs.layout
    if data.domains and layout != "unpaired":
        raise ConfigError(f"data.domains belongs to unpaired training: leave it out for {layout}.")
    order = Shuffle(data.order.shuffle, data.order.window, data.order.streams)
    domains, began_with = data.domains or ("A", "B"), run_folder.data_of(config.run_dir)
    return open_sources(
        data.shards,
        layout,
        config.seed,
        domains,
        order,
        cache,
        began_with,
        needs.channels,
        Annotations(needs.classes, needs.unlabelled, needs.attributes),
    )


def stream_of(
    config: Config, sources: tuple[Source, ...], recipe: Recipe, backend: Backend
) -> Stream:
    """This rank's micro-batches."""
    from shards.read.stream import batches

    def report(substitution: Substitution) -> None:
        print(substitution, file=sys.stderr, flush=True)
        run_folder.write_substitution(config.run_dir, backend.rank, substitution)

    def stream(position: int, size: int | None = None) -> Iterator[Batch]:
        total = size or recipe.global_batch
        num_micro = recipe.num_micro_in(size, backend.world)
        return batches(
            sources,
            preprocess_of(config),
            global_batch=total,
            micro_batch=total // backend.world // num_micro,
            rank=backend.rank,
            world=backend.world,
            start=position,
            workers=config.data.workers,
            pin=backend.device.type == "cuda",
            seed=config.seed,
            noise=[Noise(**vars(draw)) for draw in config.model.needs.draws],
            substitutes=config.data.substitutes,
            report=report,
        )

    return stream
