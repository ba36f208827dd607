"""What a GAN is to the engine: networks, losses and the phases of one update. One paper, one file.

A new GAN is a file trainers/gans/ROOM/NAME.py with a `Config(GANSettings)`, which says what it
`needs`, and a `Model(GAN)` made from it. Data, precision, ranks, checkpoints and board come from
the engine.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

Batch = dict[str, Any]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One kind of update: which networks it trains, and how often."""

    name: str
    """"G" or "D", in capitals: the prefix of its loss terms, by which they are known as losses."""
    nets: tuple[str, ...]
    """Dotted paths below `GAN.nets` of the modules that this phase updates: "D", "G.enhancers"."""
    every: int = 1
    """Runs on every n-th step (n_critic on fresh batches, lazy regularisation)."""
    offset: int = 0
    """Number of the first of these steps: n - 1 is after n - 1 steps without it."""
    complement: bool = False
    """Runs on all steps but these."""
    begin: int = 0
    """Does not run before this step."""
    repeats: int = 1
    """Updates in a row in one step, on the same batch (n_critic). `GAN.losses` may count them in
    what it hands on."""

    def __post_init__(self) -> None:
        if not self.name.isupper():
            raise ValueError(f"phase {self.name!r}: its name must be in capitals")
        if not 0 <= self.offset < self.every or self.repeats < 1:
            raise ValueError(f"phase {self.name!r} would never run: {self}")

    @property
    def share(self) -> float:
        """Share of the steps in which it runs."""
        return 1 - 1 / self.every if self.complement else 1 / self.every

    def due(self, step: int) -> bool:
        """Whether it runs on a step; the first one is number 0."""
        return step >= self.begin and (step % self.every == self.offset) != self.complement


class GAN(nn.Module):
    """The networks and losses of one paper. Knows no optimizer, rank, device, precision or run.

    Subclasses fill `nets` (all that a checkpoint holds) and `weights` (one entry per loss term).
    """

    players: ClassVar[tuple[str, ...]] = ("G", "D")
    """Names of the phases that it ever has."""
    ema: tuple[str, ...] = ("G",)
    """Paths below `nets` whose moving average is kept and used for translation."""
    averaged_before: ClassVar[bool] = False
    """Whether the average takes in the weights before each step, not after it."""
    independent_phases: ClassVar[bool] = False
    """Promise: no phase uses networks that another phase of the same step has trained before it,
    so that all may step at the end (backend.overlap)."""
    num_gathered: int = 0
    """Generated images that a process gathers over the steps (image pools), once it has all."""
    nets: nn.ModuleDict
    weights: dict[str, float]

    def phases(self, images: int) -> tuple[Phase, ...]:
        """The phases of one update, in order, once `images` images have been seen.

        When the answer changes, the engine builds player and optimizer of that phase anew."""
        raise NotImplementedError

    def advance(self, step: int, images: int) -> None:
        """Told how far training is, before each step and before pictures are made (fade-in,
        curricula, ramps): steps done, and images seen."""

    def batch_size(self, images: int) -> int | None:
        """Images of the next step over all ranks, once `images` images have been seen; None: as
        many as the recipe says (batch.total)."""
        return None

    def prepare(self, batch: Batch) -> Batch:
        """Raw batch on the device (uint8 images, integer ids, and in training the draws that the
        GAN needs) -> float tensors, images in [-1, 1]."""
        raise NotImplementedError

    def needs_batch(self, phase: str, carry: Batch) -> bool:
        """Whether the losses of `phase` look at the prepared batch; else they are given none."""
        return True

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        """(total, terms, out) of one phase on a prepared batch.

        total: the weighted scalar that is differentiated; terms: unweighted means for the board,
        named "PHASE/term"; out: detached tensors handed to the later phases of the same batch in
        `carry` (the fake, for example), and to its own next update where it `repeats`."""
        raise NotImplementedError

    def constrain(self, phase: str) -> bool:
        """Called without gradients after each optimizer step of a phase (weight clipping); whether
        weights were changed."""
        return False

    def total(self, terms: Terms) -> Tensor:
        """Weighted sum of the terms, for the losses that need no narrow waist."""
        total = sum(self.weights[name] * term for name, term in terms.items())
        assert isinstance(total, Tensor), "a phase has at least one term"
        return total

    def static_parts(self) -> list[nn.Module]:
        """Modules that take images of few sizes in training, which may be compiled. They must be
        called themselves: what runs a part's children past it runs them uncompiled. Leave out what
        a gradient penalty looks at: torch.compile knows no second derivatives, and would raise."""
        return list(self.nets.values())

    def translate(self, batch: Batch) -> Tensor:
        """Prepared batch -> generated images [N, 1, 3 or 4, H, W] in [-1, 1]."""
        raise NotImplementedError

    def sample(self, batch: Batch) -> Tensor:
        """Prepared `samples` of its needs (and "class", where there are classes to be asked for) ->
        generated images [N, 1, 3 or 4, H, W] in [-1, 1]."""
        raise NotImplementedError

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Prepared batch -> named uint8 pictures [N, 3, H, W], in the order of the board's grid."""
        raise NotImplementedError

    def own_state(self) -> dict[str, Tensor]:
        """What this process alone gathers over the steps (image pools), as tensors by name."""
        return {}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `own_state`."""

    def adopt(self, weights: dict[str, Tensor]) -> list[str]:
        """Start from the `nets` of another run.

        Returns the names of own parameters left at their initialisation; raises ValueError when
        the weights cannot be meant for this network."""
        own = self.nets.state_dict()
        given = {n: weight for n, weight in weights.items() if not self.outgrown(n, weights)}
        for name, weight in given.items():
            if name not in own:
                raise ValueError(f"the checkpoint has {name}, which this network lacks")
            if weight.shape != own[name].shape:
                raise ValueError(
                    f"{name} has shape {tuple(weight.shape)} in the checkpoint and "
                    f"{tuple(own[name].shape)} in this network: their options differ"
                )
        fresh = [name for name in own if name not in given]
        for name in fresh:
            if not self.may_be_new(name, given):
                raise ValueError(f"the checkpoint lacks {name}, which this network needs")
        self.nets.load_state_dict(given, strict=False)
        return fresh

    def outgrown(self, name: str, given: Collection[str]) -> bool:
        """Whether `adopt` leaves out a weight of the other run, which has `given`."""
        return False

    def may_be_new(self, name: str, given: Collection[str]) -> bool:
        """Whether `adopt` may leave an own parameter as it is, where the other run has `given`."""
        return False
