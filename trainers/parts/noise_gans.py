"""What GANs that make images from noise have in common: options, draws, and the game of D and G.

Goodfellow et al., Generative Adversarial Networks, NeurIPS 2014 (arXiv:1406.2661).

Batches as they come from the stream: image, uint8 [N, C, side, side], and where images have classes
class, ids [N]; noise_D, float32 [N, turns, num_noise]; noise_G [N, num_noise] where G has noise of
its own; class_D [N, turns] and class_G [N], uniform, where classes of generated images are drawn;
share [N, turns, 1, 1, 1] where there is a gradient penalty. To sample: noise [N, num_noise], and
class.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from nets.layers import conditioning
from nets.layers.norms import untracked
from nets.losses import losses
from trainers.gan import GAN, Batch, Phase, Terms
from trainers.parts.translators import number
from trainers.settings import Draw, GANSettings, Needs

Channels = Annotated[Literal[1, 3], BeforeValidator(number)]
"""Grey or RGB."""
AT_ONCE = 8
"""Images that are made together to be shown: the board has more of them than a micro-batch may."""


@dataclass(frozen=True)
class Game:
    """How D and G take turns."""

    turns: int = 1
    """Updates of D in one step, on the same real images but new noise each."""
    every: int = 1
    """Steps, and with them batches, for one update of G."""
    offset: int = 0
    """Number of the first of these steps."""
    generator_first: bool = False
    """G is trained before D, which then judges the images that G was trained by."""
    own_noise: bool = False
    """G is trained by images of its own noise; else by those that D saw last."""

    @property
    def one_pass(self) -> bool:
        """Whether the references make the images of G's update once, for D's too: running
        statistics then count one pass, though they are made twice here."""
        return not self.own_noise and self.every == 1


class NoiseSettings(GANSettings):
    """Options under `model` of GANs that make images from noise."""

    side: int = Field(64, ge=4)
    """Width and height of the images; data.preprocess must give such."""
    channels: Channels = 3
    """1 for grey images, 3 for RGB."""
    num_noise: int = Field(100, ge=1)
    """Numbers, drawn from N(0, 1), that an image is made of."""

    @property
    def game(self) -> Game:
        """How D and G take turns."""
        return Game()

    @property
    def classes_drawn(self) -> int:
        """Of how many classes one is drawn for each generated image; 0 for none."""
        return 0

    @property
    def needs(self) -> Needs:
        """Images of one size, and the random numbers of all updates."""
        return Needs(
            "images",
            side=self.side,
            channels={"image": self.channels},
            directions=(),
            draws=self.draws,
            samples=(Draw("noise", (self.num_noise,)),),
            sample_classes=self.classes_drawn,
        )

    @property
    def draws(self) -> tuple[Draw, ...]:
        """Noise and classes of the images that each update makes."""
        updates = {"D": (self.game.turns,)} | ({"G": ()} if self.game.own_noise else {})
        draws = [Draw(f"noise_{name}", (*turns, self.num_noise)) for name, turns in updates.items()]
        if self.classes_drawn:
            draws += [Draw(f"class_{name}", turns, "uniform") for name, turns in updates.items()]
        return tuple(draws)


class NoiseGAN(GAN):
    """The game for a G that takes noise and a D that takes images.

    Whoever derives from it fills `nets` and `weights`, and sets `gan_loss`."""

    gan_loss: losses.CriticLoss
    penalised = False
    """Whether D has a gradient penalty, whose term is D/gp."""
    conditional = False
    """Whether G and D are told classes."""
    joint = False
    """Whether D sees generated and real images, with their classes, as one batch, in this order."""
    real_first = True
    """Else: whether it sees the real ones before the others, which moves its buffers."""

    def __init__(self, config: NoiseSettings):
        super().__init__()
        self.config = config
        self.game = config.game
        self.members = frozenset(config.needs.channels)
        """What of a batch is images."""

    def phases(self, images: int) -> tuple[Phase, ...]:
        game = self.game
        d = Phase("D", ("D",), repeats=game.turns)
        g = Phase("G", ("G",), every=game.every, offset=game.offset)
        return (g, d) if game.generator_first else (d, g)

    def prepare(self, batch: Batch) -> Batch:
        """-> images in [-1, 1] and the draws, in the networks' precision; classes as ids."""
        dtype = conditioning.compute_dtype(next(self.nets["G"].parameters()))
        prepared = {}
        for name, value in batch.items():
            if name.startswith("class_"):
                prepared[name] = (value.double() * self.config.classes_drawn).long()
            elif name == "class":
                prepared[name] = value
            elif name in self.members:
                prepared[name] = conditioning.normalise(value, dtype)
            elif isinstance(value, Tensor):
                # As they were drawn: in low precision a penalty's places would lie on a grid.
                prepared[name] = value.to(torch.promote_types(dtype, torch.float32))
        return prepared

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        if phase == "D":
            turn = carry.get("turn", 0)
            drawn = self.drawn(batch, "D", turn)
            fake = carry["fake"] if self.game.generator_first else self.made_for_d(drawn, turn)
            terms = self.discriminator_terms(batch, drawn, fake)
            if self.penalised:
                terms["D/gp"] = self.penalty(batch, drawn, fake, batch["share"][:, turn])
            return self.total(terms), terms, {"turn": turn + 1}
        drawn = self.drawn(batch, "G" if self.game.own_noise else "D", self.game.turns - 1)
        fake = self.generate(drawn)
        terms = self.generator_terms(drawn, fake)
        out = {"fake": fake.detach()} if self.game.generator_first else {}
        return self.total(terms), terms, out

    def drawn(self, batch: Batch, phase: str, turn: int) -> Batch:
        """What the images of an update are made of: noise, and class where they have one."""
        suffix = f"_{phase}"
        own = {n.removesuffix(suffix): v for n, v in batch.items() if n.endswith(suffix)}
        return {name: value[:, turn] for name, value in own.items()} if phase == "D" else own

    def generate(self, drawn: Batch) -> Tensor:
        """noise (and class) of N images -> [N, channels, side, side]."""
        return self.nets["G"](drawn["noise"], *self.told(drawn))

    def scores(self, image: Tensor, about: Batch) -> Tensor:
        """D's scores [N]; `about` holds the class of each image where it has one."""
        return self.nets["D"](image, *self.told(about))

    def told(self, about: Batch) -> tuple[Tensor, ...]:
        """The classes that networks are told, or nothing."""
        return (about["class"],) if self.conditional else ()

    @torch.no_grad()
    def made_for_d(self, drawn: Batch, turn: int) -> Tensor:
        """Images without a graph, which would hold G's activations through D's update: those of
        the last turn are made again for G's."""
        uncounted = self.game.one_pass and turn == self.game.turns - 1
        with untracked(self.nets["G"]) if uncounted else nullcontext():
            return self.generate(drawn)

    def discriminator_terms(self, batch: Batch, drawn: Batch, fake: Tensor) -> Terms:
        """D's terms, on a real batch and on generated images."""
        if self.joint:
            images = torch.cat([fake, batch["image"]])
            about = {"class": torch.cat([drawn["class"], batch["class"]])}
            on_fake, on_real = self.scores(images, about).split(len(fake))
        elif self.real_first:
            on_real, on_fake = self.scores(batch["image"], batch), self.scores(fake, drawn)
        else:
            on_fake, on_real = self.scores(fake, drawn), self.scores(batch["image"], batch)
        return self.terms_of(on_real, on_fake)

    def terms_of(self, on_real: Tensor, on_fake: Tensor) -> Terms:
        """D's terms by its scores [N] each."""
        return {
            "D/real": losses.discriminator_loss(on_real, True, self.gan_loss),
            "D/fake": losses.discriminator_loss(on_fake, False, self.gan_loss),
        }

    def generator_terms(self, drawn: Batch, fake: Tensor) -> Terms:
        """G's terms."""
        return {"G/gan": losses.generator_loss(self.scores(fake, drawn), self.gan_loss)}

    def penalty(self, batch: Batch, drawn: Batch, fake: Tensor, share: Tensor) -> Tensor:
        """D's gradient penalty, between the real and the generated images."""

        def critic(image: Tensor) -> Tensor:
            return self.scores(image, drawn)

        real = batch["image"]
        return losses.gradient_penalty(critic, real, fake, share, **self.penalty_options)

    @property
    def penalty_options(self) -> dict[str, Any]:
        """What `losses.gradient_penalty` takes beside the images."""
        return {}

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        return self.generate(batch)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        parts = zip(*(value.split(AT_ONCE) for value in batch.values()), strict=True)
        images = (self.sample(dict(zip(batch, part, strict=True))) for part in parts)
        shown = [conditioning.denormalise(image).cpu() for image in images]
        return {"fake": conditioning.in_colours(torch.cat(shown))}

    def static_parts(self) -> list[nn.Module]:
        """Not D where a penalty differentiates it twice."""
        return [self.nets["G"]] if self.penalised else list(self.nets.values())
