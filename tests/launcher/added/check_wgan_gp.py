"""WGAN-GP goes on where it stopped, and its critic is pulled towards a slope of 1."""

from __future__ import annotations

from pathlib import Path

import torch
from trainers.gans.from_noise.wgan_gp import Config, WganGp

from shards.read.noise import Noise
from tests.trainers import toy
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from trainers.backends.base import Backend
from trainers.engine.compilation import compile_parts
from trainers.gan import Batch
from trainers.player import Player, only


def make_gan() -> WganGp:
    return WganGp(Config(width=2, num_noise=4, num_critic_steps=2))


def make_stream(backend, global_batch, num_micro):
    noise = [Noise(**vars(draw)) for draw in make_gan().config.needs.draws]

    def stream(position):
        while True:
            generator = torch.Generator().manual_seed(position)
            image = torch.randint(0, 256, (global_batch, 3, 32, 32), generator=generator)
            drawn = {
                each.name: torch.stack(
                    [torch.from_numpy(each.at(0, position + n)) for n in range(global_batch)]
                )
                for each in noise
            }
            yield drawn | {"image": image.to(torch.uint8)}
            position += global_batch

    return stream


def train(folder: Path, **options) -> None:
    toy.train(folder, toy.recipe(), make_gan=make_gan, make_stream=make_stream, **options)


def test_interrupted_equals_uninterrupted(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "cut", stop=StopAfter(3))
    train(tmp_path / "cut")
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_the_penalty_is_that_of_the_paper() -> None:
    gan = make_gan().double()
    gan._scores = lambda image: 3 * image.flatten(1).sum(1)  # its gradient is 3 in each pixel
    batch = gan.prepare(next(make_stream(None, 2, 1)(0)))
    expected = (3 * (3 * 32 * 32) ** 0.5 - 1) ** 2
    penalty = gan.losses("D", batch, {})[1]["D/gp"].item()
    assert abs(penalty - expected) < 1e-9 * expected


def test_both_phases_run_compiled() -> None:
    gan = make_gan()
    compile_parts(gan, "fuse", Backend())
    batch: Batch = next(make_stream(None, 2, 1)(0))
    with torch.compiler.set_stance(force_backend="aot_eager"):  # traced, without making code
        for phase in gan.phases(0):
            with only(gan, phase):
                total, _, _ = Player(gan, phase)(batch, {})
                total.backward()
            trained = [p.grad for p in gan.nets[phase.name].parameters()]
            assert all(grad is not None and grad.isfinite().all() for grad in trained)
