"""The pieces that the networks are built from: convolution, instance norm, activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nets.remat import Remat, remat


def downsample(x: Tensor) -> Tensor:
    """[N, C, H, W] -> half the size, rounded up; the border averages only what lies inside."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def instance_norm(x: Tensor, activation: nn.Module | None = None) -> Tensor:
    """Instance norm without affine or running statistics, then `activation` (may be in place).

    `F.instance_norm` ends in a view, and an in-place activation on a view copies the whole tensor
    again in backward. Batch norm over [1, N * C, H, W] is the same function and no view; the
    activation is applied before the batch is folded out again.
    """
    batch, channels, height, width = x.shape
    flat = x if batch == 1 else x.reshape(1, batch * channels, height, width)
    flat = F.batch_norm(flat, None, None, training=True)
    flat = flat if activation is None else activation(flat)
    return flat if batch == 1 else flat.view(batch, channels, height, width)


class ConvBlock(nn.Module):
    """[reflection padding] -> convolution -> [instance norm] -> [activation]."""

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        activation: nn.Module | None,
        reflect: int = 0,
        norm: bool = True,
    ):
        super().__init__()
        self.conv = conv
        self.activation = activation
        self.reflect = reflect
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        if self.reflect:
            x = F.pad(x, (self.reflect,) * 4, mode="reflect")
        x = self.conv(x)
        if self.norm:
            return instance_norm(x, self.activation)
        return x if self.activation is None else self.activation(x)


class ResidualBlock(nn.Module):
    """x + conv3(relu(conv3(x))), normalised, reflection padded: [N, C, H, W] -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvBlock(nn.Conv2d(channels, channels, 3), nn.ReLU(inplace=True), reflect=1)
        self.second = ConvBlock(nn.Conv2d(channels, channels, 3), None, reflect=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class Hourglass(nn.Module):
    """Down by 2 ** num_downsamples, residual blocks there, up again.

    [N, in_channels, H, W] -> [N, width, H, W]; H and W are multiples of 2 ** num_downsamples.
    `inject` is added to the features before the residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        num_downsamples: int,
        num_blocks: int,
        rematerialise: Remat = "none",
    ):
        super().__init__()
        widths = [width * 2**level for level in range(num_downsamples + 1)]
        pairs = list(zip(widths, widths[1:]))
        self.down = nn.Sequential(
            ConvBlock(nn.Conv2d(in_channels, width, 7), nn.ReLU(inplace=True), reflect=3),
            *(_halve(narrow, wide) for narrow, wide in pairs),
        )
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1]) for _ in range(num_blocks))
        self.up = nn.Sequential(*(_double(wide, narrow) for narrow, wide in reversed(pairs)))
        self.rematerialise = rematerialise

    def forward(self, x: Tensor, inject: Tensor | None = None) -> Tensor:
        pieces = self.rematerialise == "whole"
        x = remat(self.down, x, when=pieces)
        if inject is not None:
            x = x + inject
        for block in self.blocks:
            x = remat(block, x, when=pieces or self.rematerialise == "blocks")
        return remat(self.up, x, when=pieces)


def output_layer(width: int, out_channels: int) -> ConvBlock:
    """[N, width, H, W] -> [N, out_channels, H, W] in [-1, 1]."""
    return ConvBlock(nn.Conv2d(width, out_channels, 7), nn.Tanh(), reflect=3, norm=False)


def _halve(narrow: int, wide: int) -> ConvBlock:
    return ConvBlock(nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.ReLU(inplace=True))


def _double(wide: int, narrow: int) -> ConvBlock:
    conv = nn.ConvTranspose2d(wide, narrow, 3, stride=2, padding=1, output_padding=1)
    return ConvBlock(conv, nn.ReLU(inplace=True))
