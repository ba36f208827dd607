"""What the wiring refuses before anything is trained, and what it says at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from launcher.recipe.building import recipe_of
from launcher.recipe.config import Config, ConfigError, load
from launcher.recipe.errors import memory_errors
from launcher.run import run_folder, training
from shards.read.draws import Substitution
from trainers.checkpoints.checkpoint import Checkpoint
from trainers.errors import TrainingError


def test_a_gpu_that_is_too_small_is_told_with_the_remedy() -> None:
    told = pytest.raises(TrainingError, match=r"does not suffice \(no 2 GiB left\): buy more")
    with told, memory_errors("buy more"):
        raise torch.OutOfMemoryError("no 2 GiB left\nand much more text")


def windowed(folder: Path, **changes: object) -> Config:
    options = {
        "run_dir": folder,
        "data.shards": "nowhere",
        "model.lambda_vgg": 0,
        "schedule.constant": 10,
        "schedule.decay": 0,
        "batch.total": 12,
        "data.order.shuffle": "windowed",
        "data.order.streams": 4,
    } | changes
    return load("pix2pixhd-coarse", {name: str(value) for name, value in options.items()})


def test_streams_must_divide_the_global_batch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data.order.streams=5 does not divide batch.total=12"):
        recipe_of(windowed(tmp_path, **{"data.order.streams": 5}), world=2)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("shuffle", "full", "data.order.shuffle was 'windowed' in .* and is 'full' now: keep it"),
        ("window", "8", "data.order.window was 16 in .* and is 8 now: keep it"),
        ("streams", "2", "data.order.streams was 4 in .* and is 2 now: keep it"),
    ],
)
def test_a_run_keeps_its_order(tmp_path: Path, option: str, value: str, message: str) -> None:
    before = windowed(tmp_path)
    state = {"config": before.model_dump(mode="json"), "data": "abc"}
    run_folder.check_same_run(
        windowed(tmp_path, **{"data.substitutes": 3}), "abc", Checkpoint(tmp_path, state)
    )
    changes = {"data.order.streams": 1} if value == "full" else {}
    after = windowed(tmp_path, **changes, **{f"data.order.{option}": value})
    with pytest.raises(ConfigError, match=message):
        run_folder.check_same_run(after, "abc", Checkpoint(tmp_path, state))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optim.kind": "rmsprop"}, "optim.kind was 'adam' in .* and is 'rmsprop' now: keep it"),
        ({"optim.players.D.kind": "sgd"}, "optim.players.D.kind was None in .* 'sgd' now: keep it"),
    ],
)
def test_a_run_keeps_its_kinds_of_optimizers(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    mine = {"run_dir": str(tmp_path), "schedule.constant": "8", "schedule.decay": "0"}
    state = {"config": load("cyclegan", mine).model_dump(mode="json"), "data": "abc"}
    then = Checkpoint(tmp_path, state)
    run_folder.check_same_run(load("cyclegan", mine | {"optim.lr_D": "1e-4"}), "abc", then)
    with pytest.raises(ConfigError, match=message):
        run_folder.check_same_run(load("cyclegan", mine | options), "abc", then)


def test_options_that_came_later_count_as_their_defaults(tmp_path: Path) -> None:
    """The run of an earlier version goes on; what was not said then is no change."""
    options = {"run_dir": str(tmp_path), "schedule.constant": "8", "schedule.decay": "0"}
    saved = load("cyclegan", options).model_dump(mode="json")
    for section, name in (("model", "input_nc"), ("model", "lambda_gp"), ("optim", "players")):
        del saved[section][name]
    del saved["model"]["generator"]["pad"], saved["data"]["order"], saved["compile"]
    then = Checkpoint(tmp_path, {"config": saved, "data": "abc"})
    run_folder.check_same_run(load("cyclegan", options), "abc", then)
    now = load("cyclegan", options).model_dump(mode="json")
    assert run_folder.changes(now, saved) == []
    for option, value in (("model.input_nc", "4"), ("model.generator.pad", "true")):
        with pytest.raises(ConfigError, match=f"{option} was (3|False) in .* now: keep it"):
            changed = options | {option: value, "model.lambda_identity": "0"}
            run_folder.check_same_run(load("cyclegan", changed), "abc", then)


def test_an_option_that_is_no_more_is_told_as_changed(tmp_path: Path) -> None:
    config = windowed(tmp_path)
    saved = config.model_dump(mode="json")
    saved["model"]["magic"] = 3
    with pytest.raises(ConfigError, match="model.magic was 3 in .* and is None now"):
        state = {"config": saved, "data": "abc"}
        run_folder.check_same_run(config, "abc", Checkpoint(tmp_path, state))


def test_what_is_replaced_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    assert run_folder.num_substituted(tmp_path) == 0
    first = Substitution(7, 0, 3, "000.tar: é.png was cut", "k")
    for rank, found in [(0, first), (1, Substitution(8, 1, 3, "bad", "k")), (2, first)]:
        run_folder.write_substitution(tmp_path, rank, found)
    assert run_folder.num_substituted(tmp_path) == 2
    words = training.closing_words(windowed(tmp_path), "", 24)
    assert f"Damaged samples were replaced 2 times: {tmp_path}/substituted." in words
