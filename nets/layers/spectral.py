"""Spectral normalisation: weights divided by an estimate of their largest singular value.

Miyato et al., Spectral Normalization for Generative Adversarial Networks, ICLR 2018
(arXiv:1802.05957), algorithm 1, with one step of power iteration a pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.precise import without_autocast


class Spectral(nn.Module):
    """What the layers below share. The weight's matrix is [dim 0, all others], for transposed
    convolutions too (torch's own parametrization takes dim 1 there).

    With u kept from pass to pass: v = W'u / |W'u|, u = Wv / |Wv|, sigma = u'Wv. The gradient flows
    through W alone, u and v are constants, and no later pass touches those of an earlier one. What
    a pass has made of u is kept in training mode, also under no_grad; in eval mode it is used and
    forgotten (BigGAN), or kept where `in_eval` is set (SAGAN). `eps` is the least norm.
    """

    weight: Tensor
    u: Tensor
    track_running_stats = True
    """As in batch norms: whether what a pass learns is kept."""
    moving_buffers = ("u",)
    """Buffers that a pass starts from and moves: `remat` lets a recomputation start there again."""

    def __init__(self, *shape: Any, eps: float = 1e-12, in_eval: bool = False, **options: Any):
        """shape, options: of the layer that stands behind this class."""
        super().__init__(*shape, **options)
        self.eps, self.in_eval = eps, in_eval
        # In float32, and from noise: any vector does that is not orthogonal to the largest one.
        start = torch.randn(len(self.weight), device=self.weight.device)
        self.register_buffer("u", F.normalize(start, dim=0).to(self.weight.dtype))

    def normalised(self) -> Tensor:
        """The weight divided by its sigma, in float32 at least, also under autocast."""
        with without_autocast(self.weight.device):
            kind = torch.promote_types(self.weight.dtype, torch.float32)
            matrix = self.weight.flatten(1).to(kind)
            u, v = self._iterate(matrix.detach())
            return self.weight / (u @ (matrix @ v))

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        v = F.normalize(matrix.t() @ self.u.to(matrix.dtype), dim=0, eps=self.eps)
        u = F.normalize(matrix @ v, dim=0, eps=self.eps)
        if self.track_running_stats and (self.training or self.in_eval):
            self.u.copy_(u)
        return u, v


class SpectralConv2d(Spectral, nn.Conv2d):
    """nn.Conv2d with a spectrally normalised weight: [N, in, H, W] -> [N, out, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised(), self.bias)


class SpectralConvTranspose2d(Spectral, nn.ConvTranspose2d):
    """nn.ConvTranspose2d with a spectrally normalised weight: [N, in, H, W] -> [N, out, h, w]."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert output_size is None  # it is what stride and padding make it
        how = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return F.conv_transpose2d(x, self.normalised(), self.bias, *how)  # type: ignore[arg-type]


class SpectralLinear(Spectral, nn.Linear):
    """nn.Linear with a spectrally normalised weight: [N, in] -> [N, out]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class SpectralEmbedding(Spectral, nn.Embedding):
    """nn.Embedding with a spectrally normalised weight: see `embed`."""

    def forward(self, label: Tensor) -> Tensor:
        return embed(label, self.normalised())


def embed(label: Tensor, table: Tensor) -> Tensor:
    """Classes [N], or the share of each [N, classes], and [classes, width] -> [N, width]."""
    if label.is_floating_point():
        return label @ table
    return F.embedding(label, table)
