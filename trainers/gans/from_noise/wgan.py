"""WGAN: a critic whose weights are clipped measures how far generated images are from real ones.

Arjovsky, Chintala, Bottou, Wasserstein Generative Adversarial Networks, ICML 2017
(arXiv:1701.07875), algorithm 1:

    min_D  D(G(z)) - D(x), then every weight of D is clipped to [-clip, clip]
    min_G  -D(G(z)), once in num_critic_steps updates of D

Batches: see trainers.parts.noise_gans.
"""

from __future__ import annotations

from pydantic import Field

from nets.losses.losses import CriticLoss
from trainers.parts.critics import WassersteinSettings
from trainers.parts.noise_gans import NoiseGAN
from trainers.parts.noise_networks import build_pair


class Config(WassersteinSettings):
    """Options under `model`. Defaults are the paper's, for 64x64."""

    clip: float = Field(0.01, gt=0)
    """Largest weight of the critic, biases and gains of norms included."""


class Wgan(NoiseGAN):
    """`training=False` builds the generator alone."""

    gan_loss: CriticLoss = "wgangp"

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.clip = config.clip
        pair = config.generator, config.discriminator
        self.nets = build_pair(config, *pair, training, biased=True)
        self.weights = {"D/real": 1.0, "D/fake": 1.0, "G/gan": 1.0}

    def constrain(self, phase: str) -> bool:
        """Clips the critic after each of its steps."""
        if phase != "D":
            return False
        for parameter in self.nets["D"].parameters():
            parameter.clamp_(-self.clip, self.clip)
        return True


Model = Wgan
