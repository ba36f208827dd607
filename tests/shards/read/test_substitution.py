"""Damaged samples are replaced as the options say: the same everywhere, told and counted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch

from shards.pixels.augment import Preprocess
from shards.read.draws import Substitution
from shards.read.order import FullOrder
from shards.read.sources import Source
from shards.read.stream import Batch, batches
from shards.records import DataError
from shards.sets.shard_set import ShardSet, open_set, open_shards
from shards.storage.remote import Patience, RemoteStore
from tests.shards.fault_server import FaultServer
from tests.shards.sources import flip_byte

CROP = Preprocess("crop", crop_size=(6, 5))
ORDER = FullOrder([13], seed=3)


def damaged(packed: ShardSet, folder: Path, samples: Sequence[int]) -> ShardSet:
    """A copy in which the label maps of these samples have a wrong byte."""
    shutil.copytree(packed.store.path, folder)
    for sample in samples:
        flip_byte(folder / "000000.tar", int(packed.index["label"].offsets[sample]) + 20)
    return open_shards(folder)


def load(shard_set: ShardSet, num_samples: int, report=None, **options) -> list[tuple[str, Batch]]:
    """(key, batch of one) by position."""
    options = {"rank": 0, "world": 1, "workers": 0, "seed": 3, "global_batch": 1} | options
    reported = {"report": report} if report else {}
    stream = batches([Source(shard_set, ORDER)], CROP, micro_batch=1, **options, **reported)
    return [(batch["keys"][0], batch) for batch in islice(stream, num_samples)]


def same(one: Batch, two: Batch) -> bool:
    return all(torch.equal(one[member], two[member]) for member in ("label", "inst", "image"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_is_replaced_and_told(packed, tmp_path, workers):
    bad = ORDER.locate(4)[1]
    told: list[Substitution] = []
    whole = load(packed, 26)
    mended = load(
        damaged(packed, tmp_path / "set", [bad]), 26, told.append, substitutes=1, workers=workers
    )
    at = [position for position in range(26) if ORDER.locate(position)[1] == bad]
    assert [(found.position, found.domain, found.sample) for found in told] == [
        (position, 0, bad) for position in at
    ]
    pairs = zip(mended, whole, strict=True)
    for position, ((key, batch), (healthy_key, healthy)) in enumerate(pairs):
        if position in at:
            assert key != healthy_key == packed.keys[bad]
            # It is drawn as it is in its own place of that epoch.
            epoch = slice(position // 13 * 13, position // 13 * 13 + 13)
            assert same(batch, dict(whole[epoch])[key])
        else:
            assert key == healthy_key and same(batch, healthy)
    for found in told:
        assert found.problem.startswith(f"{tmp_path}/set/000000.tar: {packed.keys[bad]}.label.png")
        assert found.instead == mended[found.position][0]
        assert str(found).endswith(f"{found.instead} takes its place at position {found.position}.")
        assert "\n" not in str(found)


def test_ranks_and_resumed_runs_draw_the_same_replacements(packed, tmp_path):
    copy = damaged(packed, tmp_path / "set", [1, 5, 6])
    alone = [key for key, _ in load(copy, 24, global_batch=4, substitutes=3)]
    later = load(copy, 12, global_batch=4, substitutes=3, start=12)
    assert [key for key, _ in later] == alone[12:]
    ranks = [load(copy, 12, global_batch=4, substitutes=3, rank=rank, world=2) for rank in range(2)]
    steps = [key for step in range(6) for rank in ranks for key, _ in rank[2 * step : 2 * step + 2]]
    assert steps == alone


@pytest.mark.parametrize("workers", [0, 2])
def test_more_than_the_allowance_ends_the_run_with_the_option(packed, tmp_path, workers):
    bad = [ORDER.locate(position)[1] for position in (1, 4, 7)]
    copy = damaged(packed, tmp_path / "set", bad)
    told: list[Substitution] = []
    loaded = load(copy, 7, told.append, substitutes=2, workers=workers)
    assert len(loaded) == 7 and {found.sample for found in told} <= set(bad)
    with pytest.raises(DataError) as caught:
        load(copy, 13, substitutes=2, workers=workers)
    assert "label.png was cut or altered" in str(caught.value)
    assert "It is damaged sample number 3 of this process" in str(caught.value)
    assert "data.substitutes=2 replaces no more" in str(caught.value)


@pytest.mark.parametrize("fault", ["busy", "forbidden"])
def test_what_cannot_be_reached_is_no_damage(packed, fault):
    """Another start would reach it, and draw other samples than this one."""
    with FaultServer(packed.store.path) as server:
        remote = open_set(RemoteStore(server.url, Patience(timeout_s=5, tries=2, pause_s=0.01)))
        server.fail("000000.tar", [fault] * 2)
        told: list[Substitution] = []
        with pytest.raises(DataError, match=server.url):
            load(remote, 1, told.append, substitutes=100)
    assert told == []


def test_a_sample_counts_once_but_is_told_in_every_epoch(packed, tmp_path):
    told: list[Substitution] = []
    load(damaged(packed, tmp_path / "set", [8]), 5 * 13, told.append, substitutes=1)
    assert [(found.position // 13, found.sample) for found in told] == [(e, 8) for e in range(5)]


def test_nothing_left_to_draw_is_a_sentence(packed, tmp_path):
    copy = damaged(packed, tmp_path / "set", range(13))
    with pytest.raises(DataError, match="altered.*7 samples drawn in its place are damaged"):
        load(copy, 1, substitutes=100)
