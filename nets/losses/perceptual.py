"""Perceptual loss: distance between the features that a frozen VGG finds in two images.

Johnson et al., Perceptual Losses for Real-Time Style Transfer, ECCV 2016, with the layers and
weights of pix2pixHD: relu1_1 to relu5_1 at 1/32, 1/16, 1/8, 1/4 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.losses.losses import l1
from nets.memory.remat import remat

VggName = Literal["vgg16", "vgg19"]

NUM_CONVS: dict[VggName, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3), "vgg19": (2, 2, 4, 4)}
"""Convolutions before each of the first four poolings; relu5_1 follows one more."""
WIDTHS = (64, 128, 256, 512, 512)
SLICE_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)

STRIP_ROWS = 256
HALO = 80
"""relu5_1 sees 70 rows beyond its own; rounded up to a multiple of its stride of 16."""


class Vgg(nn.Module):
    """The five slices of a VGG that end in relu1_1, ..., relu5_1, frozen; keys as torchvision's.

    Images [N, 3, H, W] in [-1, 1]; `normalise` maps them to ImageNet statistics first (the
    original pix2pixHD does not).
    """

    def __init__(self, name: VggName, normalise: bool = False):
        super().__init__()
        self.name = name
        self.normalise = normalise
        self.features = nn.ModuleDict()
        self.slices = self._build(NUM_CONVS[name])
        self.requires_grad_(False)
        self._cast: tuple[Any, dict[str, tuple[Tensor, Tensor]]] | None = None

    def _build(self, num_convs: tuple[int, ...]) -> nn.ModuleList:
        """Fills `features` and returns the slices."""
        slices: list[list[str]] = [[]]
        index, before = 0, 3
        for width, convs in zip(WIDTHS, (*num_convs, 1), strict=True):
            for number in range(convs):
                self.features[str(index)] = nn.Conv2d(before, width, 3, padding=1)
                slices[-1].append(str(index))
                if number == 0:
                    slices.append([])
                index, before = index + 2, width
            slices[-1].append("pool")
            index += 1
        return nn.ModuleList(Slice(layers) for layers in slices[:-1])

    def slice(self, index: int, x: Tensor) -> Tensor:
        """Features after slice `index` (0 to 4), given those after the slice before."""
        if index == 0 and self.normalise:
            x = _imagenet(x)
        weights = self._weights(x)
        layers = self.slices[index]
        assert isinstance(layers, Slice)
        return layers(x, {name: weights[name] for name in layers.convs})

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, H, W] -> five features, the last [N, 512, H // 16, W // 16]."""
        features, x = [], image
        for index in range(len(self.slices)):
            x = self.slice(index, x)
            features.append(x)
        return features

    def _weights(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight and bias by layer, in the image's dtype.

        Autocast would cast frozen weights again at each call; the copies are kept instead."""
        kind = (x.device, x.dtype)
        if self._cast is None or self._cast[0] != kind:
            weights = {name: _cast(conv, x.dtype) for name, conv in self.features.items()}
            self._cast = kind, weights
        return self._cast[1]


def _cast(conv: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    return conv.weight.to(dtype), conv.bias.to(dtype)


class Slice(nn.Module):
    """Convolutions with ReLU, and poolings; the parameters are the network's."""

    def __init__(self, layers: list[str]):
        """layers: names of convolutions, or "pool"."""
        super().__init__()
        self.layers = layers
        self.convs = [name for name in layers if name != "pool"]

    def forward(self, x: Tensor, weights: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """weights: weight and bias by name of the convolution."""
        for name in self.layers:
            if name == "pool":
                x = F.max_pool2d(x, 2)
            else:
                x = F.relu_(F.conv2d(x, *weights[name], padding=1))
        return x


def vgg_from(name: VggName, given: dict[str, Tensor], normalise: bool = False) -> Vgg:
    """Vgg with the weights of a state dict in torchvision's naming.

    Raises ValueError when it is that of another network."""
    with torch.device("meta"):
        vgg = Vgg(name, normalise)
    own = vgg.state_dict()
    for key, wanted in own.items():
        if key not in given:
            raise ValueError(f"is not a {name} in torchvision's naming: it has no {key}")
        if given[key].shape != wanted.shape:
            raise ValueError(
                f"is not a {name}: {key} has shape {tuple(given[key].shape)}, "
                f"{name} needs {tuple(wanted.shape)}"
            )
    # Nothing was drawn for the weights, so the random state is the same with and without a VGG.
    kind, plain = torch.float32, torch.contiguous_format
    copies = {key: given[key].to(kind, copy=True, memory_format=plain) for key in own}
    vgg.load_state_dict(copies, assign=True)
    return vgg


@dataclass(frozen=True)
class Strip:
    """Rows `start` to `stop` of an image, cut out with a margin: rows `top` to `bottom`."""

    start: int
    stop: int
    top: int
    bottom: int


def strips(height: int) -> Iterator[Strip]:
    """Strips that cover `height` rows, with margins that make their own features exact."""
    for start in range(0, height, STRIP_ROWS):
        stop = min(start + STRIP_ROWS, height)
        yield Strip(start, stop, max(start - HALO, 0), min(stop + HALO, height))


def perceptual_loss(
    vgg: Vgg, fake: Tensor, real: Tensor, strip: Strip | None = None, slices: bool = False
) -> Tensor:
    """Weighted sum over the slices of mean |features of fake - features of real|.

    Both images are [N, 3, H, W]; with `strip` the result is that strip's share of the loss of the
    whole image. `slices` recomputes each slice in backward. Real and fake advance side by side, so
    that of the real features only one slice is in memory.
    """
    height = real.shape[-2]
    strip = strip or Strip(0, height, 0, height)
    fake, real = _rows(fake, strip.top, strip.bottom), _rows(real, strip.top, strip.bottom)
    shares = []
    for index, weight in enumerate(SLICE_WEIGHTS):
        with torch.no_grad():
            real = vgg.slice(index, real)
        fake = remat(vgg.slice, index, fake, when=slices)
        first, last = (strip.start - strip.top) >> index, (strip.stop - strip.top) >> index
        count = real[:, :, 0].numel() * (height >> index)
        shares.append(weight * l1(_rows(fake, first, last), _rows(real, first, last), count))
    return torch.stack(shares).sum()


def _rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows first to last - 1 of [N, C, H, W]; all of them without a copy in backward."""
    return x if (first, last) == (0, x.shape[-2]) else x[..., first:last, :]


def _imagenet(image: Tensor) -> Tensor:
    mean = image.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    std = image.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return ((image + 1) / 2 - mean) / std
