"""The model of communication: numbers worked out by hand, limits, and what can never be."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.links import (
    BETWEEN_NODES,
    BUCKET,
    EFFICIENCY,
    Link,
    Update,
    all_reduce_seconds,
    buckets,
    exposed_seconds,
    inside_node,
    ring_seconds,
    step_seconds,
    tree_seconds,
)

GRADIENTS = 4 * 182_857_059
"""Bytes of pix2pixHD's generator: 731 MB."""
FREE = Link("free", float("inf"), 0.0)
NVLINK, FABRIC = Link("NVLink", 360e9, 0.0), Link("8x200 Gb", 160e9, 0.0)


def test_731_mb_over_64_gpus() -> None:
    """Inside a node 7/8 of them go out twice, between the 8 nodes again."""
    inside = 2 * 7 / 8 * 731.428236e6 / 360e9
    between = 2 * 7 / 8 * 731.428236e6 / 160e9
    found = all_reduce_seconds(GRADIENTS, 8, 8, NVLINK, FABRIC)
    assert found == pytest.approx(inside + between) == pytest.approx(11.556e-3, rel=1e-4)


def test_the_known_links() -> None:
    bandwidths = [link.bandwidth / EFFICIENCY / 1e9 for link in BETWEEN_NODES]
    assert bandwidths == pytest.approx([200, 25, 3.125])
    assert inside_node(450e9).bandwidth == EFFICIENCY * 450e9
    assert inside_node(0).name == "PCIe 4 x16"


def test_one_gpu_sends_nothing() -> None:
    for link in BETWEEN_NODES:
        assert all_reduce_seconds(GRADIENTS, 1, 1, link, link) == 0


def test_without_a_limit_on_bandwidth_only_hops_count() -> None:
    link = Link("", float("inf"), 1e-6)
    assert ring_seconds(1e9, 4, link) == pytest.approx(6e-6)
    assert tree_seconds(1e9, 64, link) == pytest.approx(12e-6)
    # A ring of 8 inside; between 64 nodes the tree has fewer hops.
    assert all_reduce_seconds(1e9, 64, 8, link, link) == pytest.approx(14e-6 + 12e-6)


@given(st.floats(1, 1e10), st.integers(1, 99), st.integers(1, 16), st.sampled_from(BETWEEN_NODES))
def test_more_bytes_or_gpus_or_a_slower_link_never_take_less(
    num_bytes: float, num_nodes: int, on_each: int, link: Link
) -> None:
    inside = inside_node(450e9)
    least = all_reduce_seconds(num_bytes, num_nodes, on_each, inside, link)
    slower = Link("", link.bandwidth / 2, 2 * link.latency)
    for more in (
        (2 * num_bytes, num_nodes, on_each, inside, link),
        (num_bytes, num_nodes + 1, on_each, inside, link),
        (num_bytes, num_nodes, on_each + 1, inside, link),
        (num_bytes, num_nodes, on_each, inside, slower),
    ):
        assert all_reduce_seconds(*more) >= least * (1 - 1e-12)


def test_buckets_are_filled_in_the_order_of_arrival() -> None:
    arrivals = [(1.0, BUCKET / 2), (2.0, BUCKET / 2), (3.0, 2 * BUCKET), (4.0, 8.0)]
    assert list(buckets(arrivals)) == [(2.0, BUCKET), (3.0, 2 * BUCKET), (4.0, 8.0)]
    assert list(buckets([])) == []


def one_second(num_bytes: float) -> float:
    return 1.0


def test_a_step_by_hand() -> None:
    """G: buckets at 1, 2 of a backward of 4 s; D: one at the very end of its own."""
    g = Update(10, 4, 0.5, ((1.0, BUCKET), (2.0, BUCKET)))
    d = Update(3, 2, 0.25, ((2.0, BUCKET),))
    compute = 10 + 4 + 0.5 + 3 + 2 + 0.25
    assert step_seconds([g, d], one_second, "backward") == compute + 1  # D's only bucket
    assert step_seconds([g, d], one_second, "phases") == compute + 1
    assert step_seconds([g, d], one_second, "nothing") == compute + 3
    # The same, with links so slow that G's gradients outlast its backward, but not D's phase.
    slow = [step_seconds([g, d], lambda _: 3.0, hiding) for hiding in ("backward", "phases")]
    assert slow == [compute + 3 + 3, compute + 3]  # G: 11 to 14 to 17, its backward ends at 14
    # Slower still: D's bucket waits until G's have gone.
    assert step_seconds([g, d], lambda _: 6.0, "phases") == 11 + 3 * 6 + 0.75


seconds = st.floats(0, 1)


@st.composite
def steps(draw: st.DrawFn) -> list[Update]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        before, backward, after = draw(seconds), draw(seconds), draw(seconds)
        arrivals = sorted(draw(st.lists(st.floats(0, backward), min_size=1, max_size=6)))
        sizes = [draw(st.floats(1, 3 * BUCKET)) for _ in arrivals]
        found.append(Update(before, backward, after, tuple(zip(arrivals, sizes, strict=True))))
    return found


@given(steps(), st.floats(1e6, 1e12))
def test_what_hides_more_exposes_less(updates: list[Update], bandwidth: float) -> None:
    all_reduce = partial(ring_seconds, size=8, link=Link("", bandwidth, 1e-5))
    whole = sum(all_reduce(n) for update in updates for _, n in buckets(update.gradients))
    nothing, backward, phases = (
        exposed_seconds(updates, all_reduce, hiding) for hiding in ("nothing", "backward", "phases")
    )
    tolerance = 1e-9 * (1 + whole)
    assert nothing == pytest.approx(whole)
    assert 0 <= phases <= backward + tolerance <= nothing + 2 * tolerance
    last = list(buckets(updates[-1].gradients))[-1][1]
    if updates[-1].gradients[-1][0] == updates[-1].backward:
        assert phases >= all_reduce(last) - tolerance  # nothing is left to hide it
    free = partial(ring_seconds, size=8, link=FREE)
    assert exposed_seconds(updates, free, "nothing") == pytest.approx(0, abs=tolerance)
