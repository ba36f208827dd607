"""What judges InfoGAN's images, and what reads their codes back.

Chen et al., InfoGAN, NeurIPS 2016 (arXiv:1606.03657), appendix C, in the form of InfoGAN-PyTorch: a
trunk, the discriminator's head and Q beside it are apart, as two optimizers share them; and in that
of PyTorch-GAN, where one network has three heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from nets.layers.blocks import ConvBlock
from nets.layers.norms import Norm, build_norm


class InfoganTrunk(nn.Module):
    """Images [N, in_channels, side, side] -> features [N, widths[-1], 1, 1], or 4x4 of 32 pixels.

    `side` 28 (MNIST): the last convolution is 7x7; 32 (SVHN, CelebA): all halve.
    """

    def __init__(
        self,
        in_channels: int = 1,
        side: Literal[28, 32] = 28,
        widths: Sequence[int] | None = None,
        norm: Norm = "batch",
    ):
        super().__init__()
        widths = widths or ((64, 128, 1024) if side == 28 else (64, 128, 256))
        self.width = widths[-1]
        layers = []
        for number, (before, after) in enumerate(pairwise([in_channels, *widths])):
            how = (7, 1, 0) if side == 28 and number == len(widths) - 1 else (4, 2, 1)
            conv = nn.Conv2d(before, after, *how, bias=not number)
            layers.append(ConvBlock(conv, _leaky(), norm=norm if number else "none"))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class InfoganHead(nn.Module):
    """Features [N, width, size, size] -> scores [N], which are logits; size 1 or 4: the trunk's."""

    def __init__(self, width: int = 1024, size: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(width, 1, size)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features).flatten()


class InfoganRecogniser(nn.Module):
    """Q: features [N, width, size, size] -> logits of the categories [N, num_logits], means and
    variances of the continuous codes [N, num_codes].

    Several categories stand side by side. Without codes there are no layers for them.
    """

    def __init__(
        self,
        num_logits: int = 10,
        num_codes: int = 2,
        width: int = 1024,
        size: int = 1,
        hidden: int = 128,
        norm: Norm = "batch",
    ):
        super().__init__()
        self.conv = ConvBlock(nn.Conv2d(width, hidden, size, bias=False), _leaky(), norm=norm)
        self.category = nn.Conv2d(hidden, num_logits, 1)
        self.mean = nn.Conv2d(hidden, num_codes, 1) if num_codes else None
        self.log_variance = nn.Conv2d(hidden, num_codes, 1) if num_codes else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv(features)
        logits = self.category(x).flatten(1)
        if self.mean is None or self.log_variance is None:
            return logits, logits[:, :0], logits[:, :0]
        return logits, self.mean(x).flatten(1), self.log_variance(x).flatten(1).exp()


class StridedTrunk(nn.Module):
    """PyTorch-GAN's: images [N, in_channels, side, side] -> features [N, `num_features`].

    3x3 convolutions that halve, each followed by LeakyReLU, dropout of whole channels and (not the
    first) a norm; `norm_first` has the norm before the LeakyReLU (CoGAN). `side` is a multiple of
    2 ** len(widths).
    """

    def __init__(
        self,
        in_channels: int = 1,
        side: int = 32,
        widths: Sequence[int] = (16, 32, 64, 128),
        norm: Norm = "batch",
        dropout: float = 0.25,
        norm_first: bool = False,
    ):
        super().__init__()
        stride = 2 ** len(widths)
        if side % stride:
            raise ValueError(
                f"images of {side}x{side} do not fit: the side must be a multiple of {stride}"
            )
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise([in_channels, *widths])):
            layers.append(nn.Conv2d(before, after, 3, 2, 1))
            norms = [build_norm(norm, after, 0.8)] if number else []
            rest: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Dropout2d(dropout)]
            layers += [*norms, *rest] if norm_first else [*rest, *norms]
        self.layers = nn.Sequential(*layers)
        self.num_features = widths[-1] * (side // stride) ** 2

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image).flatten(1)


class ThreeHeadedDiscriminator(nn.Module):
    """PyTorch-GAN's: images [N, in_channels, side, side] -> scores [N], probabilities of the
    category [N, num_classes], codes [N, num_codes].

    Its cross-entropy takes the probabilities for logits.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_codes: int = 2,
        in_channels: int = 1,
        side: int = 32,
        widths: Sequence[int] = (16, 32, 64, 128),
        norm: Norm = "batch",
        dropout: float = 0.25,
    ):
        super().__init__()
        self.trunk = StridedTrunk(in_channels, side, widths, norm, dropout)
        self.score = nn.Linear(self.trunk.num_features, 1)
        self.category = nn.Linear(self.trunk.num_features, num_classes)
        self.code = nn.Linear(self.trunk.num_features, num_codes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.trunk(image)
        return self.score(x)[:, 0], torch.softmax(self.category(x), dim=1), self.code(x)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.1, inplace=True)
