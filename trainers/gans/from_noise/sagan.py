"""SAGAN: images from noise, with attention over the whole picture and spectral norms in both
networks.

Zhang, Goodfellow, Metaxas, Odena, Self-Attention Generative Adversarial Networks, ICML 2019
(arXiv:1805.08318), sections 3 and 4; z' is new noise, c' a new class:

    min_D  max(0, 1 - D(x, c)) + max(0, 1 + D(G(z, c), c))                                (eq. 4)
    min_G  -D(G(z', c'), c')

D learns faster (two time scales): optim.players. Without classes the networks are those of
heykeetae's code, with classes those of BigGAN without its shared embedding. With gan_loss=wgangp,
of the former, D is trained twice a step: by the distance, and by the gradient penalty alone.

Batches: see trainers.parts.noise_gans.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.discriminators.biggan import BigganDiscriminator
from nets.discriminators.sagan import SaganDiscriminator
from nets.generators.biggan import WIDTHS, BigganGenerator
from nets.generators.sagan import SaganGenerator
from nets.layers.init import init_orthogonal
from nets.layers.norms import Norm
from trainers.gan import Batch, Phase, Terms
from trainers.gans.from_noise import biggan
from trainers.parts.noise_gans import Game, NoiseGAN, NoiseSettings
from trainers.settings import Draw, Needs


class Config(NoiseSettings):
    """Options under `model`. Defaults are those of the paper's networks without classes."""

    num_noise: int = Field(128, ge=1)
    """Numbers, drawn from N(0, 1), that an image is made of."""
    num_classes: int = Field(0, ge=0)
    """Classes of the data set; 0: none are read."""
    ngf: int = Field(64, ge=1)
    """Channels of G at full size."""
    ndf: int = Field(64, ge=1)
    """Channels of D at full size."""
    generator_attention: tuple[int, ...] | None = None
    """Sides of G's features that are followed by attention; null: the last two hidden ones without
    classes, with classes 32, and none at 32x32."""
    discriminator_attention: tuple[int, ...] | None = None
    """The same of D; null: the last two without classes, else as G's."""
    norm: Norm = "sync-batch"
    """Of G: sync-batch (over all processes), batch (over a process), instance or none."""
    gan_loss: Literal["hinge", "wgangp"] = "hinge"
    """hinge, or wgangp (Wasserstein, with a gradient penalty in an update of its own)."""
    lambda_gp: float = Field(10.0, gt=0)
    """Weight of the gradient penalty (wgangp)."""
    spectral_eps: float = Field(1e-12, gt=0)
    """Least norm in spectral norms."""

    @model_validator(mode="after")
    def _options_fit(self) -> Config:
        if self.num_classes and self.side not in WIDTHS:
            raise ValueError(
                f"model.side={self.side}: with classes choose {', '.join(map(str, WIDTHS))}"
            )
        if self.num_classes:
            biggan.check_attention(self)
        if self.num_classes and self.gan_loss != "hinge":
            raise ValueError("model.gan_loss=wgangp belongs to model.num_classes=0: choose hinge")
        return self

    @property
    def only_alone(self) -> str:
        """The penalty's update leaves D's last bias without a gradient."""
        reason = "the update by the penalty alone (wgangp) gives one parameter of D no gradient"
        return reason if self.gan_loss == "wgangp" else ""

    @property
    def game(self) -> Game:
        """Each on noise of its own."""
        return Game(own_noise=True)

    @property
    def classes_drawn(self) -> int:
        """All."""
        return self.num_classes

    @property
    def draws(self) -> tuple[Draw, ...]:
        """And where between real and generated images the penalty is taken."""
        penalised = self.gan_loss == "wgangp"
        return super().draws + ((Draw("share", (1, 1, 1), "uniform"),) if penalised else ())

    @property
    def needs(self) -> Needs:
        """And the classes of the images, if they have any."""
        return replace(super().needs, classes=self.num_classes or None)


class Sagan(NoiseGAN):
    """`training=False` builds the generator alone."""

    config: Config

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.gan_loss = config.gan_loss
        self.conditional = self.joint = bool(config.num_classes)
        self.penalised = config.gan_loss == "wgangp"
        build = _with_classes if config.num_classes else _without_classes
        self.nets = build(config, training)
        init_orthogonal(self.nets)
        self.weights = {"D/real": 1.0, "D/fake": 1.0, "G/gan": 1.0, "D/gp": config.lambda_gp}

    def phases(self, images: int) -> tuple[Phase, ...]:
        return Phase("D", ("D",), repeats=2 if self.penalised else 1), Phase("G", ("G",))

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        if phase == "G" or not self.penalised:
            return super().losses(phase, batch, carry)
        drawn = self.drawn(batch, "D", 0)
        if "fake" in carry:
            terms = {"D/gp": self.penalty(batch, drawn, carry["fake"], batch["share"])}
            return self.total(terms), terms, {}
        fake = self.made_for_d(drawn, 0)
        terms = self.discriminator_terms(batch, drawn, fake)
        return self.total(terms), terms, {"fake": fake}


def _without_classes(config: Config, training: bool) -> nn.ModuleDict:
    shape, eps = (config.channels, config.ngf, config.side), config.spectral_eps
    made = (config.generator_attention, config.norm, eps)
    nets = nn.ModuleDict({"G": SaganGenerator(config.num_noise, *shape, *made)})
    if training:
        judged = (config.channels, config.ndf, config.side, config.discriminator_attention, eps)
        nets["D"] = SaganDiscriminator(*judged)
    return nets


def _with_classes(config: Config, training: bool) -> nn.ModuleDict:
    side: Any = config.side
    usual = (32,) if config.side > 32 else ()
    made, judged = (
        usual if sides is None else sides
        for sides in (config.generator_attention, config.discriminator_attention)
    )
    nets = nn.ModuleDict(
        {
            "G": BigganGenerator(
                config.num_noise,
                config.num_classes,
                config.channels,
                config.ngf,
                side,
                hierarchical=False,
                shared=False,
                attention=made,
                norm=config.norm,
                eps=config.spectral_eps,
            )
        }
    )
    if training:
        sizes = (config.num_classes, config.channels, config.ndf, side)
        nets["D"] = BigganDiscriminator(*sizes, judged, config.spectral_eps)
    return nets


Model = Sagan
