"""A small GAN whose phases change at an image count, and the pieces to train it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.backends.base import Backend
from trainers.backends.opening import open_backend
from trainers.checkpoints.checkpoint import find
from trainers.checkpoints.store import Keep, Store
from trainers.ema import Ema
from trainers.engine.trainer import Trainer
from trainers.gan import GAN, Batch, Phase, Terms
from trainers.recipe import Cadence, OptimizerRecipe, Recipe
from trainers.schedule import Schedule

FREEZE_UNTIL = 12
ADAM = OptimizerRecipe(1e-2, betas=(0.5, 0.999))
SLOW = replace(ADAM, lr=2e-3)


class Toy(GAN):
    """Half of the generator is frozen for the first images; dropout makes it draw numbers."""

    ema: tuple[str, ...] = ("G",)
    independent_phases: ClassVar[bool] = True

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        trunk = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh())
        head = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(4, 1, 3, padding=1), nn.Tanh())
        self.nets = nn.ModuleDict(
            {"G": nn.ModuleDict({"trunk": trunk, "head": head}), "D": nn.Conv2d(2, 1, 3)}
        )
        self.weights = {"G/gan": 1.0, "G/l1": 10.0, "D/real": 0.5, "D/fake": 0.5}

    def phases(self, images: int) -> tuple[Phase, ...]:
        trained = ("G.head",) if images < FREEZE_UNTIL else ("G",)
        return Phase("G", trained), Phase("D", ("D",))

    def prepare(self, batch: Batch) -> Batch:
        dtype = next(self.parameters()).dtype
        return {name: batch[name].to(dtype) / 127.5 - 1 for name in ("x", "y")}

    def translate(self, batch: Batch) -> Tensor:
        return self.nets["G"]["head"](self.nets["G"]["trunk"](batch["x"]))

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        if phase == "G":
            fake = self.translate(batch)
            scores = self.nets["D"](torch.cat([batch["x"], fake], 1))
            terms = {"G/gan": (scores - 1).square().mean(), "G/l1": F.l1_loss(fake, batch["y"])}
            return self.total(terms), terms, {"fake": fake.detach()}
        real = self.nets["D"](torch.cat([batch["x"], batch["y"]], 1))
        fake = self.nets["D"](torch.cat([batch["x"], carry["fake"]], 1))
        terms = {"D/real": (real - 1).square().mean(), "D/fake": fake.square().mean()}
        return self.total(terms), terms, {}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        def colour(image: Tensor) -> Tensor:
            return ((image.float() + 1) * 127.5).round().to(torch.uint8).repeat(1, 3, 1, 1)

        fake = self.translate(batch)
        return {"condition": colour(batch["x"]), "fake": colour(fake), "real": colour(batch["y"])}


def sample(position: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(position)
    x, y = torch.randint(0, 256, (2, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return x, y


def stream_for(backend: Backend, global_batch: int, num_micro: int):
    """The data contract of the trainer over made-up samples."""
    micro = global_batch // backend.world // num_micro

    def stream(start: int, size: int | None = None) -> Iterator[Batch]:
        assert size is None, "as the recipe says"
        first = start + backend.rank * micro * num_micro
        while True:
            for i in range(num_micro):
                pairs = [sample(first + i * micro + j) for j in range(micro)]
                x, y = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
                yield {"x": x, "y": y, "keys": [str(first + i * micro + j) for j in range(micro)]}
            first += global_batch

    return stream


def recipe(total: int = 20, **changes) -> Recipe:
    numbers = dict(
        global_batch=4,
        num_micro=1,
        optimizer=ADAM,
        clip=None,
        precision=None,
        schedule=Schedule(constant=total // 2, decay=total - total // 2),
        cadence=Cadence(log=4, pictures=8, save=8),
    )
    return Recipe(**(numbers | changes))


def trainer_for(
    folder: Path,
    plan: Recipe,
    *,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float64,
    stop=lambda: False,
    observers=(),
    keep: Keep = Keep(last=3, every=0),
    make_gan: Callable[[], GAN] | None = None,
    make_stream: Callable[..., Callable[[int], Iterator[Batch]]] | None = None,
    **backing,
) -> Trainer:
    """A trainer in this process, or on this rank of a gang; of the toy unless told otherwise.

    backing: zero, travels_as, overlap for `open_backend`."""
    torch.manual_seed(0)
    gan = (make_gan() if make_gan else Toy(dropout)).to(dtype)
    backend = open_backend(int(os.environ.get("WORLD_SIZE", 1)), timeout=60, **backing)
    torch.manual_seed(100 + backend.rank)
    return Trainer(
        gan,
        plan,
        backend,
        Store(folder, backend, keep, {"config": {}, "data": "toy"}),
        (make_stream or stream_for)(backend, plan.global_batch, plan.num_micro),
        ema=Ema(gan, halflife=8) if backend.rank == 0 else None,
        observers=observers,
        stop=stop,
    )


def train(folder: Path, plan: Recipe, **options) -> None:
    """Run, or go on with, a toy run in `folder`."""
    trainer_for(folder, plan, **options).fit(find(folder))


def result(folder: Path) -> dict[str, Tensor]:
    """Everything the newest checkpoint holds, by file and name."""
    checkpoint = find(folder)
    assert checkpoint is not None
    files = sorted(path.stem for path in checkpoint.path.glob("*.safetensors"))
    return {f"{f}:{n}": t for f in files for n, t in checkpoint.tensors(f).items()}
