"""GAN: images from noise, the first of its kind, with linear layers.

Goodfellow et al., Generative Adversarial Networks, NeurIPS 2014 (arXiv:1406.2661), with the losses
that section 3 recommends:

    min_D  1/2 [ -log D(x) - log(1 - D(G(z))) ]                                           (eq. 1)
    min_G  -log D(G(z)), of the images that D saw last

Batches: see trainers.parts.noise_gans.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from nets.layers.norms import Norm
from nets.losses import losses
from trainers.parts.noise_gans import Channels, Game, NoiseGAN, NoiseSettings
from trainers.parts.noise_networks import NoiseDiscriminator, NoiseGenerator, build_pair
from trainers.settings import Needs


class LinearGenerator(NoiseGenerator):
    """One hidden layer, without norm."""

    kind: Literal["dcgan", "mlp"] = "mlp"
    """mlp: linear layers; dcgan: transposed convolutions."""
    norm: Norm = "none"
    """none, sync-batch (over all processes), batch (over a process) or instance; an mlp has none
    in its first layer."""


class LinearDiscriminator(NoiseDiscriminator):
    """One hidden layer."""

    kind: Literal["dcgan", "mlp"] = "mlp"
    """mlp: linear layers; dcgan: convolutions that halve the sides."""


class Config(NoiseSettings):
    """Options under `model`. Defaults are for 28x28 digits."""

    side: int = Field(28, ge=4)
    """Width and height of the images; data.preprocess must give such."""
    channels: Channels = 1
    """1 for grey images, 3 for RGB."""
    num_noise: int = Field(64, ge=1)
    """Numbers, drawn from N(0, 1), that an image is made of."""
    generator: LinearGenerator = LinearGenerator()
    discriminator: LinearDiscriminator = LinearDiscriminator()
    gan_loss: losses.GanLoss = "bce"
    """bce (cross-entropy with logits), lsgan or hinge."""
    generator_first: bool = False
    """Train G before D, which then judges the same images."""

    @property
    def game(self) -> Game:
        """One update of each."""
        return Game(generator_first=self.generator_first)

    @property
    def needs(self) -> Needs:
        """Enough images for G's norms."""
        return replace(super().needs, min_batch=self.generator.min_batch)


class PlainGAN(NoiseGAN):
    """`training=False` builds the generator alone."""

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.gan_loss = config.gan_loss
        self.nets = build_pair(config, config.generator, config.discriminator, training)
        self.weights = {"D/real": 0.5, "D/fake": 0.5, "G/gan": 1.0}


Model = PlainGAN
