"""Discriminators that are told a class: an embedding of it stands beside the image.

Mirza and Osindero, Conditional Generative Adversarial Nets, 2014 (arXiv:1411.1784), with the
perceptron of PyTorch-GAN, and with DCGAN's layers for a conditional WGAN-GP.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from nets.discriminators.dcgan import DcganDiscriminator
from nets.discriminators.mlp import MlpDiscriminator
from nets.layers.conditional import ClassEmbedding
from nets.layers.norms import Norm


class ConditionalMlpDiscriminator(nn.Module):
    """Images [N, *shape] and labels [N] -> scores [N], which are logits.

    An embedding of `num_classes` numbers stands behind the pixels.
    """

    def __init__(
        self,
        num_classes: int,
        shape: tuple[int, int, int],
        widths: Sequence[int] = (512, 512, 512),
        slope: float = 0.2,
        dropout: float = 0.4,
    ):
        super().__init__()
        self.embedding = ClassEmbedding(num_classes, num_classes)
        self.mlp = MlpDiscriminator(prod(shape) + num_classes, widths, slope, dropout)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        return self.mlp(torch.cat([image.flatten(1), self.embedding(label)], dim=1))


class ConditionalDcganDiscriminator(nn.Module):
    """Images [N, in_channels, side, side] and labels [N] -> scores [N], which are logits.

    An embedding of side * side numbers is one more channel, the last; the rest as
    DcganDiscriminator.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        side: int = 64,
        norm: Norm = "instance",
        biased: bool = True,
    ):
        super().__init__()
        self.side = side
        self.dcgan = DcganDiscriminator(in_channels + 1, width, side, norm, biased)
        self.embedding = ClassEmbedding(num_classes, side * side)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        plane = self.embedding(label).view(-1, 1, self.side, self.side)
        return self.dcgan(torch.cat([image, plane], dim=1))
