"""The discriminator of BigGAN, also that of the class-conditional SAGAN and, with heads, of S2GAN.

Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR 2019
(arXiv:1809.11096), section 3 and appendix B, in the form of BigGAN-PyTorch; heads: Lucic et al.,
High-Fidelity Image Generation With Fewer Labels, ICML 2019 (arXiv:1903.02271), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.attention import PooledSelfAttention
from nets.layers.conditional import ProjectionHead
from nets.layers.growing import shrink
from nets.layers.spectral import SpectralConv2d, SpectralLinear
from nets.memory.remat import Remat, remat

Side = Literal[32, 64, 128, 256]
WIDTHS: dict[int, tuple[int, ...]] = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
"""Channels behind each block by side of the image, in units of `width`."""
ATTENTION_SIDES: dict[int, tuple[int, ...]] = {
    32: (16, 16, 16, 16),
    64: (32, 16, 8, 4, 4),
    128: (64, 32, 16, 8, 4, 4),
    256: (128, 64, 32, 16, 8, 4, 4),
}
"""The side that `attention` knows each block by: that of its output but for images of 32 pixels."""


class BigganDiscriminator(nn.Module):
    """Images [N, in_channels, side, side] and labels -> scores [N], which are logits.

    Labels are ids [N], or the share of each class [N, num_classes]. `attention`: sides of features
    behind which there is one (see ATTENTION_SIDES). `classifier` and `turns`: heads that tell the
    class, and by how many quarter turns an image is turned. `rematerialise`: with "blocks" each is
    computed a second time in backward, for memory. All is spectrally normalised, `eps` the least
    norm.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 96,
        side: Side = 128,
        attention: Sequence[int] = (64,),
        eps: float = 1e-12,
        classifier: bool = False,
        turns: bool = False,
        rematerialise: Remat = "none",
    ):
        super().__init__()
        widths = [in_channels, *(width * factor for factor in WIDTHS[side])]
        halved = 2 if side == 32 else len(widths) - 2
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(before, after, number == 0, number < halved, known in attention, eps)
            for number, ((before, after), known) in enumerate(
                zip(pairwise(widths), ATTENTION_SIDES[side], strict=True)
            )
        )
        self.head = ProjectionHead(widths[-1], num_classes, eps=eps)
        self.classifier = SpectralLinear(widths[-1], num_classes, eps=eps) if classifier else None
        self.turns = SpectralLinear(widths[-1], 4, eps=eps) if turns else None
        self.rematerialise = rematerialise

    def features(self, image: Tensor) -> Tensor:
        """Images -> [N, widest], what `head`, `classifier` and `turns` take."""
        x = image
        for block in self.blocks:
            x = remat(block, x, when=self.rematerialise == "blocks")
        return F.relu(x).sum((2, 3))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        return self.head(self.features(image), label)


class DiscriminatorBlock(nn.Module):
    """Features [N, before, H, W] -> [N, after, H, W], or half the sides.

    [ReLU], 3x3, ReLU, 3x3, [average of 2x2]; beside it a 1x1 where anything changes. The first
    takes an image, without ReLU. Then perhaps attention."""

    def __init__(
        self, before: int, after: int, first: bool, halve: bool, attention: bool, eps: float
    ):
        super().__init__()
        self.first = SpectralConv2d(before, after, 3, padding=1, eps=eps)
        self.second = SpectralConv2d(after, after, 3, padding=1, eps=eps)
        plain = before == after and not halve
        self.shortcut = nn.Identity() if plain else SpectralConv2d(before, after, 1, eps=eps)
        self.attention = PooledSelfAttention(after, eps=eps) if attention else nn.Identity()
        self.takes_image, self.times = first, 2 if halve else 1

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(F.relu(self.first(x if self.takes_image else F.relu(x))))
        if self.takes_image:  # the image is shrunk before, which is cheaper
            beside = self.shortcut(shrink(x, self.times))
        else:
            beside = shrink(self.shortcut(x), self.times)
        return self.attention(shrink(out, self.times) + beside)
