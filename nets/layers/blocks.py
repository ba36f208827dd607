"""The pieces that the networks are built from: convolution, norm, activation, residual blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.norms import InstanceNorm, Norm, build_norm, conv_bias
from nets.memory.remat import Remat, remat

Upsampling = Literal["transposed", "resize"]
"""Transposed convolution, as in the papers, or nearest x2 and a convolution, which leaves no
checkerboard (Odena et al., Deconvolution and Checkerboard Artifacts, Distill 2016)."""


def halvings(side: int) -> tuple[int, int]:
    """(smallest side, 4 to 7, and how often it is doubled to become `side`).

    Raises ValueError where there is no such side."""
    count = max(side // 4, 1).bit_length() - 1
    if count and side % 2**count == 0:
        return side >> count, count
    lower = (side >> count) << count
    fits = [fit for fit in (lower, lower + 2**count) if fit >= 8]
    raise ValueError(
        f"images of {side}x{side} do not fit: sides must be 4, 5, 6 or 7 doubled some times; "
        f"the nearest that fit: {' and '.join(map(str, fits or [8]))}"
    )


def downsample(x: Tensor) -> Tensor:
    """[N, C, H, W] -> half the size, rounded up; the border averages only what lies inside."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def reflection_pad(x: Tensor, border: int) -> Tensor:
    """[N, C, H, W] -> with `border` more pixels at each side, mirrored at the outermost ones.

    It stays channels_last, which torch's own kernel for CUDA leaves, and with it all that follows:
    on an H200, 2048x1024 in bf16, pix2pixHD's step took 130 ms so, and takes 88."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return pad_pixels(x, border) if last and x.is_cuda else F.pad(x, (border,) * 4, mode="reflect")


def pad_pixels(x: Tensor, border: int) -> Tensor:
    """`reflection_pad` of a channels_last tensor, as the volume [N, H, W, C] that it lies as."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *(border,) * 4), mode="reflect")
    return padded.permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """[nearest x2] -> [reflection padding] -> conv -> [norm] -> [activation] -> [dropout]."""

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        activation: nn.Module | None,
        reflect: int = 0,
        norm: Norm | nn.Module = "instance",
        dropout: float = 0.0,
        enlarge: bool = False,
    ):
        super().__init__()
        self.conv = conv
        self.norm = build_norm(norm, conv.out_channels) if isinstance(norm, str) else norm
        self.activation = activation or nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.reflect = reflect
        self.enlarge = enlarge

    def forward(self, x: Tensor) -> Tensor:
        if self.enlarge:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.reflect:
            x = reflection_pad(x, self.reflect)
        x = self.conv(x)
        if isinstance(self.norm, InstanceNorm):
            x = self.norm(x, self.activation)
        else:
            x = self.activation(self.norm(x))
        return self.dropout(x)


class LinearBlock(nn.Module):
    """linear -> [norm] -> [dropout] -> activation: [N, in] -> [N, out]."""

    def __init__(
        self,
        linear: nn.Linear,
        activation: nn.Module,
        norm: Norm = "none",
        eps: float = 1e-5,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.linear = linear
        self.norm = build_norm(norm, linear.out_features, eps)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.linear(x)[:, :, None, None]).flatten(1)
        return self.activation(self.dropout(x))


class ResidualBlock(nn.Module):
    """x + conv3([dropout](relu(conv3(x)))), normalised, reflection padded: [N, C, H, W] -> same."""

    def __init__(
        self, channels: int, norm: Norm = "instance", dropout: float = 0.0, biased: bool = False
    ):
        super().__init__()
        bias = conv_bias(norm, biased)
        first, second = (nn.Conv2d(channels, channels, 3, bias=bias) for _ in range(2))
        self.first = ConvBlock(first, nn.ReLU(inplace=True), 1, norm, dropout)
        self.second = ConvBlock(second, None, 1, norm)

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
        norm: Norm = "instance",
        dropout: float = 0.0,
        upsampling: Upsampling = "transposed",
        biased: bool = False,
    ):
        super().__init__()
        widths = [width * 2**level for level in range(num_downsamples + 1)]
        pairs = list(pairwise(widths))
        self.down = nn.Sequential(
            _input_layer(in_channels, width, norm, biased),
            *(_halve(narrow, wide, norm, biased) for narrow, wide in pairs),
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(widths[-1], norm, dropout, biased) for _ in range(num_blocks)
        )
        self.up = nn.Sequential(
            *(_double(wide, narrow, norm, upsampling, biased) for narrow, wide in reversed(pairs))
        )
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
    return ConvBlock(nn.Conv2d(width, out_channels, 7), nn.Tanh(), reflect=3, norm="none")


def _input_layer(in_channels: int, width: int, norm: Norm, biased: bool) -> ConvBlock:
    conv = nn.Conv2d(in_channels, width, 7, bias=conv_bias(norm, biased))
    return ConvBlock(conv, nn.ReLU(inplace=True), reflect=3, norm=norm)


def _halve(narrow: int, wide: int, norm: Norm, biased: bool) -> ConvBlock:
    conv = nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=conv_bias(norm, biased))
    return ConvBlock(conv, nn.ReLU(inplace=True), norm=norm)


def _double(wide: int, narrow: int, norm: Norm, upsampling: Upsampling, biased: bool) -> ConvBlock:
    relu, bias = nn.ReLU(inplace=True), conv_bias(norm, biased)
    if upsampling == "resize":
        near = nn.Conv2d(wide, narrow, 3, bias=bias)
        return ConvBlock(near, relu, reflect=1, norm=norm, enlarge=True)
    conv = nn.ConvTranspose2d(wide, narrow, 3, 2, padding=1, output_padding=1, bias=bias)
    return ConvBlock(conv, relu, norm=norm)
