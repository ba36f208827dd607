"""InfoGAN: images from noise and codes that can be read back from them.

Chen et al., InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets, NeurIPS 2016 (arXiv:1606.03657). Q reads the codes c with D's trunk:

    min_D    -log D(x) - log(1 - D(G(z, c)))
    min_G,Q  -log D(G(z, c)) + lambda_category CE(Q, c) - lambda_code log Q(c | G(z, c))    (eq. 6)

for categorical and continuous codes; G and Q are trained by the images that D saw last. Of 28x28
images values lie in [0, 1] (MNIST), of 32x32 ones in [-1, 1] (SVHN, CelebA), as in the reference.

form=three-heads is PyTorch-GAN's: least squares, G before D, and a third update for G and D on
images of its own, lambda_category CE(D, c) + lambda_code |D - c|^2.

Batches: see trainers.parts.noise_gans; also category_D [N, 1, num_categories] and code_D
[N, 1, num_codes], uniform in [0, 1); with three heads noise, category and code for INFO, without
the second axis. To sample: the same for none; class, if given, is the first category.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.discriminators.infogan import (
    InfoganHead,
    InfoganRecogniser,
    InfoganTrunk,
    ThreeHeadedDiscriminator,
)
from nets.generators.infogan import EnlargingGenerator, InfoganGenerator
from nets.layers.init import init_normal
from nets.layers.norms import Norm
from nets.losses import codes, losses
from trainers.gan import Batch, Phase, Terms
from trainers.parts.noise_gans import Channels, Game, NoiseGAN, NoiseSettings
from trainers.parts.noise_networks import Widths, check_widths
from trainers.settings import Draw, Needs


class Config(NoiseSettings):
    """Options under `model`. Defaults are the paper's for MNIST (appendix C.1)."""

    form: Literal["original", "three-heads"] = "original"
    """original: the paper's networks, of 28x28 or 32x32; three-heads: PyTorch-GAN's, of any
    multiple of 16."""
    side: int = Field(28, ge=16)
    """Width and height of the images; data.preprocess must give such."""
    channels: Channels = 1
    """1 for grey images, 3 for RGB."""
    num_noise: int = Field(62, ge=1)
    """Numbers, drawn from N(0, 1), that an image is made of beside its codes."""
    num_categories: int = Field(1, ge=1)
    """Categorical codes."""
    num_classes: int = Field(10, ge=2)
    """Values of each of them."""
    num_codes: int = Field(2, ge=0)
    """Continuous codes, uniform in [-1, 1]."""
    lambda_category: float = Field(1.0, ge=0)
    """Weight of the information in categorical codes."""
    lambda_code: float = Field(0.1, ge=0)
    """Weight of the information in continuous codes."""
    generator_widths: Widths | None = None
    """Channels of G's hidden layers: three for 28x28, four for 32x32, two with three heads; null:
    the paper's."""
    trunk_widths: Widths | None = None
    """Channels of the layers that D and Q share, three, or four with three heads; null: the
    paper's."""
    recogniser_width: int = Field(128, ge=1)
    """Channels of Q's hidden layer (original)."""
    dropout: float = Field(0.25, ge=0, lt=1)
    """Probability that D drops a channel (three-heads)."""
    norm: Norm = "sync-batch"
    """sync-batch (over all processes), batch (over a process), instance or none."""

    @model_validator(mode="after")
    def _sizes_fit_the_form(self) -> Config:
        if self.three_heads and (self.side % 16 or self.num_categories > 1):
            raise ValueError(
                f"model.form=three-heads takes a side that is a multiple of 16, and one category: "
                f"model.side={self.side} and model.num_categories={self.num_categories} do not fit"
            )
        if self.norm == "instance":
            raise ValueError(
                "model.norm=instance is refused: features of one pixel have nothing to take a mean "
                "over; choose sync-batch, batch or none"
            )
        if not self.three_heads and self.side not in (28, 32):
            raise ValueError(f"model.side={self.side}: model.form=original makes 28 or 32")
        check_widths(self, self.layers)
        return self

    @property
    def three_heads(self) -> bool:
        """Whether the networks are PyTorch-GAN's."""
        return self.form == "three-heads"

    @property
    def only_alone(self) -> str:
        """INFO trains what G and D train."""
        reason = "two players train the same networks, whose gradients each would synchronise"
        return reason if self.three_heads else ""

    @property
    def layers(self) -> dict[str, int]:
        """How many widths each option takes."""
        if self.three_heads:
            return {"generator_widths": 2, "trunk_widths": 4}
        return {"generator_widths": 3 if self.side == 28 else 4, "trunk_widths": 3}

    @property
    def game(self) -> Game:
        """With three heads G comes first."""
        return Game(generator_first=self.three_heads)

    @property
    def draws(self) -> tuple[Draw, ...]:
        """Noise and codes of the one pass of G in a step, or of both."""
        once = [Draw(f"{d.name}_D", (1, *d.shape), d.distribution) for d in self.of_a_sample]
        again = (Draw(f"{d.name}_INFO", d.shape, d.distribution) for d in self.of_a_sample)
        return (*once, *again) if self.three_heads else tuple(once)

    @property
    def of_a_sample(self) -> tuple[Draw, ...]:
        """The random numbers of one image."""
        kinds = {"noise": self.num_noise, "category": self.num_categories, "code": self.num_codes}
        return tuple(
            Draw(name, (count,), "normal" if name == "noise" else "uniform")
            for name, count in kinds.items()
            if count
        )

    @property
    def needs(self) -> Needs:
        """Images without classes; a sample's first category may be chosen."""
        made: dict[str, Any] = {"samples": self.of_a_sample, "min_batch": 2}
        return replace(super().needs, sample_classes=self.num_classes, **made)


class InfoGAN(NoiseGAN):
    """Networks: G; trunk, head (of D) and Q, or D. `training=False` builds the generator alone."""

    players: ClassVar[tuple[str, ...]] = ("G", "D", "INFO")
    config: Config

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.gan_loss = "lsgan" if config.three_heads else "bce"
        nets = _three_heads(config) if config.three_heads else _original(config)
        self.nets = nn.ModuleDict(nets if training else {"G": nets["G"]})
        init_normal(self.nets, zero_bias=True)
        share, player = (0.5, "INFO") if config.three_heads else (1.0, "G")
        self.weights = {
            "D/real": share,
            "D/fake": share,
            "G/gan": 1.0,
            f"{player}/category": config.lambda_category,
            f"{player}/code": config.lambda_code,
        }

    def phases(self, images: int) -> tuple[Phase, ...]:
        if self.config.three_heads:
            return Phase("G", ("G",)), Phase("D", ("D",)), Phase("INFO", ("G", "D"))
        return Phase("D", ("trunk", "head")), Phase("G", ("G", "Q"))

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        if phase != "INFO":
            return super().losses(phase, batch, carry)
        drawn = self.drawn(batch, "INFO", 0)
        _, category, code = self.nets["D"](self.generate(drawn))
        terms = {"INFO/category": codes.category_loss(category, drawn["category"])}
        if "code" in drawn:
            terms["INFO/code"] = losses.squared(code, drawn["code"])
        return self.total(terms), terms, {}

    def prepare(self, batch: Batch) -> Batch:
        prepared = super().prepare(batch)
        for name in batch:
            if name.startswith("category"):
                prepared[name] = (batch[name].double() * self.config.num_classes).long()
            elif name.startswith("code"):
                prepared[name] = 2 * prepared[name] - 1
        if "image" in prepared and self.from_zero:
            prepared["image"] = (prepared["image"] + 1) / 2
        return prepared

    @property
    def from_zero(self) -> bool:
        """Whether values of images lie in [0, 1]."""
        return self.config.side == 28 and not self.config.three_heads

    def generate(self, drawn: Batch) -> Tensor:
        category = F.one_hot(drawn["category"], self.config.num_classes).flatten(1)
        parts = [drawn["noise"], category.to(drawn["noise"]), drawn.get("code")]
        return self.nets["G"](torch.cat([part for part in parts if part is not None], dim=1))

    def scores(self, image: Tensor, about: Batch) -> Tensor:
        if self.config.three_heads:
            return self.nets["D"](image)[0]
        return self.nets["head"](self.nets["trunk"](image))

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        """The trunk and the head are not trained here."""
        if self.config.three_heads:
            return super().generator_terms(drawn, fake)
        features = self.nets["trunk"](fake)
        logits, mean, variance = self.nets["Q"](features)
        terms = {
            "G/gan": losses.generator_loss(self.nets["head"](features), self.gan_loss),
            "G/category": codes.category_loss(logits, drawn["category"]),
        }
        if "code" in drawn:
            terms["G/code"] = codes.normal_nll(drawn["code"], mean, variance)
        return terms

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        if "class" in batch:
            others = batch["category"][:, 1:]
            batch = batch | {"category": torch.cat([batch["class"][:, None], others], dim=1)}
        image = self.generate(batch)
        return 2 * image - 1 if self.from_zero else image


def _original(config: Config) -> dict[str, nn.Module]:
    num_logits = config.num_categories * config.num_classes
    num_inputs = config.num_noise + num_logits + config.num_codes
    side: Any = config.side
    g = InfoganGenerator(num_inputs, config.channels, side, config.generator_widths, config.norm)
    trunk = InfoganTrunk(config.channels, side, config.trunk_widths, config.norm)
    features = trunk.width, 1 if side == 28 else 4
    sizes = (num_logits, config.num_codes, *features, config.recogniser_width)
    q = InfoganRecogniser(*sizes, config.norm)
    return {"G": g, "trunk": trunk, "head": InfoganHead(*features), "Q": q}


def _three_heads(config: Config) -> dict[str, nn.Module]:
    num_inputs = config.num_noise + config.num_classes + config.num_codes
    shape = config.channels, config.side
    first, second = config.generator_widths or (128, 64)
    widths = config.trunk_widths or (16, 32, 64, 128)
    g = EnlargingGenerator(num_inputs, *shape, (first, second), config.norm)
    read = config.num_classes, config.num_codes
    d = ThreeHeadedDiscriminator(*read, *shape, widths, config.norm, config.dropout)
    return {"G": g, "D": d}


Model = InfoGAN
