"""How long a training step waits for its input: the real stream and loop, and a step that sleeps.

    python -m tests.benchmarks.waiting [--size=2048x1024] [--triplets=16] [--images=60]
        [--step=0.333] [--workers=0,1,2] [--ranks=1,2] [--pictures=jpg,png] [--folder=FOLDER]
        [--json=FILE]

The triplets are crops of the earth sample, as in tests/benchmarks/reading.py. The Trainer reads
them with so many data workers for each rank, one triplet a rank and step; a step takes so many
seconds without the processor, as one on a GPU would. Printed is what the board calls
speed/data_wait_share after so many images of each rank, of the rank that waits longest, and the
images/s of all ranks. --folder keeps the triplets for the next run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from launcher.text.tables import table
from shards.pixels.augment import Preprocess
from shards.read.sources import open_sources
from shards.read.stream import batches
from tests.benchmarks.race import Row
from tests.benchmarks.reading import make_material, parsed
from tests.processes import gang
from trainers.backends.base import Backend
from trainers.backends.opening import open_backend
from trainers.board.board import Observer
from trainers.checkpoints.checkpoint import Progress
from trainers.checkpoints.store import Keep, Store
from trainers.engine.trainer import Trainer
from trainers.gan import GAN, Batch, Phase, Terms
from trainers.recipe import Cadence, OptimizerRecipe, Recipe
from trainers.schedule import Schedule


@dataclass(frozen=True)
class Options:
    size: str = "2048x1024"
    triplets: int = 16
    images: int = 60
    step: float = 0.333
    workers: str = "0,1,2"
    ranks: str = "1,2"
    pictures: str = "jpg,png"
    folder: str = ""
    json: str = ""


class Sleeper(GAN):
    """A step of fixed length that leaves the processor to others."""

    ema = ()

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds
        self.nets = nn.ModuleDict({"G": nn.Linear(1, 1)})
        self.weights = {"G/nothing": 1.0}

    def phases(self, images: int) -> tuple[Phase, ...]:
        return (Phase("G", ("G",)),)

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        time.sleep(self.seconds)
        terms = {"G/nothing": self.nets["G"](torch.ones(1, 1)).mean()}
        return self.total(terms), terms, {}


class Notes(Observer):
    """Keeps what the board would show."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def scalars(self, progress: Progress, values: dict[str, float]) -> None:
        self.values = values


def main(arguments: list[str]) -> None:
    options = parsed(arguments, Options)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nothing is computed, by more ranks than GPUs
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for suffix in options.pictures.split(","):
            folder = Path(options.folder or temporary) / f"{suffix}-{options.size}-waiting"
            make_material(folder, suffix, options.size, options.triplets)
            for ranks in map(int, options.ranks.split(",")):
                for workers in map(int, options.workers.split(",")):
                    stream = stream_of(folder / "shards", workers)
                    share, speed = waited(stream, ranks, options.images, options.step)
                    facts = {"pictures": suffix, "ranks": ranks, "workers": workers}
                    rows.append(facts | {"data_wait_share": share, "images_per_s": speed})
    print(as_table(rows, options))
    if options.json:
        Path(options.json).write_text(json.dumps({"options": vars(options), "rows": rows}) + "\n")


Stream = Callable[[Backend, int], Iterator[Batch]]
"""(backend, position) -> micro-batches of one sample of this rank."""


def stream_of(shards: Path, workers: int) -> Stream:
    """The packed triplets, each rank with so many workers."""

    def stream(backend: Backend, position: int) -> Iterator[Batch]:
        return batches(
            open_sources(shards, "labels", seed=0),
            Preprocess(),
            global_batch=backend.world,
            micro_batch=1,
            rank=backend.rank,
            world=backend.world,
            start=position,
            workers=workers,
            seed=0,
        )

    return stream


def waited(stream: Stream, ranks: int, images: int, step: float) -> tuple[float, float]:
    """Share of the time for which a step waits for `images` of each rank, and images/s of all."""
    with tempfile.TemporaryDirectory() as folder:
        found = gang.run(ranks, train, ranks, stream, images, step, Path(folder))
    return found[0]["speed/data_wait_share"], found[0]["speed/images_per_s"]


def train(world: int, stream: Stream, images: int, step: float, folder: Path) -> dict[str, float]:
    """What the board of one rank shows at the end of a run of one tick."""
    backend, total = open_backend(world, timeout=60), images * world
    recipe = Recipe(
        global_batch=world,
        num_micro=1,
        optimizer=OptimizerRecipe(1e-3),
        clip=None,
        precision=None,
        schedule=Schedule(constant=total, decay=0),
        cadence=Cadence(log=total, pictures=0, save=0),
    )
    notes, store = Notes(), Store(folder, backend, Keep(1, 0), {})
    gan = Sleeper(step)
    trainer = Trainer(
        gan, recipe, backend, store, lambda position: stream(backend, position), observers=(notes,)
    )
    trainer.fit()
    return notes.values


def as_table(rows: list[Row], options: Options) -> str:
    lines = [
        [
            row["pictures"],
            str(row["ranks"]),
            str(row["workers"]),
            f"{row['data_wait_share']:.1%}",
            f"{row['images_per_s']:.2f}",
        ]
        for row in rows
    ]
    head = ["pictures", "ranks", "workers a rank", "waits for data", "images/s"]
    title = f"{options.size}, steps of {options.step:g} s, {options.images} images a rank"
    return f"{title}\n{table(head, lines)}"


if __name__ == "__main__":
    main(sys.argv[1:])
