"""InfoGAN: images from noise and codes that can be read back from them.

Chen et al., InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets, NeurIPS 2016 (arXiv:1606.03657). Q reads the codes c with D's trunk:

    min_D    -log D(x) - log(1 - D(G(z, c)))
    min_G,Q  -log D(G(z, c)) + lambda_category CE(Q, c) - lambda_code log Q(c | G(z, c))    (eq. 6)

for categorical and continuous codes; G and Q are trained by the images that D saw last. Of 28x28
images values lie in [0, 1] (MNIST), of 32x32 ones in [-1, 1] (SVHN, CelebA), as in the reference.

Batches: see trainers.parts.noise_gans; also category_D [N, 1, num_categories] and code_D
[N, 1, num_codes], uniform in [0, 1). To sample: noise, category and code without the second axis;
class, if given, is the first category.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.discriminators.infogan import InfoganHead, InfoganRecogniser, InfoganTrunk
from nets.generators.infogan import InfoganGenerator
from nets.layers.init import init_normal
from nets.layers.norms import Norm
from nets.losses import codes, losses
from trainers.gan import Batch, Phase, Terms
from trainers.parts.noise_gans import Channels, NoiseGAN, NoiseSettings
from trainers.parts.noise_networks import Widths
from trainers.settings import Draw, Needs


class Config(NoiseSettings):
    """Options under `model`. Defaults are the paper's for MNIST (appendix C.1)."""

    side: Literal[28, 32] = 28
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
    """Channels of G's hidden layers: three for 28x28, four for 32x32; null: the paper's."""
    trunk_widths: Widths | None = None
    """Channels of the three layers that D and Q share; null: the paper's."""
    recogniser_width: int = Field(128, ge=1)
    """Channels of Q's hidden layer."""
    norm: Norm = "sync-batch"
    """sync-batch (over all processes), batch (over a process), instance or none."""

    @model_validator(mode="after")
    def _widths_fit_the_layers(self) -> Config:
        layers = {"generator_widths": 3 if self.side == 28 else 4, "trunk_widths": 3}
        for name, count in layers.items():
            widths = getattr(self, name)
            if widths is not None and len(widths) != count:
                raise ValueError(f"model.{name}={list(widths)}: give {count} numbers")
        return self

    @property
    def draws(self) -> tuple[Draw, ...]:
        """Noise and codes of the one pass of G in a step."""
        return tuple(Draw(f"{d.name}_D", (1, *d.shape), d.distribution) for d in self.of_a_sample)

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
        return replace(super().needs, samples=self.of_a_sample, sample_classes=self.num_classes)


class InfoGAN(NoiseGAN):
    """Networks: G; trunk, head (of D) and Q. `training=False` builds the generator alone."""

    config: Config
    gan_loss: losses.CriticLoss = "bce"

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        num_logits = config.num_categories * config.num_classes
        num_inputs = config.num_noise + num_logits + config.num_codes
        shape, norm = (config.channels, config.side), config.norm
        g = InfoganGenerator(num_inputs, *shape, config.generator_widths, norm)
        self.nets = nn.ModuleDict({"G": g})
        if training:
            trunk = self.nets["trunk"] = InfoganTrunk(*shape, config.trunk_widths, norm)
            features = trunk.width, 1 if config.side == 28 else 4
            self.nets["head"] = InfoganHead(*features)
            read = num_logits, config.num_codes
            self.nets["Q"] = InfoganRecogniser(*read, *features, config.recogniser_width, norm)
        init_normal(self.nets, zero_bias=True)
        self.weights = {
            "D/real": 1.0,
            "D/fake": 1.0,
            "G/gan": 1.0,
            "G/category": config.lambda_category,
            "G/code": config.lambda_code,
        }

    def phases(self, images: int) -> tuple[Phase, ...]:
        return Phase("D", ("trunk", "head")), Phase("G", ("G", "Q"))

    def prepare(self, batch: Batch) -> Batch:
        prepared = super().prepare(batch)
        for name in prepared.keys() & {"category", "category_D"}:
            prepared[name] = (batch[name].double() * self.config.num_classes).long()
        for name in prepared.keys() & {"code", "code_D"}:
            prepared[name] = 2 * prepared[name] - 1
        if "image" in prepared and self.from_zero:
            prepared["image"] = (prepared["image"] + 1) / 2
        return prepared

    @property
    def from_zero(self) -> bool:
        """Whether values of images lie in [0, 1]."""
        return self.config.side == 28

    def generate(self, drawn: Batch) -> Tensor:
        category = F.one_hot(drawn["category"], self.config.num_classes).flatten(1)
        parts = [drawn["noise"], category.to(drawn["noise"]), drawn.get("code")]
        return self.nets["G"](torch.cat([part for part in parts if part is not None], dim=1))

    def scores(self, image: Tensor, about: Batch) -> Tensor:
        return self.nets["head"](self.nets["trunk"](image))

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        """The trunk and the head are not trained here."""
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


Model = InfoGAN
