"""What CycleGAN and pix2pix share: channels of their pictures, and a critic with a gradient penalty
among their adversarial losses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from nets.losses import losses
from trainers.parts.networks import Discriminator, Generator
from trainers.settings import Draw, GANSettings

CHANNELS = ("input_nc", "output_nc")


def number(value: Any) -> Any:
    """A number that came as the text of an override, for literals."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Channels = Annotated[Literal[1, 3, 4], BeforeValidator(number)]
"""Grey, RGB, or RGB and alpha."""


class Translator(GANSettings):
    """Options under `model` of GANs that make pictures from pictures."""

    input_nc: Channels = 3
    """Channels of what is translated: 1 reads pictures as grey, 4 keeps their alpha. Also spelled
    model.generator.input_nc."""
    output_nc: Channels = 3
    """Channels of what it is translated into. Also spelled model.generator.output_nc."""
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    gan_loss: losses.CriticLoss = "lsgan"
    """Adversarial loss: lsgan, bce (cross-entropy with logits), hinge, or wgangp (Wasserstein, with
    a gradient penalty). For wgangp choose discriminator.norm=instance or none: batch norm lets the
    samples of a batch share a gradient, which the penalty takes for one of each."""
    lambda_gp: float = Field(10.0, ge=0)
    """Weight of the gradient penalty (wgangp) beside half of the scores on real and half of those
    on generated images; 0 leaves it out."""

    @model_validator(mode="before")
    @classmethod
    def _spelt(cls, section: Any) -> Any:
        return canonical(section)

    @model_validator(mode="after")
    def _penalty_works(self) -> Translator:
        usual = type(self).model_fields["lambda_gp"].default
        if self.gan_loss != "wgangp" and self.lambda_gp != usual:
            raise ValueError(
                f"`model.lambda_gp` is {self.lambda_gp!r}, but model.gan_loss={self.gan_loss} has "
                "no gradient penalty: leave it out, or choose wgangp"
            )
        if self.penalised and self.discriminator.norm == "sync-batch":
            raise ValueError(
                "model.discriminator.norm=sync-batch is refused with model.gan_loss=wgangp: its "
                "kernel on GPUs cannot be differentiated twice, as the gradient penalty must; "
                "choose instance or none"
            )
        return self

    @property
    def penalised(self) -> bool:
        """Whether there is a gradient penalty."""
        return self.gan_loss == "wgangp" and self.lambda_gp > 0

    def shares(self, *names: str) -> tuple[Draw, ...]:
        """The draws of the gradient penalties: where between real and generated each is taken."""
        return tuple(Draw(name, (1, 1, 1), "uniform") for name in names if self.penalised)


def canonical(section: Any) -> Any:
    """`model` as it was read, with the channels that were given below `generator` moved up."""
    generator = section.get("generator") if isinstance(section, dict) else None
    if not isinstance(generator, dict):
        return section
    moved = {name: generator[name] for name in CHANNELS if name in generator}
    for name in moved:
        if name in section:
            raise ValueError(
                f"`model.{name}` and `model.generator.{name}` are one option: keep one"
            )
    rest = {name: value for name, value in generator.items() if name not in moved}
    return section | {"generator": rest} | moved
