"""The numbers of a run that the loop needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from trainers.schedule import Schedule

if TYPE_CHECKING:
    import torch  # options are read without it


@dataclass(frozen=True)
class Cadence:
    """How often things happen, in images; 0 for never."""

    log: int
    pictures: int
    save: int


OptimizerKind = Literal["adam", "adamw", "rmsprop", "sgd"]


@dataclass(frozen=True)
class OptimizerRecipe:
    """The numbers of one player's optimizer, named as torch names them; a kind leaves aside those
    that it does not have."""

    lr: float
    kind: OptimizerKind = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    alpha: float = 0.99


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run that the loop needs."""

    global_batch: int
    """Images of one step over all ranks."""
    num_micro: int
    """Micro-batches that a rank accumulates for one step."""
    optimizer: OptimizerRecipe
    clip: float | None
    """Largest gradient norm of a player; None for no clipping."""
    precision: torch.dtype | None
    """Autocast dtype inside the players; None for full precision."""
    schedule: Schedule
    cadence: Cadence
    reset_moments: bool = False
    """Begin the optimizer's moments anew for a player whose parameters change."""
    micro_batch: int | None = None
    """Images that a rank handles at a time; None: all of its share of a step."""
    players: Mapping[str, OptimizerRecipe] = field(default_factory=dict)
    """By the name of a phase: the optimizers of players that have one of their own."""

    def num_micro_in(self, size: int | None, world: int) -> int:
        """Micro-batches of a rank in a step of `size` images; None: of a usual step."""
        if size is None or self.micro_batch is None:
            return self.num_micro
        return size // world // self.micro_batch

    def of(self, phase: str) -> OptimizerRecipe:
        """The optimizer of one player."""
        return self.players.get(phase, self.optimizer)
