"""Windowed order through the stream: which rank reads what, and what a store is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.pixels.augment import Preprocess
from shards.read.order import Shuffle
from shards.read.sources import Source, open_sources
from shards.read.stream import Batch, batches
from shards.sets.shard_set import open_domain
from shards.storage.local import Folder

CROP = Preprocess("crop", crop_size=(6, 5))
SEED = 7


def unpaired(uneven: Path, window: int, streams: int) -> tuple[Source, ...]:
    return open_sources(uneven, "unpaired", SEED, shuffle=Shuffle("windowed", window, streams))


def load(sources: Sequence[Source], steps: int, *, world: int = 1, **options) -> list[list[Batch]]:
    """[step][sample in global order]: batches of one."""
    options = {"global_batch": 12, "micro_batch": 1, "workers": 0, "seed": SEED} | options
    share = options["global_batch"] // world
    ranks = [
        list(islice(batches(sources, CROP, rank=rank, world=world, **options), steps * share))
        for rank in range(world)
    ]
    return [
        [batch for rank in ranks for batch in rank[step * share : (step + 1) * share]]
        for step in range(steps)
    ]


def assert_same(one: list[list[Batch]], two: list[list[Batch]]) -> None:
    for left, right in zip(one, two, strict=True):
        assert [batch["keys"] for batch in left] == [batch["keys"] for batch in right]
        pairs = zip(left, right, strict=True)
        assert all(torch.equal(a[m], b[m]) for a, b in pairs for m in ("a", "b"))


def test_the_set_is_uneven(uneven):
    sizes = [source.order.shard_sizes.tolist() for source in unpaired(uneven, 2, 2)]
    assert sizes == [[6, 1, 4, 3, 6], [3, 1, 7]]


@given(
    window=st.integers(1, 4),
    streams=st.sampled_from([1, 2, 3, 4, 6, 12]),
    world=st.sampled_from([1, 2, 3, 4, 6, 12]),
    start=st.integers(0, 50),
    skipped=st.integers(0, 2),
)
@settings(max_examples=20, deadline=None)
def test_any_world_and_any_resume_give_the_same_batches(
    uneven, window, streams, world, start, skipped
):
    sources = unpaired(uneven, window, streams)
    whole = load(sources, 3, start=start)
    resumed = load(sources, 3 - skipped, world=world, start=start + 12 * skipped)
    assert_same(resumed, whole[skipped:])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(uneven, workers):
    sources = unpaired(uneven, 2, 4)
    alone = load(sources, 3, start=5, global_batch=4)
    assert_same(load(sources, 3, start=5, global_batch=4, workers=workers), alone)


@pytest.mark.parametrize("world", [1, 3])
def test_an_epoch_holds_each_sample_once(uneven, world):
    loaded = load(unpaired(uneven, 2, 3), 15, world=world)  # 180 positions
    keys = [key.split(" + ") for step in loaded for batch in step for key in batch["keys"]]
    assert Counter(a for a, _ in keys) == Counter({f"{n:02d}": 9 for n in range(20)})
    assert set(Counter(b for _, b in keys).values()) == {16, 17}


def test_a_rank_reads_its_own_shards_in_every_epoch(uneven):
    (source, _) = unpaired(uneven, 1, 2)
    shards_of_ranks = []
    for rank in range(2):
        stream = batches(
            [source], CROP, global_batch=4, micro_batch=2, rank=rank, world=2, workers=0, seed=0
        )
        keys = [key for batch in islice(stream, 20) for key in batch["keys"]]  # four epochs
        numbers = [source.shard_set.shard_numbers[int(key)] for key in keys]
        shards_of_ranks.append(set(numbers))
    # One shard may lie across the border of their parts.
    assert len(shards_of_ranks[0] & shards_of_ranks[1]) <= 1
    assert set.union(*shards_of_ranks) == set(range(5))


def test_streams_that_do_not_divide_the_batch_are_refused_at_once(uneven):
    with pytest.raises(ValueError, match="streams=5 does not divide a global batch of 12"):
        load(unpaired(uneven, 2, 5), 1)


class Listening(Folder):
    """A folder that wants to be told, and insists on it."""

    ahead = 1

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.told: list[list[str]] = []
        self.read: list[str] = []

    def prefetch(self, names: Sequence[str]) -> None:
        self.told.append(list(names))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        self.read.append(name)
        assert any(name in names for names in self.told[-6:]), "read, but not announced"
        return super().read_range(name, offset, size)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_store_is_told_what_will_be_read_and_not_more_often_than_needed(uneven, streams):
    (source, _) = unpaired(uneven, 2, streams)
    store = Listening(str(uneven / "A"))
    listened = Source(replace(open_domain(uneven, "A"), store=store), source.order)
    load([listened], 5, global_batch=4)  # one epoch
    names = {shard.name for shard in listened.shard_set.manifest.shards}
    assert set(store.read) == names and len(store.read) == 20
    # Once at first, then as each of the 5 shards, or of the 6 parts of two streams, is used up.
    assert len(store.told) <= 4 + streams
    assert all(len(told) <= len(set(told)) for told in store.told)


def test_a_store_that_asks_for_nothing_is_told_nothing(uneven):
    (source, _) = unpaired(uneven, 2, 1)
    store = Listening(str(uneven / "A"))
    store.ahead = 0
    with pytest.raises(AssertionError, match="not announced"):
        load([Source(replace(source.shard_set, store=store), source.order)], 1)
    assert store.told == []
