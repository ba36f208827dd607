"""Learning-rate schedule and cadence, both counted in images so that no world size changes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["linear", "cosine", "step", "constant", "plateau"]


@dataclass(frozen=True)
class Schedule:
    """Multiples of the base rate over a run of constant + decay images.

    linear: constant, then to zero in a straight line (Wang et al. 2018, section 4; Zhu et al. 2017,
    section 4); cosine: constant, then to zero by half a cosine (Loshchilov and Hutter 2017, eq. 5,
    without restarts); step: times gamma after every `step` images; plateau: times gamma once the
    generators' loss stagnates, see `Plateau`; constant: always 1."""

    constant: int
    """Images seen at the full learning rate."""
    decay: int
    """Images over which the rate then falls."""
    kind: Kind = "linear"
    step: int = 1
    gamma: float = 0.1
    patience: int = 5
    threshold: float = 0.01

    @property
    def total(self) -> int:
        """Images of the whole run."""
        return self.constant + self.decay

    def factor(self, images: int) -> float:
        """Multiple of the base learning rate once `images` images have been seen; without what a
        plateau has come to."""
        if self.kind == "step":
            return self.gamma ** (images // self.step)
        if self.kind in ("constant", "plateau") or images <= self.constant:
            return 1.0
        share = min(1.0, (images - self.constant) / self.decay)
        return (1 + math.cos(math.pi * share)) / 2 if self.kind == "cosine" else 1.0 - share


@dataclass
class Plateau:
    """What a plateau schedule remembers: as torch's ReduceLROnPlateau (mode min, relative
    threshold) over the means of `step` images each."""

    total: float = 0.0
    """Sum of the losses of the present stretch."""
    count: int = 0
    best: float | None = None
    bad: int = 0
    """Stretches in a row that were no better than the best."""
    factor: float = 1.0

    def add(self, loss: float, schedule: Schedule, before: int, after: int) -> None:
        """Take in the loss of a step that led from `before` to `after` images."""
        self.total, self.count = self.total + loss, self.count + 1
        if not crossed(schedule.step, before, after):
            return
        mean, self.total, self.count = self.total / self.count, 0.0, 0
        better = self.best is None or mean < self.best * (1 - schedule.threshold)
        self.best, self.bad = (mean, 0) if better else (self.best, self.bad + 1)
        if self.bad > schedule.patience:
            self.factor, self.bad = self.factor * schedule.gamma, 0


def crossed(every: int, before: int, after: int) -> bool:
    """Whether a multiple of `every` images lies in (before, after]; 0 means never."""
    return every > 0 and before // every < after // every
