"""Discriminators that grow: the progressive GAN's own, and a simpler one of the same idea.

Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, ICLR 2018
(arXiv:1710.10196), table 2, in the form of the authors' code; and the form of the
Machine-Learning-Collection. Of both only the levels in use get gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.equalised import EqualisedConv2d, EqualisedLinear, EqualisedPair
from nets.layers.growing import (
    fade,
    level_of_detail,
    shrink,
    stage_widths,
    with_batch_deviation,
    with_group_deviation,
)


class ProganDiscriminator(nn.Module):
    """Images [N, in_channels, side, side], or of the level's own side -> scores [N].

    `lod` is the level of detail: 0 for all of it, n where images are 2 ** n times smaller (larger
    ones are shrunk first); between two whole numbers the features of the larger level fade in.
    Widths: min(base / 2 ** stage, most). `group_size`: of the minibatch deviation.
    """

    def __init__(
        self,
        in_channels: int = 3,
        side: int = 1024,
        base: int = 8192,
        most: int = 512,
        group_size: int = 4,
    ):
        super().__init__()
        last, *widths = stage_widths(side, base, most)
        self.top, self.group_size = len(widths) - 1, group_size
        self.from_rgb = nn.ModuleList(EqualisedConv2d(in_channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList(
            EqualisedPair(before, before, after) for after, before in pairwise(widths)
        )
        self.conv = EqualisedConv2d(widths[0] + 1, widths[0], 3, padding=1)
        self.dense = EqualisedLinear(widths[0] * 16, last)
        self.output = EqualisedLinear(last, 1, gain=1.0)

    def forward(self, image: Tensor, lod: float = 0.0) -> Tensor:
        level, fraction = level_of_detail(lod, self.top)
        image = _shrunk_to(image, 4 << level)
        x = F.leaky_relu(self.from_rgb[level](image), 0.2)
        for number in range(level, 0, -1):
            x = shrink(self.blocks[number - 1](x))
            if number == level and fraction:
                below = F.leaky_relu(self.from_rgb[level - 1](shrink(image)), 0.2)
                x = fade(x, below, fraction)
        x = F.leaky_relu(self.conv(with_group_deviation(x, self.group_size)), 0.2)
        return self.output(F.leaky_relu(self.dense(x.flatten(1)), 0.2))[:, 0]


class SimpleProganDiscriminator(nn.Module):
    """The collection's: images [N, in_channels, S, S] with S = 4 * 2 ** level -> scores [N].

    `widths` by level, the smallest image first; `alpha`: how much of the level's own features there
    is, the rest being those of the shrunk image.
    """

    def __init__(self, widths: Sequence[int], in_channels: int = 3):
        super().__init__()
        self.from_rgb = nn.ModuleList(EqualisedConv2d(in_channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList(
            EqualisedPair(before, after, after) for after, before in pairwise(widths)
        )
        self.conv = EqualisedConv2d(widths[0] + 1, widths[0], 3, padding=1)
        self.dense = EqualisedConv2d(widths[0], widths[0], 4)
        self.output = EqualisedConv2d(widths[0], 1, 1)

    def forward(self, image: Tensor, level: int, alpha: float = 1.0) -> Tensor:
        x = F.leaky_relu(self.from_rgb[level](image), 0.2)
        for number in range(level, 0, -1):
            x = shrink(self.blocks[number - 1](x))
            if number == level:
                below = F.leaky_relu(self.from_rgb[level - 1](shrink(image)), 0.2)
                x = fade(below, x, alpha)
        x = F.leaky_relu(self.conv(with_batch_deviation(x)), 0.2)
        return self.output(F.leaky_relu(self.dense(x), 0.2)).flatten()


def _shrunk_to(image: Tensor, side: int) -> Tensor:
    if image.shape[-1] % side:
        raise ValueError(f"images of {image.shape[-1]} pixels do not fit a level of {side}x{side}")
    return shrink(image, image.shape[-1] // side)
