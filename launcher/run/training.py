"""Configuration -> objects: the only place where the floors are put together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cluster.signals import STOP_FILE, StopRequest, reason
from cluster.start import topology
from cluster.watch import attempts
from cluster.watch.heartbeat import Heart
from launcher.recipe import epochs, memory_presets
from launcher.recipe.building import build, check_networks, micro_batch_of, recipe_of
from launcher.recipe.config import Config, ConfigError
from launcher.recipe.data_fit import check_data, preprocess_of
from launcher.recipe.errors import config_errors, memory_errors, peer_errors, start_errors
from launcher.recipe.storage_options import cache_of
from launcher.run import logs, run_folder
from launcher.run.terminal import Terminal
from shards.processes import keep_freed_memory
from shards.read.cache import Cache
from shards.read.draws import Substitution
from shards.read.noise import Noise
from shards.read.order import Shuffle
from shards.read.sources import Source, epoch_size, fingerprint, open_sources
from trainers.backends.base import Backend
from trainers.backends.opening import open_backend
from trainers.board.board import Board
from trainers.checkpoints.checkpoint import Checkpoint, Keep, Store, find
from trainers.checkpoints.originals import adopt_originals, holds_originals
from trainers.checkpoints.repair import mend
from trainers.ema import Ema
from trainers.engine.compilation import compile_parts
from trainers.engine.trainer import Trainer
from trainers.gan import GAN, Batch
from trainers.recipe import Recipe


def train(config: Config) -> int:
    """Run a recipe to its end, or until a signal; the exit status."""
    stop = StopRequest().install()
    with config_errors():
        check_networks(config)
        world = expected_world(config)
        cache = cache_of(config.data.cache, topology.topology().num_nodes)
        sources = sources_of(config, cache)
        config = epochs.resolve(config, epoch_size(sources))
        recipe = recipe_of(config, world.size)
        check_data(config, sources, micro_batch_of(recipe, world.size))
        begins = config.start_from is not None and not (config.run_dir / "checkpoints").exists()
        if begins and not holds_originals(config.start_from):
            checkpoint_at(config.start_from, "start_from")
        run_folder.examine(config, fingerprint(sources))
    with start_errors():
        backend = backend_of(config, world.size)
    # The fastest algorithm of each convolution is looked for once, which pays where sizes stay the
    # same. Another run may find another one: on a GPU, equal runs differ in the last bits.
    preprocess = preprocess_of(config)
    torch.backends.cudnn.benchmark = all(s.shard_set.one_size(preprocess) for s in sources)
    heart = Heart(config.run_dir / "heartbeats", backend.rank)
    try:
        with peer_errors():
            settled = config
            if memory_presets.is_auto(config.model):
                from launcher.estimate import memory  # tracing takes a second to import

                settled = memory.resolve(config, recipe, sources, backend, world.local_size)
            with backend.together(), config_errors():
                gan = build(settled)
        remedy = memory_presets.advice(settled, micro_batch_of(recipe, world.size))
        with memory_errors(remedy), peer_errors():
            trainer, resume = assemble(config, recipe, gan, sources, backend, stop, heart)
            finished = trainer.fit(resume, config.to_yaml())
            why = "" if finished else reason(trainer.vote.stopped_by)
            with backend.together():  # nobody leaves before the word is given: srun ends the rest
                if backend.rank == 0:
                    end, images = "stopped" if why else "finished", trainer.progress.images
                    attempts.write_outcome(config.run_dir, end, why, images)
    finally:
        heart.stop()
    backend.close()
    if backend.rank == 0:
        print(closing_words(config, why, trainer.progress.images), file=sys.stderr)
    # Launchers under `join` would start again what ends with another status.
    well = finished or trainer.vote.stopped_by == STOP_FILE or logs.FOLDER in os.environ
    return 0 if well else 128 + trainer.vote.stopped_by


def assemble(
    config: Config,
    recipe: Recipe,
    gan: GAN,
    sources: tuple[Source, ...],
    backend: Backend,
    stop: StopRequest,
    heart: Heart,
) -> tuple[Trainer, Checkpoint | None]:
    """Everything that can fail on one rank alone, before the first step: the trainer, and the
    checkpoint to go on from."""
    lead = backend.rank == 0
    with backend.together():
        if lead:
            run_folder.lock(config.run_dir)
            attempts.clear(config.run_dir, keep_stop=attempts.RUN in os.environ)
            for complaint in mend(config.run_dir):
                print(complaint, file=sys.stderr)
            stop.look_for(config.run_dir / "stop")
    with backend.together():
        resume = find(config.run_dir)
        if resume is not None:
            run_folder.check_same_run(config, fingerprint(sources), resume)
        elif config.start_from is not None:
            start_from(gan, config.start_from, report=lead)
        if lead:
            begin(config, resume)
    heart.start()
    run_folder.check_shared(config.run_dir, resume.progress.images if resume else 0, backend)
    run_folder.check_same_data(config, fingerprint(sources), backend)
    gan.to(backend.device)
    if backend.device.type == "cpu":
        keep_freed_memory()
    compilation = compile_parts(gan, config.compile, backend)
    facts = {
        "config": config.model_dump(mode="json"),
        "data": fingerprint(sources),
        "versions": run_folder.versions(),
    }
    keep = Keep(config.cadence.keep_last, config.cadence.keep_every)
    torch.manual_seed(config.seed + 1 + backend.rank)  # ranks draw different numbers
    return Trainer(
        gan,
        recipe,
        backend,
        Store(config.run_dir, backend, keep, facts),
        stream_of(config, sources, recipe, backend),
        # One rank keeps the average: a copy of the generator is much memory.
        ema=Ema(gan, config.ema.halflife) if lead and config.ema.halflife else None,
        compilation=compilation,
        observers=(Board(config.run_dir), Terminal()) if lead else (),
        stop=stop,
        pulse=lambda doing, progress: heart.pulse(doing, progress.step, progress.images),
    ), resume


def begin(config: Config, resume: Checkpoint | None) -> None:
    """Tell how the run begins or goes on, and leave word of it in its folder."""
    images = resume.progress.images if resume else 0
    run_folder.write(config, images)
    run_folder.record_start(config.run_dir, images)
    print(config.to_yaml())
    changed = run_folder.changes(config.model_dump(mode="json"), resume.config) if resume else []
    if changed:
        print(f"Changed since the last start: {'; '.join(changed)}.", file=sys.stderr)


def expected_world(config: Config) -> topology.World:
    """The launcher's word on the number of processes, held against the configuration's."""
    world = topology.world()
    if config.backend.world not in (None, world.size):
        raise ConfigError(
            f"backend.world={config.backend.world}, but the launcher started {world.size} "
            "processes: start that many (`accelerate launch --multi_gpu --num_processes N`, "
            "`srun --ntasks=N`; one without a launcher), or correct backend.world."
        )
    return world


def backend_of(config: Config, world: int) -> Backend:
    """Who keeps `world` processes in step."""
    asked = config.backend
    zero = asked.zero if asked.kind == "deepspeed" else None
    travels_as = torch.bfloat16 if asked.compress == "bf16" else None
    return open_backend(world, asked.timeout_s, zero, travels_as, asked.overlap)


def sources_of(config: Config, cache: Cache | None = None) -> tuple[Source, ...]:
    """The packed sets that the GAN reads, maybe through this node's cache; of the generation that
    the run began with, if it has."""
    data, layout = config.data, config.model.needs.layout
    if data.domains and layout != "unpaired":
        raise ConfigError(f"data.domains belongs to unpaired training: leave it out for {layout}.")
    order = Shuffle(data.order.shuffle, data.order.window, data.order.streams)
    domains, began_with = data.domains or ("A", "B"), run_folder.data_of(config.run_dir)
    channels = config.model.needs.channels
    location = data.shards
    return open_sources(location, layout, config.seed, domains, order, cache, began_with, channels)


def stream_of(
    config: Config, sources: tuple[Source, ...], recipe: Recipe, backend: Backend
) -> Callable[[int], Iterator[Batch]]:
    """position -> this rank's micro-batches from there on."""
    from shards.read.stream import batches

    def report(substitution: Substitution) -> None:
        print(substitution, file=sys.stderr, flush=True)
        run_folder.write_substitution(config.run_dir, backend.rank, substitution)

    def stream(position: int) -> Iterator[Batch]:
        return batches(
            sources,
            preprocess_of(config),
            global_batch=recipe.global_batch,
            micro_batch=micro_batch_of(recipe, backend.world),
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


def start_from(gan: GAN, source: Path, report: bool) -> None:
    """Begin with the weights of another run, as the GAN sees fit, or with the authors' own."""
    try:
        if holds_originals(source):
            filled = ", ".join(adopt_originals(gan, source))
            told = f"Started from {source}: {filled}; the other networks are fresh."
        else:
            checkpoint = checkpoint_at(source, "start_from")
            fresh = gan.adopt(checkpoint.weights())
            told = f"Started from {checkpoint.path}; {len(fresh)} tensors are fresh."
    except ValueError as error:
        raise ConfigError(f"start_from={source}: {error}.") from error
    if report:
        print(told, file=sys.stderr)


def checkpoint_at(path: Path, option: str) -> Checkpoint:
    checkpoint = find(path)
    if checkpoint is None:
        raise ConfigError(
            f"{option}={path} holds no checkpoint: give a run folder, one in it, or the authors' "
            "weights (latest_net_G.pth, or their folder)."
        )
    return checkpoint


def closing_words(config: Config, why: str, images: int) -> str:
    """`why`: what stopped the run, "" at its end."""
    if not why:
        replaced = run_folder.num_substituted(config.run_dir)
        damage = f"Damaged samples were replaced {replaced} times: {config.run_dir}/substituted. "
        return (
            f"Finished. {damage if replaced else ''}Watch: tensorboard --logdir {config.run_dir}; "
            f"translate: python -m launcher translate {config.run_dir} SOURCE OUT"
        )
    done = f"saved in {config.run_dir} at {images} images" if images else "before the first step"
    return f"Stopped by {why}, {done}: the same command again goes on."
