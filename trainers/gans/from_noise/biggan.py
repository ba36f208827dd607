"""BigGAN: images of an asked class from noise, at scale.

Brock, Donahue, Simonyan, Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR
2019 (arXiv:1809.11096), section 3 and appendices B and C; c is the class of x, z and c' are drawn:

    min_D  max(0, 1 - D(x, c)) + max(0, 1 + D(G(z, c'), c'))
    min_G  -D(G(z, c'), c') + beta |W W' * (1 - I)|^2 / 2 over its weights W              (eq. 3)

D is trained num_critic_steps times, each on a batch of its own, then G once. Truncation (section
3.1) is an option of `sample`.

Batches: see trainers.parts.noise_gans.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from nets.discriminators.biggan import ATTENTION_SIDES, BigganDiscriminator
from nets.generators.biggan import WIDTHS, BigganGenerator
from nets.layers.init import init_orthogonal
from nets.layers.norms import Norm
from nets.losses.losses import CriticLoss
from nets.losses.weights import orthogonality
from trainers.gan import Batch, Terms
from trainers.parts.noise_gans import Game, NoiseGAN, NoiseSettings
from trainers.parts.translators import number
from trainers.settings import Needs


class Config(NoiseSettings):
    """Options under `model`. Defaults are the paper's for 128x128."""

    side: Annotated[Literal[32, 64, 128, 256], BeforeValidator(number)] = 128
    """Width and height of the images; data.preprocess must give such."""
    num_noise: int = Field(120, ge=1)
    """Numbers, drawn from N(0, 1), that an image is made of."""
    num_classes: int = Field(1000, ge=1)
    """Classes of the data set."""
    ngf: int = Field(96, ge=1)
    """Channels of G at full size."""
    ndf: int = Field(96, ge=1)
    """Channels of D at full size."""
    hierarchical: bool = True
    """Give each block of G a part of the noise."""
    shared: bool = True
    """One embedding of the classes for all norms; false: gains and biases of each class."""
    num_shared: int = Field(128, ge=0)
    """Numbers of the shared embedding; 0: as many as the noise."""
    generator_attention: tuple[int, ...] | None = None
    """Sides of G's features that are followed by attention; null: 64, for 64x64 32, for 32x32 none.
    """
    discriminator_attention: tuple[int, ...] | None = None
    """The same of D."""
    num_critic_steps: int = Field(2, ge=1)
    """Updates of D, each on a batch of its own, for one of G."""
    joint: bool = True
    """D sees generated and real images as one batch; false: as two."""
    norm: Norm = "sync-batch"
    """Of G: sync-batch (over all processes), batch (over a process), instance or none."""
    norm_eps: float = Field(1e-5, gt=0)
    """What norms add to the variance."""
    spectral_eps: float = Field(1e-6, gt=0)
    """Least norm in spectral norms."""
    generator_ortho: float = Field(0.0, ge=0)
    """Weight of the orthogonality of G's weights: 1e-4 in the paper."""
    discriminator_ortho: float = Field(0.0, ge=0)
    """The same of D's."""
    memory: Literal["none", "blocks", "auto"] = "none"
    """none; blocks: each residual block is computed a second time in backward; auto: the fastest
    that fits the card."""

    @model_validator(mode="after")
    def _options_fit(self) -> Config:
        if self.hierarchical and not self.shared:
            raise ValueError("model.hierarchical=true needs model.shared=true: set it to false")
        parts = len(WIDTHS[self.side])
        if self.hierarchical and self.num_noise < parts:
            raise ValueError(
                f"model.num_noise={self.num_noise} cannot be shared by {parts} parts of G: give as "
                "many or more, or model.hierarchical=false"
            )
        check_attention(self)
        return self

    @property
    def attention(self) -> dict[str, tuple[int, ...]]:
        """Sides with attention in G and in D."""
        usual = {32: (), 64: (32,)}.get(self.side, (64,))
        given = {"G": self.generator_attention, "D": self.discriminator_attention}
        return {name: usual if sides is None else sides for name, sides in given.items()}

    @property
    def game(self) -> Game:
        """G after every so many updates of D."""
        steps = self.num_critic_steps
        return Game(every=steps, offset=steps - 1, own_noise=True)

    @property
    def classes_drawn(self) -> int:
        """All."""
        return self.num_classes

    @property
    def needs(self) -> Needs:
        """And the classes of the images."""
        return replace(super().needs, classes=self.num_classes)


def check_attention(config: Any) -> None:
    """Raise ValueError for sides at which BigGAN's networks have no block."""
    known = {
        "generator": [8 << number for number in range(len(WIDTHS[config.side]) - 1)],
        "discriminator": [*dict.fromkeys(ATTENTION_SIDES[config.side])],
    }
    for name, sides in known.items():
        for side in getattr(config, f"{name}_attention") or ():
            if side not in sides:
                raise ValueError(
                    f"model.{name}_attention={side} is no side of its features: choose from "
                    f"{', '.join(map(str, sides))}"
                )


class BigGAN(NoiseGAN):
    """`training=False` builds the generator alone."""

    gan_loss: CriticLoss = "hinge"
    conditional = True
    real_first = False
    config: Config

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.joint = config.joint
        self.nets = nn.ModuleDict({"G": _generator(config)})
        if training:
            self.nets["D"] = BigganDiscriminator(
                config.num_classes,
                config.channels,
                config.ndf,
                config.side,
                config.attention["D"],
                config.spectral_eps,
                rematerialise="blocks" if config.memory == "blocks" else "none",
                **self.heads_of(config),
            )
        init_orthogonal(self.nets)
        self.weights = {
            "D/real": 1.0,
            "D/fake": 1.0,
            "D/ortho": config.discriminator_ortho,
            "G/gan": 1.0,
            "G/ortho": config.generator_ortho,
        }

    @staticmethod
    def heads_of(config: Config) -> dict[str, bool]:
        """Heads of D beside that of the scores, as BigganDiscriminator takes them."""
        return {}

    def discriminator_terms(self, batch: Batch, drawn: Batch, fake: Tensor) -> Terms:
        return super().discriminator_terms(batch, drawn, fake) | self.orthogonality("D")

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        return super().generator_terms(drawn, fake) | self.orthogonality("G")

    def orthogonality(self, net: str) -> Terms:
        """The term of a network's weights, if it has a weight of its own; the shared embedding is
        left out, as in the authors' code."""
        term = f"{net}/ortho"
        if not self.weights[term]:
            return {}
        named = self.nets[net].named_parameters()
        own = [parameter for name, parameter in named if not name.startswith("embedding.")]
        return {term: orthogonality(own)}


def _generator(config: Config) -> BigganGenerator:
    return BigganGenerator(
        config.num_noise,
        config.num_classes,
        config.channels,
        config.ngf,
        config.side,
        hierarchical=config.hierarchical,
        shared=config.shared,
        num_shared=config.num_shared,
        attention=config.attention["G"],
        norm=config.norm,
        eps=config.spectral_eps,
        norm_eps=config.norm_eps,
        rematerialise="blocks" if config.memory == "blocks" else "none",
    )


Model = BigGAN
