"""pix2pix: image-to-image translation from pairs.

Isola, Zhu, Zhou, Efros, Image-to-Image Translation with Conditional Adversarial Networks, CVPR
2017 (arXiv:1611.07004). Noise enters as dropout alone, also at test time (section 3.2).

    min_D  0.5 [ real(D(x, y)) + fake(D(x, G(x))) ]
    min_G  gan(D(x, G(x))) + lambda_L1 |y - G(x)|_1                                  (eq. 1 to 4)

and with gan_loss=wgangp lambda_gp (|grad D(x')| - 1)^2 in D's, x' between (x, y) and (x, G(x)).

D is updated first, and G against the updated D. Batches as they come from the stream: a and b,
uint8 [N, C, H, W]; x is a and y is b, or the other way round with direction B2A; x has input_nc
channels, y output_nc. With wgangp also share, float32 [N, 1, 1, 1].
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nets.layers import conditioning
from nets.layers.init import init_normal
from nets.layers.norms import Norm, untracked
from nets.losses import losses
from nets.memory.waist import Terms, narrow_waist
from trainers.checkpoints.rng_state import drawing_from, random_state
from trainers.gan import GAN, Batch, Phase
from trainers.parts.networks import Discriminator, Generator, at_test, fitted, run
from trainers.parts.translators import Translator
from trainers.settings import Needs


class PaperGenerator(Generator):
    """The U-Net of section 6.1.1 for 256x256; 7 halvings suit 128x128."""

    kind: Literal["resnet", "unet", "encoder-decoder"] = "unet"
    """The paper's unet, encoder-decoder (the same without its skips), or a resnet."""
    norm: Norm = "batch"
    """batch (over a process) is the paper's; or instance, sync-batch (all processes), none."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Probability of dropout: on a U-Net's way up, or in a resnet's blocks."""


class PaperDiscriminator(Discriminator):
    """The 70x70 PatchGAN of section 6.1.2."""

    norm: Norm = "batch"
    """batch (over a process) is the paper's; or instance, sync-batch (all processes), none."""


class Config(Translator):
    """Options under `model`. Defaults are the paper's."""

    direction: Literal["A2B", "B2A"] = "A2B"
    """Which side of a pair is translated into the other."""
    generator: PaperGenerator = PaperGenerator()
    discriminator: PaperDiscriminator = PaperDiscriminator()
    gan_loss: losses.CriticLoss = "bce"
    """Adversarial loss: bce (cross-entropy with logits), lsgan, hinge, or wgangp (Wasserstein, with
    a gradient penalty). For wgangp choose discriminator.norm=instance or none: batch norm lets the
    samples of a batch share a gradient, which the penalty takes for one of each."""
    lambda_L1: float = Field(100.0, ge=0)
    """Weight of the distance to the real image."""
    test_dropout: bool = True
    """Draw dropout in translation too, as the paper does; False gives one picture per input."""
    test_statistics: Literal["batch", "running"] = "batch"
    """Batch norm in translation: by the image at hand, as the paper does, or by the running
    statistics of training."""

    @property
    def needs(self) -> Needs:
        """What the data set must hold."""
        least = self.generator.min_side
        return Needs(
            "pairs",
            max(least, self.discriminator.min_side),
            least,
            self.generator.multiple,
            directions=(self.direction,),
            channels=dict(zip(self.sides, (self.input_nc, self.output_nc), strict=True)),
            draws=self.shares("share"),
        )

    @property
    def sides(self) -> tuple[str, str]:
        """What the condition and the image are called in a batch."""
        return ("a", "b") if self.direction == "A2B" else ("b", "a")


class Pix2Pix(GAN):
    """`training=False` builds the generator alone."""

    def __init__(self, config: Config, training: bool = True):
        super().__init__()
        self.config = config
        channels = config.input_nc, config.output_nc
        self.nets = nn.ModuleDict({"G": config.generator.build(*channels)})
        if training:
            self.nets["D"] = config.discriminator.build(sum(channels))
        init_normal(self.nets, zero_bias=True)
        self.weights = {"D/real": 0.5, "D/fake": 0.5, "G/gan": 1.0, "G/L1": config.lambda_L1}
        if config.penalised:
            self.weights["D/gp"] = config.lambda_gp

    def phases(self, images: int) -> tuple[Phase, ...]:
        return Phase("D", ("D",)), Phase("G", ("G",))

    def prepare(self, batch: Batch) -> Batch:
        """-> condition and, if there is one, image, [N, C, H, W] in [-1, 1], and the draws."""
        dtype = conditioning.compute_dtype(next(self.nets["G"].parameters()))
        condition, image = self.config.sides
        prepared = {"condition": conditioning.normalise(batch[condition], dtype)}
        if image in batch:
            prepared["image"] = conditioning.normalise(batch[image], dtype)
        return prepared | {name: batch[name] for name in ("share",) if name in batch}

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        condition, device = batch["condition"], batch["condition"].device
        if phase == "D":
            # Phase G makes the same image again, from the same draws, with a graph: to keep the
            # graph would hold G's activations through the whole update of D.
            drawn = random_state(device)
            with torch.no_grad(), untracked(self.nets["G"]):
                fake = self._generate(condition)
            terms = self._discriminator_terms(batch, fake)
            return self.total(terms), terms, {"drawn": drawn}
        with drawing_from(carry["drawn"], device):
            fake = self._generate(condition)
        total, terms = narrow_waist(fake, [partial(self._judge, batch)])
        return total, terms, {}

    def _judge(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Terms]:
        scores = self.nets["D"](torch.cat([batch["condition"], fake], dim=1))[-1]
        terms = {
            "G/gan": losses.generator_loss(scores, self.config.gan_loss),
            "G/L1": losses.l1(fake, batch["image"]),
        }
        return self.total(terms), terms

    def _discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        kind = self.config.gan_loss

        def judge(pair: Tensor) -> Tensor:
            return self.nets["D"](pair)[-1]

        pairs = [torch.cat([batch["condition"], y], dim=1) for y in (fake, batch["image"])]
        norm = self.config.discriminator.norm
        on_fake, on_real = run(judge, pairs, norm)
        terms = {
            "D/fake": losses.discriminator_loss(on_fake, False, kind),
            "D/real": losses.discriminator_loss(on_real, True, kind),
        }
        if self.config.penalised:
            fake_pair, real_pair = pairs
            share = batch["share"]
            terms["D/gp"] = losses.gradient_penalty(judge, real_pair, fake_pair, share)
        return terms

    def _generate(self, condition: Tensor) -> Tensor:
        return fitted(self.nets["G"], condition, pad=self.config.generator.multiple == 1)

    @torch.no_grad()
    def translate(self, batch: Batch) -> Tensor:
        config = self.config
        with at_test(self.nets["G"], config.test_dropout, config.test_statistics == "batch"):
            return self._generate(batch["condition"])

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        pictures = {"condition": batch["condition"], "fake": self.translate(batch)}
        if "image" in batch:
            pictures["real"] = batch["image"]
        return {
            name: conditioning.in_colours(conditioning.denormalise(image))
            for name, image in pictures.items()
        }

    def static_parts(self) -> list[nn.Module]:
        """Not the critic where a penalty differentiates it twice."""
        return [self.nets["G"]] if self.config.penalised else list(self.nets.values())


Model = Pix2Pix
