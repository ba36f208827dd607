"""CoGAN: pairs of images in two domains from one noise, learnt from images that are not paired.

Liu and Tuzel, Coupled Generative Adversarial Networks, NeurIPS 2016 (arXiv:1606.07536), section 3;
the generators share all but their last layers, the discriminators all but their first:

    min_D  CE(D(a), real) + CE(D(b), real) + CE(D(G_a(z)), fake) + CE(D(G_b(z)), fake)     (eq. 4)
    min_G  CE(D(G_a(z')), real) + CE(D(G_b(z')), real)

each a mean over both domains, z' new noise. The paper's decay of all weights is optim.weight_decay.

Batches: a and b, uint8 [N, C, 28, 28], drawn independently; the noise as trainers.parts.noise_gans
has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from nets.discriminators.cogan import CoganDiscriminator
from nets.generators.cogan import CoganGenerator
from nets.layers.init import init_normal
from nets.layers.norms import Norm
from nets.losses import codes
from trainers.gan import Batch, Terms
from trainers.parts.noise_gans import Channels, Game, NoiseGAN, NoiseSettings
from trainers.parts.noise_networks import Widths
from trainers.settings import Needs


class Config(NoiseSettings):
    """Options under `model`. Defaults are those of the authors' code."""

    side: Literal[28] = 28
    """Width and height of the images; data.preprocess must give such."""
    channels: Channels = 1
    """1 for grey images, 3 for RGB."""
    generator_widths: Widths = (1024, 512, 256, 128)
    """Channels of the shared layers of the generators."""
    discriminator_widths: tuple[int, int, int] = (20, 50, 500)
    """Channels of the discriminators: of each domain's own layer, then of the shared ones."""
    norm: Norm = "sync-batch"
    """Of the generators: sync-batch (over all processes), batch (over a process), instance or
    none."""

    @property
    def game(self) -> Game:
        """Each on noise of its own."""
        return Game(own_noise=True)

    @property
    def needs(self) -> Needs:
        """Two sets, drawn independently."""
        both = dict.fromkeys(("a", "b"), self.channels)
        return replace(super().needs, layout="unpaired", channels=both)


class CoGAN(NoiseGAN):
    """`training=False` builds the generators alone."""

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        sizes = (config.num_noise, config.channels, config.generator_widths)
        self.nets = nn.ModuleDict({"G": CoganGenerator(*sizes, config.norm)})
        if training:
            self.nets["D"] = CoganDiscriminator(config.channels, config.discriminator_widths)
        init_normal(self.nets, zero_bias=True)
        self.weights = {"D/real": 1.0, "D/fake": 1.0, "G/gan": 1.0}

    def prepare(self, batch: Batch) -> Batch:
        """Values of images lie in [0, 1] here."""
        prepared = super().prepare(batch)
        return prepared | {n: (prepared[n] + 1) / 2 for n in prepared.keys() & {"a", "b"}}

    def generate(self, drawn: Batch) -> Tensor:
        """Both domains, [2, N, channels, side, side]."""
        return torch.stack(self.nets["G"](drawn["noise"]))

    def discriminator_terms(self, batch: Batch, drawn: Batch, fake: Tensor) -> Terms:
        real = self.nets["D"](batch["a"], batch["b"])[0]
        return {
            "D/real": codes.two_class_loss(real, True),
            "D/fake": codes.two_class_loss(self.nets["D"](*fake)[0], False),
        }

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        return {"G/gan": codes.two_class_loss(self.nets["D"](*fake)[0], True)}

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        """Both domains side by side."""
        return 2 * torch.cat(list(self.generate(batch)), dim=3) - 1


Model = CoGAN
