"""The generator of BigGAN; without shared embedding and parts of the noise that of the
class-conditional SAGAN.

Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR 2019
(arXiv:1809.11096), section 3 and appendix B, in the form of BigGAN-PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.attention import PooledSelfAttention
from nets.layers.conditional import ClassEmbedding, ConditionalBatchNorm
from nets.layers.growing import enlarge
from nets.layers.norms import Norm, build_norm
from nets.layers.spectral import SpectralConv2d, SpectralLinear
from nets.memory.remat import Remat, remat

Side = Literal[32, 64, 128, 256]
WIDTHS: dict[int, tuple[int, ...]] = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
"""Channels by side of the image, in units of `width`: of 4x4 pixels, then behind each block."""


class BigganGenerator(nn.Module):
    """Noise [N, num_noise], also [N, num_noise, 1, 1], and labels -> images
    [N, out_channels, side, side] in [-1, 1].

    Labels are ids [N], or the share of each class [N, num_classes]. With `hierarchical` the noise
    is cut into a part for 4x4 pixels and one for each block (what is over is left out), which
    stands behind the class in the block's norms. `shared`: one embedding of `num_shared` numbers
    (as many as the noise where 0) for all norms; without it each has gains and biases of every
    class. `attention`: sides of the features behind which there is one. `eps`, `norm_eps`: the
    least norm in spectral norms, and what batch norms add to the variance. `rematerialise`: with
    "blocks" each is computed a second time in backward, for memory. Raises ValueError for a
    hierarchy without shared embedding.
    """

    def __init__(
        self,
        num_noise: int = 120,
        num_classes: int = 1000,
        out_channels: int = 3,
        width: int = 96,
        side: Side = 128,
        hierarchical: bool = True,
        shared: bool = True,
        num_shared: int = 128,
        attention: Sequence[int] = (64,),
        norm: Norm = "batch",
        eps: float = 1e-12,
        norm_eps: float = 1e-5,
        rematerialise: Remat = "none",
    ):
        super().__init__()
        if hierarchical and not shared:
            raise ValueError("parts of the noise in every block need the shared embedding")
        widths = [width * factor for factor in WIDTHS[side]]
        num_parts = len(widths) if hierarchical else 1
        self.part = num_noise // num_parts
        self.hierarchical, self.rematerialise = hierarchical, rematerialise
        num_shared = num_shared or num_noise
        self.embedding = ClassEmbedding(num_classes, num_shared) if shared else None
        self.linear = SpectralLinear(self.part, widths[0] * 16, eps=eps)
        inputs = num_shared + (self.part if hierarchical else 0) if shared else 0
        build = partial(_conditional_norm, inputs, num_classes, norm, eps, norm_eps)
        self.blocks = nn.ModuleList(
            GeneratorBlock(before, after, build, 8 << number in attention, eps)
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.norm = build_norm(norm, widths[-1], norm_eps)
        self.output = SpectralConv2d(widths[-1], out_channels, 3, padding=1, eps=eps)

    def embed(self, label: Tensor) -> Tensor:
        """What `generate` takes for the label: [N, num_shared], or the label itself."""
        return label if self.embedding is None else self.embedding(label)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.generate(noise, self.embed(label))

    def generate(self, noise: Tensor, embedded: Tensor) -> Tensor:
        """From embedded labels, which may lie between classes."""
        first, *others = noise.flatten(1).split(self.part, dim=1)
        x = self.linear(first).unflatten(1, (-1, 4, 4))
        for number, block in enumerate(self.blocks):
            y = torch.cat([embedded, others[number]], dim=1) if self.hierarchical else embedded
            x = remat(block, x, y, when=self.rematerialise == "blocks")
        return self.output(F.relu(self.norm(x))).tanh()


class GeneratorBlock(nn.Module):
    """Features [N, before, H, W] and conditions -> [N, after, 2H, 2W].

    Norm, ReLU, nearest x2, 3x3, norm, ReLU, 3x3; a 1x1 beside it; then perhaps attention."""

    def __init__(
        self,
        before: int,
        after: int,
        norm: partial[ConditionalBatchNorm],
        attention: bool,
        eps: float,
    ):
        super().__init__()
        self.first = SpectralConv2d(before, after, 3, padding=1, eps=eps)
        self.second = SpectralConv2d(after, after, 3, padding=1, eps=eps)
        self.shortcut = SpectralConv2d(before, after, 1, eps=eps)
        self.first_norm, self.second_norm = norm(before), norm(after)
        self.attention = PooledSelfAttention(after, eps=eps) if attention else nn.Identity()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.first(enlarge(F.relu(self.first_norm(x, y))))
        out = self.second(F.relu(self.second_norm(out, y)))
        return self.attention(out + self.shortcut(enlarge(x)))


def _conditional_norm(
    inputs: int, num_classes: int, norm: Norm, eps: float, norm_eps: float, channels: int
) -> ConditionalBatchNorm:
    """By linear layers on `inputs` numbers, or, where there are none, by tables of the classes."""
    gain, bias = (
        SpectralLinear(inputs, channels, bias=False, eps=eps)
        if inputs
        else ClassEmbedding(num_classes, channels)
        for _ in range(2)
    )
    return ConditionalBatchNorm(channels, gain, bias, norm, norm_eps)
