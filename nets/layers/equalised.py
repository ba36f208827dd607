"""Layers with an equalised learning rate: weights are scaled when they are used, not at the start.

Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, ICLR 2018
(arXiv:1710.10196), section 4.1.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.growing import pixel_norm

GAIN = sqrt(2)
"""He's constant; the original has 1 for layers that nothing rectifies."""


class Equalised(nn.Module):
    """What the layers below share: weight * gain / sqrt(fan in) at run time; the bias is as it is.

    Weights start N(0, 1), biases at 0."""

    weight: Tensor
    bias: Any
    """A tensor, or None."""

    def __init__(self, *shape: Any, gain: float = GAIN, **options: Any):
        """shape, options: of the layer that stands behind this class."""
        super().__init__(*shape, **options)
        self.gain = gain

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def scaled(self) -> Tensor:
        return self.weight * (self.gain / sqrt(self.weight[0].numel()))


class EqualisedConv2d(Equalised, nn.Conv2d):
    """nn.Conv2d with an equalised learning rate: [N, in, H, W] -> [N, out, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.scaled(), self.bias)


class EqualisedLinear(Equalised, nn.Linear):
    """nn.Linear with an equalised learning rate: [N, in] -> [N, out]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scaled(), self.bias)


class EqualisedPair(nn.Module):
    """Two 3x3 convolutions, LeakyReLU behind each, and pixel norm if `normalised`.

    [N, before, H, W] -> [N, after, H, W]."""

    def __init__(self, before: int, between: int, after: int, normalised: bool = False):
        super().__init__()
        self.first = EqualisedConv2d(before, between, 3, padding=1)
        self.second = EqualisedConv2d(between, after, 3, padding=1)
        self.normalised = normalised

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.first, self.second):
            x = F.leaky_relu(conv(x), 0.2)
            x = pixel_norm(x) if self.normalised else x
        return x
