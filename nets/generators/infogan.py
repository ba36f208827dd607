"""Generators of InfoGAN, which make images from noise and codes.

Chen et al., InfoGAN, NeurIPS 2016 (arXiv:1606.03657), appendix C, in the form of InfoGAN-PyTorch,
and the enlarging one of PyTorch-GAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from nets.layers.blocks import ConvBlock
from nets.layers.norms import Norm, build_norm


class InfoganGenerator(nn.Module):
    """Noise, one-hot categories and codes [N, num_inputs], also [N, num_inputs, 1, 1] -> images
    [N, out_channels, side, side].

    Of 28 pixels (MNIST): three widths, all with a norm, images in [0, 1]. Of 32 pixels (SVHN,
    CelebA): four widths, the first two with a norm, images in [-1, 1].
    """

    def __init__(
        self,
        num_inputs: int,
        out_channels: int = 1,
        side: Literal[28, 32] = 28,
        widths: Sequence[int] | None = None,
        norm: Norm = "batch",
    ):
        super().__init__()
        small = side == 28
        starts, norms = ((1, 7), 3) if small else ((2,), 2)
        widths = widths or ((1024, 128, 64) if small else (448, 256, 128, 64))
        layers = []
        for number, (before, after) in enumerate(pairwise([num_inputs, *widths])):
            how = (starts[number], 1, 0) if number < len(starts) else (4, 2, 1)
            conv = nn.ConvTranspose2d(before, after, *how, bias=False)
            kind = norm if number < norms else "none"
            layers.append(ConvBlock(conv, nn.ReLU(inplace=True), norm=kind))
        self.layers = nn.Sequential(*layers)
        self.output = nn.ConvTranspose2d(widths[-1], out_channels, 4, 2, 1, bias=False)
        self.range = nn.Sigmoid() if small else nn.Tanh()

    def forward(self, noise: Tensor) -> Tensor:
        return self.range(self.output(self.layers(noise.flatten(1)[:, :, None, None])))


class EnlargingTrunk(nn.Module):
    """Noise and codes [N, num_inputs] -> features [N, width, side, side].

    A linear layer, then nearest x2 twice, with a convolution between; `side` is a multiple of 4.
    """

    def __init__(self, num_inputs: int, side: int = 32, width: int = 128, norm: Norm = "batch"):
        super().__init__()
        if side % 4:
            raise ValueError(
                f"images of {side}x{side} do not fit: the side must be a multiple of 4"
            )
        self.start = (width, side // 4, side // 4)
        self.linear = nn.Linear(num_inputs, width * (side // 4) ** 2)
        self.norm = build_norm(norm, width)
        self.conv = _near(width, width, norm, enlarge=True)

    def forward(self, noise: Tensor) -> Tensor:
        x = self.norm(self.linear(noise.flatten(1)).unflatten(1, self.start))
        return nn.functional.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")


class EnlargingTail(nn.Module):
    """Features [N, width, H, W] -> images [N, out_channels, H, W] in [-1, 1]."""

    def __init__(
        self, out_channels: int = 3, width: int = 128, narrow: int = 64, norm: Norm = "batch"
    ):
        super().__init__()
        self.conv = _near(width, narrow, norm)
        self.output = nn.Conv2d(narrow, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.conv(x)).tanh()


class EnlargingGenerator(nn.Module):
    """PyTorch-GAN's: noise, one-hot categories and codes [N, num_inputs] -> images
    [N, out_channels, side, side] in [-1, 1], of `widths` channels before and behind the last
    enlargement but one."""

    def __init__(
        self,
        num_inputs: int,
        out_channels: int = 1,
        side: int = 32,
        widths: tuple[int, int] = (128, 64),
        norm: Norm = "batch",
    ):
        super().__init__()
        self.trunk = EnlargingTrunk(num_inputs, side, widths[0], norm)
        self.tail = EnlargingTail(out_channels, *widths, norm)

    def forward(self, noise: Tensor) -> Tensor:
        return self.tail(self.trunk(noise))


def _near(before: int, after: int, norm: Norm, enlarge: bool = False) -> ConvBlock:
    """[Nearest x2], 3x3, norm with PyTorch-GAN's eps of 0.8, LeakyReLU."""
    conv = nn.Conv2d(before, after, 3, padding=1)
    activation = nn.LeakyReLU(0.2, inplace=True)
    return ConvBlock(conv, activation, norm=build_norm(norm, after, 0.8), enlarge=enlarge)
