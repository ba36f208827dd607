"""DeepSpeed's ZeRO against DDP: the same weights, and checkpoints that move between them.

In float32, the only dtype that DeepSpeed's engines take: equal means bit for bit.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.processes import gang
from tests.trainers import toy, varied
from tests.trainers.engine.test_trainer import StopAfter, assert_same, poison, unwritable
from tests.trainers.gans.from_images import test_pix2pixhd_resume, test_translators
from tests.trainers.hd import raw_batch
from tests.trainers.varied import OPTIMIZERS
from trainers.backends.base import Backend
from trainers.backends.deepspeed_zero import engine_config, prepare_import
from trainers.backends.opening import open_backend
from trainers.checkpoints.checkpoint import find
from trainers.errors import TrainingError
from trainers.gan import Batch
from trainers.recipe import Cadence, OptimizerRecipe

STAGES = (0, 1, 2)
AT_THE_END = Cadence(log=4, pictures=0, save=0)
HD_SWITCH = test_pix2pixhd_resume.SWITCH


def train_toy(
    folder: Path, zero: int | None = None, stop: Callable[[], bool] = lambda: False, **changes
) -> None:
    """Half of its generator is frozen up to step 3; 5 steps in all."""
    options = {name: changes.pop(name) for name in ("dropout", "travels_as") if name in changes}
    plan = toy.recipe(cadence=AT_THE_END, **changes)
    toy.train(folder, plan, dtype=torch.float32, zero=zero, stop=stop, **options)


def train_hd(
    folder: Path, zero: int | None = None, stop: Callable[[], bool] = lambda: False, **changes
) -> None:
    """Its global part is frozen up to HD_SWITCH; the ranks see different samples."""
    plan = toy.recipe(total=8, global_batch=2, cadence=AT_THE_END, **changes)
    toy.train(
        folder,
        plan,
        dtype=torch.float32,
        zero=zero,
        stop=stop,
        make_gan=test_pix2pixhd_resume.make_gan,
        make_stream=apart,
    )


def apart(backend: Backend, global_batch: int, num_micro: int) -> Callable[[int], Iterator[Batch]]:
    def stream(position: int) -> Iterator[Batch]:
        while True:
            yield raw_batch(seed=position + backend.rank)
            position += global_batch

    return stream


def train_cycle(folder: Path, zero: int | None = None, **model) -> None:
    plan = toy.recipe(total=12, optimizer=toy.SLOW, cadence=AT_THE_END)
    toy.train(
        folder,
        plan,
        dtype=torch.float32,
        zero=zero,
        make_gan=lambda: test_translators.cycle(**model),
        make_stream=test_translators.make_stream,
    )


TOYS = {
    "noisy": {"dropout": 0.5},
    "compressed": {"dropout": 0.5, "travels_as": torch.bfloat16},
    "micro": {"num_micro": 2},
    "players": {"players": {"D": OptimizerRecipe(3e-3, betas=(0.9, 0.99))}},
    "both": {"num_micro": 2, "clip": 0.05},
}


def compare_work(root: str) -> None:
    """The same runs under DDP and under each stage."""
    for zero in (None, *STAGES):
        folder = Path(root, str(zero))
        for name, optimizer in OPTIMIZERS.items():
            varied.train(folder / name, optimizer=optimizer, dtype=torch.float32, zero=zero)
        for name, changes in TOYS.items():
            train_toy(folder / name, zero, **changes)
        train_hd(folder / "hd", zero)
        train_hd(folder / "hd-bf16", zero, precision=torch.bfloat16)
        train_cycle(folder / "cycle", zero)
        train_cycle(folder / "cycle-directions", zero, memory="directions")


def moving_work(root: str) -> None:
    """Runs that stop and go on, also under another backend."""
    folder = Path(root)
    for zero in (1, 2):
        train_toy(folder / f"cut-{zero}", zero, StopAfter(4), dropout=0.5)
        train_toy(folder / f"cut-{zero}", zero, dropout=0.5)
    for name, optimizer in OPTIMIZERS.items():
        options = {"optimizer": optimizer, "dtype": torch.float32}
        for zero, steps in ((1, 4), (None, 1), (2, 99)):
            varied.train(folder / name, zero=zero, stop=StopAfter(steps), **options)
    for steps in (HD_SWITCH - 1, HD_SWITCH, HD_SWITCH + 1):
        train_hd(folder / f"hd-{steps}", 2, StopAfter(steps))
        train_hd(folder / f"hd-{steps}", 2)
    for zero in (None, 2, 1, 0, None):  # a step under each
        train_hd(folder / "tour", zero, StopAfter(1))
    train_hd(folder / "tour", None)
    for name, zero in (("ddp", None), ("zero", 2)):
        train_toy(folder / f"two-{name}", zero, StopAfter(4))
        train_toy(folder / f"grown-{name}", zero)


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What all ranks of all gangs would otherwise load for themselves."""
    prepare_import(on_cpu=not torch.cuda.is_available())
    importlib.import_module("accelerate")
    importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")  # torch.compile with it


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    gang.run(2, compare_work, str(folder))
    return folder


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moved")
    for name in ("ddp", "zero"):
        train_toy(folder / f"grown-{name}", stop=StopAfter(4))
    gang.run(2, moving_work, str(folder))
    return folder


@pytest.mark.parametrize("zero", STAGES)
@pytest.mark.parametrize(
    "name",
    [*OPTIMIZERS, "noisy", "compressed", "players", "hd", "hd-bf16", "cycle", "cycle-directions"],
)
def test_every_stage_equals_ddp_bit_for_bit(runs: Path, name: str, zero: int) -> None:
    assert_same(runs / "None" / name, runs / str(zero) / name)


def test_gradients_do_travel_as_bf16(runs: Path) -> None:
    with pytest.raises(AssertionError, match="differs"):
        assert_same(runs / "None" / "noisy", runs / "None" / "compressed", tolerance=1e-7)


@pytest.mark.parametrize("zero", STAGES)
@pytest.mark.parametrize("name", ["micro", "both"])
def test_accumulation_and_clipping_equal_ddp(runs: Path, name: str, zero: int) -> None:
    # From stage 1 on the norm is summed in another order, at stage 2 the micro-batches as well.
    exact = zero == 0 or (zero == 1 and name == "micro")
    assert_same(runs / "None" / name, runs / str(zero) / name, tolerance=0.0 if exact else 1e-6)


@pytest.mark.parametrize("zero", [1, 2])
def test_interrupted_equals_uninterrupted(runs: Path, moved: Path, zero: int) -> None:
    assert_same(runs / str(zero) / "noisy", moved / f"cut-{zero}")


@pytest.mark.parametrize("steps", [HD_SWITCH - 1, HD_SWITCH, HD_SWITCH + 1])
def test_pix2pixhd_goes_on_around_the_switch(runs: Path, moved: Path, steps: int) -> None:
    assert_same(runs / "2" / "hd", moved / f"hd-{steps}")


def test_a_run_that_changes_its_backend_at_every_step_changes_no_bit(
    runs: Path, moved: Path
) -> None:
    assert_same(runs / "None" / "hd", moved / "tour")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_s_state_moves_between_backends(runs: Path, moved: Path, name: str) -> None:
    assert_same(runs / "None" / name, moved / name)


def test_a_sharded_run_goes_on_in_one_process(moved: Path) -> None:
    for name in ("ddp", "zero"):
        plan = toy.recipe(total=28, cadence=AT_THE_END)
        toy.train(moved / f"two-{name}", plan, dtype=torch.float32)
    assert_same(moved / "two-ddp", moved / "two-zero")


def test_a_run_of_one_process_goes_on_sharded(moved: Path) -> None:
    assert_same(moved / "grown-ddp", moved / "grown-zero")


def seat_work(root: str) -> dict[str, int]:
    """What a rank holds, and what the switch leaves of the players before it."""
    trainer = toy.trainer_for(Path(root), toy.recipe(), dtype=torch.float32, zero=2)
    batches = trainer.stream(0)
    trainer.seat_phases()
    engine = weakref.ref(trainer.seats[0].player)
    kept = trainer.seats[1]
    trainer.step([next(batches)])
    trainer.progress.images = toy.FREEZE_UNTIL
    trainer.seat_phases()
    held = sum(state["exp_avg"].numel() for state in trainer.seats[0].optimizer.state.values())
    # One process group with the run's own timeout, instead of one that DeepSpeed opens.
    groups = dist.distributed_c10d._world.pg_map
    counts = {
        "old engines": int(engine() is not None),
        "kept seats": int(trainer.seats[1] is kept),
        "moments held": held,
        "parameters": sum(p.numel() for p in trainer.seats[0].parameters.values()),
        "groups": len(groups),
    }
    trainer.step([next(batches)])
    steps = {name: int(state["step"]) for name, state in trainer.seats[0].moments()}
    counts |= {"trunk steps": steps["G.trunk.0.weight"], "head steps": steps["G.head.1.weight"]}
    return counts


def test_each_rank_holds_its_slice_and_the_switch_leaves_no_engine_behind(tmp_path: Path) -> None:
    for counts in gang.run(2, seat_work, str(tmp_path)):
        assert counts["old engines"] == 0 and counts["kept seats"] == 1
        # Two groups, each padded to be shared evenly.
        assert counts["moments held"] <= counts["parameters"] / 2 + 4
        assert counts["trunk steps"] == 1 and counts["head steps"] == 2
        assert counts["groups"] == 1


class Steep(toy.Toy):
    """A finite loss whose gradient is not, from the third step on."""

    calls = 0

    def losses(self, phase, batch, carry):
        total, terms, out = super().losses(phase, batch, carry)
        if phase == "D":
            Steep.calls += 1
            if Steep.calls > 2:
                total = total + (self.nets["D"].weight * 0).sum().abs().sqrt()
        return total, terms, out


def failing_work(root: str) -> list[str]:
    """What one rank alone meets must end all of them."""
    told = []
    plan = toy.recipe(cadence=Cadence(log=4, pictures=0, save=4))
    options = {"dtype": torch.float32, "zero": 2}
    for name, change in (("nan", poison), ("steep", None), ("save", unwritable)):
        make_gan = Steep if name == "steep" else None
        trainer = toy.trainer_for(Path(root, name), plan, make_gan=make_gan, **options)
        if change and trainer.backend.rank == 1:
            change(trainer)
        with pytest.raises(TrainingError) as caught:
            trainer.fit()
        told.append(str(caught.value))
    return told


def test_what_one_rank_meets_ends_all_with_the_usual_sentence(tmp_path: Path) -> None:
    first, second = gang.run(2, failing_work, str(tmp_path))
    assert first[0] == second[0] and "Not finite at step 2: loss G/l1 of player G" in first[0]
    assert first[1] == second[1]
    assert "Not finite at step 3: gradient norm of player D" in first[1]
    assert first[2] == "Another rank failed: its log has the reason."
    assert "could not be written" in second[2]
    for name, step in (("nan", 1), ("save", 1), ("steep", 2)):
        assert find(tmp_path / name).progress.step == step


def silent_rank_work(root: str) -> float:
    """Rank 1 stops answering after the first step: seconds until the other finds out."""
    open_backend(2, timeout=5, zero=1)  # the first one's timeout holds
    trainer = toy.trainer_for(Path(root), toy.recipe(), dtype=torch.float32, zero=1)
    trainer.seat_phases()
    batches = trainer.stream(0)
    trainer.step([next(batches)])
    started = time.monotonic()
    if trainer.backend.rank == 1:
        time.sleep(12)
        return 0.0
    with pytest.raises(RuntimeError, match="(?i)time"):
        trainer.step([next(batches)])
    return time.monotonic() - started


def test_a_silent_rank_is_noticed_within_the_timeout(tmp_path: Path) -> None:
    seconds, _ = gang.run(2, silent_rank_work, str(tmp_path))
    assert 4 < seconds < 10


def test_without_deepspeed_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(TrainingError, match=r"pip install organza\[deepspeed\]"):
        open_backend(2, timeout=5, zero=1)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_file_for_readers_is_what_deepspeed_is_told(stage: int) -> None:
    path = Path(__file__).parents[3] / "cluster" / f"zero{stage}.json"
    assert json.loads(path.read_text()) == engine_config(stage)
