"""CycleGAN: translation between two sets of images without pairs.

Zhu, Park, Isola, Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks, ICCV 2017 (arXiv:1703.10593). The names are those of the authors' code: G_A (the paper's
G) translates A -> B and D_A judges images of B; G_B (F) translates B -> A and D_B judges A.

    min_G  gan(D_A(G_A(a))) + lambda_A |G_B(G_A(a)) - a|_1 + lambda_identity lambda_B |G_A(b) - b|_1
         + gan(D_B(G_B(b))) + lambda_B |G_A(G_B(b)) - b|_1 + lambda_identity lambda_A |G_B(a) - a|_1
    min_D  0.5 [ real(D_A(b)) + fake(D_A(G_A(a))) ] + 0.5 [ real(D_B(a)) + fake(D_B(G_B(b))) ]
                                                                           (eq. 1 to 3, section 5.2)
and with gan_loss=wgangp lambda_gp (|grad D_A(x)| - 1)^2, x between b and G_A(a), the same of D_B.
Batches as they come from the stream: a, uint8 [N, input_nc, H, W], and b, uint8 [N, output_nc, H,
W], drawn independently; with wgangp share_A and share_B, float32 [N, 1, 1, 1].
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.layers import conditioning
from nets.layers.init import init_normal
from nets.losses import losses
from nets.memory.remat import Remat
from nets.memory.waist import Terms, in_turn, narrow_waist
from trainers.gan import GAN, Batch, Phase
from trainers.parts.image_pool import ImagePool
from trainers.parts.networks import fitted, run
from trainers.parts.translators import Translator, canonical
from trainers.settings import Needs


class Config(Translator):
    """Options under `model`. Defaults are the paper's, at 256x256."""

    lambda_A: float = Field(10.0, ge=0)
    """Weight of the cycle A -> B -> A."""
    lambda_B: float = Field(10.0, ge=0)
    """Weight of the cycle B -> A -> B."""
    lambda_identity: float = Field(0.5, ge=0)
    """Weight, relative to lambda_*, of leaving images of the target alone; 0 leaves it out, as it
    is by default where input_nc and output_nc differ."""
    pool_size: int = Field(50, ge=0)
    """Generated images that each process keeps to show D again; 0 for none."""
    memory: Literal["none", "directions", "directions+blocks", "auto"] = "none"
    """Recomputation and order for memory, the same gradients (dropout draws in another order):
    none runs all passes of a generator as one call; directions runs A -> B -> A, frees it, then
    B -> A -> B; +blocks also recomputes each residual block; auto: the fastest that fits."""

    @property
    def needs(self) -> Needs:
        """What the data set must hold."""
        least = self.generator.min_side
        return Needs(
            "unpaired",
            max(least, self.discriminator.min_side),
            least,
            self.generator.multiple,
            directions=("A2B", "B2A"),
            channels={"a": self.input_nc, "b": self.output_nc},
            one_size=self.penalised,
            draws=self.shares("share_A", "share_B"),
        )

    @model_validator(mode="before")
    @classmethod
    def _spelt(cls, section: Any) -> Any:
        section = canonical(section)
        if isinstance(section, dict):
            source, target = (str(section.get(name, 3)) for name in ("input_nc", "output_nc"))
            section = ({"lambda_identity": 0} if source != target else {}) | section
        return section

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.lambda_identity and self.input_nc != self.output_nc:
            raise ValueError(
                f"model.lambda_identity={self.lambda_identity} asks each generator to leave its "
                f"target alone, but input_nc={self.input_nc} and output_nc={self.output_nc} "
                "differ: set lambda_identity to 0"
            )
        if self.memory == "directions+blocks" and self.generator.kind != "resnet":
            raise ValueError(
                f"model.memory=directions+blocks needs the blocks of a resnet, but "
                f"model.generator.kind={self.generator.kind}: choose directions"
            )
        return self


class CycleGAN(GAN):
    """`training=False` builds the generators alone."""

    ema: tuple[str, ...] = ("G_A", "G_B")
    independent_phases: ClassVar[bool] = True  # D judges images that G made before its step

    def __init__(self, config: Config, training: bool = True):
        super().__init__()
        self.config = config
        recompute: Remat = "blocks" if config.memory == "directions+blocks" else "none"
        a, b = config.input_nc, config.output_nc
        build = config.generator.build
        self.nets = nn.ModuleDict({"G_A": build(a, b, recompute), "G_B": build(b, a, recompute)})
        if training:
            judged = {"D_A": b, "D_B": a}
            self.nets.update({name: config.discriminator.build(n) for name, n in judged.items()})
        init_normal(self.nets, zero_bias=True)
        self.pools = {name: ImagePool(config.pool_size, name) for name in ("fake_B", "fake_A")}
        self.num_gathered = 2 * config.pool_size
        self.weights = self._weights()

    def _weights(self) -> dict[str, float]:
        config = self.config
        weights = {"G/gan_A": 1.0, "G/gan_B": 1.0}
        weights |= {"G/cycle_A": config.lambda_A, "G/cycle_B": config.lambda_B}
        # G_A sees images of B here, whose weight is lambda_B.
        weights["G/idt_A"] = config.lambda_identity * config.lambda_B
        weights["G/idt_B"] = config.lambda_identity * config.lambda_A
        weights |= {f"D/{kind}_{side}": 0.5 for side in "AB" for kind in ("real", "fake")}
        return weights | {f"D/gp_{side}": config.lambda_gp for side in "AB" if config.penalised}

    def phases(self, images: int) -> tuple[Phase, ...]:
        return Phase("G", ("G_A", "G_B")), Phase("D", ("D_A", "D_B"))

    def prepare(self, batch: Batch) -> Batch:
        """-> a and b [N, C, H, W] in [-1, 1], or the one of them that there is, and the draws."""
        dtype = conditioning.compute_dtype(next(self.nets["G_A"].parameters()))
        drawn = {name: batch[name] for name in ("share_A", "share_B") if name in batch}
        images = {n: conditioning.normalise(batch[n], dtype) for n in "ab" if n in batch}
        return images | drawn

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        a, b = batch["a"], batch["b"]
        if phase == "D":
            terms = self._discriminator_terms("A", b, carry["fake_B"], batch)
            terms |= self._discriminator_terms("B", a, carry["fake_A"], batch)
            return self.total(terms), terms, {}
        fakes: Batch = {}
        if self.config.memory == "none":
            total, terms = self._both_directions(a, b, fakes)
        else:
            directions = [
                partial(self._direction, there, back, a, b, fakes)
                for there, back in (("A", "B"), ("B", "A"))
            ]
            parameters = [*self.nets["G_A"].parameters(), *self.nets["G_B"].parameters()]
            total, terms = in_turn(directions, parameters)
        return total, terms, fakes

    def _both_directions(self, a: Tensor, b: Tensor, fakes: Batch) -> tuple[Tensor, Terms]:
        """Three calls for six passes: G_A, G_B on all that is there by then, G_A on the rest."""
        identity = self.config.lambda_identity > 0
        fake_B, *same_A = self._run("G_A", a, *([b] if identity else []))
        rec_A, fake_A, *same_B = self._run("G_B", fake_B, b, *([a] if identity else []))
        (rec_B,) = self._run("G_A", fake_A)
        total_A, terms_A = self._judge("A", a, b, fake_B, rec_A, same_A, fakes)
        total_B, terms_B = self._judge("B", b, a, fake_A, rec_B, same_B, fakes)
        return total_A + total_B, terms_A | terms_B

    def _direction(
        self, there: str, back: str, a: Tensor, b: Tensor, fakes: Batch
    ) -> tuple[Tensor, Terms]:
        """All passes and losses of one direction, from `there` A or B: two calls for three."""
        source, target = (a, b) if there == "A" else (b, a)
        identity = self.config.lambda_identity > 0
        fake, *same = self._run(f"G_{there}", source, *([target] if identity else []))
        (rec,) = self._run(f"G_{back}", fake)
        return self._judge(there, source, target, fake, rec, same, fakes)

    def _judge(
        self,
        side: str,
        source: Tensor,
        target: Tensor,
        fake: Tensor,
        rec: Tensor,
        same: list[Tensor],
        fakes: Batch,
    ) -> tuple[Tensor, Terms]:
        """Weighted total and terms of one direction; D is run and freed on its own."""
        adversarial, terms = narrow_waist(fake, [partial(self._adversarial, side)])
        distances = {f"G/cycle_{side}": losses.l1(rec, source)}
        if same:
            distances[f"G/idt_{side}"] = losses.l1(same[0], target)
        fakes["fake_B" if side == "A" else "fake_A"] = fake.detach()
        return adversarial + self.total(distances), terms | distances

    def _adversarial(self, side: str, fake: Tensor) -> tuple[Tensor, Terms]:
        scores = self.nets[f"D_{side}"](fake)[-1]
        terms = {f"G/gan_{side}": losses.generator_loss(scores, self.config.gan_loss)}
        return self.total(terms), terms

    def _discriminator_terms(self, side: str, real: Tensor, fake: Tensor, batch: Batch) -> Terms:
        fake = self.pools["fake_B" if side == "A" else "fake_A"].query(fake)
        network, kind = self.nets[f"D_{side}"], self.config.gan_loss

        def judge(image: Tensor) -> Tensor:
            return network(image)[-1]

        scores = run(judge, [real, fake], self.config.discriminator.norm)
        terms = {
            f"D/real_{side}": losses.discriminator_loss(scores[0], True, kind),
            f"D/fake_{side}": losses.discriminator_loss(scores[1], False, kind),
        }
        if self.config.penalised:
            share = batch[f"share_{side}"]
            terms[f"D/gp_{side}"] = losses.gradient_penalty(judge, real, fake, share)
        return terms

    def _run(self, name: str, *images: Tensor) -> list[Tensor]:
        generator = self.config.generator
        network = partial(fitted, self.nets[name], pad=generator.multiple == 1)
        return run(network, list(images), generator.norm)

    @torch.no_grad()
    def translate(self, batch: Batch) -> Tensor:
        """A batch with b alone is translated B -> A, any other A -> B."""
        name, source = ("G_A", "a") if "a" in batch else ("G_B", "b")
        return self._run(name, batch[source])[0]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        fake_B, fake_A = self.translate({"a": batch["a"]}), self.translate({"b": batch["b"]})
        shown = {
            "real A": batch["a"],
            "fake B": fake_B,
            "cycled A": self.translate({"b": fake_B}),
            "real B": batch["b"],
            "fake A": fake_A,
            "cycled B": self.translate({"a": fake_A}),
        }
        return {
            name: conditioning.in_colours(conditioning.denormalise(image))
            for name, image in shown.items()
        }

    def static_parts(self) -> list[nn.Module]:
        """Not the critics where a penalty differentiates them twice."""
        names = self.ema if self.config.penalised else self.nets
        return [self.nets[name] for name in names]

    def own_state(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": tensor
            for name, pool in self.pools.items()
            for key, tensor in pool.state().items()
        }

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        for name, pool in self.pools.items():
            prefix = name + "/"
            pool.load({k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)})


Model = CycleGAN
