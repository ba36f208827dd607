"""The U-Net of pix2pix.

Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017, section
3.1 and appendix.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.blocks import ConvBlock, Upsampling
from nets.layers.norms import Norm, conv_bias


class UnetGenerator(nn.Module):
    """[N, in_channels, H, W] -> image [N, out_channels, H, W] in [-1, 1].

    Each of `num_downsamples` levels (8: unet_256, 7: unet_128) halves the sides on the way down,
    doubles them on the way up, and hands what it saw across; without `skips` it is the plain
    encoder-decoder. `dropout` is a rate, applied on the way up at the widest levels. Raises
    ValueError where H or W is no multiple of `stride`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        ngf: int = 64,
        num_downsamples: int = 8,
        norm: Norm = "batch",
        dropout: float = 0.0,
        skips: bool = True,
        upsampling: Upsampling = "transposed",
    ):
        super().__init__()
        widths = [min(ngf * 2**level, ngf * 8) for level in range(num_downsamples)]
        deepest = num_downsamples - 1
        self.downs = nn.ModuleList(
            _down(before, width, norm, outermost=level == 0, innermost=level == deepest)
            for level, (before, width) in enumerate(pairwise([in_channels, *widths]))
        )
        self.ups = nn.ModuleList()
        for level in range(deepest, 0, -1):
            before = widths[level] * (2 if skips and level < deepest else 1)
            # The original leaves the innermost level and the four outermost without dropout.
            rate = dropout if 4 <= level < deepest else 0.0
            self.ups.append(
                _up(before, widths[level - 1], None, norm, rate, upsampling, conv_bias(norm))
            )
        before = widths[0] * (2 if skips and deepest else 1)
        self.ups.append(_up(before, out_channels, nn.Tanh(), "none", 0.0, upsampling, bias=True))
        self.skips = skips
        self.stride = 2**num_downsamples

    def forward(self, condition: Tensor) -> Tensor:
        _check_sides(condition, len(self.downs))
        passed, x = [], condition
        for down in self.downs:
            x = down(x)
            passed.append(x)
        x = self.ups[0](passed.pop())
        for up in self.ups[1:]:
            seen = passed.pop()
            x = up(F.relu_(torch.cat([seen, x], dim=1) if self.skips else x))
        return x


def _down(in_channels: int, width: int, norm: Norm, outermost: bool, innermost: bool) -> ConvBlock:
    """Convolution, norm and the activation that the original puts before the next convolution.

    What crosses over is this output: the original activates in place, and the ReLU on the way up
    takes away the difference that the leak makes."""
    conv = nn.Conv2d(in_channels, width, 4, stride=2, padding=1, bias=conv_bias(norm))
    relu = nn.ReLU(inplace=True) if innermost else nn.LeakyReLU(0.2, inplace=True)
    return ConvBlock(conv, relu, norm="none" if outermost or innermost else norm)


def _up(
    in_channels: int,
    width: int,
    activation: nn.Module | None,
    norm: Norm,
    dropout: float,
    upsampling: Upsampling,
    bias: bool,
) -> ConvBlock:
    if upsampling == "resize":
        near = nn.Conv2d(in_channels, width, 3, bias=bias)
        return ConvBlock(near, activation, 1, norm, dropout, enlarge=True)
    conv = nn.ConvTranspose2d(in_channels, width, 4, stride=2, padding=1, bias=bias)
    return ConvBlock(conv, activation, 0, norm, dropout)


def _check_sides(condition: Tensor, num_halvings: int) -> None:
    height, width = condition.shape[-2:]
    stride = 2**num_halvings
    if height % stride == 0 and width % stride == 0:
        return
    fewer = [max(side // stride, 1) * stride for side in (width, height)]
    more = [-(-side // stride) * stride for side in (width, height)]
    fits = dict.fromkeys(f"{width}x{height}" for width, height in (fewer, more))
    raise ValueError(
        f"{width}x{height} images do not fit this U-Net, which halves their sides "
        f"{num_halvings} times; the nearest sizes that fit: {' and '.join(fits)}"
    )
