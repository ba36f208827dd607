"""The convolutional generator of DCGAN, which WGAN and WGAN-GP use with a bias more.

Radford et al., Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, ICLR 2016 (arXiv:1511.06434), section 3.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from nets.layers.blocks import ConvBlock, halvings
from nets.layers.norms import Norm


class DcganGenerator(nn.Module):
    """Noise [N, num_noise], also [N, num_noise, 1, 1] -> images [N, out_channels, side, side] in
    [-1, 1].

    Transposed convolutions: to the smallest side (4 for 64 pixels, 7 for 28), then doubling; the
    last hidden layer has 2 * width channels, the ones before twice as many each. `biased`: the
    output layer has a bias (WGAN). Raises ValueError where `side` is not 4 to 7, doubled.
    """

    def __init__(
        self,
        num_noise: int = 100,
        out_channels: int = 3,
        width: int = 64,
        side: int = 64,
        norm: Norm = "batch",
        biased: bool = False,
    ):
        super().__init__()
        start, doublings = halvings(side)
        widths = [num_noise, *(width << level for level in range(doublings, 0, -1))]
        self.layers = nn.Sequential(
            *(
                ConvBlock(
                    nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)
                    if number
                    else nn.ConvTranspose2d(before, after, start, bias=False),
                    nn.ReLU(inplace=True),
                    norm=norm,
                )
                for number, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.output = nn.ConvTranspose2d(widths[-1], out_channels, 4, 2, 1, bias=biased)

    def forward(self, noise: Tensor) -> Tensor:
        return self.output(self.layers(noise.flatten(1)[:, :, None, None])).tanh()
