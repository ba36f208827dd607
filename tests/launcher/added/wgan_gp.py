"""WGAN-GP: images from noise, with a critic whose gradient is kept near 1.

Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017 (arXiv:1704.00028):

    min_D  D(G(z)) - D(x) + lambda_gp (|grad D(x')| - 1)^2,  x' between x and G(z)       (eq. 3)
    min_G  -D(G(z)), once in num_critic_steps updates of D
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from nets.discriminators.patch import PatchDiscriminator
from nets.layers import conditioning
from nets.layers.init import init_normal
from nets.losses import losses
from trainers.gan import GAN, Batch, Phase, Terms
from trainers.settings import Draw, GANSettings, Needs


class Config(GANSettings):
    """Options under `model`."""

    num_noise: int = Field(64, ge=1)
    """Numbers that an image is made of."""
    width: int = Field(32, ge=1)
    """Channels of the generator at full size, and of the critic's first layer."""
    num_critic_steps: int = Field(5, ge=1)
    """Updates of the critic for one of the generator."""
    lambda_gp: float = Field(10.0, ge=0)
    """Weight of the gradient penalty."""

    @property
    def needs(self) -> Needs:
        """Images of 32x32, and with each the noise of both phases and the penalty's place."""
        noise = (Draw(f"noise_{phase}", (self.num_noise, 1, 1)) for phase in "DG")
        draws = (*noise, Draw("share", (1, 1, 1), "uniform"))
        return Needs("images", min_side=32, multiple=32, directions=(), draws=draws)


class WganGp(GAN):
    """Noise [N, num_noise, 1, 1] -> images of 32x32."""

    def __init__(self, config: Config, training: bool = True):
        super().__init__()
        self.config = config
        widths = [config.num_noise, 4 * config.width, 2 * config.width, config.width]
        layers = []
        for level, (before, after) in enumerate(pairwise(widths)):
            grow = (4, 1, 0) if level == 0 else (4, 2, 1)  # 1 -> 4 -> 8 -> 16
            layers += [nn.ConvTranspose2d(before, after, *grow), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.ConvTranspose2d(config.width, 3, 4, 2, 1), nn.Tanh()]
        self.nets = nn.ModuleDict({"G": nn.Sequential(*layers)})
        if training:
            # Batch norm would let the images of a batch share a gradient (section 4).
            self.nets["D"] = PatchDiscriminator(3, config.width, 2, norm="instance")
        init_normal(self.nets)
        self.weights = {"D/real": 1.0, "D/fake": 1.0, "D/gp": config.lambda_gp, "G/gan": 1.0}

    def phases(self, images: int) -> tuple[Phase, ...]:
        return Phase("D", ("D",)), Phase("G", ("G",), every=self.config.num_critic_steps)

    def prepare(self, batch: Batch) -> Batch:
        dtype = conditioning.compute_dtype(next(self.nets["G"].parameters()))
        noise = {f"noise_{phase}": batch[f"noise_{phase}"].to(dtype) for phase in "DG"}
        image = conditioning.normalise(batch["image"], dtype)
        return noise | {"image": image, "share": batch["share"]}

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        real, fake = batch["image"], self.nets["G"](batch[f"noise_{phase}"])
        if phase == "G":
            terms = {"G/gan": -self._scores(fake).mean()}
        else:
            scores = {"D/real": -self._scores(real).mean(), "D/fake": self._scores(fake).mean()}
            penalty = losses.gradient_penalty(self._scores, real, fake, batch["share"])
            terms = scores | {"D/gp": penalty}
        return self.total(terms), terms, {}

    def _scores(self, image: Tensor) -> Tensor:
        return self.nets["D"](image)[-1].float()

    def static_parts(self) -> list[nn.Module]:
        """Not the critic, whose penalty takes second derivatives."""
        return [self.nets["G"]]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        pictures = {"fake": self.nets["G"](batch["noise_G"]), "real": batch["image"]}
        return {name: conditioning.denormalise(image) for name, image in pictures.items()}


Model = WganGp
