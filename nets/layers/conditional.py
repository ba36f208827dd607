"""What classes do to features: they set a batch norm's gain and bias, and are compared with them.

Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR 2019
(arXiv:1809.11096), appendix B; Miyato and Koyama, cGANs with Projection Discriminator, ICLR 2018
(arXiv:1802.05637), equation 4.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.layers.norms import Norm, build_norm
from nets.layers.spectral import SpectralEmbedding, SpectralLinear, embed


class ConditionalBatchNorm(nn.Module):
    """(1 + gain(y)) * norm(x) + bias(y), norm without parameters of its own.

    x [N, channels, H, W], y whatever `gain` and `bias` turn into [N, channels] -> like x.
    """

    def __init__(
        self,
        channels: int,
        gain: nn.Module,
        bias: nn.Module,
        norm: Norm = "batch",
        eps: float = 1e-5,
    ):
        super().__init__()
        self.norm = build_norm(norm, channels, eps, affine=False)
        self.gain = gain
        self.bias = bias

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.norm(x)
        gain, bias = ((1 + self.gain(y)).to(x.dtype), self.bias(y).to(x.dtype))
        return x * gain[:, :, None, None] + bias[:, :, None, None]


class ClassEmbedding(nn.Embedding):
    """nn.Embedding that also takes the share of each class: [N] or [N, classes] -> [N, width]."""

    def forward(self, label: Tensor) -> Tensor:
        return embed(label, self.weight)


class ProjectionHead(nn.Module):
    """Features [N, width] and labels, [N] or the share of each class [N, classes] -> scores [N].

    A linear score plus <embedding of the label, features>; both weights are spectrally normalised
    unless `spectral` is off. Without classes (`num_classes=0`) the label is not looked at.
    """

    def __init__(
        self, width: int, num_classes: int, spectral: bool = True, eps: float = 1e-12
    ) -> None:
        super().__init__()
        if spectral:
            self.linear: nn.Linear = SpectralLinear(width, 1, eps=eps)
        else:
            self.linear = nn.Linear(width, 1)
        self.embedding: nn.Module | None = None
        if num_classes and spectral:
            self.embedding = SpectralEmbedding(num_classes, width, eps=eps)
        elif num_classes:
            self.embedding = ClassEmbedding(num_classes, width)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        scores = self.linear(features)[:, 0]
        if self.embedding is None:
            return scores
        return scores + (self.embedding(label) * features).sum(1)
