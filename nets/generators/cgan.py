"""Generators that are told a class: an embedding of it stands beside the noise.

Mirza and Osindero, Conditional Generative Adversarial Nets, 2014 (arXiv:1411.1784), with the
perceptron of PyTorch-GAN, and with DCGAN's layers for a conditional WGAN-GP.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.generators.dcgan import DcganGenerator
from nets.generators.mlp import MlpGenerator
from nets.layers.conditional import ClassEmbedding
from nets.layers.norms import Norm


class ConditionalMlpGenerator(nn.Module):
    """Noise [N, num_noise] and labels [N] -> images [N, *shape] in [-1, 1].

    An embedding of `num_classes` numbers stands in front of the noise.
    """

    def __init__(
        self,
        num_noise: int,
        num_classes: int,
        shape: tuple[int, int, int],
        widths: Sequence[int] = (128, 256, 512, 1024),
        slope: float = 0.2,
        norm: Norm = "batch",
        eps: float = 0.8,
    ):
        super().__init__()
        self.embedding = ClassEmbedding(num_classes, num_classes)
        self.mlp = MlpGenerator(num_classes + num_noise, shape, widths, slope, norm, eps)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.embedding(label), noise.flatten(1)], dim=1))


class ConditionalDcganGenerator(nn.Module):
    """Noise [N, num_noise], also [N, num_noise, 1, 1], and labels [N] -> images
    [N, out_channels, side, side] in [-1, 1].

    An embedding of `num_embedding` numbers stands behind the noise; the rest as DcganGenerator.
    """

    def __init__(
        self,
        num_noise: int = 100,
        num_classes: int = 10,
        num_embedding: int = 100,
        out_channels: int = 3,
        width: int = 16,
        side: int = 64,
        norm: Norm = "batch",
        biased: bool = True,
    ):
        super().__init__()
        inputs = num_noise + num_embedding
        self.dcgan = DcganGenerator(inputs, out_channels, width, side, norm, biased)
        self.embedding = ClassEmbedding(num_classes, num_embedding)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.dcgan(torch.cat([noise.flatten(1), self.embedding(label)], dim=1))
