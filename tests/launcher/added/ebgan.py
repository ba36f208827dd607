"""EBGAN: images from noise, with an autoencoder for D, whose error is an image's energy.

Zhao, Mathieu, LeCun, Energy-based Generative Adversarial Networks, ICLR 2017 (arXiv:1609.03126):

    min_D  D(x) + max(0, margin - D(G(z)))                                                (eq. 1)
    min_G  D(G(z))                                                                        (eq. 2)

Batches: see trainers.parts.noise_gans.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nets.discriminators.dcgan import DcganDiscriminator
from nets.generators.dcgan import DcganGenerator
from nets.layers.init import init_normal
from trainers.gan import Batch, Terms
from trainers.parts.noise_gans import NoiseGAN, NoiseSettings


class Config(NoiseSettings):
    """Options under `model`."""

    width: int = Field(32, ge=1)
    """Channels of the generator at full size, and of the first layer of D."""
    margin: float = Field(1.0, gt=0)
    """Energy from which on D leaves generated images alone."""


class Autoencoder(nn.Module):
    """Images [N, channels, side, side] -> the mean squared error of each, [N], once it has been
    brought to `num_codes` numbers and back."""

    def __init__(self, num_codes: int, channels: int, width: int, side: int):
        super().__init__()
        self.encode = DcganDiscriminator(channels, width, side, norm="instance")
        self.encode.output = nn.Conv2d(self.encode.output.in_channels, num_codes, 4)
        self.decode = DcganGenerator(num_codes, channels, width, side, norm="instance")

    def forward(self, image: Tensor) -> Tensor:
        codes = self.encode.output(self.encode.layers(image)).flatten(1)
        return (self.decode(codes).float() - image.float()).square().flatten(1).mean(1)


class Ebgan(NoiseGAN):
    """`training=False` builds the generator alone."""

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        shape = (config.channels, config.width, config.side)
        self.margin = config.margin
        self.nets = nn.ModuleDict({"G": DcganGenerator(config.num_noise, *shape, "sync-batch")})
        if training:
            self.nets["D"] = Autoencoder(config.num_noise, *shape)
        init_normal(self.nets, zero_bias=True)
        self.weights = {"D/real": 1.0, "D/fake": 1.0, "G/energy": 1.0}

    def discriminator_terms(self, batch: Batch, drawn: Batch, fake: Tensor) -> Terms:
        energy, generated = self.nets["D"](batch["image"]), self.nets["D"](fake)
        return {"D/real": energy.mean(), "D/fake": F.relu(self.margin - generated).mean()}

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        return {"G/energy": self.nets["D"](fake).mean()}


Model = Ebgan
