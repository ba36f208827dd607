"""Configuration -> objects: the only place where the floors are put together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cluster import topology
from cluster.signals import StopRequest
from launcher import rundir, spans
from launcher.config import Config, ConfigError, gan_module
from launcher.terminal import Terminal, progress_bar
from shards.augment import Preprocess
from shards.census import label_histogram
from shards.images import decode_sample
from shards.index import ShardSet, open_shards
from shards.order import Order
from shards.records import Record, check_label_ids
from trainers.backends import Backend, open_backend
from trainers.board import Board, Observer
from trainers.checkpoint import Checkpoint, Keep, Store, find, load_weights
from trainers.ema import Ema
from trainers.errors import TrainingError
from trainers.gan import GAN, Batch
from trainers.schedule import Schedule
from trainers.trainer import Cadence, Recipe, Trainer

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(config: Config) -> int:
    """Run a recipe to its end, or until a signal; the exit status."""
    stop = StopRequest().install()
    with config_errors():
        world = expected_world(config)
        shards = open_data(config)
        config = spans.resolve(config, shards.num_samples)
        recipe = recipe_of(config, world.size)
        gan = build(config)
    backend = open_backend(world.size, config.backend.timeout_s)
    try:
        finished = fit(config, recipe, gan, shards, backend, stop)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The GPU's memory does not suffice ({first_line(error)}): choose the next smaller "
            "model.memory (none, blocks, halves, halves+slices, whole+strips), a smaller "
            "batch.micro, or precision=bf16."
        ) from error
    backend.close()
    if backend.rank == 0:
        print(closing_words(config, finished), file=sys.stderr)
    return 0 if finished else 128 + (stop.signum or 0)


def fit(
    config: Config,
    recipe: Recipe,
    gan: GAN,
    shards: ShardSet,
    backend: Backend,
    stop: Callable[[], bool],
) -> bool:
    """What remains once data and processes are known to be right."""
    lead = backend.rank == 0
    resume = find(config.run_dir)
    if resume is not None:
        rundir.check_same_run(config, shards.fingerprint, resume)
    elif config.start_from is not None:
        start_from(gan, config.start_from, report=lead)
    if lead:
        rundir.write(config)
        print(config.to_yaml())
    gan.to(backend.device)
    facts = {
        "config": config.model_dump(mode="json"),
        "data": shards.fingerprint,
        "versions": rundir.versions(),
    }
    keep = Keep(config.cadence.keep_last, config.cadence.keep_every)
    torch.manual_seed(config.seed + 1 + backend.rank)  # ranks draw different numbers
    trainer = Trainer(
        gan,
        recipe,
        backend,
        Store(config.run_dir, backend, keep, facts),
        stream_of(config, shards, recipe, backend),
        # One rank keeps the average: a copy of the generator is much memory.
        ema=Ema(gan, config.ema.halflife) if lead and config.ema.halflife else None,
        observers=(Board(config.run_dir), Terminal()) if lead else (Observer(),),
        stop=stop,
    )
    return trainer.fit(resume, config.to_yaml())


def expected_world(config: Config) -> topology.World:
    """The launcher's word on the number of processes, held against the configuration's."""
    world = topology.world()
    if config.backend.world not in (None, world.size):
        raise ConfigError(
            f"backend.world={config.backend.world}, but the launcher started {world.size} "
            f"processes: start with `accelerate launch --multi_gpu --num_processes "
            f"{config.backend.world}`, or correct backend.world."
        )
    return world


def open_data(config: Config) -> ShardSet:
    """The shards, after the checks that need no GPU."""
    shards = open_shards(config.data.shards)
    needs = config.model.needs
    shards.require(needs.layout, num_labels=needs.num_labels, inst=needs.inst)
    return shards


def build(config: Config, training: bool = True) -> GAN:
    """The GAN's networks at their seeded initialisation, equal on all ranks."""
    torch.manual_seed(config.seed)
    return gan_module(config.gan, "config").Model(config.model, training=training)


def recipe_of(config: Config, world: int) -> Recipe:
    """The loop's numbers; refuses batches that the processes cannot share evenly."""
    share, rest = divmod(config.batch.total, world)
    if rest or share == 0:
        raise ConfigError(
            f"batch.total={config.batch.total} cannot be shared by {world} processes: choose a "
            f"multiple of {world}, or another number of processes."
        )
    micro = config.batch.micro or share
    if share % micro:
        raise ConfigError(
            f"batch.micro={micro} does not divide the {share} images of each process "
            f"(batch.total={config.batch.total} on {world} processes)."
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


def stream_of(
    config: Config, shards: ShardSet, recipe: Recipe, backend: Backend
) -> Callable[[int], Iterator[Batch]]:
    """position -> this rank's micro-batches from there on."""
    from shards.stream import batches

    def stream(position: int) -> Iterator[Batch]:
        return batches(
            shards,
            Order(shards.num_samples, config.seed),
            Preprocess(**config.data.preprocess.model_dump()),
            global_batch=recipe.global_batch,
            micro_batch=recipe.global_batch // backend.world // recipe.num_micro,
            rank=backend.rank,
            world=backend.world,
            start=position,
            workers=config.data.workers,
            pin=backend.device.type == "cuda",
            seed=config.seed,
        )

    return stream


def start_from(gan: GAN, source: Path, report: bool) -> None:
    """Begin with the weights of another run, as the GAN sees fit."""
    checkpoint = checkpoint_at(source, "start_from")
    try:
        fresh = gan.adopt(checkpoint.weights())
    except ValueError as error:
        raise ConfigError(f"start_from={source}: {error}.") from error
    if report:
        print(f"Started from {checkpoint.path}; {len(fresh)} tensors are fresh.", file=sys.stderr)


def checkpoint_at(path: Path, option: str) -> Checkpoint:
    checkpoint = find(path)
    if checkpoint is None:
        raise ConfigError(f"{option}={path} holds no checkpoint: give a run folder or one in it.")
    return checkpoint


def translate(checkpoint: Path, source: Path, out: Path, split: str, ema: bool) -> None:
    """A folder of conditions -> a folder of PNGs, by the architecture in the checkpoint."""
    from launcher.config import build as build_config
    from trainers.translate import translate_all

    stored = checkpoint_at(checkpoint, "checkpoint")
    config = build_config(stored.config, str(stored.path))
    gan = build(config, training=False)
    load_generator(gan, stored, ema)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    conditions = Conditions(config, source, split)
    bar, move = progress_bar("translating")
    with bar:
        translate_all(gan.to(device), conditions, out, PRECISIONS[config.precision], move)
    print(f"{out}: {len(conditions)} pictures by {stored.path}")


def load_generator(gan: GAN, stored: Checkpoint, ema: bool) -> None:
    """Only what translation uses; the average where the run kept one."""
    ema = ema and stored.has("ema")
    weights = stored.weights(ema)
    own = tuple(name + "." for name in gan.nets)
    load_weights(gan, {n: w for n, w in weights.items() if n.startswith(own)}, stored.path)


class Conditions:
    """The conditions of a source folder: (key, raw batch of one), brought to size, uncropped."""

    def __init__(self, config: Config, source: Path, split: str):
        from shards.layouts import find_conditions

        self.needs = config.model.needs
        self.preprocess = Preprocess(**config.data.preprocess.model_dump()).uncropped()
        records = find_conditions(source, self.needs.layout, split)
        wanted = "inst" if self.needs.inst else ""
        if wanted and wanted not in records[0].files:
            raise ConfigError(
                f"{source} holds no {split}_inst, but the checkpoint uses instance maps: add them."
            )
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[tuple[str, Batch]]:
        for record in self.records:
            yield record.key, self._read(record)

    def _read(self, record: Record) -> Batch:
        from shards.stream import collate

        names = {member: str(path) for member, path in record.files.items()}
        files = {member: path.read_bytes() for member, path in record.files.items()}
        pixels = decode_sample(files, names)
        if self.needs.num_labels is not None:
            used = label_histogram(pixels["label"])
            check_label_ids(used, self.needs.num_labels, names["label"])
        return collate([self.preprocess.apply(pixels, 0, record.key)], [record.key])


@contextmanager
def config_errors() -> Iterator[None]:
    """Before the first collective, a ValueError is a mistake in the configuration."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


def closing_words(config: Config, finished: bool) -> str:
    if finished:
        return (
            f"Finished. Watch: tensorboard --logdir {config.run_dir}; "
            f"translate: python -m launcher translate {config.run_dir} SOURCE OUT"
        )
    return f"Stopped by a signal and saved in {config.run_dir}: the same command again goes on."


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
