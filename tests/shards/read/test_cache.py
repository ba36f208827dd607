"""The node's cache: real processes share it, over a real web server."""

from __future__ import annotations

import fcntl
import itertools
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

from shards.pack.packing import pack
from shards.processes import context
from shards.read.cache import Cache, cached
from shards.read.order import Shuffle
from shards.read.sources import fingerprint, open_sources
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_set, open_shards
from shards.storage.remote import Patience, RemoteStore
from tests.processes import patience
from tests.shards.fault_server import FaultServer
from tests.shards.sources import domain_source, flip_byte

QUICK = Patience(timeout_s=20, tries=2, pause_s=0.01)
MIB = 2**20


@pytest.fixture
def server(large_set: ShardSet) -> Iterator[FaultServer]:
    with FaultServer(large_set.store.path) as server:
        yield server


def through(folder: Path, server: FaultServer, limit: int = 100 * MIB, ahead: int = 0) -> ShardSet:
    """The set that the server has, read through a cache in `folder`."""
    source = open_set(RemoteStore(server.url, QUICK))
    return cached(source, Cache(folder, limit, ahead))


def copies(folder: Path) -> dict[str, int]:
    """The sizes of what the cache keeps; of finished and unfinished copies."""
    found = {}
    for path in folder.glob("organza-*/*.*"):
        try:
            found[path.name] = path.stat().st_size
        except FileNotFoundError:
            continue  # evicted meanwhile
    return found


def names(shard_set: ShardSet) -> list[str]:
    return [shard.name for shard in shard_set.manifest.shards]


def sizes(shard_set: ShardSet) -> list[int]:
    return [shard.num_bytes for shard in shard_set.manifest.shards]


def copy_of(folder: Path, shard_set: ShardSet, shard: int) -> Path:
    digest = shard_set.manifest.shards[shard].sha256
    return next(folder.glob("organza-*")) / f"{digest}.tar"


def read_all(shard_set: ShardSet, folder: Path, rounds: int = 1) -> None:
    """In a process: every sample is that of the folder."""
    reader, local = Reader(shard_set), Reader(open_shards(folder))
    for sample in itertools.chain(*[range(shard_set.num_samples)] * rounds):
        if reader.read(sample) != local.read(sample):
            os._exit(9)


def readers(number: int, *arguments: object) -> list:
    processes = [context().Process(target=read_all, args=arguments) for _ in range(number)]
    for process in processes:
        process.start()
    return processes


def join(processes: list) -> None:
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_processes_fetch_each_shard_once(large_set, server, tmp_path):
    shard_set = through(tmp_path, server)
    join(readers(3, shard_set, large_set.store.path))
    gets = server.gets()
    assert {name: gets[name] for name in names(large_set)} == dict.fromkeys(names(large_set), 1)
    assert sorted(copies(tmp_path).values()) == sorted(sizes(large_set))


def test_the_limit_holds_at_every_moment(large_set, server, tmp_path):
    limit = 4 * max(sizes(large_set))
    shard_set = through(tmp_path, server, limit)
    own = next(tmp_path.iterdir())
    (own / "notes.tar").write_bytes(b"1" * MIB)
    (tmp_path / f"{'0' * 64}.tar").write_bytes(b"2" * MIB)
    processes, most, keeps = readers(3, shard_set, large_set.store.path, 2), 0, 0
    while any(process.is_alive() for process in processes):
        found = {name: size for name, size in copies(tmp_path).items() if name != "notes.tar"}
        most, keeps = max(most, sum(found.values())), max(keeps, len(found))
        time.sleep(0.001)
    join(processes)
    assert most <= limit and keeps >= 3
    assert (own / "notes.tar").stat().st_size == MIB, "not one of its own files"
    assert (tmp_path / f"{'0' * 64}.tar").stat().st_size == MIB
    assert server.gets()[names(large_set)[0]] >= 2, "evicted and fetched anew"


def test_who_is_killed_while_fetching_leaves_no_trace(large_set, server, tmp_path):
    shard_set = through(tmp_path, server)
    first = names(large_set)[0]
    server.fail(first, ["stall"])
    (victim,) = readers(1, shard_set, large_set.store.path)
    patience.wait_for(lambda: server.gets().get(first) == 1 and len(copies(tmp_path)) == 1)
    (waiting,) = readers(1, shard_set, large_set.store.path)
    assert list(copies(tmp_path).values()) == sizes(large_set)[:1], "counted from its beginning"
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    join([waiting])
    assert server.gets()[first] == 2
    assert not [name for name in copies(tmp_path) if name.endswith(".part")]


def test_a_shard_in_use_is_not_evicted(large_set, server, tmp_path, capsys):
    """While somebody makes one, another finds no room, and reads from the source."""
    shard_set = through(tmp_path, server, max(sizes(large_set)))
    first, second = names(large_set)[:2]
    server.fail(first, ["stall"])
    reading = threading.Thread(target=Reader(shard_set).read, args=(0,), daemon=True)
    reading.start()
    patience.wait_for(lambda: len(copies(tmp_path)) == 1)
    assert Reader(shard_set).read(1) == Reader(large_set).read(1)
    assert "no room beside the shards in use" in capsys.readouterr().err
    assert [name[-5:] for name in copies(tmp_path)] == [".part"]
    server.over.set()
    reading.join(20)
    assert not reading.is_alive() and server.gets()[second] == 1
    with open(copy_of(tmp_path, large_set, 0), "rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        Reader(through(tmp_path, server, max(sizes(large_set)))).read(1)
        assert copy_of(tmp_path, large_set, 0).exists()


def test_a_damaged_copy_is_fetched_anew(large_set, server, tmp_path):
    reader = Reader(through(tmp_path, server))
    expected = reader.read(0)
    flip_byte(copy_of(tmp_path, large_set, 0), int(large_set.index["image"].offsets[0]) + 99)
    assert reader.read(0) == expected
    copy_of(tmp_path, large_set, 0).write_bytes(b"cut")
    assert reader.read(0) == expected
    assert server.gets()[names(large_set)[0]] == 3


def test_a_copy_that_another_user_may_have_changed_is_not_read(large_set, server, tmp_path, capsys):
    """Whatever its bytes: a crc32 can be forged."""
    store, first = through(tmp_path, server).store, names(large_set)[0]
    expected = store.read_range(first, 0, 4096)
    copy_of(tmp_path, large_set, 0).write_bytes(b"x" * 4096)
    assert store.read_range(first, 0, 4096) == b"x" * 4096, "what the cache itself does not see"
    copy_of(tmp_path, large_set, 0).chmod(0o666)
    assert store.read_range(first, 0, 4096) == expected
    told = capsys.readouterr().err
    assert "other users may change" in told and f"are read from {server.url}" in told


def test_wrong_bytes_are_never_kept(large_set, server, tmp_path, capsys):
    reader, first = Reader(through(tmp_path, server)), names(large_set)[0]
    server.fail(first, ["altered"])
    assert reader.read(0) == Reader(large_set).read(0) and server.gets()[first] == 2
    copy_of(tmp_path, large_set, 0).unlink()
    server.fail(first, itertools.repeat("altered"))
    with pytest.raises(DataError, match=f"{server.url}/{first}: 000.*its crc32 is wrong"):
        reader.read(0)
    assert server.gets()[first] == 5 + 2 and copies(tmp_path) == {}
    told = capsys.readouterr().err
    assert f"cannot keep all shards ({server.url}/{first} has other bytes than were packed)" in told


def test_a_limit_below_a_shard(large_set, server, tmp_path, capsys):
    shard_set = through(tmp_path, server, 1000)
    for sample in (0, 1):
        assert Reader(shard_set).read(sample) == Reader(large_set).read(sample)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "larger than data.cache.limit_gib" in told
    assert server.url in told and copies(tmp_path) == {}


def test_a_full_disk(large_set, server, tmp_path, capsys):
    shard_set = through(tmp_path, server)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 4, hard))
    try:
        files = [Reader(shard_set).read(sample) for sample in (0, 1)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files == [Reader(large_set).read(sample) for sample in (0, 1)]
    assert "cannot keep all shards (File too large)" in capsys.readouterr().err
    Reader(shard_set).read(2)
    assert copies(tmp_path) == {}, "it rests for a while"
    Reader(replace(shard_set, store=copy(shard_set.store))).read(2)
    assert list(copies(tmp_path)) == [copy_of(tmp_path, large_set, 2).name]


def test_shards_are_fetched_ahead(large_set, server, tmp_path):
    shard_set = through(tmp_path, server, ahead=3)
    assert shard_set.store.ahead == 3
    shard_set.store.prefetch(names(large_set)[:3])
    wanted = {copy_of(tmp_path, large_set, shard).name for shard in range(3)}
    patience.wait_for(lambda: copies(tmp_path).keys() == wanted)
    before = server.requests.total()
    Reader(shard_set).read(2)
    assert server.requests.total() == before


def test_what_goes_wrong_ahead_is_told_by_the_read_if_it_lasts(large_set, server, tmp_path):
    shard_set = through(tmp_path, server)
    first, second = names(large_set)[:2]
    server.fail(first, ["forbidden", "forbidden"])
    shard_set.store.prefetch([first, second])
    patience.wait_for(lambda: copy_of(tmp_path, large_set, 1).exists())
    Reader(shard_set).read(1)
    with pytest.raises(DataError, match=f"{first} may not be read"):
        Reader(shard_set).read(0)
    assert Reader(shard_set).read(0) == Reader(large_set).read(0)


def test_what_went_wrong_ahead_and_passed_is_forgotten(large_set, server, tmp_path):
    shard_set = through(tmp_path, server)
    first, second = names(large_set)[:2]
    server.fail(first, ["forbidden"])
    shard_set.store.prefetch([first, second])
    patience.wait_for(lambda: copy_of(tmp_path, large_set, 1).exists())
    assert Reader(shard_set).read(0) == Reader(large_set).read(0)
    assert server.gets()[first] == 2


def test_what_was_read_meanwhile_is_not_fetched(large_set, server, tmp_path):
    """With a limit it may have been evicted since."""
    shard_set = through(tmp_path, server)
    first, second, *_, last = names(large_set)
    server.fail(first, ["stall"])
    shard_set.store.prefetch([first, second])
    shard_set.store.prefetch([second, last])
    patience.wait_for(lambda: len(copies(tmp_path)) == 1)
    Reader(shard_set).read(1)
    copy_of(tmp_path, large_set, 1).unlink()
    server.over.set()
    patience.wait_for(copy_of(tmp_path, large_set, large_set.num_samples - 1).exists)
    assert server.gets()[second] == 1


def test_a_shared_file_system_is_cached_too(large_set, packed, tmp_path):
    """Copies go by their content: equal names of different sets do not meet."""
    assert names(large_set)[0] == names(packed)[0]
    for shard_set in (large_set, packed):
        kept = cached(shard_set, Cache(tmp_path, 100 * MIB))
        assert Reader(kept).read(0) == Reader(shard_set).read(0)
    assert len(copies(tmp_path)) == 2


def test_a_source_that_is_cut_meanwhile(large_set, tmp_path):
    source = Path(shutil.copytree(large_set.store.path, tmp_path / "source"))
    reader = Reader(cached(open_shards(source), Cache(tmp_path / "cache", 100 * MIB)))
    expected = reader.read(0)
    for shard in range(2):
        (source / names(large_set)[shard]).write_bytes(b"cut")
    assert reader.read(0) == expected, "there is a copy"
    with pytest.raises(DataError, match=f"{source}/{names(large_set)[1]}: 001.* was cut"):
        reader.read(1)


def test_a_cache_makes_damage_no_larger(packed, tmp_path, capsys):
    """One sample of the only shard is damaged: the others are read as without a cache."""
    source = Path(shutil.copytree(packed.store.path, tmp_path / "source"))
    flip_byte(source / names(packed)[0], int(packed.index["image"].offsets[4]) + 20)
    reader = Reader(cached(open_shards(source), Cache(tmp_path / "cache", 100 * MIB)))
    with pytest.raises(DataError, match="004.image.*its crc32 is wrong"):
        reader.read(4)
    for sample in (3, 5):
        assert reader.read(sample) == Reader(packed).read(sample)
    assert "has other bytes than were packed" in capsys.readouterr().err
    assert copies(tmp_path / "cache") == {}


def test_domains_share_a_cache(tmp_path):
    pack(domain_source(tmp_path / "source", trainA=2, trainB=3), tmp_path / "out", workers=1)
    local = open_sources(tmp_path / "out", "unpaired", seed=0)
    with FaultServer(tmp_path / "out") as server:
        cache = Cache(tmp_path / "cache", MIB)
        remote = open_sources(server.url, "unpaired", seed=0, cache=cache)
        for one, other in zip(remote, local, strict=True):
            assert Reader(one.shard_set).read(1) == Reader(other.shard_set).read(1)
    assert fingerprint(remote) == fingerprint(local) and len(copies(tmp_path / "cache")) == 2


def test_an_order_that_would_fetch_shards_over_and_over_is_refused(large_set, tmp_path):
    def opened(shuffle: Shuffle, limit: int, ahead: int = 0, num_nodes: int = 1):
        bytes_limit = sum(sorted(sizes(large_set))[-limit:])
        cache = Cache(tmp_path, bytes_limit, ahead, num_nodes)
        return open_sources(large_set.store.path, "labels", 0, shuffle=shuffle, cache=cache)

    def refused(shuffle: Shuffle, limit: int, **options: int) -> None:
        with pytest.raises(DataError, match=f"a {shuffle.kind} shuffle of .* data.cache.limit_gib"):
            opened(shuffle, limit, **options)

    assert opened(Shuffle("windowed", window=4), 4)
    refused(Shuffle("windowed", window=5), 4)
    assert opened(Shuffle("windowed", window=4), 10, ahead=2)
    refused(Shuffle("windowed", window=4), 9, ahead=2)
    assert opened(Shuffle("windowed", window=4, streams=3), 8, num_nodes=2)
    refused(Shuffle("windowed", window=4, streams=3), 7, num_nodes=2)
    assert opened(Shuffle("windowed", window=16), 28, ahead=2), "all that there are"
    assert opened(Shuffle(), 28)
    refused(Shuffle(), 27)


@pytest.mark.parametrize("digest", ["../../etc/passwd", "A" * 64, 7])
def test_a_digest_is_not_yet_a_file_name(packed, tmp_path, digest):
    shard = replace(packed.manifest.shards[0], sha256=digest)
    manifest = replace(packed.manifest, shards=(shard,))
    with pytest.raises(DataError, match="is no sha256: pack the set anew"):
        cached(replace(packed, manifest=manifest), Cache(tmp_path, MIB))


def test_manifest_and_index_are_read_through(large_set, server, tmp_path):
    store = through(tmp_path, server).store
    assert store.read("manifest.json") == large_set.store.read("manifest.json")
    assert store.size("none") is None and store.tars() == []
    assert copies(tmp_path) == {}
