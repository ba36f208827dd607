"""Coupled discriminators, which judge the images of two domains with shared layers.

Liu and Tuzel, Coupled Generative Adversarial Networks, NeurIPS 2016 (arXiv:1606.07536), section 3
and appendix A, in the form of the authors' code; and that of PyTorch-GAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.discriminators.infogan import StridedTrunk
from nets.layers.norms import Norm

Domain = Literal["a", "b"]


class CoganDiscriminator(nn.Module):
    """Images a and b, each [N, in_channels, 28, 28] -> logits [2N, 2], those of a first, of which
    class 1 is real; then the features of a and of b, each [N, widths[-1], 1, 1].

    The first convolution of each domain is its own. With `num_classes` it also tells classes.
    """

    def __init__(
        self,
        in_channels: int = 1,
        widths: tuple[int, int, int] = (20, 50, 500),
        num_classes: int = 0,
    ):
        super().__init__()
        own, shared, wide = widths
        self.a, self.b = (nn.Conv2d(in_channels, own, 5) for _ in "ab")
        self.conv = nn.Conv2d(own, shared, 5)
        self.features_conv = nn.Conv2d(shared, wide, 4)
        self.activation = nn.PReLU()
        self.score = nn.Conv2d(wide, 2, 1)
        self.classes = nn.Conv2d(wide, num_classes, 1) if num_classes else None

    def features(self, image: Tensor, domain: Domain) -> Tensor:
        """[N, in_channels, 28, 28] of one domain -> [N, widths[-1], 1, 1]."""
        x = F.max_pool2d((self.a if domain == "a" else self.b)(image), 2)
        return self.activation(self.features_conv(F.max_pool2d(self.conv(x), 2)))

    def classify(self, image: Tensor, domain: Domain) -> Tensor:
        """[N, in_channels, 28, 28] of one domain -> logits [N, num_classes]."""
        assert self.classes is not None, "built without classes"
        return self.classes(self.features(image, domain)).flatten(1)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_a, of_b = self.features(a, "a"), self.features(b, "b")
        return self.score(torch.cat([of_a, of_b])).flatten(1), of_a, of_b


class StridedCoganDiscriminator(nn.Module):
    """PyTorch-GAN's: images a and b, each [N, in_channels, side, side] -> scores of a [N] and of b
    [N]. All but the last layer are shared."""

    def __init__(
        self,
        in_channels: int = 3,
        side: int = 32,
        widths: Sequence[int] = (16, 32, 64, 128),
        norm: Norm = "batch",
        dropout: float = 0.25,
    ):
        super().__init__()
        self.shared = StridedTrunk(in_channels, side, widths, norm, dropout, norm_first=True)
        self.a, self.b = (nn.Linear(self.shared.num_features, 1) for _ in "ab")

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(self.shared(a))[:, 0], self.b(self.shared(b))[:, 0]
