"""The loop: exact resume, one process == two, phases that change, and clear ends."""

from __future__ import annotations

import dataclasses
import os
import resource
from pathlib import Path

import pytest
import torch

from tests.processes import gang
from tests.trainers import toy
from trainers.board.board import Observer
from trainers.checkpoints.checkpoint import find
from trainers.engine.trainer import Trainer
from trainers.errors import TrainingError
from trainers.gans.from_images import cyclegan, pix2pix, pix2pixhd
from trainers.player import generates
from trainers.recipe import Cadence, OptimizerRecipe
from trainers.schedule import Schedule


def assert_same(folder: Path, other: Path, tolerance: float = 0.0) -> None:
    ours, theirs = toy.result(folder), toy.result(other)
    if tolerance:  # random state and moments belong to one world size
        ours, theirs = (
            {k: v for k, v in r.items() if k.startswith("weights")} for r in (ours, theirs)
        )
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        gap = (tensor.double() - theirs[name].double()).abs().max().item()
        assert gap <= tolerance, f"{name} differs by {gap}"


class StopAfter:
    """Asks to stop after so many steps; the ranks also vote once before the first."""

    def __init__(self, steps: int):
        self.left = steps + 1

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_interrupted_at_any_step_equals_uninterrupted(
    tmp_path: Path, steps: int, reset: bool
) -> None:
    # Dropout draws from the random state; the phases change after step 3.
    plan = toy.recipe(reset_moments=reset)
    toy.train(tmp_path / "whole", plan, dropout=0.5)
    toy.train(tmp_path / "cut", plan, dropout=0.5, stop=StopAfter(steps))
    assert find(tmp_path / "cut").progress.step == steps
    toy.train(tmp_path / "cut", plan, dropout=0.5)
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_plateau_goes_on_in_the_middle_of_a_stretch(tmp_path: Path, steps: int) -> None:
    plan = toy.recipe(**VARIANTS["plateau"])
    toy.train(tmp_path / "whole", plan)
    toy.train(tmp_path / "cut", plan, stop=StopAfter(steps))
    toy.train(tmp_path / "cut", plan)
    ours, theirs = (find(tmp_path / name).progress for name in ("whole", "cut"))
    assert ours == theirs and ours.plateau.factor == 0.5
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_the_generators_phase_is_known_wherever_it_comes() -> None:
    """A plateau looks at its loss; pix2pix trains D first."""
    for module in (cyclegan, pix2pix, pix2pixhd):
        options = {"lambda_vgg": 0} if module is pix2pixhd else {}
        with torch.device("meta"):
            gan = module.Model(module.Config(**options))
        found = {phase.name: generates(gan, phase) for phase in gan.phases(0)}
        assert found == {"G": True, "D": False}


def test_each_player_has_its_own_rate_and_betas(tmp_path: Path) -> None:
    trainer = toy.trainer_for(tmp_path, toy.recipe(**VARIANTS["players"]))
    trainer.seat_phases()
    groups = {s.phase.name: s.optimizer.param_groups[0] for s in trainer.seats}
    assert (groups["G"]["lr"], groups["G"]["betas"]) == (1e-2, (0.5, 0.999))
    assert (groups["D"]["lr"], groups["D"]["betas"]) == (3e-3, (0.9, 0.99))
    rates = []

    class Watch(Observer):
        def scalars(self, progress, values):
            rates.append((values["lr/G"], values["lr/D"]))

    toy.train(tmp_path, toy.recipe(**VARIANTS["players"]), observers=(Watch(),))
    assert rates and all(d == pytest.approx(0.3 * g) for g, d in rates)


def gang_work(root: str) -> None:
    """All two-process runs of this file, in one gang."""
    folder = Path(root)
    for name, changes in VARIANTS.items():
        toy.train(folder / f"two-{name}", toy.recipe(**changes))
    toy.train(folder / "two-cut", toy.recipe(), dropout=0.5, stop=StopAfter(2))
    toy.train(folder / "two-cut", toy.recipe(), dropout=0.5)
    toy.train(folder / "two-whole", toy.recipe(), dropout=0.5)


VARIANTS = {
    "plain": {},
    "clip": {"clip": 0.05},
    "accumulation": {"num_micro": 2},
    "both": {"num_micro": 2, "clip": 0.05},
    "players": {"players": {"D": OptimizerRecipe(3e-3, betas=(0.9, 0.99))}},
    # Half a loss is never reached: the rate falls after every stretch of two steps.
    "plateau": {"schedule": Schedule(20, 0, "plateau", 8, 0.5, patience=0, threshold=0.5)},
}


@pytest.fixture(scope="module")
def gang_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gang")
    gang.run(2, gang_work, str(folder))
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_one_process_equals_two(gang_folder: Path, tmp_path: Path, name: str) -> None:
    toy.train(tmp_path, toy.recipe(**VARIANTS[name] | {"num_micro": 1}))
    assert_same(tmp_path, gang_folder / f"two-{name}", tolerance=1e-12)


def test_interrupted_on_two_processes_equals_uninterrupted(gang_folder: Path) -> None:
    assert_same(gang_folder / "two-whole", gang_folder / "two-cut")


def test_a_run_of_two_processes_goes_on_with_one(gang_folder: Path, tmp_path: Path) -> None:
    toy.train(tmp_path / "one", toy.recipe(), stop=StopAfter(2))
    gang.run(2, toy.train, tmp_path / "one", toy.recipe())
    assert_same(tmp_path / "one", gang_folder / "two-plain", tolerance=1e-12)


def test_frozen_parameters_stay_have_no_state_and_then_train(tmp_path: Path) -> None:
    trainer = toy.trainer_for(tmp_path, toy.recipe())
    start = trainer.gan.nets.state_dict()
    frozen = {name: t.clone() for name, t in start.items() if name.startswith("G.trunk")}
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(3))
    stored = find(tmp_path)
    assert stored.progress.images == toy.FREEZE_UNTIL
    for name, tensor in frozen.items():
        assert torch.equal(stored.weights()[name], tensor)
    assert not [n for n in stored.tensors("optimizers") if "trunk" in n]
    toy.train(tmp_path, toy.recipe())
    for name, tensor in frozen.items():
        assert not torch.equal(find(tmp_path).weights()[name], tensor)


@pytest.mark.parametrize("reset", [False, True])
def test_moments_of_what_was_trained_before_the_switch(tmp_path: Path, reset: bool) -> None:
    toy.train(tmp_path, toy.recipe(reset_moments=reset))  # 3 of 5 steps before the switch
    steps = {
        name.rsplit("/", 1)[0]: int(tensor)
        for name, tensor in find(tmp_path).tensors("optimizers").items()
        if name.endswith("/step")
    }
    head, trunk = steps["G/G.head.1.weight"], steps["G/G.trunk.0.weight"]
    assert (head, trunk) == ((2, 2) if reset else (5, 2))
    assert steps["D/D.weight"] == 5


def test_learning_rate_follows_the_schedule_through_the_switch(tmp_path: Path) -> None:
    rates = []

    class Watch(Observer):
        def scalars(self, progress, values):
            rates.append((progress.images, values["lr/G"]))

    toy.train(tmp_path, toy.recipe(total=24), observers=(Watch(),))
    # The rate of a step depends on the images before it; 12 of 24 images are constant.
    expected = [1e-2, 1e-2, 1e-2, 1e-2, 1e-2 * 8 / 12, 1e-2 * 4 / 12]
    assert [images for images, _ in rates] == [4, 8, 12, 16, 20, 24]
    assert [rate for _, rate in rates] == pytest.approx(expected)


class Poisoned(toy.Toy):
    """From the third step on, one loss is NaN."""

    def losses(self, phase, batch, carry):
        total, terms, out = super().losses(phase, batch, carry)
        if phase == "G" and self.calls == 2:
            terms["G/l1"] = terms["G/l1"] * float("nan")
            total = total * float("nan")
        self.calls += phase == "G"
        return total, terms, out


def test_nan_stops_at_the_step_with_its_name_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "Toy", Poisoned)
    monkeypatch.setattr(Poisoned, "calls", 0, raising=False)
    plan = toy.recipe(cadence=Cadence(log=4, pictures=0, save=4))
    with pytest.raises(TrainingError, match=r"step 3: loss G/l1 of player G"):
        toy.train(tmp_path, plan)
    kept = find(tmp_path)
    assert kept.progress.step == 2
    assert all(t.isfinite().all() for t in kept.weights().values())


def drift_work(folder: str) -> str:
    trainer = toy.trainer_for(Path(folder), toy.recipe())
    if trainer.backend.rank == 1:
        next(trainer.gan.nets["D"].parameters()).data += 1e-3
    trainer.seats = []
    from trainers.backends.replicas import check_replicas

    with pytest.raises(TrainingError) as caught:
        check_replicas(trainer.backend, trainer.gan)
    return str(caught.value)


def test_replicas_that_differ_are_found_and_named_on_all_ranks(tmp_path: Path) -> None:
    for message in gang.run(2, drift_work, str(tmp_path)):
        assert "D.weight differs by 0.001" in message


def lonely_work() -> str:
    from trainers.backends.opening import open_backend

    with pytest.raises(TrainingError) as caught:
        open_backend(3, timeout=30)
    return str(caught.value)


def test_another_world_size_than_expected_is_refused() -> None:
    for message in gang.run(2, lonely_work):
        assert "3 processes were expected but 2 found each other" in message


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_trains_with_one_scaler_per_player(
    tmp_path: Path, precision: torch.dtype
) -> None:
    trainer = toy.trainer_for(tmp_path, toy.recipe(precision=precision), dtype=torch.float32)
    trainer.seat_phases()
    scalers = {id(seat.scaler) for seat in trainer.seats}
    assert len(scalers) == 2
    assert all(s.scaler.is_enabled() == (precision is torch.float16) for s in trainer.seats)
    toy.train(tmp_path, toy.recipe(precision=precision), dtype=torch.float32)
    weights = find(tmp_path).weights()
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in weights.values())
    assert set(find(tmp_path).state["scalers"]) == {"G", "D"}


def test_fp16_gradients_that_never_become_finite_end_the_run(tmp_path: Path) -> None:
    rows = []

    class Watch(Observer):
        def scalars(self, progress, values):
            rows.append(values)

    options = {"dtype": torch.float32, "observers": (Watch(),)}
    trainer = toy.trainer_for(tmp_path, toy.recipe(total=160, precision=torch.float16), **options)
    trainer.gan.weights["G/l1"] = 1e9  # finite losses, gradients beyond fp16 at any scale
    with pytest.raises(TrainingError, match="Player G has had no finite fp16 gradient for long"):
        trainer.fit()
    assert rows[0]["skipped/G"] == 1 and rows[0]["grad_norm/G"] == 0


def test_ema_lags_behind_and_is_stored(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe())
    stored = find(tmp_path)
    raw, averaged = stored.weights(), stored.weights(ema=True)
    assert not torch.equal(raw["G.head.1.weight"], averaged["G.head.1.weight"])
    assert torch.equal(raw["D.weight"], averaged["D.weight"])


def test_ema_follows_its_formula() -> None:
    from trainers.ema import Ema

    gan = toy.Toy().double()
    ema = Ema(gan, halflife=8)
    before = ema.shadow["G.head.1.bias"].clone()
    gan.nets["G"]["head"][1].bias.data += 1.0
    ema.update(gan, images=4, seen=4)
    expected = before + (1 - 0.5**0.5)
    assert torch.allclose(ema.shadow["G.head.1.bias"], expected, atol=1e-15)
    live = gan.nets["G"]["head"][1].bias.detach().clone()
    with ema.swapped(gan):
        assert torch.equal(gan.nets["G"]["head"][1].bias, ema.shadow["G.head.1.bias"])
    assert torch.equal(gan.nets["G"]["head"][1].bias, live)


def test_phases_that_are_not_due_are_left_out(tmp_path: Path) -> None:
    trainer = toy.trainer_for(tmp_path, toy.recipe())
    trainer.seat_phases()
    trainer.seats[1].phase = dataclasses.replace(trainer.seats[1].phase, every=2)
    batches = trainer.stream(0)
    names = [set(trainer.step([next(batches)])) for _ in range(3)]
    assert [any("player D" in n for n in step) for step in names] == [True, False, True]


def one_rank_work(root: str) -> list[str]:
    """What one rank alone meets must end all of them: a stop, a NaN, a save that fails."""
    folder, told = Path(root), []
    rank = int(os.environ["RANK"])
    toy.train(folder / "stop", toy.recipe(), stop=StopAfter(2 if rank == 1 else 99))
    told.append(str(find(folder / "stop").progress.step))
    plan = toy.recipe(cadence=Cadence(log=4, pictures=0, save=4))
    for name, change in (("nan", poison), ("save", unwritable)):
        trainer = toy.trainer_for(folder / name, plan)
        if rank == 1:
            change(trainer)
        with pytest.raises((TrainingError, OSError)) as caught:
            trainer.fit()
        told.append(str(caught.value))
    return told


def poison(trainer: Trainer) -> None:
    """NaN in the data from the second step on."""
    whole = trainer.stream

    def stream(start):
        for number, batch in enumerate(whole(start)):
            yield batch if number < 1 else batch | {"y": batch["y"] * float("nan")}

    trainer.stream = stream


def unwritable(trainer: Trainer) -> None:
    """The second checkpoint of this rank meets a limit on the size of files."""
    write, calls = trainer.store._write, []

    def limited(*arguments):
        calls.append(1)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        return write(*arguments)

    trainer.store._write = limited


def test_what_one_rank_meets_ends_all_ranks_alike(tmp_path: Path) -> None:
    first, second = gang.run(2, one_rank_work, str(tmp_path))
    assert first[0] == second[0] == "2"
    assert first[1] == second[1] and "Not finite at step 2: loss G/l1 of player G" in first[1]
    assert "could not be written" in second[2]
    assert first[2] == "Another rank failed: its log has the reason."
    assert find(tmp_path / "nan").progress.step == find(tmp_path / "save").progress.step == 1


def drifting_work(folder: str) -> str:
    """A replica that drifts during training is found at the next checkpoint."""
    trainer = toy.trainer_for(Path(folder), toy.recipe(cadence=Cadence(log=4, pictures=0, save=8)))
    step = trainer.step

    def drift(micro_batches):
        watched = step(micro_batches)
        if trainer.backend.rank == 1:
            trainer.gan.nets["D"].bias.data += 1e-3
        return watched

    trainer.step = drift
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    return str(caught.value)


def test_a_replica_that_drifts_is_found_before_anything_is_saved(tmp_path: Path) -> None:
    for message in gang.run(2, drifting_work, str(tmp_path)):
        assert "replicas have drifted apart: D.bias" in message
    assert find(tmp_path) is None


class Broken(Exception):
    """What a stream raises for a damaged sample."""


def broken_stream(good_steps: int):
    """A stream that fails on rank 1 (or on the only rank) after so many steps."""

    def opened(backend, global_batch, num_micro):
        whole = toy_stream(backend, global_batch, num_micro)

        def stream(start):
            for number, batch in enumerate(whole(start)):
                if number == good_steps and backend.rank == backend.world - 1:
                    raise Broken("sample 7 is damaged")
                yield batch

        return stream

    return opened


toy_stream = toy.stream_for


def broken_work(folder: str, good_steps: int) -> str:
    toy.stream_for = broken_stream(good_steps)
    with pytest.raises((Broken, TrainingError)) as caught:
        toy.train(Path(folder), toy.recipe())
    return str(caught.value)


@pytest.mark.parametrize("good_steps", [0, 2])
def test_a_rank_without_data_stops_all_ranks_and_what_was_done_is_saved(
    tmp_path: Path, good_steps: int
) -> None:
    other, failing = gang.run(2, broken_work, str(tmp_path), good_steps)
    assert failing == "sample 7 is damaged"
    assert "Another rank could not go on after" in other
    saved = find(tmp_path)
    assert (saved.progress.step if saved else 0) == good_steps
