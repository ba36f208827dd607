"""What a training step takes at the least on a card, alone and among others: numbers for `plan`.

Nothing here was measured: kernels by the card's data sheet, all-reduces by cluster/links.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from cluster.links import Hiding, Link, Update, all_reduce_seconds, exposed_seconds, inside_node
from launcher.estimate.gpus import Card, seconds
from launcher.estimate.memory import Work
from launcher.estimate.step_costs import StepCosts
from launcher.plan.expected_data import ExpectedData
from launcher.recipe.backend_options import BackendOptions
from launcher.recipe.epochs import ResolvedConfig
from trainers.engine.tracing import Part

LAUNCH = 5e-6
"""Seconds that the host takes to launch a kernel in eager mode: an assumption."""
COMPRESSED = {"none": 1.0, "bf16": 0.5}
"""Bytes that gradients travel in, as a share of fp32, by backend.compress."""


@dataclass(frozen=True)
class Floors:
    """Seconds of one step on one GPU, each if nothing else counted: of a mean step, where a phase
    does not run in all of them."""

    arithmetic: float
    traffic: float
    kernels: float
    """Each kernel by the greater of both, one after the other."""
    launches: float
    step: float
    """Stage by stage the greater of kernels and launches: no eager step is faster."""


def floors(costs: StepCosts, card: Card, precision: str) -> Floors:
    def mean(seconds_of: Callable[[Part], float]) -> float:
        return sum(costs.shares[part.phase] * seconds_of(part) for part in costs.parts)

    def kernels(part: Part, flops: int = 1, num_bytes: int = 1) -> float:
        counted = [(flops * f, num_bytes * b) for f, b in part.kernels]
        return seconds(counted, card, precision)

    return Floors(
        arithmetic=mean(partial(kernels, num_bytes=0)),
        traffic=mean(partial(kernels, flops=0)),
        kernels=mean(kernels),
        launches=mean(lambda part: LAUNCH * len(part.kernels)),
        step=mean(lambda part: stage_seconds(part, card, precision)),
    )


def stage_seconds(part: Part, card: Card, precision: str) -> float:
    return timeline(part, card, precision)[-1]


def timeline(part: Part, card: Card, precision: str) -> list[float]:
    """Seconds until the first, second ... kernel of a stage may begin, and until the last ends:
    each waits for those before it, and for its launch."""
    ends = accumulate(seconds([kernel], card, precision) for kernel in part.kernels)
    return [max(LAUNCH * number, end) for number, end in enumerate([0.0, *ends])]


def updates(costs: StepCosts, num_micro: int, card: Card, precision: str) -> list[Update]:
    """The phases of a step, as the links see them: gradients travel with the last micro-batch, and
    as many of them as in a mean step."""
    found = []
    for phase, share in costs.shares.items():
        stages = {part.stage: part for part in costs.parts if part.phase == phase}
        forward, backward, step = (
            timeline(stages[stage], card, precision) for stage in ("forward", "backward", "step")
        )
        last = backward[-1] / num_micro
        earlier = backward[-1] - last
        gradients = tuple(
            (max(0.0, backward[position] - earlier), 4 * num_parameters)
            for position, num_parameters in stages["backward"].gradients
        )
        found.append(Update(forward[-1] + earlier, last, step[-1], gradients).in_mean(share))
    return found


def hiding_of(backend: BackendOptions) -> Hiding:
    """What computes while gradients travel."""
    if backend.kind == "deepspeed":
        return "nothing"
    return "phases" if backend.overlap else "backward"


def sent_share(backend: BackendOptions, num_micro: int) -> float:
    """What travels in a step, as a share of an all-reduce of fp32 gradients."""
    share = COMPRESSED[backend.compress]
    if backend.zero == 2:  # no rank keeps all gradients: they are reduced after each micro-batch
        share *= num_micro
    # ZeRO also gathers the stepped fp32 weights: half an all-reduce.
    return share + 0.5 if backend.zero else share


@dataclass(frozen=True)
class Fleet:
    """GPUs on as few nodes as hold them."""

    num_gpus: int
    gpus_per_node: int

    @property
    def num_nodes(self) -> int:
        return -(-self.num_gpus // self.gpus_per_node)

    @property
    def on_each_node(self) -> int:
        return self.num_gpus // self.num_nodes

    @property
    def even(self) -> bool:
        """Whether all nodes have the same number of these GPUs."""
        return self.num_nodes * self.on_each_node == self.num_gpus


@dataclass(frozen=True)
class Synchronised:
    """A step of one GPU among others, in seconds."""

    all_reduce: float
    """In which the links are busy."""
    exposed: float
    """Of these, those in which nothing computes."""
    step: float

    @property
    def efficiency(self) -> float:
        """Share of the step that would be left on one GPU."""
        return 1 - self.exposed / self.step


@dataclass(frozen=True)
class Outlook:
    """What is planned."""

    config: ResolvedConfig
    """Of a memory preset that is not auto."""
    cards: tuple[Card, ...]
    fleet: Fleet
    data: ExpectedData
    work: Work
    costs: StepCosts

    @property
    def num_images(self) -> int:
        """Of a GPU in one step."""
        return self.work.num_images * self.work.num_micro

    def floors(self, card: Card) -> Floors:
        return floors(self.costs, card, self.config.precision)

    def synchronised(self, card: Card, fleet: Fleet, between: Link, compress: str) -> Synchronised:
        """A step as planned, on each GPU of `fleet`; compress: instead of backend.compress."""
        backend = self.config.backend.model_copy(update={"compress": compress})
        phases = updates(self.costs, self.work.num_micro, card, self.config.precision)
        inside, share = inside_node(card.nvlink), sent_share(backend, self.work.num_micro)

        def all_reduce(num_bytes: float) -> float:
            nodes = fleet.num_nodes, fleet.on_each_node
            return all_reduce_seconds(share * num_bytes, *nodes, inside, between)

        busy = exposed_seconds(phases, all_reduce, "nothing")
        exposed = exposed_seconds(phases, all_reduce, hiding_of(backend))
        return Synchronised(busy, exposed, sum(phase.compute for phase in phases) + exposed)
