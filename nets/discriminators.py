"""Patch discriminators of pix2pixHD on several scales (section 3.2 of the paper)."""

from __future__ import annotations

from torch import Tensor, nn

from nets.blocks import ConvBlock, downsample

MAX_WIDTH = 512


class PatchDiscriminator(nn.Module):
    """[N, in_channels, H, W] -> features of every layer; the last one, [N, 1, h, w], is scores."""

    def __init__(self, in_channels: int, ndf: int = 64, num_layers: int = 3):
        super().__init__()
        widths = [min(ndf * 2**layer, MAX_WIDTH) for layer in range(num_layers + 1)]
        layers = [_layer(in_channels, ndf, stride=2, norm=False)]
        for layer, (before, width) in enumerate(zip(widths, widths[1:]), start=1):
            layers.append(_layer(before, width, stride=2 if layer < num_layers else 1))
        scores = nn.Conv2d(widths[-1], 1, 4, padding=2)
        self.layers = nn.ModuleList([*layers, ConvBlock(scores, None, norm=False)])

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


class MultiscaleDiscriminator(nn.Module):
    """The same discriminator on `num_scales` sizes of one input, each half the one before.

    As in the original the finest scale has the highest index among the parameters, so that a
    scale added for a larger image leaves the others where they are.
    """

    def __init__(
        self, in_channels: int, ndf: int = 64, num_layers: int = 3, num_scales: int = 3
    ):
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(in_channels, ndf, num_layers) for _ in range(num_scales)
        )

    def at(self, level: int) -> PatchDiscriminator:
        """The discriminator of the input halved `level` times: 0 is the finest."""
        return self.scales[len(self.scales) - 1 - level]

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Condition and image [N, in_channels, H, W] -> features by scale, the finest first."""
        outputs = [self.at(0)(x)]
        for level in range(1, len(self.scales)):
            x = downsample(x)
            outputs.append(self.at(level)(x))
        return outputs


def _layer(in_channels: int, width: int, stride: int, norm: bool = True) -> ConvBlock:
    conv = nn.Conv2d(in_channels, width, 4, stride=stride, padding=2)
    return ConvBlock(conv, nn.LeakyReLU(0.2, inplace=True), norm=norm)
