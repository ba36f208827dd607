"""Coupled generators: one noise becomes an image in each of two domains.

Liu and Tuzel, Coupled Generative Adversarial Networks, NeurIPS 2016 (arXiv:1606.07536), section 3
and appendix A, in the form of the authors' code; and the enlarging pair of PyTorch-GAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from nets.generators.infogan import EnlargingTail, EnlargingTrunk
from nets.layers.blocks import ConvBlock
from nets.layers.norms import Norm, build_norm


class CoganGenerator(nn.Module):
    """Noise [N, num_noise], also [N, num_noise, 1, 1] -> images of both domains, each
    [N, out_channels, 28, 28] in [0, 1].

    All but the last layer are shared; norms have no parameters, and each PReLU one.
    """

    def __init__(
        self,
        num_noise: int = 100,
        out_channels: int = 1,
        widths: Sequence[int] = (1024, 512, 256, 128),
        norm: Norm = "batch",
    ):
        super().__init__()
        layers = []
        for number, (before, after) in enumerate(pairwise([num_noise, *widths])):
            how = (3, 2, 1) if number else (4,)  # sides 4, 7, 13, 25
            conv = nn.ConvTranspose2d(before, after, *how)
            layers.append(ConvBlock(conv, nn.PReLU(), norm=build_norm(norm, after, affine=False)))
        self.shared = nn.Sequential(*layers)
        self.a, self.b = (nn.ConvTranspose2d(widths[-1], out_channels, 6, 1, 1) for _ in "ab")

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = self.shared(noise.flatten(1)[:, :, None, None])
        return self.a(x).sigmoid(), self.b(x).sigmoid()


class EnlargingCoganGenerator(nn.Module):
    """PyTorch-GAN's: noise [N, num_noise] -> images of both domains, each
    [N, out_channels, side, side] in [-1, 1]; what lies behind the last enlargement is apart."""

    def __init__(
        self,
        num_noise: int = 100,
        out_channels: int = 3,
        side: int = 32,
        widths: tuple[int, int] = (128, 64),
        norm: Norm = "batch",
    ):
        super().__init__()
        self.shared = EnlargingTrunk(num_noise, side, widths[0], norm)
        self.a, self.b = (EnlargingTail(out_channels, *widths, norm) for _ in "ab")

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = self.shared(noise)
        return self.a(x), self.b(x)
