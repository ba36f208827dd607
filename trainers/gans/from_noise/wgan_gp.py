"""WGAN-GP: images from noise, with a critic whose gradient is kept near 1.

Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017 (arXiv:1704.00028):

    min_D  D(G(z)) - D(x) + lambda_gp (|grad D(x')| - 1)^2,  x' between x and G(z)       (eq. 3)
    min_G  -D(G(z)), once in num_critic_steps updates of D

Batches: see trainers.parts.noise_gans.
"""

from __future__ import annotations

from nets.losses.losses import CriticLoss
from trainers.parts.critics import PenaltySettings
from trainers.parts.noise_gans import NoiseGAN
from trainers.parts.noise_networks import build_pair


class Config(PenaltySettings):
    """Options under `model`. Defaults are the paper's, for 64x64."""


class WganGp(NoiseGAN):
    """`training=False` builds the generator alone."""

    gan_loss: CriticLoss = "wgangp"

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        pair = config.generator, config.discriminator
        self.nets = build_pair(config, *pair, training, biased=True)
        self.penalised = config.penalised
        self.weights = {"D/real": 1.0, "D/fake": 1.0, "D/gp": config.lambda_gp, "G/gan": 1.0}


Model = WganGp
