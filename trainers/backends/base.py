"""Who wraps, synchronises and steps: here, a process on its own, which the others build on.

All backends pass the same contract tests. A seat is a player with its wrapper, its optimizer and
its own gradient scaler: accelerate's shared scaler would couple the players.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nets.memory.waist import loss_scale
from trainers.backends.overlap import Reduction
from trainers.errors import TrainingError
from trainers.gan import GAN, Phase
from trainers.player import Player, phase_parameters

Moments = dict[str, dict[str, Tensor]]
"""The optimizer's state by parameter name, of full shape: of Adam "exp_avg", "exp_avg_sq" and
"step"."""
MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Parameter groups -> optimizer."""


@dataclass(frozen=True)
class Past:
    """What a player takes over from an earlier seat or from a checkpoint; empty for a new one."""

    moments: Moments = field(default_factory=dict)
    """Of any parameters: those that are not trained here are left out, others start afresh."""
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """What a seat is made of."""

    phase: Phase
    player: Player
    parameters: dict[str, nn.Parameter]
    """By their names below `gan.nets`."""
    make_optimizer: MakeOptimizer
    scaler: torch.amp.GradScaler
    moments: Moments
    """To go on with, of those `parameters` that have some."""


@dataclass
class Seat:
    """A player at the table: what one phase steps with."""

    phase: Phase
    player: nn.Module
    """The Player, wrapped or not: its forward is the phase's loss."""
    parameters: dict[str, nn.Parameter]
    """By their names below `gan.nets`."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    reduction: Reduction | None = None
    """The all-reduce of its gradients where `Backend.step` waits for it, not the wrapper."""

    def moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """(name, the optimizer's state) of every parameter that has been stepped.

        One at a time, so that ranks need not keep what they have no use for; but all ranks go
        through all of them together: what is sharded is gathered on the way."""
        state = self.optimizer.state
        return ((name, state[p]) for name, p in self.parameters.items() if p in state)

    def past(self) -> Past:
        """For the seat that follows this one. All ranks call it together."""
        return Past(dict(self.moments()), self.scaler.state_dict())

    def weights_changed(self) -> None:
        """Let the optimizer go on from weights that were changed after its step."""

    def check_scale(self) -> None:
        """Raise TrainingError where, under fp16, gradients that never become finite only shrink the
        loss scale: no step is made."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise TrainingError(
                f"Player {self.phase.name} has had no finite fp16 gradient for long: its loss "
                f"scale is {self.scaler.get_scale():.3g}. Resume the checkpoint before with "
                "precision bf16 or fp32."
            )

    def leave(self) -> None:
        """Take the wrapper's hooks off the parameters; the seat is of no use afterwards."""


class Backend:
    """One process on its own; the base of the others."""

    rank = 0
    world = 1
    overlap = False
    """Whether gradients travel while later phases compute, so that all should step at the end."""

    def __init__(self, device: torch.device | None = None):
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def adopt(
        self,
        gan: GAN,
        phase: Phase,
        make_optimizer: MakeOptimizer,
        precision: torch.dtype | None,
        past: Past = Past(),
    ) -> Seat:
        """Build player, wrapper, optimizer and scaler for `phase`, as frozen as it will run.

        The networks must hold their weights by now: a wrapper may keep a copy."""
        parameters = phase_parameters(gan, phase)
        trained = {id(parameter) for parameter in parameters.values()}
        for parameter in gan.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        half = precision is torch.float16
        scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        if past.scaler:
            scaler.load_state_dict(past.scaler)
        player = Player(gan, phase, precision)
        return self.seat(Place(phase, player, parameters, make_optimizer, scaler, past.moments))

    def seat(self, place: Place) -> Seat:
        """Wrap the player and give its optimizer the moments that there are."""
        optimizer = place.make_optimizer([{"params": list(place.parameters.values())}])
        take_over(optimizer, place.parameters, place.moments)
        player = self.wrap(place.player)
        return Seat(place.phase, player, place.parameters, optimizer, place.scaler)

    def wrap(self, player: Player) -> nn.Module:
        return player

    def accumulate(self, seat: Seat, last: bool) -> AbstractContextManager:
        """Around forward and backward of a micro-batch; gradients travel with the last one."""
        return loss_scale(seat.scaler.scale(torch.ones((), device=self.device)))

    def backward(self, seat: Seat, loss: Tensor) -> None:
        seat.scaler.scale(loss).backward()

    def step(self, seat: Seat, clip: float | None) -> Tensor:
        """Clip to the total norm `clip`, step, drop the gradients; returns the norm before."""
        seat.scaler.unscale_(seat.optimizer)
        parameters = list(seat.parameters.values())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        seat.scaler.step(seat.optimizer)
        seat.scaler.update()
        seat.optimizer.zero_grad(set_to_none=True)
        return norm

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over ranks of a small tensor."""
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """Elementwise maximum over ranks of a small tensor."""
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's values, in place."""
        return tensor

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong in the block on any rank is raised on all, so that nobody waits for the
        others. All ranks pass here at once; the block itself must be free of collectives."""
        error: Exception | None = None
        try:
            yield
        except Exception as problem:
            error = problem
        failed = self.maximum(torch.tensor(float(error is not None), device=self.device)).item()
        if error is not None:
            raise error
        if failed:
            raise TrainingError("Another rank failed: its log has the reason.")

    def close(self) -> None:
        """Leave the group; the wrappers must be gone by then."""


def take_over(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], moments: Moments
) -> None:
    """Go on with the moments of those `parameters` that have some."""
    for name in parameters.keys() & moments.keys():
        device = parameters[name].device
        state = {kind: tensor.to(device) for kind, tensor in moments[name].items()}
        optimizer.state[parameters[name]] = state
