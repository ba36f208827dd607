"""ProGAN: images from noise, by networks that grow from 4x4 pixels to 1024x1024.

Karras, Aila, Laine, Lehtinen, Progressive Growing of GANs for Improved Quality, Stability, and
Variation, ICLR 2018 (arXiv:1710.10196), sections 2 to 4 and appendix A. x' lies between x and G(z):

    min_D  D(G(z)) - D(x) + lambda_gp (|grad D(x')| - 1)^2 + lambda_drift D(x)^2
    min_G  -D(G(z'))

After `stable` images at a level the next one fades in over `fading` images. Only the layers in use
are trained, reduced between processes and have moments; images are made at the level's own side,
and the penalty asks for the slope that a full-size image would have. form=simple is that of the
Machine-Learning-Collection: other layers, G trained by the images that D saw.

Batches: see trainers.parts.noise_gans; image has the full side, share is one of the generated image
(form=original) or of the real one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from nets.discriminators.progan import ProganDiscriminator, SimpleProganDiscriminator
from nets.generators.progan import ProganGenerator, SimpleProganGenerator
from nets.layers.growing import enlarge, fade_image, shrink
from nets.losses import losses
from trainers.gan import Batch, Phase, Terms
from trainers.parts.noise_gans import Game, NoiseGAN, NoiseSettings
from trainers.parts.translators import number
from trainers.settings import Draw, Needs, Span, in_images


class Config(NoiseSettings):
    """Options under `model`. Defaults are the paper's."""

    side: Annotated[Literal[8, 16, 32, 64, 128, 256, 512, 1024], BeforeValidator(number)] = 1024
    """Width and height of the images at the end; data.preprocess must give such."""
    num_noise: int = Field(512, ge=1)
    """Numbers, drawn from N(0, 1), that an image is made of."""
    form: Literal["original", "simple"] = "original"
    """original: the authors' code; simple: the Machine-Learning-Collection's."""
    fmap_base: int = Field(8192, ge=8)
    """Channels of a level, halved with each; min(fmap_base / 2^level, fmap_max)."""
    fmap_max: int = Field(512, ge=1)
    """Most channels of a level."""
    group_size: int = Field(4, ge=1)
    """Images of a process whose deviation D sees (form=original; simple: all of its batch)."""
    stable: Span = 800_000
    """Images at each level once it has faded in."""
    fading: Span = 800_000
    """Images over which a level fades in; 0: at once."""
    level_batches: dict[int, Annotated[int, Field(ge=1)]] = {}
    """Images of a step by side of the level, 4 to `side`; batch.total for those not named."""
    lambda_gp: float = Field(10.0, gt=0)
    """Weight of the gradient penalty."""
    lambda_drift: float = Field(0.001, ge=0)
    """Weight of the squared scores of real images."""

    @model_validator(mode="after")
    def _levels_exist(self) -> Config:
        for side in self.level_batches:
            if side not in self.sides:
                raise ValueError(
                    f"model.level_batches names {side}: the levels of side={self.side} are "
                    f"{', '.join(map(str, self.sides))}"
                )
        if self.fmap_base >> len(self.sides) == 0:
            raise ValueError(
                f"model.fmap_base={self.fmap_base} leaves the level of {self.side}x{self.side} no "
                f"channel: give {2 ** len(self.sides)} or more"
            )
        if self.stable == self.fading == 0:
            raise ValueError("model.stable and model.fading are 0: no level would ever be trained")
        return self

    @property
    def needs(self) -> Needs:
        """Micro-batches that can be compared."""
        if self.form == "simple":
            return replace(super().needs, min_batch=2)
        return replace(super().needs, batch_groups=self.group_size)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Those of the levels."""
        return {f"model.level_batches.{side}": n for side, n in self.level_batches.items()}

    @property
    def sides(self) -> list[int]:
        """Of the levels, the smallest first."""
        return [4 << level for level in range(self.side.bit_length() - 2)]

    @property
    def widths(self) -> list[int]:
        """Channels of the levels, the smallest image first."""
        return [min(self.fmap_base >> n, self.fmap_max) for n in range(1, len(self.sides) + 1)]

    @property
    def game(self) -> Game:
        """In the authors' code each on noise of its own."""
        return Game(own_noise=self.form == "original")

    @property
    def draws(self) -> tuple[Draw, ...]:
        """And where between real and generated images the penalty is taken."""
        return (*super().draws, Draw("share", (1, 1, 1, 1), "uniform"))


class ProGAN(NoiseGAN):
    """`training=False` builds the generator alone. lod: levels that are still missing; between two
    whole numbers one fades in."""

    config: Config
    gan_loss: losses.CriticLoss = "wgangp"
    penalised = True
    averaged_before: ClassVar[bool] = True
    """As in the authors' code, where D's step moves the average, before G's."""

    def __init__(self, config: Config, training: bool = True):
        super().__init__(config)
        self.top = len(config.sides) - 1
        self.lod = float(self.top)
        original, widths = config.form == "original", config.widths
        full = (config.channels, config.side, config.fmap_base, config.fmap_max)
        self.nets = nn.ModuleDict(
            {
                "G": ProganGenerator(config.num_noise, *full)
                if original
                else SimpleProganGenerator(config.num_noise, widths, config.channels)
            }
        )
        if training:
            self.nets["D"] = (
                ProganDiscriminator(*full, config.group_size)
                if original
                else SimpleProganDiscriminator(widths, config.channels)
            )
        self.weights = {
            "D/real": 1.0,
            "D/fake": 1.0,
            "D/gp": config.lambda_gp,
            "G/gan": 1.0,
            "D/drift": config.lambda_drift,
        }

    def lod_at(self, images: int) -> float:
        """The level of detail once so many images have been seen."""
        stable, fading = in_images(self.config.stable), in_images(self.config.fading)
        levels, rest = divmod(images, stable + fading)
        faded = (rest - stable) / fading if rest > stable else 0.0
        return max(self.top - levels - faded, 0.0)

    def advance(self, step: int, images: int) -> None:
        self.lod = self.lod_at(images)

    @property
    def level(self) -> int:
        """The highest level in use, 0 for 4x4 pixels."""
        return self.top - int(self.lod)

    @property
    def remaining(self) -> float:
        """How much of the level below there still is."""
        return self.lod - int(self.lod)

    def batch_size(self, images: int) -> int | None:
        level = self.top - int(self.lod_at(images))
        return self.config.level_batches.get(self.config.sides[level])

    def phases(self, images: int) -> tuple[Phase, ...]:
        """Of the layers in use at that moment."""
        lod = self.lod_at(images)
        level = self.top - int(lod)
        simple = self.config.form == "simple"
        below = level > 0 and (lod > int(lod) or simple)
        rgb = [level - 1, level] if below else [level]
        blocks = [f"blocks.{number}" for number in range(level)]
        first = ["first", "conv"] if simple else ["first"]
        made = [*first, *blocks, *(f"to_rgb.{number}" for number in rgb)]
        judged = [*(f"from_rgb.{number}" for number in rgb), *blocks, "conv", "dense", "output"]
        return (
            Phase("D", tuple(f"D.{path}" for path in judged)),
            Phase("G", tuple(f"G.{path}" for path in made)),
        )

    def prepare(self, batch: Batch) -> Batch:
        """Images at the level's own side; where a level fades in, blended with the one below as
        generated ones are (form=original)."""
        prepared = super().prepare(batch)
        if "image" in prepared:
            image = shrink(prepared["image"], prepared["image"].shape[-1] >> (2 + self.level))
            blended = self.config.form == "original"
            prepared["image"] = fade_image(image, self.remaining) if blended else image
        return prepared

    def generate(self, drawn: Batch) -> Tensor:
        """At the level's own side."""
        if self.config.form == "original":
            return self.nets["G"](drawn["noise"], self.lod, full_size=False)
        return self.nets["G"](drawn["noise"], self.level, 1 - self.remaining)

    def scores(self, image: Tensor, about: Batch) -> Tensor:
        if self.config.form == "original":
            return self.nets["D"](image, self.lod)
        return self.nets["D"](image, self.level, 1 - self.remaining)

    def terms_of(self, on_real: Tensor, on_fake: Tensor) -> Terms:
        return super().terms_of(on_real, on_fake) | {"D/drift": losses.drift(on_real)}

    @property
    def penalty_options(self) -> dict[str, Any]:
        """The slope is that of a full-size image (form=original)."""
        if self.config.form == "simple":
            return {}
        return {"share_of": "fake", "target": float(2 ** int(self.lod))}

    def static_parts(self) -> list[nn.Module]:
        """None: what runs changes with every step of a fade."""
        return []

    def sample(self, batch: Batch) -> Tensor:
        """At full size, also of a run that has not come so far."""
        image = super().sample(batch)
        return enlarge(image, self.config.side // image.shape[-1])


Model = ProGAN
