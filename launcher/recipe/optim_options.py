"""Options of the optimizers and of their schedule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from trainers.recipe import OptimizerKind
from trainers.schedule import Kind
from trainers.settings import Settings, Span

SHORT_NAME = re.compile("(lr|beta1|beta2)_[A-Z]+")
"""optim.lr_D, as the authors of several codes have it, for optim.players.D.lr."""
ADAM = ("beta1", "beta2", "eps")


class PlayerOptions(Settings):
    """optim.players.NAME: what differs for one player; null: as the option of `optim`."""

    kind: OptimizerKind | None = None
    """adam, adamw, rmsprop or sgd."""
    lr: float | None = Field(None, gt=0)
    """Learning rate."""
    beta1: float | None = Field(None, ge=0, lt=1)
    """Adam's memory of the gradients."""
    beta2: float | None = Field(None, ge=0, lt=1)
    """Adam's memory of their squares."""
    eps: float | None = Field(None, gt=0)
    """Added to the root of the squares."""
    weight_decay: float | None = Field(None, ge=0)
    """Pull of the weights to zero."""
    momentum: float | None = Field(None, ge=0, lt=1)
    """Memory of the steps (rmsprop, sgd)."""
    alpha: float | None = Field(None, ge=0, lt=1)
    """RMSprop's memory of the squares."""


class OptimNumbers(Settings):
    """The options of `optim` that each player may have for itself."""

    kinds: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "adam": ADAM,
        "adamw": ADAM,
        "rmsprop": ("eps", "momentum", "alpha"),
        "sgd": ("momentum",),
    }

    kind: OptimizerKind = "adam"
    """adam, adamw, rmsprop or sgd, as torch has them."""
    lr: float = Field(2e-4, gt=0)
    """Learning rate, before the schedule."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam's memory of the gradients."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's memory of their squares."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the squares (adam, adamw, rmsprop)."""
    weight_decay: float = Field(0.0, ge=0)
    """Pull of the weights to zero: added to the gradient (adam, rmsprop, sgd), or beside it
    (adamw)."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Memory of the steps (rmsprop, sgd)."""
    alpha: float = Field(0.99, ge=0, lt=1)
    """RMSprop's memory of the squares."""


class OptimOptions(OptimNumbers):
    """optim: the optimizers."""

    clip: float | None = Field(None, gt=0)
    """Largest gradient norm of a player; null for no clipping."""
    reset_moments: bool = False
    """Begin the optimizer's moments anew when a player's parameters change, as the originals do: at
    the end of model.fix_global, and where a level of ProGAN begins or has faded in. By default
    those of parameters that were trained before go on."""
    players: dict[str, PlayerOptions] = {}
    """What differs for a player: --optim.players.D.lr=4e-4, or shorter --optim.lr_D=4e-4."""

    def of(self, player: str) -> OptimNumbers:
        """The numbers of one player."""
        usual = {name: getattr(self, name) for name in OptimNumbers.model_fields}
        own = self.players.get(player, PlayerOptions()).model_dump(exclude_none=True)
        return OptimNumbers(**usual | own)

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> OptimOptions:
        fields = OptimNumbers.model_fields
        chosen = {n: getattr(self, n) for n in fields if getattr(self, n) != fields[n].default}
        _check_effect("optim", self.kind, chosen)
        for player, own in self.players.items():
            chosen = own.model_dump(exclude_none=True)
            _check_effect(f"optim.players.{player}", self.of(player).kind, chosen)
        return self

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


def _check_effect(section: str, kind: str, chosen: Mapping[str, Any]) -> None:
    """Refuse what was chosen for another kind of optimizer."""
    special = {name for names in OptimNumbers.kinds.values() for name in names}
    for name in sorted(special.intersection(chosen).difference(OptimNumbers.kinds[kind])):
        raise ValueError(
            f"`{section}.{name}` is {chosen[name]!r}, but {kind} does not have it: leave it out"
        )


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
