"""The numbers of a run that the loop needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trainers.schedule import Schedule


@dataclass(frozen=True)
class Cadence:
    """How often things happen, in images; 0 for never."""

    log: int
    pictures: int
    save: int


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run that the loop needs."""

    global_batch: int
    """Images of one step over all ranks."""
    num_micro: int
    """Micro-batches that a rank accumulates for one step."""
    lr: float
    betas: tuple[float, float]
    eps: float
    clip: float | None
    """Largest gradient norm of a player; None for no clipping."""
    precision: torch.dtype | None
    """Autocast dtype inside the players; None for full precision."""
    schedule: Schedule
    cadence: Cadence
    reset_moments: bool = False
    """Begin Adam's moments anew for a player whose parameters change."""
    players: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By the name of a phase: fields of Adam above that differ for its player."""

    def of(self, phase: str) -> Recipe:
        """The numbers of one player."""
        return replace(self, **self.players.get(phase, {}))
