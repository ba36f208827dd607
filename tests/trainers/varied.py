"""A small GAN that asks the loop for all that a phase can: repeats, cadence, constraint, ramp."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from tests.trainers import toy
from trainers.gan import Batch, Phase, Terms
from trainers.recipe import Cadence, OptimizerRecipe

BOUND = 0.05
AT_THE_END = Cadence(log=4, pictures=0, save=0)
OPTIMIZERS = {
    "adamw": OptimizerRecipe(1e-2, "adamw", weight_decay=0.1),
    "decayed": OptimizerRecipe(1e-2, weight_decay=0.1),
    "rmsprop": OptimizerRecipe(1e-3, "rmsprop"),
    "rmsprop-momentum": OptimizerRecipe(1e-3, "rmsprop", momentum=0.5, alpha=0.9),
    "sgd": OptimizerRecipe(1e-2, "sgd"),
    "sgd-momentum": OptimizerRecipe(1e-2, "sgd", momentum=0.9),
}


class Varied(toy.Toy):
    """D makes two updates a step, each on half of the rows, and is clipped; G makes one after every
    third step; the weight of its distance grows with the images seen."""

    independent_phases: ClassVar[bool] = False

    def phases(self, images: int) -> tuple[Phase, ...]:
        return Phase("D", ("D",), repeats=2), Phase("G", ("G",), every=3, offset=2)

    def advance(self, step: int, images: int) -> None:
        assert images == 4 * step
        self.weights["G/l1"] = images / 10

    def constrain(self, phase: str) -> bool:
        for parameter in self.nets["D"].parameters() if phase == "D" else ():
            parameter.clamp_(-BOUND, BOUND)
        return phase == "D"

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        if phase == "G":
            assert carry["turn"] == 2
            return super().losses(phase, batch, carry)
        turn = carry.get("turn", 0)
        rows = {name: images[:, :, turn::2] for name, images in batch.items()}
        with torch.no_grad():
            fake = self.translate(rows)
        total, terms, _ = super().losses(phase, rows, {"fake": fake})
        return total, terms, {"turn": turn + 1}


def train(folder: Path, **options) -> None:
    """Seven steps: G's are the third and the sixth."""
    changes = {name: options.pop(name) for name in ("optimizer", "num_micro") if name in options}
    plan = toy.recipe(total=28, cadence=AT_THE_END, **changes)
    toy.train(folder, plan, make_gan=Varied, **options)
