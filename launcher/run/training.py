"""`train`: configuration -> objects, the only place where all floors are put together."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cached_property

import torch

from cluster.signals import STOP_FILE, StopRequest, reason
from cluster.start import topology
from cluster.watch import attempts
from cluster.watch.heartbeat import Heart
from launcher.recipe import epochs, memory_presets
from launcher.recipe.building import build, check_networks, micro_batch_of, recipe_of
from launcher.recipe.config import Config, ConfigError
from launcher.recipe.data_fit import check_data, preprocess_of
from launcher.recipe.epochs import ResolvedConfig
from launcher.recipe.errors import config_errors, memory_errors, peer_errors, start_errors
from launcher.recipe.storage_options import cache_of
from launcher.run import logs, run_folder
from launcher.run.first_weights import check_start_from, start_from
from launcher.run.samples import shown
from launcher.run.sources import sources_of, stream_of
from launcher.run.terminal import Terminal
from shards.processes import keep_freed_memory
from shards.read.sources import Source, epoch_size, fingerprint
from trainers.backends.base import Backend
from trainers.backends.opening import open_backend
from trainers.board.board import Board
from trainers.checkpoints.checkpoint import Checkpoint, find
from trainers.checkpoints.repair import mend
from trainers.checkpoints.store import Keep, Store
from trainers.ema import Ema
from trainers.engine.compilation import compile_parts
from trainers.engine.trainer import Trainer
from trainers.gan import GAN
from trainers.recipe import Recipe


def train(config: Config) -> int:
    """Run a recipe to its end, or until a signal; the exit status."""
    stop = StopRequest().install()
    with config_errors():
        plan = Plan.of(config)
    with start_errors():
        backend = backend_of(config, plan.world.size)
    # The fastest algorithm of each convolution is looked for once, which pays where sizes stay the
    # same. Another run may find another one: on a GPU, equal runs differ in the last bits.
    torch.backends.cudnn.benchmark = plan.one_size
    return Start(plan, backend, stop).run()


@dataclass(frozen=True)
class Plan:
    """What is known, and checked, before the processes meet."""

    config: ResolvedConfig
    world: topology.World
    sources: tuple[Source, ...]
    recipe: Recipe

    @classmethod
    def of(cls, config: Config) -> Plan:
        """Refuses whatever can be known to fail."""
        check_networks(config)
        world = expected_world(config)
        cache = cache_of(config.data.cache, topology.topology().num_nodes)
        sources = sources_of(config, cache)
        resolved = epochs.resolve(config, epoch_size(sources))
        plan = cls(resolved, world, sources, recipe_of(resolved, world.size))
        check_data(resolved, sources, plan.micro_batch)
        check_start_from(resolved)
        run_folder.examine(resolved, plan.fingerprint)
        return plan

    @property
    def micro_batch(self) -> int:
        """Images that a rank handles at a time."""
        return micro_batch_of(self.recipe, self.world.size)

    @cached_property
    def fingerprint(self) -> str:
        """Of the data."""
        return fingerprint(self.sources)

    @property
    def one_size(self) -> bool:
        """Whether all pictures that the networks see have one size."""
        preprocess = preprocess_of(self.config)
        return all(source.shard_set.one_size(preprocess) for source in self.sources)


class Start:
    """One start of a run on this rank, from its group of processes to its last words."""

    def __init__(self, plan: Plan, backend: Backend, stop: StopRequest):
        self.plan, self.backend, self.stop = plan, backend, stop
        self.config = plan.config
        self.heart = Heart(self.config.run_dir / "heartbeats", backend.rank)
        self.lead = backend.rank == 0

    def run(self) -> int:
        """All of it; the exit status."""
        try:
            with peer_errors():
                gan, remedy = self.networks()
            with memory_errors(remedy), peer_errors():
                resume = self.take_over(gan)
                trainer = self.trainer(gan)
                finished = trainer.fit(resume, self.config.to_yaml())
                why = "" if finished else reason(trainer.vote.stopped_by)
                images = trainer.progress.images
                self.leave_word(why, images)
        finally:
            self.heart.stop()
        self.backend.close()
        if self.lead:
            print(closing_words(self.config, why, images), file=sys.stderr)
        # Launchers under `join` would start again what ends with another status.
        well = finished or trainer.vote.stopped_by == STOP_FILE or logs.FOLDER in os.environ
        return 0 if well else 128 + trainer.vote.stopped_by

    def networks(self) -> tuple[GAN, str]:
        """The GAN at its first weights, and what to do where memory does not suffice for it."""
        settled: Config = self.config
        if memory_presets.is_auto(settled.model):
            from launcher.estimate import memory  # tracing takes a second to import

            size = self.plan.world.local_size
            settled = memory.resolve(
                self.config, self.plan.recipe, self.plan.sources, self.backend, size
            )
        with self.backend.together(), config_errors():
            gan = build(settled)
        return gan, memory_presets.advice(settled, self.plan.micro_batch)

    def take_over(self, gan: GAN) -> Checkpoint | None:
        """The run folder, for this process alone; the checkpoint to go on from, or the weights of
        `gan` that a new run begins with. What can fail on one rank ends all of them."""
        config, run_dir = self.config, self.config.run_dir
        with self.backend.together():
            if self.lead:
                run_folder.lock(run_dir)
                attempts.clear(run_dir, keep_stop=attempts.RUN in os.environ)
                for complaint in mend(run_dir):
                    print(complaint, file=sys.stderr)
                self.stop.look_for(run_dir / "stop")
        with self.backend.together():
            resume = find(run_dir)
            if resume is not None:
                run_folder.check_same_run(config, self.plan.fingerprint, resume)
            elif config.start_from is not None:
                start_from(gan, config.start_from, report=self.lead)
            if self.lead:
                begin(config, resume)
        self.heart.start()
        images = resume.progress.images if resume else 0
        run_folder.check_shared(run_dir, images, self.backend)
        run_folder.check_same_data(config, self.plan.fingerprint, self.backend)
        return resume

    def trainer(self, gan: GAN) -> Trainer:
        """The loop, with all that it needs."""
        config, backend, heart = self.config, self.backend, self.heart
        gan.to(backend.device)
        if backend.device.type == "cpu":
            keep_freed_memory()
        compilation = compile_parts(gan, config.compile, backend)
        about = {
            "config": config.model_dump(mode="json"),
            "data": self.plan.fingerprint,
            "versions": run_folder.versions(),
        }
        keep = Keep(config.cadence.keep_last, config.cadence.keep_every)
        torch.manual_seed(config.seed + 1 + backend.rank)  # ranks draw different numbers
        return Trainer(
            gan,
            self.plan.recipe,
            backend,
            Store(config.run_dir, backend, keep, about),
            stream_of(config, self.plan.sources, self.plan.recipe, backend),
            ema=self.average(gan),
            compilation=compilation,
            observers=(Board(config.run_dir), Terminal()) if self.lead else (),
            stop=self.stop,
            pulse=lambda doing, progress: heart.pulse(doing, progress.step, progress.images),
            shown=shown(config.model.needs, config.seed),
        )

    def average(self, gan: GAN) -> Ema | None:
        """One rank keeps it: a copy of the generator is much memory."""
        section = self.config.ema
        return Ema(gan, section.halflife, section.start) if self.lead and section.halflife else None

    def leave_word(self, why: str, images: int) -> None:
        """Write how the start has ended; nobody leaves before: srun ends the rest."""
        with self.backend.together():
            if self.lead:
                end = "stopped" if why else "finished"
                attempts.write_outcome(self.config.run_dir, end, why, images)


def begin(config: ResolvedConfig, resume: Checkpoint | None) -> None:
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


def closing_words(config: Config, why: str, images: int) -> str:
    """`why`: what stopped the run, "" at its end."""
    if not why:
        replaced = run_folder.num_substituted(config.run_dir)
        damage = f"Damaged samples were replaced {replaced} times: {config.run_dir}/substituted. "
        use = "sample" if config.model.needs.samples else "translate"
        given = "OUT" if config.model.needs.samples else "SOURCE OUT"
        return (
            f"Finished. {damage if replaced else ''}Watch: tensorboard --logdir {config.run_dir}; "
            f"{use}: organza {use} {config.run_dir} {given}."
        )
    done = f"saved in {config.run_dir} at {images} images" if images else "before the first step"
    return f"Stopped by {why}, {done}: the same command again goes on."
