"""CoGAN: pairs of images in two domains from one noise, learnt from images that are not paired.

Liu and Tuzel, Coupled Generative Adversarial Networks, NeurIPS 2016 (arXiv:1606.07536), section 3;
the generators share all but their last layers, the discriminators all but their first:

    min_D  CE(D(a), real) + CE(D(b), real) + CE(D(G_a(z)), fake) + CE(D(G_b(z)), fake)     (eq. 4)
    min_G  CE(D(G_a(z')), real) + CE(D(G_b(z')), real)

each a mean over both domains, z' new noise. The paper's decay of all weights is optim.weight_decay.
form=enlarging is PyTorch-GAN's: least squares, a mean over all terms, the discriminators share all
but their last layers, and G comes before D, which judges the same images.

Batches: a and b, uint8 [N, C, side, side], drawn independently; the noise as in
trainers.parts.noise_gans.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.discriminators.cogan import CoganDiscriminator, StridedCoganDiscriminator
from nets.generators.cogan import CoganGenerator, EnlargingCoganGenerator
from nets.layers.init import init_normal
from nets.layers.norms import Norm
from nets.losses import codes, losses
from trainers.gan import Batch, Terms
from trainers.parts.noise_gans import Channels, Game, NoiseGAN, NoiseSettings
from trainers.parts.noise_networks import Widths, check_widths
from trainers.settings import Needs


class Config(NoiseSettings):
    """Options under `model`. Defaults are those of the authors' code."""

    form: Literal["original", "enlarging"] = "original"
    """original: the authors' networks, of 28x28; enlarging: PyTorch-GAN's, of multiples of 16."""
    side: int = Field(28, ge=16)
    """Width and height of the images; data.preprocess must give such."""
    channels: Channels = 1
    """1 for grey images, 3 for RGB."""
    generator_widths: Widths | None = None
    """Channels of the generators' layers, four (original) or two; null: the paper's."""
    discriminator_widths: Widths | None = None
    """Channels of the discriminators' layers, three (original) or four; null: the paper's."""
    dropout: float = Field(0.25, ge=0, lt=1)
    """Probability that the discriminators drop a channel (enlarging)."""
    norm: Norm = "sync-batch"
    """Of the generators: sync-batch (over all processes), batch (over a process), instance or
    none."""

    @model_validator(mode="after")
    def _sizes_fit_the_form(self) -> Config:
        if self.side != 28 if self.original else self.side % 16:
            raise ValueError(
                f"model.side={self.side}: model.form=original makes 28, enlarging a multiple of 16"
            )
        layers = {"generator_widths": 4, "discriminator_widths": 3}
        if not self.original:
            layers = {"generator_widths": 2, "discriminator_widths": 4}
        check_widths(self, layers)
        return self

    @property
    def original(self) -> bool:
        """Whether the networks are the authors'."""
        return self.form == "original"

    @property
    def game(self) -> Game:
        """Each on noise of its own, or G first."""
        return Game(own_noise=self.original, generator_first=not self.original)

    @property
    def needs(self) -> Needs:
        """Two sets, drawn independently."""
        both = dict.fromkeys(("a", "b"), self.channels)
        least = 1 if self.original else 2  # the features of D come down to one pixel
        return replace(super().needs, layout="unpaired", channels=both, min_batch=least)


class CoGAN(NoiseGAN):
    """`training=False` builds the generators alone."""

    config: Config

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        nets = _original(config) if config.original else _enlarging(config)
        self.nets = nn.ModuleDict(nets if training else {"G": nets["G"]})
        init_normal(self.nets, zero_bias=True)
        share = 1.0 if config.original else 0.5
        self.weights = {"D/real": share, "D/fake": share, "G/gan": 1.0}

    def prepare(self, batch: Batch) -> Batch:
        """Values of images lie in [0, 1] in the original."""
        prepared = super().prepare(batch)
        if self.config.original:
            prepared |= {name: (prepared[name] + 1) / 2 for name in prepared.keys() & {"a", "b"}}
        return prepared

    def generate(self, drawn: Batch) -> Tensor:
        """Both domains, [2, N, channels, side, side]."""
        return torch.stack(self.nets["G"](drawn["noise"]))

    def discriminator_terms(self, batch: Batch, drawn: Batch, fake: Tensor) -> Terms:
        real = torch.stack([batch["a"], batch["b"]])
        return {"D/real": self.judged(real, True), "D/fake": self.judged(fake, False)}

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        return {"G/gan": self.judged(fake, True)}

    def judged(self, images: Tensor, real: bool) -> Tensor:
        """How far D is from taking images of both domains [2, N, C, H, W] for real ones, or not."""
        found = self.nets["D"](*images)
        if self.config.original:
            return codes.two_class_loss(found[0], real)
        return losses.discriminator_loss(torch.cat(found), real, "lsgan")

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        """Both domains side by side."""
        images = torch.cat(list(self.generate(batch)), dim=3)
        return 2 * images - 1 if self.config.original else images


def _original(config: Config) -> dict[str, nn.Module]:
    own, shared, wide = config.discriminator_widths or (20, 50, 500)
    made = config.generator_widths or (1024, 512, 256, 128)
    return {
        "G": CoganGenerator(config.num_noise, config.channels, made, config.norm),
        "D": CoganDiscriminator(config.channels, (own, shared, wide)),
    }


def _enlarging(config: Config) -> dict[str, nn.Module]:
    first, second = config.generator_widths or (128, 64)
    widths = config.discriminator_widths or (16, 32, 64, 128)
    shape = config.channels, config.side
    return {
        "G": EnlargingCoganGenerator(config.num_noise, *shape, (first, second), config.norm),
        "D": StridedCoganDiscriminator(*shape, widths, config.norm, config.dropout),
    }


Model = CoGAN
