"""Options of the networks that make images from noise, which no recorded number covers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nets.discriminators.cgan import ConditionalDcganDiscriminator, ConditionalMlpDiscriminator
from nets.discriminators.dcgan import DcganDiscriminator
from nets.generators.dcgan import DcganGenerator
from nets.generators.mlp import MlpGenerator


@pytest.mark.parametrize("side", [8, 28, 32, 48, 64, 128])
def test_dcgans_sides(side: int) -> None:
    with torch.device("meta"):
        image = DcganGenerator(5, 2, 1, side)(torch.empty(3, 5))
        assert image.shape == (3, 2, side, side)
        assert DcganDiscriminator(2, 1, side)(image).shape == (3,)


def test_a_side_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="50x50 do not fit.*nearest that fit: 48 and 56"):
        DcganGenerator(side=50)
    with pytest.raises(ValueError, match="4x4 do not fit.*fit: 8"):
        DcganDiscriminator(side=4)


def test_noise_is_taken_as_a_row_and_as_a_pixel() -> None:
    noise = torch.randn(3, 5)
    for net in (DcganGenerator(5, 1, 1, 8), MlpGenerator(5, (1, 4, 4))):
        assert torch.equal(net(noise), net(noise[:, :, None, None]))


def test_a_perceptron_normalises_behind_its_first_layer() -> None:
    """PyTorch-GAN's; beside torch's own layers."""
    ours = MlpGenerator(5, (1, 2, 3), (4, 6), slope=0.2, norm="batch", eps=0.8).double()
    theirs = nn.Sequential(
        nn.Linear(5, 4),
        nn.LeakyReLU(0.2),
        nn.Linear(4, 6),
        nn.BatchNorm1d(6, 0.8),
        nn.LeakyReLU(0.2),
        nn.Linear(6, 6),
        nn.Tanh(),
    ).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    noise = torch.randn(7, 5, dtype=torch.float64)
    for mode in (True, False):
        expected = theirs.train(mode)(noise).view(7, 1, 2, 3)
        assert torch.allclose(ours.train(mode)(noise), expected, atol=1e-14)


def test_conditional_judges_see_the_image_first() -> None:
    perceptron = ConditionalMlpDiscriminator(3, (1, 2, 2), (5, 5), dropout=0.5).eval()
    image, label = torch.randn(2, 1, 8, 8), torch.tensor([2, 0])
    small = image[..., :2, :2]
    beside = torch.cat([small.flatten(1), perceptron.embedding.weight[label]], 1)
    assert torch.equal(perceptron(small, label), perceptron.mlp(beside))
    again = perceptron.train()(small, label)
    assert not torch.equal(again, perceptron(small, label))  # dropout
    critic = ConditionalDcganDiscriminator(3, 1, 2, 8)
    plane = critic.embedding.weight[label].view(2, 1, 8, 8)
    assert torch.equal(critic(image, label), critic.dcgan(torch.cat([image, plane], 1)))
