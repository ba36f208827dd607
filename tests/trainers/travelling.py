"""What a step does with its gradients, as seen from inside a gang of two."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.trainers import toy
from trainers.backends.base import Seat
from trainers.engine.tracing import LiveMemory
from trainers.engine.trainer import Trainer
from trainers.gan import Batch, Phase, Terms
from trainers.player import Player, only
from trainers.recipe import Cadence

OVERLAP: dict[str, Any] = {"overlap": True}
BF16: dict[str, Any] = {"travels_as": torch.bfloat16}
FP32: dict[str, Any] = {"dtype": torch.float32}


class Wide(toy.Toy):
    """4 MiB of parameters, nearly all of them G's."""

    def __init__(self) -> None:
        super().__init__()
        self.nets["G"]["head"] = nn.Sequential(
            *(nn.Conv2d(4, 2**12, 1), nn.Conv2d(2**12, 2**7, 1), nn.Conv2d(2**7, 2**12, 1)),
            *(nn.Conv2d(2**12, 1, 1), nn.Tanh()),
        )

    def phases(self, images: int) -> tuple[Phase, ...]:
        return Phase("G", ("G",)), Phase("D", ("D",))


class Telling(toy.Toy):
    """Notes when phases compute; phase G of rank 1 ends after phase D of rank 0 has begun."""

    events: list[str]
    seats: list[Seat]
    begun: Path

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        self.events.append(f"{phase} computes")
        for work, _, _ in self.seats[0].reduction.under_way:
            arrived = "has arrived" if work.is_completed() else "is under way"
            self.events.append(f"G's gradient {arrived}")
        if dist.get_rank() == 0 and phase == "D":
            self.begun.touch()
        deadline = time.monotonic() + 10
        while dist.get_rank() == 1 and not self.begun.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return super().losses(phase, batch, carry)


def order_of_events(folder: Path) -> list[str]:
    """What happens in a step, in the order of time."""
    trainer = toy.trainer_for(folder, toy.recipe(), make_gan=Telling, **OVERLAP)
    trainer.seat_phases()
    trainer.gan.events, trainer.gan.seats = [], trainer.seats
    trainer.gan.begun = folder.with_name("phase D of rank 0 has begun")
    step = trainer.backend.step

    def told(seat: Seat, clip: float | None) -> Tensor:
        trainer.gan.events.append(f"{seat.phase.name} steps")
        return step(seat, clip)

    trainer.backend.step = told
    trainer.step([next(trainer.stream(0))])
    return trainer.gan.events


def gradients(folder: Path) -> dict[str, float]:
    """What arrives with bf16, beside a reduction written out here: the largest differences."""
    trainer = toy.trainer_for(folder, toy.recipe(), **FP32, **BF16)
    trainer.seat_phases()
    batch, carry = next(trainer.stream(0)), {}
    worst = {"from the reference": 0.0, "from the mean, in units of what bf16 allows": 0.0}
    for seat in trainer.seats:
        with only(trainer.gan, seat.phase):
            total, _, _ = Player(trainer.gan, seat.phase)(batch, carry)
            own = torch.autograd.grad(total, list(seat.parameters.values()))
        trainer._compute(seat, [batch], [carry])
        seat.reduction.wait()
        for parameter, gradient in zip(seat.parameters.values(), own, strict=True):
            halves = [torch.empty_like(gradient) for _ in range(2)]
            dist.all_gather(halves, gradient / 2)
            first, second = (half.to(torch.bfloat16) for half in halves)
            off = (parameter.grad - (first + second).float()).abs().max()
            # Each half and the sum are rounded by one part in 2^8 at most.
            allowed = sum(half.abs() for half in halves) * 2**-7 * (1 + 2**-9)
            excess = ((parameter.grad - sum(halves)).abs() / allowed.clamp(min=1e-30)).max()
            for name, value in zip(worst, (off, excess), strict=True):
                worst[name] = max(worst[name], value.item())
    return worst


def peak_of_a_step(folder: Path, options: dict[str, Any]) -> dict[str, int]:
    """Bytes of live tensors at the highest point of the third step, and of all gradients."""
    with LiveMemory() as memory:
        trainer = toy.trainer_for(folder, toy.recipe(), make_gan=Wide, **FP32, **options)
        trainer.seat_phases()
        batches = trainer.stream(0)
        for _ in range(3):  # DDP arranges its buckets anew in the second
            memory.peak = memory.live
            trainer.step([next(batches)])
    size = sum(p.nbytes for seat in trainer.seats for p in seat.parameters.values())
    return {"peak": memory.peak, "gradients": size}


def forgotten(folder: Path) -> str:
    """A second backward before the first one's gradients were waited for."""
    trainer = toy.trainer_for(folder, toy.recipe(), **OVERLAP)
    trainer.seat_phases()
    batch = next(trainer.stream(0))
    trainer._compute(trainer.seats[0], [batch], [{}])
    with pytest.raises(AssertionError) as caught:
        trainer._compute(trainer.seats[0], [batch], [{}])
    return str(caught.value)


class Broken(toy.Toy):
    """Phase D fails on rank 1 in the second step, with the gradients of G under way."""

    calls = 0

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        if phase == "D":
            Broken.calls += 1
            if Broken.calls == 2 and dist.get_rank() == 1:
                raise MemoryError("rank 1 is too small")
        return super().losses(phase, batch, carry)


def failure(folder: Path) -> str:
    plan = toy.recipe(cadence=Cadence(log=4, pictures=0, save=4))
    trainer: Trainer = toy.trainer_for(folder, plan, make_gan=Broken, **OVERLAP)
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        trainer.fit()
    return str(caught.value)
