"""Generators of residual blocks: CycleGAN's, and pix2pixHD's coarse-to-fine ones.

Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV
2017, appendix. Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with
Conditional GANs, CVPR 2018, section 3.1: the global generator G1 and local enhancers around it.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.layers.blocks import Hourglass, Upsampling, downsample, output_layer
from nets.layers.norms import Norm
from nets.memory.remat import Remat, remat


class ResnetGenerator(nn.Module):
    """[N, in_channels, H, W] -> image [N, out_channels, H, W] in [-1, 1].

    CycleGAN's generator with 2 halvings and 9 blocks (6 for 128x128 images), pix2pixHD's global
    generator with 4. H and W must be multiples of `stride`. `dropout` is a rate, applied inside
    each residual block. Everything but the output layer is the `trunk`, which a LocalEnhancer of
    half the width continues to use.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        ngf: int = 64,
        num_downsamples: int = 2,
        num_blocks: int = 9,
        norm: Norm = "instance",
        dropout: float = 0.0,
        upsampling: Upsampling = "transposed",
        rematerialise: Remat = "none",
        biased: bool = False,
    ):
        super().__init__()
        shape = (in_channels, ngf, num_downsamples, num_blocks)
        self.trunk = Hourglass(*shape, rematerialise, norm, dropout, upsampling, biased)
        self.head = output_layer(ngf, out_channels)
        self.stride = 2**num_downsamples
        self.rematerialise = rematerialise

    def forward(self, condition: Tensor) -> Tensor:
        _check_sides(condition, self.stride)
        if self.rematerialise == "halves":
            return remat(self._way_up, remat(self._way_down, condition))
        return remat(self.head, self.trunk(condition), when=self.rematerialise == "whole")

    def _way_down(self, condition: Tensor) -> Tensor:
        x = self.trunk.down(condition)
        for block in self.trunk.blocks:
            x = block(x)
        return x

    def _way_up(self, features: Tensor) -> Tensor:
        return self.head(self.trunk.up(features))


class LocalEnhancer(nn.Module):
    """A global trunk on the smallest scale and `num_enhancers` enhancers, each doubling the size.

    [N, in_channels, H, W] -> image [N, out_channels, H, W] in [-1, 1]; H and W must be multiples
    of `stride`. `ngf` is the width at full size, ngf * 2 ** num_enhancers that of the trunk. All
    convolutions have biases.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        ngf: int = 32,
        num_downsamples: int = 4,
        num_blocks: int = 9,
        num_enhancers: int = 1,
        num_local_blocks: int = 3,
        rematerialise: Remat = "none",
        norm: Norm = "instance",
    ):
        super().__init__()
        shape = (in_channels, ngf * 2**num_enhancers, num_downsamples, num_blocks)
        self.trunk = Hourglass(*shape, rematerialise, norm, biased=True)
        self.enhancers = Enhancers(
            in_channels, out_channels, ngf, num_enhancers, num_local_blocks, rematerialise, norm
        )
        self.stride = 2 ** (num_downsamples + num_enhancers)
        self.rematerialise = rematerialise

    def forward(self, condition: Tensor) -> Tensor:
        _check_sides(condition, self.stride)
        pyramid = [condition]
        for _ in self.enhancers.levels:
            pyramid.append(downsample(pyramid[-1]))
        features = remat(self.trunk, pyramid.pop(), when=self.rematerialise == "halves")
        return self.enhancers(features, pyramid)


class Enhancers(nn.Module):
    """All that a LocalEnhancer adds to the global trunk, the output layer included."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ngf: int,
        num_enhancers: int,
        num_local_blocks: int,
        rematerialise: Remat,
        norm: Norm,
    ):
        super().__init__()
        widths = [ngf * 2**level for level in reversed(range(num_enhancers))]
        self.levels = nn.ModuleList(
            Hourglass(in_channels, width, 1, num_local_blocks, rematerialise, norm, biased=True)
            for width in widths
        )
        self.head = output_layer(ngf, out_channels)
        self.rematerialise = rematerialise

    def forward(self, features: Tensor, pyramid: list[Tensor]) -> Tensor:
        """`pyramid`: the condition at the size of each level, the largest (last level) first."""
        halves, pieces = self.rematerialise == "halves", self.rematerialise == "whole"
        for level, condition in zip(self.levels[:-1], pyramid[:0:-1], strict=True):
            features = remat(level, condition, features, when=halves)
        if halves:
            return remat(self._finish, pyramid[0], features)
        return remat(self.head, self.levels[-1](pyramid[0], features), when=pieces)

    def _finish(self, condition: Tensor, features: Tensor) -> Tensor:
        return self.head(self.levels[-1](condition, features))


def _check_sides(condition: Tensor, stride: int) -> None:
    height, width = condition.shape[-2:]
    assert height % stride == 0 and width % stride == 0, f"{width}x{height} against {stride}"
    if min(height, width) == stride:
        raise ValueError(
            f"{width}x{height} images are too small for this generator, which divides sides by "
            f"{stride} and needs 2 pixels there: use larger images or fewer num_downsamples"
        )
