"""What a phase may ask of the loop: cadences, repeats, constraints; and the kinds of optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from launcher.run.generator import load_generator
from tests.processes import gang
from tests.trainers import toy, varied
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from tests.trainers.varied import OPTIMIZERS, Varied
from trainers.checkpoints.checkpoint import find
from trainers.ema import Ema
from trainers.gan import Phase


@pytest.mark.parametrize(
    ("cadence", "steps"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"every": 3}, [0, 3, 6]),
        ({"every": 3, "offset": 2}, [2, 5]),
        ({"every": 3, "complement": True}, [1, 2, 4, 5, 7]),
        ({"begin": 5}, [5, 6, 7]),
        ({"every": 2, "offset": 1, "begin": 4}, [5, 7]),
    ],
)
def test_when_a_phase_runs(cadence: dict, steps: list[int]) -> None:
    phase = Phase("G", ("G",), **cadence)
    assert [step for step in range(8) if phase.due(step)] == steps
    if not phase.begin:
        assert phase.share == pytest.approx(sum(map(phase.due, range(60))) / 60)


@pytest.mark.parametrize("cadence", [{"offset": 1}, {"every": 3, "offset": 3}, {"repeats": 0}])
def test_a_phase_that_would_never_run_is_refused(cadence: dict) -> None:
    with pytest.raises(ValueError, match="'G' would never run"):
        Phase("G", ("G",), **cadence)


class AveragedBefore(toy.Toy):
    averaged_before: ClassVar[bool] = True


def test_an_average_may_lag_a_step_behind(tmp_path: Path) -> None:
    toy.train(tmp_path / "after", toy.recipe(), stop=StopAfter(2))
    toy.train(tmp_path / "before", toy.recipe(), make_gan=AveragedBefore, stop=StopAfter(3))
    after, before = (find(tmp_path / name).tensors("ema") for name in ("after", "before"))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_what_translates_is_told_how_far_training_had_come(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(), make_gan=Varied, stop=StopAfter(3))
    gan = Varied().double()
    load_generator(gan, find(tmp_path), ema=False)
    assert gan.weights["G/l1"] == 12 / 10


def test_a_step_repeats_and_constrains_as_written_by_hand(tmp_path: Path) -> None:
    trainer = toy.trainer_for(tmp_path, toy.recipe(total=12), make_gan=Varied)
    by_hand = Varied().double()
    by_hand.load_state_dict(trainer.gan.state_dict())
    optimizer = torch.optim.Adam(by_hand.nets["D"].parameters(), 1e-2, betas=(0.5, 0.999))
    raw = next(trainer.stream(0))
    trainer.seat_phases()
    trainer.step([raw])
    carry: dict = {}
    for _ in range(2):
        optimizer.zero_grad()
        total, _, out = by_hand.losses("D", by_hand.prepare(raw), carry)
        total.backward()
        optimizer.step()
        carry |= out
        with torch.no_grad():
            by_hand.constrain("D")
    for name, weight in by_hand.nets.state_dict().items():
        assert torch.equal(weight, trainer.gan.nets.state_dict()[name]), name


def test_the_average_follows_the_generator_s_own_steps(tmp_path: Path) -> None:
    """One that leaps over the images between them, whatever the other phases do meanwhile."""
    trainer = toy.trainer_for(tmp_path, toy.recipe(total=24), make_gan=Varied)
    ours = Ema(trainer.gan, halflife=8)
    trainer.seat_phases()
    for step in range(6):
        trainer.step([next(trainer.stream(4 * step))])
        if step in (2, 5):
            ours.update(trainer.gan, 12, 4 * step + 4)
    for name, tensor in ours.shadow.items():
        assert torch.equal(tensor, trainer.ema.shadow[name]), name


def test_until_its_start_the_average_is_a_copy() -> None:
    gan = Varied()
    ema = Ema(gan, halflife=8, start=12)
    for seen in (4, 8, 12):
        with torch.no_grad():
            gan.nets["G"]["head"][1].bias.fill_(seen)
        ema.update(gan, 4, seen)
        copied = torch.equal(ema.shadow["G.head.1.bias"], gan.nets["G"]["head"][1].bias)
        assert copied == (seen < 12)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_interrupted_equals_uninterrupted(tmp_path: Path, steps: int) -> None:
    varied.train(tmp_path / "whole")
    varied.train(tmp_path / "cut", stop=StopAfter(steps))
    varied.train(tmp_path / "cut")
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_go_on_where_they_stopped(tmp_path: Path, kind: str) -> None:
    for name, stop in (("whole", lambda: False), ("cut", StopAfter(4)), ("cut", lambda: False)):
        varied.train(tmp_path / name, optimizer=OPTIMIZERS[kind], stop=stop)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def two_work(root: str) -> None:
    for name, optimizer in OPTIMIZERS.items():
        varied.train(Path(root, name), optimizer=optimizer)
    varied.train(Path(root, "micro"), num_micro=2)


def test_one_process_equals_two(tmp_path: Path) -> None:
    gang.run(2, two_work, str(tmp_path / "two"))
    for name, optimizer in OPTIMIZERS.items():
        varied.train(tmp_path / "one" / name, optimizer=optimizer)
        assert_same(tmp_path / "one" / name, tmp_path / "two" / name, tolerance=1e-12)
    varied.train(tmp_path / "one" / "micro")
    assert_same(tmp_path / "one" / "micro", tmp_path / "two" / "micro", tolerance=1e-12)


def test_a_checkpoint_from_before_averages_were_counted_goes_on(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(2))
    checkpoint = find(tmp_path)
    checkpoint.state["progress"].pop("averaged")
    assert checkpoint.progress.averaged == 8
