"""DCGAN: images from noise, with convolutions throughout.

Radford, Metz, Chintala, Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks, ICLR 2016 (arXiv:1511.06434), section 3, with the losses of the first GAN:

    min_D  1/2 [ -log D(x) - log(1 - D(G(z))) ],  real and generated images in batches of their own
    min_G  -log D(G(z)), of the images that D saw last

Batches: see trainers.parts.noise_gans.
"""

from __future__ import annotations

from nets.losses import losses
from trainers.parts.noise_gans import NoiseGAN, NoiseSettings
from trainers.parts.noise_networks import NoiseDiscriminator, NoiseGenerator, build_pair


class Config(NoiseSettings):
    """Options under `model`. Defaults are the paper's, for 64x64."""

    generator: NoiseGenerator = NoiseGenerator()
    discriminator: NoiseDiscriminator = NoiseDiscriminator()
    gan_loss: losses.GanLoss = "bce"
    """bce (cross-entropy with logits), lsgan or hinge."""


class Dcgan(NoiseGAN):
    """`training=False` builds the generator alone."""

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.gan_loss = config.gan_loss
        self.nets = build_pair(config, config.generator, config.discriminator, training)
        self.weights = {"D/real": 0.5, "D/fake": 0.5, "G/gan": 1.0}


Model = Dcgan
