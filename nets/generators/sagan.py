"""The generator of the self-attention GAN, without classes.

Zhang et al., Self-Attention Generative Adversarial Networks, ICML 2019 (arXiv:1805.08318), in the
form of heykeetae's Self-Attention-GAN. With classes: nets.generators.biggan.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from nets.layers.attention import SelfAttention
from nets.layers.blocks import ConvBlock, halvings
from nets.layers.norms import Norm
from nets.layers.spectral import SpectralConvTranspose2d


class SaganGenerator(nn.Module):
    """Noise [N, num_noise], also [N, num_noise, 1, 1] -> images [N, out_channels, side, side] in
    [-1, 1].

    Transposed convolutions with spectral norm (also in eval mode), the last hidden one of `width`
    channels at half the side; then one without. `attention`: sides of the features behind which
    there is one, by default the last two hidden layers' (16 and 32 for 64 pixels).
    """

    def __init__(
        self,
        num_noise: int = 128,
        out_channels: int = 3,
        width: int = 64,
        side: int = 64,
        attention: Sequence[int] | None = None,
        norm: Norm = "batch",
        eps: float = 1e-12,
    ):
        super().__init__()
        start, doublings = halvings(side)
        if attention is None:
            attention = [start << level for level in range(doublings)][-2:]
        widths = [num_noise, *(width << level for level in reversed(range(doublings)))]
        self.layers = nn.Sequential()
        for number, (before, after) in enumerate(pairwise(widths)):
            how = (4, 2, 1) if number else (start,)
            conv = SpectralConvTranspose2d(before, after, *how, eps=eps, in_eval=True)
            self.layers.append(ConvBlock(conv, nn.ReLU(inplace=True), norm=norm))
            if start << number in attention:
                self.layers.append(SelfAttention(after))
        self.output = nn.ConvTranspose2d(width, out_channels, 4, 2, 1)

    def forward(self, noise: Tensor) -> Tensor:
        return self.output(self.layers(noise.flatten(1)[:, :, None, None])).tanh()
