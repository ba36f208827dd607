"""What synchronising gradients costs: the time of all-reduces, and how much of it a step hides.

The usual alpha-beta model: a message takes a latency and its bytes over the bandwidth. Between
nodes the better of a ring and a tree is taken, as NCCL does. Pure functions; seconds and bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

EFFICIENCY = 0.8
"""Share of a link's nominal bandwidth that a collective reaches: an assumption."""
BUCKET = 25 * 2**20
"""Bytes of gradients that DDP sends at a time (its default)."""

Hiding = Literal["nothing", "backward", "phases"]
"""What computes while a phase's gradients travel: nothing (DeepSpeed without overlap_comm), the
rest of the phase's own backward (DDP), or the phases that follow it in the step as well."""
AllReduce = Callable[[float], float]
"""Bytes -> seconds."""


@dataclass(frozen=True)
class Link:
    """One way into a GPU (inside a node) or into a node (between nodes)."""

    name: str
    bandwidth: float
    """Bytes a second, in one direction, that a collective reaches."""
    latency: float
    """Seconds of one hop."""


def inside_node(nvlink: float) -> Link:
    """The link between the GPUs of a node; nvlink: bytes a second of a GPU one way, 0 without.

    Latencies are those of NCCL's tuning table (src/graph/tuning.cc, ring, protocol Simple)."""
    if nvlink:
        return Link("NVLink", EFFICIENCY * nvlink, 3.4e-6)
    return Link("PCIe 4 x16", EFFICIENCY * 32e9, 5.7e-6)


BETWEEN_NODES = (
    Link("8x200 Gb", EFFICIENCY * 8 * 200e9 / 8, 9.6e-6),
    Link("1x200 Gb", EFFICIENCY * 200e9 / 8, 9.6e-6),
    Link("25 Gb", EFFICIENCY * 25e9 / 8, 30e-6),
)
"""Networks of one node. The last is Ethernet with TCP."""


def ring_seconds(num_bytes: float, size: int, link: Link) -> float:
    """All-reduce over a ring of `size`: 2 (size - 1) messages of a part each."""
    return 2 * (size - 1) * (num_bytes / size / link.bandwidth + link.latency)


def tree_seconds(num_bytes: float, size: int, link: Link) -> float:
    """All-reduce over a double binary tree: all bytes up and down, few hops (Sanders, 2009)."""
    if size == 1:
        return 0.0
    return 2 * (num_bytes / link.bandwidth + math.ceil(math.log2(size)) * link.latency)


def all_reduce_seconds(
    num_bytes: float, num_nodes: int, gpus_per_node: int, inside: Link, between: Link
) -> float:
    """All-reduce of `num_bytes` over all GPUs: reduce-scatter inside the nodes, all-reduce of the
    parts between them over the link that a node's GPUs share, all-gather inside."""
    # Reduce-scatter and all-gather together are one ring inside the node.
    seconds = ring_seconds(num_bytes, gpus_per_node, inside)
    kinds = (ring_seconds, tree_seconds)
    return seconds + min(kind(num_bytes, num_nodes, between) for kind in kinds)


@dataclass(frozen=True)
class Update:
    """One phase's part of a training step on one GPU, without communication."""

    before: float
    """Seconds of all that precedes its last backward: forwards, other micro-batches."""
    backward: float
    """Seconds of its last backward."""
    after: float
    """Seconds of the optimizer."""
    gradients: tuple[tuple[float, float], ...]
    """(seconds from the beginning of the last backward, bytes), as they become final."""

    @property
    def compute(self) -> float:
        return self.before + self.backward + self.after

    def in_mean(self, share: float) -> Update:
        """Of a phase that runs in a share of the steps: its part of the mean step."""
        gradients = tuple((share * ready, share * num_bytes) for ready, num_bytes in self.gradients)
        return Update(share * self.before, share * self.backward, share * self.after, gradients)


def buckets(gradients: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """(seconds, bytes) of what travels together: DDP fills its buckets in the order of arrival."""
    filled = seconds = 0.0
    for seconds, num_bytes in gradients:
        filled += num_bytes
        if filled >= BUCKET:
            yield seconds, filled
            filled = 0.0
    if filled:
        yield seconds, filled


def step_seconds(updates: Sequence[Update], all_reduce: AllReduce, hiding: Hiding) -> float:
    """Seconds of a training step whose gradients travel while `hiding` computes.

    Buckets follow each other over one link, each as soon as it is full."""
    clock = link_free = deferred = 0.0
    for update in updates:
        clock += update.before
        for ready, num_bytes in buckets(update.gradients):
            ready = clock + (update.backward if hiding == "nothing" else ready)
            link_free = max(link_free, ready) + all_reduce(num_bytes)
        clock += update.backward
        if hiding == "phases":
            deferred += update.after
        else:
            clock = max(clock, link_free) + update.after
    return max(clock, link_free) + deferred


def exposed_seconds(updates: Sequence[Update], all_reduce: AllReduce, hiding: Hiding) -> float:
    """Seconds by which communication makes a step longer."""
    compute = sum(update.compute for update in updates)
    return max(0.0, step_seconds(updates, all_reduce, hiding) - compute)
