"""Options of the optimizers and of their schedule."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, model_validator

from trainers.schedule import Kind
from trainers.settings import Settings, Span

SHORT_NAME = re.compile("(lr|beta1|beta2)_[A-Z]+")
"""optim.lr_D, as the authors of several codes have it, for optim.players.D.lr."""


class PlayerOptions(Settings):
    """optim.players.NAME: what differs for one player."""

    lr: float | None = Field(None, gt=0)
    """Learning rate; null: optim.lr."""
    beta1: float | None = Field(None, ge=0, lt=1)
    """null: optim.beta1."""
    beta2: float | None = Field(None, ge=0, lt=1)
    """null: optim.beta2."""


class OptimOptions(Settings):
    """optim: Adam."""

    lr: float = Field(2e-4, gt=0)
    """Learning rate of Adam, before the schedule."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam's memory of the gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's memory of their squares."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the squares."""
    clip: float | None = Field(None, gt=0)
    """Largest gradient norm of a player; null for no clipping."""
    reset_moments: bool = False
    """Begin Adam's moments anew when model.fix_global ends, as the original does; by default those
    of the enhancers, which have been trained until then, go on."""
    players: dict[str, PlayerOptions] = {}
    """lr, beta1 and beta2 of a player where they differ: --optim.players.D.lr=4e-4, or shorter
    --optim.lr_D=4e-4."""

    @model_validator(mode="before")
    @classmethod
    def _short_names(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        short = {name: name.split("_") for name in section if SHORT_NAME.fullmatch(str(name))}
        others = {name: value for name, value in section.items() if name not in short}
        players = others.get("players") or {}
        if not isinstance(players, dict) or not all(isinstance(p, dict) for p in players.values()):
            return section  # told by the types
        players = dict(players)
        for name, (number, player) in short.items():
            own = players.get(player, {})
            if number in own:
                raise ValueError(
                    f"`optim.{name}` and `optim.players.{player}.{number}` are one option: keep one"
                )
            players[player] = {**own, number: section[name]}
        return others | ({"players": players} if short else {})


class ScheduleOptions(Settings):
    """schedule: how long, and at which rates."""

    kind: Kind = "linear"
    """linear and cosine: the full rate, then a fall to zero; step: times gamma after every `step`;
    plateau: times gamma when the generators' loss stagnates; constant. Also spelled policy."""
    constant: Span = "100 epochs"
    """Images or epochs at the full learning rate (linear, cosine); with decay, the whole run."""
    decay: Span = "100 epochs"
    """Images or epochs over which it falls to zero (linear, cosine)."""
    step: Span = "50 epochs"
    """Images or epochs between two reductions (step), or over which a loss is averaged (plateau;
    there one epoch by default)."""
    gamma: float | None = Field(None, gt=0, le=1)
    """Factor of a reduction (step, plateau); null: 0.1 for step, 0.2 for plateau."""
    patience: int = Field(5, ge=0)
    """Stretches of `step` without a lower loss before a reduction (plateau)."""
    threshold: float = Field(0.01, ge=0, lt=1)
    """Share by which a loss must fall to be lower (plateau)."""

    @model_validator(mode="before")
    @classmethod
    def _spelt_and_settled(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        if "kind" not in section:
            section = {("kind" if n == "policy" else n): v for n, v in section.items()}
        usual = {"step": "1 epochs"} if section.get("kind") == "plateau" else {}
        return usual | section
