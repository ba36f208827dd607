"""CGAN: images of an asked class from noise.

Mirza and Osindero, Conditional Generative Adversarial Nets, 2014 (arXiv:1411.1784):

    min_D  1/2 [ real(D(x, y)) + fake(D(G(z, y'), y')) ]                                  (eq. 2)
    min_G  gan(D(G(z, y'), y'))

With gan_loss=wgangp the weights of D are 1, and it has a gradient penalty. Defaults are those of
PyTorch-GAN: least squares, G before D. y' is drawn, or that of the real images.

Batches: see trainers.parts.noise_gans; class is y.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from nets.layers.norms import Norm
from nets.losses import losses
from trainers.gan import Batch
from trainers.parts.critics import Critic, PenaltySettings
from trainers.parts.noise_gans import Channels, Game, NoiseGAN
from trainers.parts.noise_networks import NoiseGenerator, Widths, build_pair
from trainers.settings import Needs


class ClassGenerator(NoiseGenerator):
    """Four hidden layers, their norms with a large eps."""

    kind: Literal["dcgan", "mlp"] = "mlp"
    """mlp: linear layers; dcgan: transposed convolutions."""
    widths: Widths = (128, 256, 512, 1024)
    """Of mlp: numbers in each hidden layer."""
    slope: float = Field(0.2, ge=0)
    """Of mlp: of the leaky ReLUs."""
    eps: float = Field(0.8, gt=0)
    """Of mlp: what its norms add to the variance."""


class ClassDiscriminator(Critic):
    """Three hidden layers."""

    kind: Literal["dcgan", "mlp"] = "mlp"
    """mlp: linear layers; dcgan: convolutions that halve the sides."""
    widths: Widths = (512, 512, 512)
    """Of mlp: numbers in each hidden layer."""
    slope: float = Field(0.2, ge=0)
    """Of mlp: of the leaky ReLUs."""
    dropout: float = Field(0.4, ge=0, lt=1)
    """Of mlp: probability of dropout in all hidden layers but the first."""
    norm: Norm = "instance"
    """Of dcgan, behind all layers but the first: instance, none, batch (over a process) or
    sync-batch (over all processes, not with a gradient penalty)."""


class Config(PenaltySettings):
    """Options under `model`. Defaults are for 32x32."""

    side: int = Field(32, ge=4)
    """Width and height of the images; data.preprocess must give such."""
    channels: Channels = 1
    """1 for grey images, 3 for RGB."""
    num_classes: int = Field(10, ge=1)
    """Classes of the data set."""
    generator: ClassGenerator = ClassGenerator()
    discriminator: ClassDiscriminator = ClassDiscriminator()
    gan_loss: losses.CriticLoss = "lsgan"
    """lsgan, bce (cross-entropy with logits), hinge, or wgangp (Wasserstein, with a gradient
    penalty)."""
    num_critic_steps: int = Field(1, ge=1)
    """Updates of D for one of G."""
    generator_first: bool = True
    """Train G before D, which then judges the same images."""
    generated_classes: Literal["drawn", "real"] = "drawn"
    """Classes of generated images: drawn, or those of the real images of the batch."""

    @model_validator(mode="after")
    def _one_update_of_d_where_g_is_first(self) -> Config:
        if self.generator_first and self.num_critic_steps > 1:
            raise ValueError(
                f"model.num_critic_steps={self.num_critic_steps} is refused with "
                "model.generator_first=true, where D judges the images that G was trained by: set "
                "model.generator_first=false"
            )
        return self

    @property
    def game(self) -> Game:
        """G first, or as of a critic."""
        return Game(generator_first=True) if self.generator_first else super().game

    @property
    def penalised(self) -> bool:
        """Whether there is a gradient penalty."""
        return self.gan_loss == "wgangp" and self.lambda_gp > 0

    @property
    def classes_drawn(self) -> int:
        """All of them, unless the real images give theirs."""
        return self.num_classes if self.generated_classes == "drawn" else 0

    @property
    def needs(self) -> Needs:
        """And the classes of the images."""
        classes, least = self.num_classes, self.generator.min_batch
        return replace(super().needs, classes=classes, sample_classes=classes, min_batch=least)


class ConditionalGAN(NoiseGAN):
    """`training=False` builds the generator alone."""

    conditional = True

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.gan_loss, self.penalised = config.gan_loss, config.penalised
        pair = config.generator, config.discriminator
        biased, classes = config.gan_loss == "wgangp", config.num_classes
        self.nets = build_pair(config, *pair, training, biased=biased, num_classes=classes)
        share = 1.0 if config.gan_loss == "wgangp" else 0.5
        self.weights = {"D/real": share, "D/fake": share, "G/gan": 1.0, "D/gp": config.lambda_gp}

    def drawn(self, batch: Batch, phase: str, turn: int) -> Batch:
        return {"class": batch["class"]} | super().drawn(batch, phase, turn)


Model = ConditionalGAN
