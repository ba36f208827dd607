"""What the board shows of GANs from noise: images of fixed draws, which leave no trace."""

from __future__ import annotations

import pytest
import torch

from launcher.run.samples import drawn, shown
from tests.trainers.gans.from_noise.small import CONFIGS, config_of, make
from trainers.board.pictures import look
from trainers.engine.translate import run_all
from trainers.gan import GAN, Batch


def moved(name: str) -> GAN:
    """With weights that are not those of the start, where some buffers stand still."""
    torch.manual_seed(0)
    gan = make(name)
    with torch.no_grad():
        for parameter in gan.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return gan


@pytest.mark.parametrize("name", CONFIGS)
def test_pictures_leave_no_trace(name: str) -> None:
    gan, needs = moved(name), config_of(name).needs
    batch, columns = shown(needs, seed=0)
    before = {key: value.clone() for key, value in gan.state_dict().items()}
    pictures = look(gan, batch, None, torch.device("cpu"))["fake"]
    assert len(pictures) % columns == 0 and pictures.dtype == torch.uint8
    assert pictures.shape[1:3] == (3, needs.side)  # CoGAN's pair stands side by side
    assert all(torch.equal(before[key], value) for key, value in gan.state_dict().items())


class Repeated:
    """One batch, as often as asked for."""

    def __init__(self, batch: Batch, times: int):
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __iter__(self):
        return iter([("", self.batch)] * self.times)


def test_no_sample_changes_the_next_one() -> None:
    gan, needs = moved("sagan"), config_of("sagan").needs
    found: list[torch.Tensor] = []
    batch = Repeated(drawn(needs, 0, range(4)), times=3)
    run_all(gan, batch, gan.sample, lambda *made: found.append(made[2]), None, lambda *at: None)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
