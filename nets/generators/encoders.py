"""Encoder of the instance-wise features that steer an object's look (section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.layers.blocks import Hourglass, output_layer
from nets.layers.norms import Norm


class Encoder(nn.Module):
    """Image [N, in_channels, H, W] -> features [N, out_channels, h, w], constant per instance.

    `inst` [N, 1, h, w] holds instance ids, or label ids where a look is one of a label; the image
    may reach beyond it at the right and bottom (padding up to a multiple of `stride`), and what
    lies there is dropped before pooling.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 16,
        num_downsamples: int = 4,
        norm: Norm = "instance",
    ):
        super().__init__()
        shape = (in_channels, ngf, num_downsamples)
        self.trunk = Hourglass(*shape, num_blocks=0, norm=norm, biased=True)
        self.head = output_layer(ngf, out_channels)
        self.stride = 2**num_downsamples

    def forward(self, image: Tensor, inst: Tensor) -> Tensor:
        height, width = inst.shape[-2:]
        features = self.head(self.trunk(image))[..., :height, :width]
        return pool_instances(features, inst)


def pool_instances(features: Tensor, inst: Tensor) -> Tensor:
    """Mean of `features` [N, C, H, W] over each instance of `inst` [N, 1, H, W], put back in place.

    Sorting numbers the instances without asking the device how many there are, so the host never
    waits. Sums are taken in float64: an instance may cover all pixels of a picture.
    """
    batch, channels, height, width = features.shape
    segment = _number_instances(inst)
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels).double()
    sums = torch.zeros_like(pixels).index_add(0, segment, pixels)
    sizes = pixels.new_zeros(len(pixels)).index_add_(0, segment, pixels.new_ones(len(pixels)))
    means = (sums / sizes.clamp(min=1)[:, None])[segment].to(features.dtype)
    return means.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _number_instances(inst: Tensor) -> Tensor:
    """[N, 1, H, W] ids -> [N * H * W] numbers from 0, one for each pair (sample, id)."""
    ids = inst.long().flatten(1)
    samples = torch.arange(len(ids), device=ids.device)[:, None]
    keys = (ids + (samples << 32)).flatten()
    ordered, order = keys.sort()
    starts = torch.zeros_like(ordered)
    starts[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(ordered).scatter_(0, order, starts.cumsum(0))
