"""Every GAN from noise: one process == two, interrupted == uninterrupted, DDP == ZeRO."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.processes import gang
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from tests.trainers.gans.from_noise.small import CONFIGS, config_of, train
from trainers.backends.deepspeed_zero import prepare_import
from trainers.checkpoints.checkpoint import find

GROWING = {"level_batches": {4: 8}}
SHARED = {name for name in CONFIGS if not config_of(name).only_alone}
"""Those that several processes may train."""
UPRIGHT = {"turned": 0}
"""Which images are turned, and how many, is a matter of a process."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in CONFIGS:
        train(folder / name, name)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_interrupted_equals_uninterrupted(name: str, alone: Path, tmp_path: Path) -> None:
    train(tmp_path, name, stop=StopAfter(2 if name == "progan" else 3))  # in the middle of a fade
    train(tmp_path, name)
    assert_same(alone / name, tmp_path)


def in_gang(folder: Path, zero: int | None, dtype: torch.dtype) -> None:
    """A run of each by a gang."""
    for name in CONFIGS:
        if not config_of(name).only_alone:
            train(folder / name, name, zero=zero, dtype=dtype)
    if zero is None:
        train(folder / "upright", "s2gan", UPRIGHT, dtype=dtype)


def test_two_processes_are_one(alone: Path, tmp_path: Path) -> None:
    gang.run(2, in_gang, tmp_path, None, torch.float64)
    for name in SHARED - {"progan", "s2gan"}:
        assert_same(alone / name, tmp_path / name, tolerance=2e-9)
    train(tmp_path / "halves", "progan", num_micro=2)  # the deviation is of a micro-batch
    assert_same(tmp_path / "halves", tmp_path / "progan", tolerance=2e-9)
    train(tmp_path / "whole", "s2gan", UPRIGHT)
    assert_same(tmp_path / "whole", tmp_path / "upright", tolerance=2e-9)


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each by two processes, in the precision that DeepSpeed takes."""
    folder = tmp_path_factory.mktemp("ddp")
    gang.run(2, in_gang, folder, None, torch.float32)
    return folder


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_zero_is_ddp(stage: int, ddp: Path, tmp_path: Path) -> None:
    prepare_import(on_cpu=not torch.cuda.is_available())
    gang.run(2, in_gang, tmp_path, stage, torch.float32)
    for place in tmp_path.iterdir():
        assert_same(ddp / place.name, place)
    assert {place.name for place in tmp_path.iterdir()} == SHARED


def test_a_level_may_have_a_batch_of_its_own(tmp_path: Path) -> None:
    train(tmp_path / "whole", "progan", GROWING)
    train(tmp_path / "cut", "progan", GROWING, stop=StopAfter(2))
    train(tmp_path / "cut", "progan", GROWING)
    assert_same(tmp_path / "whole", tmp_path / "cut")
    progress = find(tmp_path / "whole").progress
    assert (progress.step, progress.images) == (5, 24)  # eight images, then four at a time
