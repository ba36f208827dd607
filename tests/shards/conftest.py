"""Packed sets, and their sources, that many tests only read; a limit of time for the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from shards.pack.packing import pack
from shards.sets.shard_set import ShardSet, open_shards
from tests.shards.sources import label_source, uneven_source


@pytest.fixture(scope="session")
def labels_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 samples: prime, so that no batch size divides it."""
    return label_source(tmp_path_factory.mktemp("labels"), 13)


@pytest.fixture(scope="session")
def packed(labels_source: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The source above, packed; tests must not change it."""
    out = tmp_path_factory.mktemp("packed") / "set"
    pack(labels_source, out, workers=1)
    return open_shards(out)


@pytest.fixture(scope="session")
def large_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 samples of noise, half a MiB each."""
    return label_source(tmp_path_factory.mktemp("large"), 28, size=(512, 300), inst=False)


@pytest.fixture(scope="session")
def large_set(large_source: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The source above, packed into 28 shards by one process; tests must not change it."""
    out = tmp_path_factory.mktemp("large") / "set"
    pack(large_source, out, shard_mib=1, workers=1)
    return open_shards(out)


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Domains A and B with shards of 6, 1, 4, 3, 6 and of 3, 1, 7 pictures, 10 x 8; tests must not
    change them."""
    folder = tmp_path_factory.mktemp("uneven")
    pack(uneven_source(folder / "source"), folder / "set", shard_mib=1, workers=1)
    return folder / "set"


@pytest.fixture
def in_time() -> Iterator[None]:
    """A test that hangs fails after a minute."""

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
