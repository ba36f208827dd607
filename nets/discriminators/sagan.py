"""The discriminator of the self-attention GAN, without classes.

Zhang et al., Self-Attention Generative Adversarial Networks, ICML 2019 (arXiv:1805.08318), in the
form of heykeetae's Self-Attention-GAN. With classes: nets.discriminators.biggan.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from nets.layers.attention import SelfAttention
from nets.layers.blocks import ConvBlock, halvings
from nets.layers.spectral import SpectralConv2d


class SaganDiscriminator(nn.Module):
    """Images [N, in_channels, side, side] -> scores [N], which are logits.

    Convolutions with spectral norm (also in eval mode) that halve, from `width` channels on twice
    as many each; then one without. `attention`: sides of the features behind which there is one, by
    default the last two layers' (8 and 4 for 64 pixels).
    """

    def __init__(
        self,
        in_channels: int = 3,
        width: int = 64,
        side: int = 64,
        attention: Sequence[int] | None = None,
        eps: float = 1e-12,
    ):
        super().__init__()
        start, halved = halvings(side)
        if attention is None:
            attention = [start << level for level in range(halved)][:2]
        widths = [in_channels, *(width << level for level in range(halved))]
        self.layers = nn.Sequential()
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            conv = SpectralConv2d(before, after, 4, 2, 1, eps=eps, in_eval=True)
            self.layers.append(ConvBlock(conv, nn.LeakyReLU(0.1), norm="none"))
            if side >> number in attention:
                self.layers.append(SelfAttention(after))
        self.output = nn.Conv2d(widths[-1], 1, start)

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.layers(image)).flatten()
