"""Generators that grow: the progressive GAN's own, and a simpler one of the same idea.

Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, ICLR 2018
(arXiv:1710.10196), table 2, in the form of the authors' code; and the form of the
Machine-Learning-Collection. Of both only the levels in use get gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.equalised import EqualisedConv2d, EqualisedLinear, EqualisedPair
from nets.layers.growing import enlarge, fade, level_of_detail, pixel_norm, stage_widths


class ProganGenerator(nn.Module):
    """Noise [N, num_noise], also [N, num_noise, 1, 1] -> images [N, out_channels, side, side].

    `lod` is the level of detail: 0 for all of it, n where images are 2 ** n times smaller; between
    two whole numbers the larger level fades in. Images of a small level are enlarged to `side`,
    unless `full_size` is off. Their range is not bounded. Widths: min(base / 2 ** stage, most).
    """

    def __init__(
        self,
        num_noise: int = 512,
        out_channels: int = 3,
        side: int = 1024,
        base: int = 8192,
        most: int = 512,
    ):
        super().__init__()
        widths = stage_widths(side, base, most)[1:]
        self.top = len(widths) - 1
        self.first = FirstStage(num_noise, widths[0])
        self.blocks = nn.ModuleList(
            EqualisedPair(before, after, after, normalised=True)
            for before, after in pairwise(widths)
        )
        self.to_rgb = nn.ModuleList(
            EqualisedConv2d(width, out_channels, 1, gain=1.0) for width in widths
        )

    def forward(self, noise: Tensor, lod: float = 0.0, full_size: bool = True) -> Tensor:
        level, fraction = level_of_detail(lod, self.top)
        before = x = self.first(noise.flatten(1))
        for block in self.blocks[:level]:
            before, x = x, block(enlarge(x))
        image = self.to_rgb[level](x)
        if fraction:
            image = fade(image, enlarge(self.to_rgb[level - 1](before)), fraction)
        return enlarge(image, 2 ** (self.top - level)) if full_size else image


class FirstStage(nn.Module):
    """Noise [N, num_noise] -> features [N, width, 4, 4]; the bias is one for each channel."""

    def __init__(self, num_noise: int, width: int):
        super().__init__()
        self.dense = EqualisedLinear(num_noise, width * 16, gain=sqrt(2) / 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        self.conv = EqualisedConv2d(width, width, 3, padding=1)

    def forward(self, noise: Tensor) -> Tensor:
        x = self.dense(pixel_norm(noise)).unflatten(1, (-1, 4, 4))
        x = pixel_norm(F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], 0.2))
        return pixel_norm(F.leaky_relu(self.conv(x), 0.2))


class SimpleProganGenerator(nn.Module):
    """The collection's: noise [N, num_noise], also [N, num_noise, 1, 1] -> images
    [N, out_channels, S, S] with S = 4 * 2 ** level, in [-1, 1] but for level 0.

    `widths` by level, the smallest image first; `alpha`: how much of the level's own image there
    is, the rest being the level below's.
    """

    def __init__(self, num_noise: int, widths: Sequence[int], out_channels: int = 3):
        super().__init__()
        self.first = nn.ConvTranspose2d(num_noise, widths[0], 4)
        self.conv = EqualisedConv2d(widths[0], widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            EqualisedPair(before, after, after, normalised=True)
            for before, after in pairwise(widths)
        )
        self.to_rgb = nn.ModuleList(EqualisedConv2d(width, out_channels, 1) for width in widths)

    def forward(self, noise: Tensor, level: int, alpha: float = 1.0) -> Tensor:
        x = self.first(pixel_norm(noise.flatten(1)[:, :, None, None]))
        x = pixel_norm(F.leaky_relu(self.conv(F.leaky_relu(x, 0.2)), 0.2))
        if level == 0:
            return self.to_rgb[0](x)
        for block in self.blocks[:level]:
            before = enlarge(x)
            x = block(before)
        # Both also where alpha is 1: Adam goes on with what it remembers of the level below.
        return fade(self.to_rgb[level - 1](before), self.to_rgb[level](x), alpha).tanh()
