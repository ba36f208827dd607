"""Checkpoints: whole or not at all, readable without running code, kept as asked."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cluster.watch.attempts import newest_images
from launcher.run.terminal import Terminal
from tests.trainers import toy
from tests.trainers.engine.test_trainer import StopAfter
from trainers.backends.base import Backend
from trainers.board.board import Board
from trainers.checkpoints import durable_files
from trainers.checkpoints.checkpoint import find, load_weights
from trainers.checkpoints.repair import mend
from trainers.checkpoints.store import Keep
from trainers.errors import TrainingError
from trainers.recipe import Cadence

EVERY_STEP = Cadence(log=4, pictures=0, save=4)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_keeps_the_last_ones_and_marked_ones(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(total=28, cadence=EVERY_STEP), keep=Keep(last=2, every=12))
    assert names(tmp_path) == ["000000012", "000000024", "000000028", "latest"]


def test_milestones_need_not_fall_on_a_save(tmp_path: Path) -> None:
    # Saves at 6, 12, 18 ... images; the first at or after each multiple of 10 stays.
    plan = toy.recipe(total=36, global_batch=6, cadence=Cadence(log=6, pictures=0, save=6))
    toy.train(tmp_path, plan, keep=Keep(last=1, every=10))
    assert names(tmp_path) == ["000000012", "000000024", "000000030", "000000036", "latest"]


def test_what_a_kill_left_half_removed_is_no_checkpoint(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(cadence=EVERY_STEP), stop=StopAfter(3), keep=Keep(9, 0))
    # Pruning renames before it removes: this is what a kill in between leaves.
    doomed = tmp_path / "checkpoints" / ".writing-000000004"
    (tmp_path / "checkpoints" / "000000004").rename(doomed)
    (doomed / "state.json").unlink()
    toy.train(tmp_path, toy.recipe(cadence=EVERY_STEP), keep=Keep(1, 0))
    assert names(tmp_path) == ["000000020", "latest"]


def test_checkpoints_beyond_a_pointer_that_was_set_back_are_left_alone(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(total=16, cadence=EVERY_STEP), keep=Keep(last=9, every=0))
    (tmp_path / "checkpoints" / "latest").write_text("000000004\n")
    toy.train(tmp_path, toy.recipe(cadence=EVERY_STEP), stop=StopAfter(1), keep=Keep(1, 0))
    assert names(tmp_path) == ["000000008", "000000012", "000000016", "latest"]
    assert find(tmp_path).progress.images == 8


def test_an_average_that_joins_at_a_resume_starts_from_the_trained_weights(
    tmp_path: Path,
) -> None:
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(3))
    (find(tmp_path).path / "ema.safetensors").unlink()
    trainer = toy.trainer_for(tmp_path, toy.recipe())
    trainer._begin(find(tmp_path), "")
    for name, average in trainer.ema.shadow.items():
        assert torch.equal(average, find(tmp_path).weights()[name])


def test_nothing_but_plain_data_is_stored(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe())
    folder = find(tmp_path).path
    assert sorted(p.name for p in folder.iterdir()) == [
        "ema.safetensors",
        "files.json",
        "optimizers.safetensors",
        "rank00000.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    progress = json.loads((folder / "state.json").read_text())["progress"]
    assert (progress["step"], progress["images"]) == (5, 20)


def test_a_draft_is_never_taken_for_a_checkpoint_and_goes_with_the_next_save(
    tmp_path: Path,
) -> None:
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(2))
    draft = tmp_path / "checkpoints" / ".writing-000000099"
    draft.mkdir()
    (draft / "weights.safetensors").write_bytes(b"half")
    assert find(tmp_path).progress.images == 8
    toy.train(tmp_path, toy.recipe())
    assert not draft.exists()


def test_a_failing_save_leaves_the_one_before_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on file size makes the real write fail in a process of its own."""
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(2))
    before = toy.result(tmp_path)

    def work(queue) -> None:
        torch.set_num_threads(1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
        try:
            toy.train(tmp_path, toy.recipe())
        except TrainingError as error:
            queue.put(str(error))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    message = queue.get(timeout=60)
    process.join()
    assert "could not be written" in message and "the one before is untouched" in message
    after = toy.result(tmp_path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizers.safetensors"])
def test_a_cut_file_is_named(tmp_path: Path, name: str) -> None:
    toy.train(tmp_path, toy.recipe())
    path = find(tmp_path).path / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=f"{name} cannot be read"):
        toy.train(tmp_path, toy.recipe(total=40))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["weights.safetensors", "rank00000.safetensors", "state.json"])
@pytest.mark.parametrize("harm", [flip_a_byte, cut, Path.unlink])
def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_as_it_would_have(
    tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    toy.train(tmp_path / "whole", toy.recipe())
    toy.train(tmp_path / "cut", toy.recipe(), stop=StopAfter(4))
    newest = find(tmp_path / "cut").path
    assert mend(tmp_path / "cut") == []
    harm(newest / name)
    (complaint,) = mend(tmp_path / "cut")
    assert f"{newest.name} is damaged" in complaint and name in complaint
    assert find(tmp_path / "cut").progress.images == 8
    toy.train(tmp_path / "cut", toy.recipe())
    ours, theirs = toy.result(tmp_path / "whole"), toy.result(tmp_path / "cut")
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_without_any_whole_checkpoint_the_run_ends_with_a_sentence(tmp_path: Path) -> None:
    assert mend(tmp_path) == []
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(4))
    for path in (tmp_path / "checkpoints").glob("0*"):
        cut(path / "optimizers.safetensors")
    with pytest.raises(TrainingError, match="no whole checkpoint .*optimizers.safetensors was cut"):
        mend(tmp_path)


def test_another_architecture_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe())
    gan = toy.Toy()
    gan.nets["D"] = nn.Conv2d(5, 1, 3)
    stored = find(tmp_path)
    with pytest.raises(TrainingError, match=r"D.weight is \[1, 2, 3, 3\] there and \[1, 5, 3, 3\]"):
        load_weights(gan, stored.weights(), stored.path)


def test_an_error_before_the_first_step_is_not_hidden_by_observers(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe())
    path = find(tmp_path).path / "optimizers.safetensors"
    path.write_bytes(b"")
    with pytest.raises(TrainingError, match="optimizers.safetensors cannot be read"):
        toy.train(tmp_path, toy.recipe(total=40), observers=(Board(tmp_path), Terminal()))


def test_the_pointer_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe())
    newest = find(tmp_path).path
    shutil.copytree(newest, tmp_path / "elsewhere")
    (tmp_path / "checkpoints" / "latest").write_text("../../elsewhere\n")
    assert find(tmp_path).path == newest


@pytest.mark.parametrize("harm", ["lost", "empty", "garbage"])
def test_whole_checkpoints_are_found_without_the_pointer(tmp_path: Path, harm: str) -> None:
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(3))
    pointer = tmp_path / "checkpoints" / "latest"
    pointer.unlink() if harm == "lost" else pointer.write_text("" if harm == "empty" else "xyz")
    cut = tmp_path / "checkpoints" / "000000099"  # half a copy
    shutil.copytree(find(tmp_path).path, cut)
    (cut / "files.json").unlink()
    for place in (tmp_path, tmp_path / "checkpoints"):
        assert find(place).progress.images == 12
    assert newest_images(tmp_path) == 12
    lost, damaged = mend(tmp_path)
    assert lost == f"{pointer} is lost: the newest whole checkpoint is used."
    assert "000000099 is damaged" in damaged
    assert pointer.read_text() == "000000012\n"


def test_another_format_is_refused(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe())
    path = find(tmp_path).path / "state.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(TrainingError, match="checkpoint format 99"):
        find(tmp_path)
    (path.parent / "files.json").unlink()
    assert "checkpoint format 99" in mend(tmp_path)[0]


def test_loss_scales_are_restored(tmp_path: Path) -> None:
    options = {"dtype": torch.float32}
    toy.train(tmp_path, toy.recipe(precision=torch.float16), stop=StopAfter(2), **options)
    state = find(tmp_path).path / "state.json"
    content = json.loads(state.read_text())
    content["scalers"]["G"]["scale"] = 128.0
    state.write_text(json.dumps(content))
    trainer = toy.trainer_for(tmp_path, toy.recipe(precision=torch.float16), **options)
    trainer._begin(find(tmp_path), "")
    assert [seat.scaler.get_scale() for seat in trainer.seats] == [
        128.0,
        content["scalers"]["D"]["scale"],
    ]


def test_random_state_of_another_world_size_is_not_taken(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(), stop=StopAfter(2))
    stored = find(tmp_path)
    stored.state["world"] = 2
    trainer = toy.trainer_for(tmp_path, toy.recipe())
    own = torch.get_rng_state()
    trainer._begin(stored, "")
    assert torch.equal(torch.get_rng_state(), own)
    assert isinstance(trainer.backend, Backend)


def test_replace_text_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "latest"
    durable_files.replace_text(path, "one\n")
    durable_files.replace_text(path, "two\n")
    assert path.read_text() == "two\n"
    assert [p.name for p in tmp_path.iterdir()] == ["latest"]


def test_only_whole_checkpoints_of_ours_make_room(tmp_path: Path) -> None:
    """What people put beside or into them is theirs."""
    folder = tmp_path / "checkpoints"
    toy.train(tmp_path, toy.recipe(total=8, cadence=EVERY_STEP), keep=Keep(1, 0))
    for name in ("20240101", "000000002"):
        (folder / name).mkdir()
        (folder / name / "photo.png").write_bytes(b"precious")
    (folder / "000000008" / "notes.txt").write_text("the best one")
    toy.train(tmp_path, toy.recipe(total=20, cadence=EVERY_STEP), keep=Keep(1, 0))
    left = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert left == ["000000002", "000000008", "000000020", "20240101"]


def test_files_are_as_readable_as_the_umask_has_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        toy.train(tmp_path, toy.recipe())
    finally:
        os.umask(before)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in find(tmp_path).path.iterdir()}
    assert set(modes.values()) == {"0o640"}, modes
