"""The generators and discriminators that the plain GANs from noise choose from, as config
sections."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from nets.discriminators.cgan import ConditionalDcganDiscriminator, ConditionalMlpDiscriminator
from nets.discriminators.dcgan import DcganDiscriminator
from nets.discriminators.mlp import MlpDiscriminator
from nets.generators.cgan import ConditionalDcganGenerator, ConditionalMlpGenerator
from nets.generators.dcgan import DcganGenerator
from nets.generators.mlp import MlpGenerator
from nets.layers.init import init_normal
from nets.layers.norms import Norm
from trainers.parts.networks import check_kind
from trainers.parts.noise_gans import NoiseSettings
from trainers.settings import Settings

Kind = Literal["dcgan", "mlp"]
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


def check_widths(settings: Settings, counts: Mapping[str, int]) -> None:
    """Raise ValueError unless these options, where they are given, have so many numbers."""
    for name, count in counts.items():
        widths = getattr(settings, name)
        if widths is not None and len(widths) != count:
            raise ValueError(f"model.{name}={list(widths)}: give {count} numbers")


class NoiseGenerator(Settings):
    """Options under `model.generator`."""

    kinds: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dcgan": ("ngf", "num_embedding"),
        "mlp": ("widths", "slope", "eps"),
    }

    kind: Kind = "dcgan"
    """dcgan: transposed convolutions from 4x4 to 7x7 pixels on; mlp: linear layers."""
    ngf: int = Field(64, ge=1)
    """Of dcgan: half of the channels of the last hidden layer; each before has twice as many."""
    num_embedding: int = Field(100, ge=1)
    """Of dcgan with classes: numbers that stand for a class, behind the noise."""
    widths: Widths = (256,)
    """Of mlp: numbers in each hidden layer."""
    slope: float = Field(0.01, ge=0)
    """Of mlp: of the leaky ReLUs."""
    eps: float = Field(1e-5, gt=0)
    """Of mlp: what its norms add to the variance."""
    norm: Norm = "sync-batch"
    """sync-batch (over all processes), batch (over a process), instance or none; an mlp has none
    in its first layer."""

    @model_validator(mode="after")
    def _options_are_of_this_kind(self) -> NoiseGenerator:
        check_kind(self, self.kind, "model.generator")
        if self.kind == "mlp" and self.norm == "instance":
            raise ValueError(
                "model.generator.norm=instance is refused for model.generator.kind=mlp, which has "
                "nothing to take a mean over: choose sync-batch, batch or none"
            )
        return self

    @property
    def min_batch(self) -> int:
        """Least images that its norms can take a mean over."""
        batched = self.norm in ("batch", "sync-batch")
        return 2 if self.kind == "mlp" and batched and len(self.widths) > 1 else 1

    def build(
        self, num_noise: int, channels: int, side: int, biased: bool, num_classes: int = 0
    ) -> nn.Module:
        """Noise [N, num_noise], and with classes ids [N] -> images [N, channels, side, side].

        biased: the last layer of dcgan has a bias."""
        shape = (channels, side, side)
        if self.kind == "mlp":
            layers = (shape, self.widths, self.slope, self.norm, self.eps)
            if num_classes:
                return ConditionalMlpGenerator(num_noise, num_classes, *layers)
            return MlpGenerator(num_noise, *layers)
        convolutions = (channels, self.ngf, side, self.norm, biased)
        if num_classes:
            return ConditionalDcganGenerator(
                num_noise, num_classes, self.num_embedding, *convolutions
            )
        return DcganGenerator(num_noise, *convolutions)


class NoiseDiscriminator(Settings):
    """Options under `model.discriminator`."""

    kinds: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dcgan": ("ndf", "norm"),
        "mlp": ("widths", "slope", "dropout"),
    }

    kind: Kind = "dcgan"
    """dcgan: convolutions that halve the sides; mlp: linear layers."""
    ndf: int = Field(64, ge=1)
    """Of dcgan: channels of the first layer; each after it has twice as many."""
    widths: Widths = (128,)
    """Of mlp: numbers in each hidden layer."""
    slope: float = Field(0.01, ge=0)
    """Of mlp: of the leaky ReLUs."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of mlp: probability of dropout in all hidden layers but the first."""
    norm: Norm = "sync-batch"
    """Of dcgan, behind all layers but the first: sync-batch (over all processes), batch (over a
    process), instance or none."""

    @model_validator(mode="after")
    def _options_are_of_this_kind(self) -> NoiseDiscriminator:
        check_kind(self, self.kind, "model.discriminator")
        return self

    def build(self, channels: int, side: int, biased: bool, num_classes: int = 0) -> nn.Module:
        """Images [N, channels, side, side], and with classes ids [N] -> scores [N].

        biased: the first layer of dcgan has a bias."""
        shape = (channels, side, side)
        if self.kind == "mlp":
            layers = (self.widths, self.slope, self.dropout)
            if num_classes:
                return ConditionalMlpDiscriminator(num_classes, shape, *layers)
            return MlpDiscriminator(prod(shape), *layers)
        convolutions = (channels, self.ndf, side, self.norm, biased)
        if num_classes:
            return ConditionalDcganDiscriminator(num_classes, *convolutions)
        return DcganDiscriminator(*convolutions)


def build_pair(
    config: NoiseSettings,
    generator: NoiseGenerator,
    discriminator: NoiseDiscriminator,
    training: bool,
    *,
    biased: bool = False,
    num_classes: int = 0,
) -> nn.ModuleDict:
    """G and, in training, D, with first weights as DCGAN's (section 4)."""
    shape = (config.channels, config.side, biased, num_classes)
    try:
        nets = nn.ModuleDict({"G": generator.build(config.num_noise, *shape)})
        if training:
            nets["D"] = discriminator.build(*shape)
    except ValueError as error:
        raise ValueError(f"model.side={config.side}: {error}") from error
    init_normal(nets, zero_bias=True)
    return nets
