"""Gradients that travel behind later phases, or as bf16: against plain DDP, bit for bit."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.processes import gang
from tests.trainers import toy, travelling
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from tests.trainers.gans.from_images import test_pix2pixhd_resume, test_translators
from tests.trainers.hd import raw_batch
from tests.trainers.travelling import BF16, FP32, OVERLAP
from trainers.backends.base import Backend
from trainers.checkpoints.checkpoint import find
from trainers.gan import Batch, Phase
from trainers.recipe import Cadence

AT_THE_END = Cadence(log=4, pictures=0, save=0)


class Lazy(toy.Toy):
    """D runs on every other step, and batch norm gathers statistics that ranks must average."""

    def __init__(self) -> None:
        super().__init__()
        self.nets["G"]["head"].insert(0, nn.BatchNorm2d(4))

    def phases(self, images: int) -> tuple[Phase, ...]:
        generator, _ = super().phases(images)
        return generator, Phase("D", ("D",), every=2)


def train_toy(folder: Path, stop: Callable[[], bool] = lambda: False, **options: Any) -> None:
    """Half of the generator is frozen up to step 3; 5 steps in all."""
    of_recipe = {"clip", "num_micro", "precision", "global_batch"} & options.keys()
    plan = toy.recipe(cadence=AT_THE_END, **{name: options.pop(name) for name in of_recipe})
    toy.train(folder, plan, stop=stop, **options)


def apart(backend: Backend, global_batch: int, num_micro: int) -> Callable[[int], Iterator[Batch]]:
    def stream(position: int) -> Iterator[Batch]:
        while True:
            yield raw_batch(seed=position + backend.rank)
            position += global_batch

    return stream


def train_hd(folder: Path, **options: Any) -> None:
    """The global part is frozen for the first two of four steps."""
    plan = toy.recipe(total=8, global_batch=2, cadence=AT_THE_END)
    make_gan = test_pix2pixhd_resume.make_gan
    toy.train(folder, plan, dtype=torch.float32, make_gan=make_gan, make_stream=apart, **options)


def train_pairs(folder: Path, make_gan: Callable[[], Any], **options: Any) -> None:
    plan = toy.recipe(total=8, optimizer=toy.SLOW, cadence=AT_THE_END)
    make_stream = test_translators.make_stream
    toy.train(folder, plan, make_gan=make_gan, make_stream=make_stream, **options)


RUNS: dict[str, Callable[..., None]] = {
    "noisy": partial(train_toy, dropout=0.5),
    "fp32": partial(train_toy, dropout=0.5, **FP32),
    "both": partial(train_toy, num_micro=2, clip=0.05),
    "fp16": partial(train_toy, precision=torch.float16, num_micro=2, clip=0.05, **FP32),
    "lazy": partial(train_toy, make_gan=Lazy, num_micro=2),
    "hd": train_hd,
    "cycle": partial(train_pairs, make_gan=test_translators.cycle),
}
"""Ways to train that must not notice whether gradients travel behind later phases."""


def compare_work(root: str) -> dict[str, Any]:
    """All runs of two processes; the last one ends with the group."""
    folder = Path(root)
    for name, run in RUNS.items():
        run(folder / name / "plain")
        run(folder / name / "overlap", **OVERLAP)
    for name in ("fp16", "hd"):
        RUNS[name](folder / name / "bf16", **BF16)
        RUNS[name](folder / name / "bf16-overlap", **BF16, **OVERLAP)
    for steps in (2, 3):  # before the switch, and at it
        RUNS["noisy"](folder / f"cut-{steps}", stop=StopAfter(steps), **OVERLAP)
        RUNS["noisy"](folder / f"cut-{steps}", **OVERLAP)
    for name, options in (("plain", {}), ("overlap", OVERLAP)):
        train_pairs(folder / "pix2pix" / name, test_translators.pairwise, **options)
    found = {
        "order": travelling.order_of_events(folder / "order"),
        "gradients": travelling.gradients(folder / "gradients"),
        "forgotten": travelling.forgotten(folder / "forgotten"),
        "memory": {
            name: travelling.peak_of_a_step(folder / "memory" / name, options)
            for name, options in (
                ("plain", {}),
                ("overlap", OVERLAP),
                ("bf16", BF16),
                ("both", BF16 | OVERLAP),
            )
        },
    }
    return found | {"failure": travelling.failure(folder / "failure")}


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What all ranks of all gangs would otherwise load for themselves."""
    importlib.import_module("accelerate")
    importlib.import_module("torch._dynamo")  # optimizers load it


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("reduction")
    return folder, gang.run(2, compare_work, str(folder))


@pytest.mark.parametrize("name", RUNS)
def test_travelling_behind_later_phases_changes_no_bit(pair: Any, name: str) -> None:
    folder, _ = pair
    assert_same(folder / name / "plain", folder / name / "overlap")


@pytest.mark.parametrize("name", ["fp16", "hd"])
def test_bf16_travels_alike_with_and_without_overlap(pair: Any, name: str) -> None:
    folder, _ = pair
    assert_same(folder / name / "bf16", folder / name / "bf16-overlap")


def test_bf16_stays_close_to_plain(pair: Any) -> None:
    """After five steps of Adam of 0.01 each, no weight is aside by as much as one."""
    folder, _ = pair
    assert_same(folder / "fp16" / "plain", folder / "fp16" / "bf16", tolerance=0.01)
    with pytest.raises(AssertionError):
        assert_same(folder / "fp16" / "plain", folder / "fp16" / "bf16", tolerance=1e-7)


@pytest.mark.parametrize("steps", [2, 3])
def test_interrupted_equals_uninterrupted(pair: Any, steps: int) -> None:
    folder, _ = pair
    assert_same(folder / "noisy" / "plain", folder / f"cut-{steps}")


def test_phases_that_build_on_each_other_would_train_otherwise(pair: Any) -> None:
    """Why such a GAN must not promise `independent_phases`."""
    folder, _ = pair
    with pytest.raises(AssertionError, match="weights"):
        assert_same(folder / "pix2pix" / "plain", folder / "pix2pix" / "overlap", tolerance=1e-6)


def test_the_gradients_of_a_phase_are_under_way_while_the_next_computes(pair: Any) -> None:
    _, (first, second) = pair
    assert first["order"] == [
        "G computes",
        "D computes",
        "G's gradient is under way",
        "G steps",
        "D steps",
    ]
    assert [event for event in second["order"] if "gradient" not in event] == [
        "G computes",
        "D computes",
        "G steps",
        "D steps",
    ]


def test_bf16_gradients_equal_a_reduction_written_out(pair: Any) -> None:
    _, found = pair
    for rank in found:
        off, excess = rank["gradients"].values()
        assert off == 0 and 0.1 < excess <= 1


def test_memory_is_the_copies_that_travel_and_no_more(pair: Any) -> None:
    _, (found, _) = pair
    plain = found["memory"]["plain"]
    more = {
        name: (measured["peak"] - plain["peak"]) / plain["gradients"]
        for name, measured in found["memory"].items()
    }
    assert plain["gradients"] > 4 * 2**20
    assert more["overlap"] == 0
    assert 0.1 < more["bf16"] <= 0.5 and 0.1 < more["both"] <= 0.5


def test_gradients_that_nobody_waits_for_are_noticed(pair: Any) -> None:
    _, found = pair
    assert all("never waited for" in rank["forgotten"] for rank in found)


def test_what_fails_while_gradients_travel_ends_all_ranks(pair: Any) -> None:
    folder, (first, second) = pair
    assert second["failure"] == "rank 1 is too small"
    assert "gloo" in first["failure"]
    assert find(folder / "failure").progress.step == 1


def three_work(root: str) -> None:
    for name, options in (("plain", {}), ("overlap", OVERLAP)):
        train_toy(Path(root, name), global_batch=3, **options)


def test_a_world_of_no_power_of_two_divides_as_ddp_does(tmp_path: Path) -> None:
    gang.run(3, three_work, str(tmp_path))
    assert_same(tmp_path / "plain", tmp_path / "overlap")


def test_one_process_steps_as_ever(tmp_path: Path) -> None:
    trainer = toy.trainer_for(tmp_path, toy.recipe(), **OVERLAP, **BF16)
    trainer.seat_phases()
    assert not trainer.backend.overlap
    assert all(seat.reduction is None for seat in trainer.seats)
