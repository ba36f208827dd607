"""Schedules count images."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainers.schedule import Plateau, Schedule, crossed


def test_constant_then_linear_to_zero_at_the_end() -> None:
    schedule = Schedule(constant=300, decay=400)
    seen = [0, 299, 300, 400, 500, 600, 699, 700]
    expected = [1, 1, 1, 0.75, 0.5, 0.25, 0.0025, 0]
    assert [schedule.factor(images) for images in seen] == pytest.approx(expected)
    assert schedule.total == 700


def test_the_paper_s_epochs_agree_with_the_original_at_their_starts() -> None:
    # The original's rate in epoch e of 3 + 4: 2e-4 while constant, then falling; ours by images
    # is one epoch later at each start, and reaches zero at the end instead of one epoch before.
    schedule = Schedule(constant=3, decay=4)
    assert [2e-4 * schedule.factor(e) for e in (3, 4, 5, 6)] == pytest.approx(
        [2e-4, 1.5e-4, 1e-4, 0.5e-4]
    )


def test_no_decay_is_constant_to_the_end() -> None:
    assert Schedule(constant=10, decay=0).factor(10) == 1


@pytest.mark.parametrize(
    ("every", "before", "after", "answer"),
    [(10, 9, 10, True), (10, 10, 19, False), (10, 0, 64, True), (0, 0, 64, False)],
)
def test_crossed(every: int, before: int, after: int, answer: bool) -> None:
    assert crossed(every, before, after) is answer


def rate(scheduler_of: Callable[[torch.optim.Optimizer], Any], epochs: int) -> list[float]:
    """The factors of one of torch's schedulers, epoch by epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = scheduler_of(optimizer), []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_and_step_are_torch_s_by_epochs_of_ten_images() -> None:
    kinds = torch.optim.lr_scheduler
    cosine = Schedule(constant=0, decay=200, kind="cosine")
    expected = rate(lambda o: kinds.CosineAnnealingLR(o, 20), 20)
    assert [cosine.factor(10 * e) for e in range(20)] == pytest.approx(expected, abs=1e-12)
    assert Schedule(constant=50, decay=200, kind="cosine").factor(50) == 1
    step = Schedule(constant=100, decay=100, kind="step", step=30, gamma=0.3)
    expected = rate(lambda o: kinds.StepLR(o, 3, 0.3), 20)
    assert [step.factor(10 * e) for e in range(20)] == pytest.approx(expected, rel=1e-12)
    assert Schedule(constant=5, decay=5, kind="constant").factor(9) == 1


def test_a_plateau_is_torch_s_over_the_means_of_its_stretches() -> None:
    generator = random.Random(0)
    losses = [5 - 0.02 * min(i, 150) + generator.random() for i in range(300)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.2, threshold=0.01, patience=2
    )
    schedule = Schedule(600, 0, "plateau", step=10, gamma=0.2, patience=2, threshold=0.01)
    ours = Plateau()
    for i, loss in enumerate(losses):
        ours.add(loss, schedule, 2 * i, 2 * i + 2)
        if (2 * i + 2) % 10 == 0:
            theirs.step(sum(losses[i - 4 : i + 1]) / 5)
        # torch leaves changes below 1e-8 out
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-7)
    assert 0 < ours.factor < 1
