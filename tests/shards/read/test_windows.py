"""Both kinds of order over shards of any sizes, and what the windowed one is for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shards.read.order import FullOrder, Order, Shuffle, WindowedOrder, order_of


@dataclass(frozen=True)
class Case:
    sizes: list[int]
    shuffle: Shuffle
    seed: int
    domain: int

    def order(self) -> Order:
        return order_of(self.shuffle, self.sizes, self.seed, self.domain)


windowed = st.builds(
    Case,
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    shuffle=st.builds(Shuffle, st.just("windowed"), st.integers(1, 5), st.integers(1, 6)),
    seed=st.integers(-(2**70), 2**70),
    domain=st.integers(0, 3),
)
anything = windowed | st.builds(
    Case,
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    shuffle=st.just(Shuffle()),
    seed=st.integers(-(2**70), 2**70),
    domain=st.integers(0, 3),
)


def shard_of(order: Order, sample: int) -> int:
    return int(np.searchsorted(order.ends, sample, side="right"))


def samples_of_stream(order: Order, epoch: int, stream: int) -> list[int]:
    start = epoch * order.num_samples
    positions = range(start, start + order.num_samples)
    mine = [position for position in positions if position % order.streams == stream]
    return [order.locate(position)[1] for position in mine]


def walk(order: Order, position: int) -> Iterator[tuple[int, int]]:
    """(position, shard) of the stream of a position, from there on."""
    while True:
        yield position, shard_of(order, order.locate(position)[1])
        position += order.streams


@given(case=anything, epoch=st.integers(0, 2**40))
@settings(max_examples=100, deadline=None)
def test_each_epoch_holds_each_sample_once(case, epoch):
    order = case.order()
    num_samples = sum(case.sizes)
    located = [order.locate(epoch * num_samples + n) for n in range(num_samples)]
    assert {found for found, _ in located} == {epoch}
    assert sorted(sample for _, sample in located) == list(range(num_samples))


@given(case=anything, positions=st.lists(st.integers(0, 300), max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_place_depends_on_nothing_that_was_asked_before(case, positions):
    order = case.order()
    order.locate(2**50)
    travelled = ForkingPickler.loads(ForkingPickler.dumps(order))
    for position in positions:
        fresh = case.order().locate(position)
        assert order.locate(position) == fresh == travelled.locate(position)


@given(case=windowed, epoch=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_stream_uses_no_more_shards_at_a_time_than_a_window(case, epoch):
    order = case.order()
    for stream in range(order.streams):
        shards = [shard_of(order, sample) for sample in samples_of_stream(order, epoch, stream)]
        for now in range(len(shards)):
            in_use = set(shards[: now + 1]) & set(shards[now:])
            assert len(in_use) <= case.shuffle.window


@given(case=windowed, epochs=st.tuples(st.integers(0, 9), st.integers(0, 9)))
@settings(max_examples=100, deadline=None)
def test_a_stream_keeps_its_shards_from_epoch_to_epoch(case, epochs):
    order = case.order()
    num_shards = sum(size > 0 for size in case.sizes)
    num_pieces = 0
    for stream in range(order.streams):
        one, other = (set(samples_of_stream(order, epoch, stream)) for epoch in epochs)
        # Either end of its part of the line may move, by fewer samples than there are streams.
        assert len(one - other) <= 2 * (order.streams - 1)
        num_pieces += len({shard_of(order, sample) for sample in one})
    assert num_pieces <= num_shards + order.streams - 1


@given(case=windowed, start=st.integers(0, 200), count=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_shards_are_announced_before_a_window_needs_them(case, start, count):
    order = case.order()
    assume(order.num_samples >= order.streams)  # else a stream may skip epochs
    pairs = zip(walk(order, start), walk(order, start + order.streams), strict=True)
    for (position, shard), (_, later) in islice(pairs, 2 * order.num_samples):
        announced = order.shards_ahead(position, count)
        assert {shard, later} <= set(announced)
        assert len(announced) == len(set(announced)) < 2 * case.shuffle.window + count


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    start=st.integers(0, 200),
    count=st.integers(1, 15),
)
@settings(max_examples=60, deadline=None)
def test_a_full_order_announces_the_next_shards(sizes, start, count):
    order = FullOrder(sizes, seed=3)
    passed = [shard for _, shard in islice(walk(order, start), 2 * order.num_samples)]
    assert order.shards_ahead(start, count) == list(dict.fromkeys(passed))[:count]


def test_a_window_mixes_all_of_its_shards():
    order = WindowedOrder([50] * 12, seed=2, domain=0, window=4, streams=1)
    for group in range(3):
        samples = [order.locate(200 * group + n)[1] for n in range(200)]
        counts = np.bincount([sample // 50 for sample in samples[:100]], minlength=12)
        # 25 expected of each of its shards, the standard deviation is 3.1.
        assert np.count_nonzero(counts) == 4 and counts[counts > 0].min() >= 10, counts


def test_the_windowed_order_of_a_seed_never_changes():
    order = WindowedOrder([3, 2, 4, 1], seed=1, domain=0, window=2, streams=2)
    assert [order.locate(n)[1] for n in range(20)] == WINDOWED_ORDER_OF_SEED_1


WINDOWED_ORDER_OF_SEED_1 = [6, 2, 7, 1, 9, 4, 8, 0, 5, 3, 9, 2, 8, 3, 6, 4, 5, 0, 7, 1]


@pytest.mark.parametrize(("sizes", "streams"), [([25] * 8, 2), ([200], 1)])
def test_epochs_and_domains_do_not_repeat_each_other(sizes, streams):
    def epoch_of(domain: int, epoch: int) -> list[int]:
        order = WindowedOrder(sizes, seed=4, domain=domain, window=2, streams=streams)
        return [order.locate(200 * epoch + n)[1] for n in range(200)]

    lines = [epoch_of(domain, epoch) for domain in range(2) for epoch in range(2)]
    for i, one in enumerate(lines):
        for other in lines[:i]:
            # All, were they the same.
            assert sum(a == b for a, b in zip(one, other, strict=True)) < 20
    # Unpaired: no picture of one domain meets the same picture of the other in both epochs.
    pairs = [set(zip(lines[epoch], lines[2 + epoch], strict=True)) for epoch in range(2)]
    assert len(pairs[0] & pairs[1]) < 20


def test_streams_without_windows_are_refused():
    with pytest.raises(ValueError, match="streams=2 needs data.order.shuffle=windowed"):
        Shuffle("full", streams=2)


def test_ten_million_samples_cost_no_object_each():
    tracemalloc.start()
    order = WindowedOrder([10_000] * 1000, seed=0, domain=0, window=16, streams=4)
    for position in (0, 1, 9_999_999, 10_000_000):
        order.locate(position)
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    FullOrder([10_000] * 100, seed=987).locate(0)
    # A Python integer in a list takes 36.
    assert tracemalloc.get_traced_memory()[1] < 30 * 1_000_000
    tracemalloc.stop()
