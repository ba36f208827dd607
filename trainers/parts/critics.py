"""What GANs with a critic share: several of its updates for one of G, and the gradient penalty.

Arjovsky et al., Wasserstein GAN, ICML 2017 (arXiv:1701.07875); Gulrajani et al., NeurIPS 2017
(arXiv:1704.00028).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nets.layers.norms import Norm
from trainers.parts.noise_gans import Game, NoiseSettings
from trainers.parts.noise_networks import NoiseDiscriminator, NoiseGenerator
from trainers.settings import Draw

CriticBatches = Literal["same", "fresh", "pytorch-gan"]


class Critic(NoiseDiscriminator):
    """A critic keeps the images of a batch apart."""

    norm: Norm = "instance"
    """Of dcgan, behind all layers but the first: instance, or none; batch and sync-batch mix the
    images of a batch."""


class WassersteinSettings(NoiseSettings):
    """Options of GANs with a critic that makes several updates for one of the generator."""

    generator: NoiseGenerator = NoiseGenerator()
    discriminator: Critic = Critic()
    num_critic_steps: int = Field(5, ge=1)
    """Updates of the critic for one of the generator."""
    critic_batches: CriticBatches = "same"
    """same: all these updates in one step, on one batch of real images, then the generator's by the
    images that the critic saw last; fresh (the papers): one a step, each on a batch of its own, and
    the generator's with the last of them, on noise of its own; pytorch-gan: as fresh, but with the
    first of them and the critic's noise."""

    @property
    def game(self) -> Game:
        """The critic's updates, then the generator's."""
        steps = self.num_critic_steps
        if self.critic_batches == "same":
            return Game(turns=steps)
        if self.critic_batches == "fresh":
            return Game(every=steps, offset=steps - 1, own_noise=True)
        return Game(every=steps)


class PenaltySettings(WassersteinSettings):
    """Options of GANs whose critic has a gradient penalty."""

    lambda_gp: float = Field(10.0, ge=0)
    """Weight of the gradient penalty; 0 leaves it out."""

    @property
    def penalised(self) -> bool:
        """Whether there is a gradient penalty."""
        return self.lambda_gp > 0

    @property
    def draws(self) -> tuple[Draw, ...]:
        """And where between real and generated images the penalty is taken."""
        share = Draw("share", (self.game.turns, 1, 1, 1), "uniform")
        return (*super().draws, share) if self.penalised else super().draws

    @model_validator(mode="after")
    def _penalty_can_be_differentiated(self) -> PenaltySettings:
        if self.penalised and self.discriminator.norm == "sync-batch":
            raise ValueError(
                "model.discriminator.norm=sync-batch is refused with a gradient penalty: its "
                "kernel on GPUs cannot be differentiated twice; choose instance or none"
            )
        return self
