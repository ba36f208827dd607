"""Discriminators that score patches: PatchGAN, its pixel-sized relative, and several scales.

Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017, section
3.2 and appendix; several scales: pix2pixHD (Wang et al., CVPR 2018), section 3.2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from nets.layers.blocks import ConvBlock, downsample
from nets.layers.norms import Norm, conv_bias


class PatchDiscriminator(nn.Module):
    """[N, in_channels, H, W] -> features of every layer; the last one, [N, 1, h, w], is scores.

    With 3 layers a score sees 70x70 pixels ("basic"); 1 to 6 layers are in use, 5 or more see the
    whole of a 256x256 image ("ImageGAN"). Widths double up to `max_width`, 8 * ndf by default.
    """

    def __init__(
        self,
        in_channels: int,
        ndf: int = 64,
        num_layers: int = 3,
        norm: Norm = "instance",
        padding: int = 1,
        max_width: int | None = None,
        biased: bool = False,
    ):
        super().__init__()
        widths = [min(ndf * 2**layer, max_width or 8 * ndf) for layer in range(num_layers + 1)]
        layers = [_layer(nn.Conv2d(in_channels, ndf, 4, 2, padding), "none")]
        for layer, (before, width) in enumerate(pairwise(widths), start=1):
            stride = 2 if layer < num_layers else 1
            bias = conv_bias(norm, biased)
            conv = nn.Conv2d(before, width, 4, stride, padding, bias=bias)
            layers.append(_layer(conv, norm))
        scores = nn.Conv2d(widths[-1], 1, 4, padding=padding)
        self.layers = nn.ModuleList([*layers, ConvBlock(scores, None, norm="none")])

    def forward(self, x: Tensor, lead: Tensor | None = None) -> list[Tensor]:
        """With `lead`, x are the channels that follow a condition's."""
        if lead is None:
            return _features(self.layers, x)
        first = self._first()
        x = first.activation(_convolve(first.conv, x, first=-x.shape[1]).add_(lead))
        return [x, *_features(self.layers[1:], x)]

    def lead(self, condition: Tensor) -> Tensor:
        """The condition's part in the first convolution, [N, ndf, h, w].

        Several images can be judged beside one condition without copies of it."""
        return _convolve(self._first().conv, condition, last=condition.shape[1])

    def _first(self) -> ConvBlock:
        return cast(ConvBlock, self.layers[0])


class PixelDiscriminator(nn.Module):
    """[N, in_channels, H, W] -> features of every layer; the last one, [N, 1, H, W], is scores.

    Every pixel is judged by itself ("PixelGAN"): all convolutions are 1x1.
    """

    def __init__(self, in_channels: int, ndf: int = 64, norm: Norm = "instance"):
        super().__init__()
        bias = conv_bias(norm)
        first = _layer(nn.Conv2d(in_channels, ndf, 1), "none")
        second = _layer(nn.Conv2d(ndf, 2 * ndf, 1, bias=bias), norm)
        scores = ConvBlock(nn.Conv2d(2 * ndf, 1, 1, bias=bias), None, norm="none")
        self.layers = nn.ModuleList([first, second, scores])

    def forward(self, x: Tensor) -> list[Tensor]:
        return _features(self.layers, x)


class MultiscaleDiscriminator(nn.Module):
    """The same discriminator on `num_scales` sizes of one input, each half the one before.

    As in the original the finest scale has the highest index among the parameters, so that a
    scale added for a larger image leaves the others where they are.
    """

    def __init__(
        self,
        in_channels: int,
        ndf: int = 64,
        num_layers: int = 3,
        num_scales: int = 3,
        norm: Norm = "instance",
    ):
        super().__init__()
        shape = (in_channels, ndf, num_layers, norm)
        self.scales = nn.ModuleList(
            PatchDiscriminator(*shape, padding=2, max_width=512, biased=True)
            for _ in range(num_scales)
        )

    def at(self, level: int) -> PatchDiscriminator:
        """The discriminator of the input halved `level` times: 0 is the finest."""
        return cast(PatchDiscriminator, self.scales[len(self.scales) - 1 - level])

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Condition and image [N, in_channels, H, W] -> features by scale, the finest first."""
        outputs = [self.at(0)(x)]
        for level in range(1, len(self.scales)):
            x = downsample(x)
            outputs.append(self.at(level)(x))
        return outputs


def _layer(conv: nn.Conv2d, norm: Norm) -> ConvBlock:
    return ConvBlock(conv, nn.LeakyReLU(0.2, inplace=True), norm=norm)


def _convolve(
    conv: nn.Conv2d | nn.ConvTranspose2d,
    x: Tensor,
    first: int | None = None,
    last: int | None = None,
) -> Tensor:
    """`conv` on those input channels alone that x holds; its bias goes with the last of them."""
    bias = conv.bias if last is None else None
    assert isinstance(conv.padding, tuple)  # not "same"
    return F.conv2d(x, conv.weight[:, first:last], bias, conv.stride, conv.padding)


def _features(layers: nn.ModuleList, x: Tensor) -> list[Tensor]:
    features = []
    for layer in layers:
        x = layer(x)
        features.append(x)
    return features
