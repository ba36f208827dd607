"""EBGAN goes on where it stopped, and leaves alone what has energy enough."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from trainers.gans.from_noise.ebgan import Config, Ebgan

from tests.trainers import toy
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from tests.trainers.gans.from_noise.small import samples, stream_of
from trainers.backends.base import Backend
from trainers.engine.compilation import compile_parts
from trainers.player import Player, only

CONFIG = Config(side=32, num_noise=3, width=2)


def train(folder: Path, **options) -> None:
    stream = partial(stream_of, CONFIG.needs)
    toy.train(folder, toy.recipe(), make_gan=lambda: Ebgan(CONFIG), make_stream=stream, **options)


def test_interrupted_equals_uninterrupted(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "cut", stop=StopAfter(3))
    train(tmp_path / "cut")
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_energy_beyond_the_margin_costs_nothing() -> None:
    gan = Ebgan(CONFIG)
    gan.nets["D"] = torch.nn.Flatten()  # the energy of a pixel is its value
    batch = {"image": torch.full((2, 3, 32, 32), 0.25)}
    terms = gan.discriminator_terms(batch, {}, torch.full((2, 3, 32, 32), 0.75))
    assert terms["D/real"] == terms["D/fake"] == 0.25
    assert gan.discriminator_terms(batch, {}, torch.full((2, 3, 32, 32), 1.5))["D/fake"] == 0


def test_both_phases_run_compiled() -> None:
    gan = Ebgan(CONFIG)
    compile_parts(gan, "fuse", Backend())
    batch, carry = samples(CONFIG.needs, [0, 1]), {}
    with torch.compiler.set_stance(force_backend="aot_eager"):  # traced, without making code
        for phase in gan.phases(0):
            with only(gan, phase):
                total, _, carry = Player(gan, phase)(batch, carry)
                total.backward()
            trained = [p.grad for p in gan.nets[phase.name].parameters()]
            assert all(grad is not None and grad.isfinite().all() for grad in trained)
