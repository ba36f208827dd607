"""Shards behind URLs: a real web server that misbehaves, and a real S3 server."""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.pixels.augment import Preprocess
from shards.read.cache import Cache
from shards.read.order import Shuffle
from shards.read.sources import open_sources
from shards.read.stream import batches
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_set, open_shards
from shards.sets.verify import verify
from shards.storage.local import Folder
from shards.storage.opening import open_store
from shards.storage.remote import Patience, RemoteStore
from tests.shards.fault_server import FaultServer

QUICK = Patience(timeout_s=0.3, tries=3, pause_s=0.01)
SHARD = "000000.tar"


@pytest.fixture
def server(packed: ShardSet) -> Iterator[FaultServer]:
    with FaultServer(packed.store.path) as server:
        yield server


@pytest.fixture(scope="module")
def bucket(packed: ShardSet) -> Iterator[str]:
    """The packed set in an S3 server, whose address botocore reads from the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="data")
        for path in packed.store.path.iterdir():
            client.upload_file(str(path), "data", f"sets/street/{path.name}")
        yield "s3://data/sets/street"
    server.stop()


def first_batches(location: str | Path, workers: int, **options: Any) -> list[dict[str, object]]:
    """14 micro-batches of 2: an epoch or more."""
    stream = batches(
        open_sources(location, "labels", seed=3, **options),
        Preprocess("none"),
        global_batch=4,
        micro_batch=2,
        rank=0,
        world=1,
        workers=workers,
        seed=3,
    )
    found = list(itertools.islice(stream, 14))
    stream.close()
    return found


def assert_equal(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one["keys"] == other["keys"]
        for member in one.keys() - {"keys"}:
            assert torch.equal(one[member], other[member])


def test_batches_over_http_are_those_of_the_folder(packed, server, tmp_path):
    local = first_batches(packed.store.path, workers=0)
    assert_equal(first_batches(server.url, workers=0), local)
    assert server.connections == 1, "keep-alive"
    assert_equal(first_batches(server.url + "/", workers=2), local)
    assert server.connections <= 3, "one for each process"
    before = server.requests["GET", SHARD]
    assert_equal(first_batches(server.url, 0, cache=Cache(tmp_path, 2**20)), local)
    assert server.requests["GET", SHARD] == before + 1


def test_an_epoch_in_a_small_cache_fetches_hardly_a_shard_twice(large_set, tmp_path):
    largest = max(shard.num_bytes for shard in large_set.manifest.shards)
    shuffle = Shuffle("windowed", window=3, streams=2)
    cache = Cache(tmp_path, 16 * largest, ahead=2)
    with FaultServer(large_set.store.path) as server:
        found = first_batches(server.url, 0, shuffle=shuffle, cache=cache)
        gets = {name: n for name, n in server.gets().items() if name.endswith(".tar")}
    assert_equal(found, first_batches(large_set.store.path, 0, shuffle=shuffle))
    # Near its end, shards of the next epoch are fetched, which may have been evicted before.
    assert len(gets) == 28 and max(gets.values()) <= 2 and sum(gets.values()) <= 28 + 2 * (3 + 2)


def test_batches_from_s3_are_those_of_the_folder(packed, bucket):
    assert_equal(first_batches(bucket, 0), first_batches(packed.store.path, 0))


def test_an_s3_store_knows_its_files(packed, bucket):
    store = open_store(bucket)
    assert store.tars() == [SHARD] and store.size(SHARD) == packed.store.size(SHARD)
    assert store.size("none") is None and store.below("none").tars() == []
    with pytest.raises(FileNotFoundError):
        store.read("none")
    with pytest.raises(DataError, match="holds no manifest.json"):
        open_shards("s3://nothing/here")
    assert verify(bucket).problems == ()


def test_verify_reads_a_set_behind_a_url(packed, server):
    summary = verify(server.url, workers=1)
    assert summary.problems == () and summary.num_samples == 13


def test_opening_a_set_asks_for_no_shard(large_set):
    with FaultServer(large_set.store.path) as server:
        assert open_shards(server.url).fingerprint == large_set.fingerprint
        assert not any(name.endswith(".tar") for _, name in server.requests)
        # Two for each of manifest and index, and for two files that are not there.
        assert server.requests.total() <= 8


@pytest.mark.parametrize("fault", ["stall", "cut", "short", "busy", "shifted"])
def test_what_passes_is_outlived(packed, server, fault):
    server.fail(SHARD, [fault, fault])
    store = RemoteStore(server.url, QUICK)
    assert store.read_range(SHARD, 512, 4096) == packed.store.read_range(SHARD, 512, 4096)
    assert server.requests["GET", SHARD] == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("stall", "no answer in time"),
        ("cut", "payload"),
        ("short", "2048 bytes came instead of 4096"),
        ("busy", "503"),
        ("shifted", "other bytes came: bytes 513-4608/"),
        ("elsewhere", "NonHttpUrlRedirect.* ftp:"),
    ],
)
def test_what_stays_ends_with_a_sentence(server, fault, words):
    server.fail(SHARD, itertools.repeat(fault))
    begin = time.monotonic()
    with pytest.raises(DataError, match=f"{SHARD} could not be read in 3 tries .*{words}") as told:
        RemoteStore(server.url, QUICK).read_range(SHARD, 512, 4096)
    assert server.url in str(told.value) and time.monotonic() - begin < 10
    assert server.requests["GET", SHARD] == 3


def test_a_slow_server_gets_no_more_time_than_the_whole(server):
    server.fail(SHARD, itertools.repeat("stall"))
    store = RemoteStore(server.url, replace(QUICK, tries=99, whole_s=1))
    begin = time.monotonic()
    with pytest.raises(DataError, match=f"{SHARD} could not be read in [2-5] tries .no answer in"):
        store.read_range(SHARD, 512, 4096)
    assert time.monotonic() - begin < 5


def test_altered_bytes_are_read_once_more(packed, server):
    shard_set = open_set(RemoteStore(server.url, QUICK))
    server.fail(SHARD, ["altered"])
    assert Reader(shard_set).read(4) == Reader(packed).read(4)
    server.fail(SHARD, itertools.repeat("altered"))
    with pytest.raises(DataError, match=f"{server.url}/{SHARD}: 004.*its crc32 is wrong"):
        Reader(shard_set).read(4)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("forbidden", "may not be read .*403.* give this user the right"),
        ("unauthorized", "may not be read .*401"),
        ("gone", "cannot be read .*410"),
        ("whole", "the server sends whole files only"),
    ],
)
def test_what_will_not_pass_is_told_at_once(server, fault, words):
    server.fail(SHARD, itertools.repeat(fault))
    with pytest.raises(DataError, match=words):
        RemoteStore(server.url, QUICK).read_range(SHARD, 512, 4096)
    assert server.requests["GET", SHARD] == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("endless", "compresses, or tells no length"),
        ("packed", "compresses, or tells no length"),
        ("long", "8192 bytes came instead of 4096"),
    ],
)
def test_no_more_is_taken_than_was_asked_for(server, fault, words):
    server.fail(SHARD, itertools.repeat(fault))
    with pytest.raises(DataError, match=words):
        RemoteStore(server.url, QUICK).read_range(SHARD, 512, 4096)


def test_a_file_is_not_as_long_as_anybody_says(packed, server, monkeypatch):
    monkeypatch.setattr("shards.storage.store.LARGEST", 100)
    for store in (RemoteStore(server.url, QUICK), packed.store):
        with pytest.raises(DataError, match="is longer than .* GiB, as no file of this name"):
            store.read("manifest.json")


def test_a_signature_that_a_redirect_leads_to_is_never_told(server):
    server.fail(SHARD, itertools.repeat("signed"))
    server.fail(SHARD, itertools.repeat("signed"), method="HEAD")
    store = RemoteStore(server.url, QUICK)
    for ask in (lambda: store.read_range(SHARD, 512, 4096), lambda: store.size(SHARD)):
        with pytest.raises(DataError, match="403") as told:
            ask()
        assert "SECRET" not in str(told.value) and "forbidden/000000.tar" in str(told.value)


def test_a_whole_file_will_do_where_it_was_wanted(packed, server):
    server.fail("manifest.json", ["whole"])
    assert open_store(server.url).read("manifest.json") == packed.store.read("manifest.json")
    server.fail("manifest.json", ["whole"])
    with pytest.raises(DataError, match="sends whole files only"):
        open_store(server.url).read_range("manifest.json", 0, 10)


def test_the_end_of_a_file_is_no_fault(packed, server):
    size = packed.store.size(SHARD)
    store = RemoteStore(server.url, QUICK)
    assert store.read_range(SHARD, size - 10, 100) == packed.store.read_range(SHARD, size - 10, 100)
    with pytest.raises(DataError, match="416.*whether the URL is right and the file whole"):
        store.read_range(SHARD, size + 10, 100)


def test_a_file_that_is_not_there(server):
    store = RemoteStore(server.url, QUICK)
    assert store.size("none") is None and store.tars() == []
    with pytest.raises(FileNotFoundError):
        store.read("none")
    with pytest.raises(DataError, match="none is missing"):
        store.read_range("none", 0, 10)
    assert server.requests["GET", "none"] <= 3


@pytest.mark.parametrize(("fault", "words"), [("busy", "503"), ("forbidden", "may not be read")])
def test_a_server_that_will_not_tell_is_not_an_absent_file(server, fault, words):
    """A folder of domains would be taken for one set."""
    for method in ("HEAD", "GET"):
        server.fail("domains.json", itertools.repeat(fault), method)
    with pytest.raises(DataError, match=words):
        RemoteStore(server.url, QUICK).size("domains.json")


def test_a_server_that_is_not_there(server):
    with pytest.raises(DataError, match="manifest.json could not be read in 3 tries"):
        RemoteStore("http://127.0.0.1:9/set", QUICK).read("manifest.json")


def test_a_copy_makes_its_own_client(packed, server):
    store = open_store(server.url)
    expected = store.read("manifest.json")
    sent = ForkingPickler.dumps(store)
    assert len(sent) < 300
    assert ForkingPickler.loads(sent).read("manifest.json") == expected
    child = multiprocessing.get_context("fork").Process(target=_leave_by, args=(store, expected))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert store.read("manifest.json") == expected


def _leave_by(store: RemoteStore, expected: bytes) -> None:
    os._exit(0 if store.read("manifest.json") == expected else 1)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("file:///data/set", "file is no kind of place"),
        ("pipe:cat /etc/passwd", "pipe is no kind of place"),
        ("ftp://host/set", "begins with http://, https://, s3://"),
        ("https://host/set?signature=secret", r"^https://host/set: a URL with \?"),
        ("https://host/set#1", "is refused"),
        ("https://me:secret@host/set", "is refused"),
        ("https://secret@host/set", "is refused"),
        ("http://me:sec@ret@host/set", "^http://host/set: "),
        ("ftp://me:secret@host/set", "^ftp://host/set: ftp is no kind"),
    ],
)
def test_other_places_are_refused(location, words):
    with pytest.raises(DataError, match=words) as told:
        open_store(location)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("location", "package"), [("gs://data/set", "gcsfs"), ("az://data/set", "adlfs")]
)
def test_a_missing_package_is_named(location, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(DataError, match=f"pip install {package}"):
        open_shards(location)


def test_paths_stay_paths(packed, monkeypatch):
    monkeypatch.chdir(packed.store.path.parent)
    for given in ("set", "set/", "./set", Path("set")):
        store = open_store(given)
        assert isinstance(store, Folder) and store.where("a") == "set/a"
    assert open_shards("set").num_samples == 13
