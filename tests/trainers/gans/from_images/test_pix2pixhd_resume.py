"""pix2pixHD goes on where it stopped, on either side of the switch of `fix_global`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trainers import toy
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from tests.trainers.hd import FULL, raw_batch
from trainers.backends.base import Backend
from trainers.checkpoints.checkpoint import find
from trainers.gan import Batch
from trainers.gans.from_images.pix2pixhd import Config, Pix2PixHD
from trainers.recipe import Cadence

NUM_STEPS, SWITCH = 4, 2


def make_gan() -> Pix2PixHD:
    config = FULL | {"fix_global": 2 * SWITCH, "encoder": True, "encoder_ngf": 2}
    return Pix2PixHD(Config(**config, num_encoder_downsamples=2))


def make_stream(
    backend: Backend, global_batch: int, num_micro: int
) -> Callable[[int], Iterator[Batch]]:
    def stream(position: int) -> Iterator[Batch]:
        while True:
            yield raw_batch(count=global_batch, seed=position)
            position += global_batch

    return stream


def train(folder: Path, stop: Callable[[], bool] = lambda: False) -> None:
    plan = toy.recipe(
        total=2 * NUM_STEPS, global_batch=2, cadence=Cadence(log=2, pictures=0, save=0)
    )
    toy.train(folder, plan, stop=stop, make_gan=make_gan, make_stream=make_stream)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.mark.parametrize("steps", [SWITCH - 1, SWITCH, SWITCH + 1])
def test_a_resume_around_the_switch_changes_no_bit(whole: Path, tmp_path: Path, steps: int) -> None:
    train(tmp_path, stop=StopAfter(steps))
    frozen = [n for n in find(tmp_path).tensors("optimizers") if "/G.trunk" in n]
    assert bool(frozen) == (steps > SWITCH)
    train(tmp_path)
    assert_same(whole, tmp_path)
