"""Self-attention over the pixels of a feature map.

Zhang et al., Self-Attention Generative Adversarial Networks, ICML 2019 (arXiv:1805.08318), section
3; the pooled form is BigGAN's (arXiv:1809.11096).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.spectral import SpectralConv2d


class SelfAttention(nn.Module):
    """x + gamma * attended values, [N, channels, H, W] -> the same; gamma starts at 0.

    Every pixel looks at every other: 1x1 convolutions with biases, an eighth of the channels for
    queries and keys (ValueError below 8). The map of weights is [N, H * W, H * W].
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        narrow = _eighth(channels)
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def weights(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, pixels that look, pixels looked at]; each row's sum is 1."""
        return attention_weights(self.query(x), self.key(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma.to(x.dtype) * attended(self.weights(x), self.value(x), x)


class PooledSelfAttention(nn.Module):
    """x + gamma * output(attended values), [N, channels, H, W] -> the same; gamma starts at 0.

    Keys and values are the largest of 2x2 pixels (H and W are even), values half the channels; no
    biases. Convolutions are spectrally normalised unless `spectral` is off. ValueError below 8
    channels.
    """

    def __init__(self, channels: int, spectral: bool = True, eps: float = 1e-12):
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(0.0))
        narrow, half = _eighth(channels), channels // 2
        self.query = _pointwise(channels, narrow, spectral, eps)
        self.key = _pointwise(channels, narrow, spectral, eps)
        self.value = _pointwise(channels, half, spectral, eps)
        self.output = _pointwise(half, channels, spectral, eps)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)
        weights = attention_weights(query, F.max_pool2d(key, 2))
        out = self.output(attended(weights, F.max_pool2d(value, 2), x))
        return x + self.gamma.to(x.dtype) * out


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """Queries [N, C, H, W] and keys [N, C, h, w] -> [N, H * W, h * w], softmax over the keys."""
    return torch.bmm(query.flatten(2).transpose(1, 2), key.flatten(2)).softmax(dim=-1)


def attended(weights: Tensor, value: Tensor, like: Tensor) -> Tensor:
    """Weights [N, H * W, h * w], values [N, C, h, w] -> [N, C, H, W], the size of `like`."""
    out = torch.bmm(value.flatten(2), weights.transpose(1, 2).to(value.dtype))
    return out.unflatten(2, like.shape[2:])


def _eighth(channels: int) -> int:
    if channels < 8:
        raise ValueError(f"attention takes an eighth of the channels, and {channels} are too few")
    return channels // 8


def _pointwise(before: int, after: int, spectral: bool, eps: float) -> nn.Conv2d:
    options: dict[str, Any] = dict(kernel_size=1, bias=False)
    if spectral:
        return SpectralConv2d(before, after, eps=eps, **options)
    return nn.Conv2d(before, after, **options)
