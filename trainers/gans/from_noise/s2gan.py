"""S2GAN: BigGAN where few images have a label and D tells the class of the others; S3GAN.

Lucic, Tschannen, Ritter, Zhai, Bachem, Gelly, High-Fidelity Image Generation With Fewer Labels,
ICML 2019 (arXiv:1903.02271), sections 2.2 (co-training) and 2.3 (with turned images, S3GAN). A
linear classifier C on D's last features gives images x without label the likeliest class, through
which no gradient flows:

    min_D  hinge as BigGAN's, with c or C(x) + lambda_class CE(C(x), c) over labelled images
           + real_turns CE(T(turned x), turn)
    min_G  -D(G(z, c'), c') + fake_turns CE(T(turned G), turn)

T, linear too, tells by how many quarter turns the last images of a batch were turned. Which images
keep their label follows from the seed and their keys.

Batches: see trainers.parts.noise_gans; class is -1 where there is no label.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.losses import codes, losses
from trainers.gan import Batch, Terms
from trainers.gans.from_noise import biggan
from trainers.settings import Needs


class Config(biggan.Config):
    """Options under `model`: BigGAN's, and what is known of the classes."""

    labelled: float = Field(0.1, gt=0, le=1)
    """Share of the images whose label is used: 0.05, 0.1 and 0.2 in the paper."""
    soft: bool = False
    """Give images without label the share of each class, not the likeliest one alone."""
    lambda_class: float = Field(1.0, ge=0)
    """Weight of the classifier's cross-entropy."""
    turned: float = Field(0.0, ge=0, le=1)
    """Share of a batch that the images judged by their turn make up (S3GAN: 0.5, a quarter of
    them upright); 0: there are none."""
    real_turns: float = Field(0.5, ge=0)
    """Weight of the turns of real images, in D."""
    fake_turns: float = Field(0.2, ge=0)
    """Weight of the turns of generated images, in G."""

    @model_validator(mode="after")
    def _heads_see_one_batch(self) -> Config:
        if not self.joint:
            raise ValueError("model.joint=false is refused: D's classifier sees one batch")
        return self

    @property
    def needs(self) -> Needs:
        """The classes of some images, and enough of them to turn one at least."""
        least = ceil(4 / self.turned) if self.turned else 1
        return replace(super().needs, unlabelled=1 - self.labelled, min_batch=least)


class S2GAN(biggan.BigGAN):
    """`training=False` builds the generator alone."""

    config: Config

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config, training)
        self.weights |= {
            "D/class": config.lambda_class,
            "D/turn": config.real_turns,
            "G/turn": config.fake_turns,
        }

    @staticmethod
    def heads_of(config: biggan.Config) -> dict[str, bool]:
        assert isinstance(config, Config)
        return {"classifier": True, "turns": config.turned > 0}

    def static_parts(self) -> list[nn.Module]:
        """D is called by its parts."""
        d: Any = self.nets["D"]
        return [self.nets["G"], *d.blocks]

    def num_turned(self, batch: int) -> int:
        """Images of a batch that are shown in all four turns."""
        return int(batch * self.config.turned) // 4

    def discriminator_terms(self, batch: Batch, drawn: Batch, fake: Tensor) -> Terms:
        real, label = batch["image"], batch["class"]
        d: Any = self.nets["D"]
        count = self.num_turned(len(real))
        images = torch.cat([codes.with_turned(fake, count), codes.with_turned(real, count)])
        of_fake, of_real = d.features(images).chunk(2)
        of_fake, upright = of_fake[: len(fake)], of_real[: len(real)]
        logits = d.classifier(upright)
        shares = [
            F.one_hot(drawn["class"], self.config.num_classes).to(logits),
            codes.inferred(label, logits, self.config.soft).to(logits),
        ]
        on_fake, on_real = d.head(torch.cat([of_fake, upright]), torch.cat(shares)).chunk(2)
        terms = {
            "D/real": losses.discriminator_loss(on_real, True, self.gan_loss),
            "D/fake": losses.discriminator_loss(on_fake, False, self.gan_loss),
            "D/class": codes.labelled_loss(logits, label),
        }
        if count:
            terms["D/turn"] = codes.turn_loss(d.turns(of_real), count)
        return terms | self.orthogonality("D")

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        count = self.num_turned(len(fake))
        if not count:
            return super().generator_terms(drawn, fake)
        d: Any = self.nets["D"]
        features = d.features(codes.with_turned(fake, count))
        scores = d.head(features[: len(fake)], drawn["class"])
        terms = {"G/gan": losses.generator_loss(scores, self.gan_loss)}
        terms["G/turn"] = codes.turn_loss(d.turns(features), count)
        return terms | self.orthogonality("G")


Model = S2GAN
