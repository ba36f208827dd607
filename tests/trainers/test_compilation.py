"""Compiled networks: the same training, no compilation after the first steps, and none needed.

Most of it traces and differentiates as torch.compile does but leaves out the generation of code,
which takes seconds a kernel: there, equal means bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from tests import gang
from tests.trainers import test_pix2pixhd_resume, test_translators, toy
from tests.trainers.hd import FULL, raw_batch
from tests.trainers.test_trainer import assert_same
from trainers import compilation
from trainers.backends import Backend
from trainers.board import Observer
from trainers.checkpoint import find
from trainers.compilation import compile_parts
from trainers.gan import GAN
from trainers.gans.pix2pixhd import Config, Pix2PixHD
from trainers.player import Player, only
from trainers.trainer import Cadence

EVERY_PICTURE = Cadence(log=4, pictures=4, save=0)


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    counters.clear()


def traced() -> Any:
    """Inside, compiled parts are traced and differentiated, but not made into code."""
    return torch.compiler.set_stance(force_backend="aot_eager")


class Pictured(Observer):
    """An observer, so that pictures are made; notes how much was compiled before each."""

    def __init__(self) -> None:
        self.num_compiled: list[int] = []

    def pictures(self, progress: Any, picture: Tensor) -> None:
        self.num_compiled.append(counters["frames"]["ok"])


def train(folder: Path, kind: str, **options: Any) -> list[int]:
    """A run with pictures and an average after each step; how much was compiled by then."""
    watch = Pictured()
    trainer = toy.trainer_for(folder, observers=(watch,), **options)
    names = list(trainer.gan.nets.state_dict())
    trainer.compilation = compile_parts(trainer.gan, kind, trainer.backend)
    assert trainer.compilation.kind == kind
    assert list(trainer.gan.nets.state_dict()) == names
    with traced():
        trainer.fit(find(folder))
    return watch.num_compiled


def hd_with_everything(**changes: object) -> GAN:
    slim = {"num_blocks": 1, "num_scales": 2, "num_layers": 2, "encoder": True, "encoder_ngf": 2}
    return Pix2PixHD(Config(**FULL | slim | {"fix_global": 8} | changes))


RUNS: dict[str, dict[str, Any]] = {
    "pix2pixhd": {
        "make_gan": hd_with_everything,
        "make_stream": test_pix2pixhd_resume.make_stream,
    },
    "pix2pixhd, halves": {
        "make_gan": lambda: hd_with_everything(memory="halves", num_encoder_downsamples=2),
        "make_stream": test_pix2pixhd_resume.make_stream,
    },
    "cyclegan": {
        "make_gan": test_translators.cycle,
        "make_stream": test_translators.make_stream,
    },
    "pix2pix": {
        "make_gan": lambda: test_translators.pairwise(
            generator=test_translators.UNET | {"dropout": 0.5}
        ),
        "make_stream": test_translators.make_stream,
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_a_compiled_run_is_the_same_run(tmp_path: Path, name: str) -> None:
    plan = toy.recipe(total=20, cadence=EVERY_PICTURE)
    runs = {
        kind: train(tmp_path / kind, kind, plan=plan, **RUNS[name]) for kind in ("none", "fuse")
    }
    assert_same(tmp_path / "none", tmp_path / "fuse")
    first, second, third, *later = runs["fuse"]
    assert 0 < first
    # What was frozen for two steps (8 images) is differentiated from the third on.
    switch = name.startswith("pix2pixhd")
    assert second == first and (third > second) == switch and set(later) == {third}
