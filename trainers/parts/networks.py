"""The generators and discriminators that CycleGAN and pix2pix choose from, as config sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.discriminators.patch import PatchDiscriminator, PixelDiscriminator
from nets.generators.pix2pixhd import ResnetGenerator, Upsampling
from nets.generators.unet import UnetGenerator
from nets.layers.conditioning import pad_to_multiple
from nets.layers.norms import Norm, per_sample, unsynced, untracked
from nets.memory.remat import Remat
from trainers.settings import Settings


def check_kind(settings: Settings, kind: str, section: str) -> None:
    """ValueError for an option that only another kind of network understands."""
    fields = type(settings).model_fields
    foreign = {name for own in settings.kinds.values() for name in own} - {*settings.kinds[kind]}
    for name in sorted(foreign):
        if getattr(settings, name) != fields[name].default:
            raise ValueError(
                f"`{section}.{name}` is {getattr(settings, name)!r}, but {section}.kind={kind} has "
                "no such option: leave it out"
            )


class Generator(Settings):
    """Options under `model.generator`."""

    kinds: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "resnet": ("num_downsamples", "num_blocks"),
        "unet": ("num_downsamples",),
        "encoder-decoder": ("num_downsamples",),
    }

    kind: Literal["resnet", "unet", "encoder-decoder"] = "resnet"
    """resnet (Johnson et al.), unet, or encoder-decoder: the U-Net without its skips."""
    ngf: int = Field(64, ge=1)
    """Width at full size."""
    num_downsamples: int | None = Field(None, ge=1, le=12)
    """Number of times that sides are halved. null: 2 for resnet, 8 (down to 1 from 256) else."""
    num_blocks: int = Field(9, ge=1)
    """Number of residual blocks of a resnet; the papers use 6 at 128x128 and 9 from 256x256 on."""
    norm: Norm = "instance"
    """instance, batch (over a process), sync-batch (over all processes) or none."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropout: in the residual blocks, or on a U-Net's way up at the levels between
    its innermost and its four outermost ones."""
    upsampling: Upsampling = "transposed"
    """transposed convolution (the papers), or resize and convolve (no checkerboards)."""
    pad: bool = False
    """Repeat the border of images whose sides a U-Net cannot halve so often, and cut the result;
    otherwise they are refused. A resnet always does."""

    @model_validator(mode="after")
    def _options_are_of_this_kind(self) -> Generator:
        check_kind(self, self.kind, "model.generator")
        return self

    @model_validator(mode="after")
    def _dropout_has_a_place(self) -> Generator:
        if self.dropout and self.kind != "resnet" and self.halvings <= 5:
            raise ValueError(
                f"model.generator.dropout={self.dropout} has no place in a U-Net of "
                f"{self.halvings} halvings, which needs more than 5: set it to 0"
            )
        return self

    @property
    def halvings(self) -> int:
        """How often sides are halved."""
        return self.num_downsamples or (2 if self.kind == "resnet" else 8)

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side must have: a resnet reflects borders at its narrowest."""
        return 2**self.halvings + 1 if self.kind == "resnet" else 1

    @property
    def multiple(self) -> int:
        """Sides that are not multiples of this are refused."""
        return 1 if self.kind == "resnet" or self.pad else 2**self.halvings

    def build(
        self, in_channels: int = 3, out_channels: int = 3, rematerialise: Remat = "none"
    ) -> nn.Module:
        """Image [N, in_channels, H, W] -> image [N, out_channels, H, W]."""
        sizes = (in_channels, out_channels, self.ngf, self.halvings)
        if self.kind == "resnet":
            return ResnetGenerator(
                *sizes, self.num_blocks, self.norm, self.dropout, self.upsampling, rematerialise
            )
        skips = self.kind == "unet"
        return UnetGenerator(*sizes, self.norm, self.dropout, skips, self.upsampling)


class Discriminator(Settings):
    """Options under `model.discriminator`."""

    kinds: ClassVar[Mapping[str, tuple[str, ...]]] = {"patch": ("num_layers",), "pixel": ()}

    kind: Literal["patch", "pixel"] = "patch"
    """patch: judges overlapping patches; pixel: every pixel by itself."""
    ndf: int = Field(64, ge=1)
    """Width of the first layer."""
    num_layers: int = Field(3, ge=1, le=6)
    """Depth of patch: 1 sees patches of 16 pixels, 3 of 70, 5 and 6 (ImageGAN) of 286 and 574."""
    norm: Norm = "instance"
    """instance, batch (over a process), sync-batch (over all processes) or none."""

    @model_validator(mode="after")
    def _options_are_of_this_kind(self) -> Discriminator:
        check_kind(self, self.kind, "model.discriminator")
        return self

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side must have."""
        # The last two convolutions take a pixel each, and two must be left to be normalised.
        return 3 * 2**self.num_layers if self.kind == "patch" else 2

    def build(self, in_channels: int) -> nn.Module:
        """Image [N, in_channels, H, W] -> features, the last of them scores."""
        if self.kind == "pixel":
            return PixelDiscriminator(in_channels, self.ndf, self.norm)
        return PatchDiscriminator(in_channels, self.ndf, self.num_layers, self.norm)


Network = Callable[[Tensor], Tensor]


def fitted(network: nn.Module, image: Tensor, pad: bool) -> Tensor:
    """network(image), with `pad` also for sides that are no multiples of the network's stride."""
    if not pad:
        return _as_inputs_are(network(image))
    height, width = image.shape[-2:]
    stride = network.stride
    assert isinstance(stride, int)
    made = network(pad_to_multiple(image, stride))
    return _as_inputs_are(made)[..., :height, :width]


def _as_inputs_are(made: Tensor) -> Tensor:
    """One channel comes out of a convolution with the strides of a contiguous image; whoever judges
    it would run in that layout, and the real ones in channels_last."""
    return made.to(memory_format=torch.channels_last) if made.shape[1] == 1 else made


def run(network: Network, images: list[Tensor], norm: Norm) -> list[Tensor]:
    """network(image) of each: one call for all where `norm` keeps samples apart, and sizes agree.

    A large batch costs no more launches than a small one."""
    if not per_sample(norm) or len({image.shape[1:] for image in images}) > 1:
        return [network(image) for image in images]
    return list(network(torch.cat(images)).split([len(image) for image in images]))


@contextmanager
def at_test(network: nn.Module, dropout: bool, batch_statistics: bool) -> Iterator[None]:
    """Within the block `network` translates as asked, and keeps no trace of it.

    dropout: draw, as in training; batch_statistics: normalise by the batch at hand, not by what
    was gathered in training. No other process takes part."""
    before = {layer: layer.training for layer in network.modules()}
    for layer in before:
        if isinstance(layer, nn.Dropout):
            layer.training = dropout
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.training = batch_statistics
    try:
        with untracked(network), unsynced(network):
            yield
    finally:
        for layer, training in before.items():
            layer.training = training
