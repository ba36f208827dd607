"""Samples come back byte by byte, or by name where they were damaged."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import pytest

from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import open_shards
from shards.storage.local import Folder
from shards.storage.store import Store
from tests.shards.sources import flip_byte


def test_every_sample_comes_back_as_it_was(packed, labels_source):
    reader = Reader(packed)
    for sample in (12, 0, 5, 5):
        key = packed.keys[sample]
        assert reader.read(sample) == {
            "label": (labels_source / f"train_label/{key}.png").read_bytes(),
            "inst": (labels_source / f"train_inst/{key}.png").read_bytes(),
            "image": (labels_source / f"train_img/{key}.png").read_bytes(),
        }


def test_ranges_are_the_same_from_one_request_or_several(packed):
    shard, columns = packed.shard_name(3), packed.index.values()
    ranges = [(int(column.offsets[3]), int(column.sizes[3])) for column in columns]
    for asked in (ranges, ranges[::-1]):
        in_one = Store.read_ranges(packed.store, shard, asked)
        assert in_one == packed.store.read_ranges(shard, asked)
        assert [len(data) for data in in_one] == [size for _, size in asked]


def test_a_flipped_byte_names_shard_key_and_member(packed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(packed.store.path, copy)
    offset = int(packed.index["inst"].offsets[4])
    flip_byte(copy / "000000.tar", offset + 30)
    reader = Reader(open_shards(copy))
    reader.read(3)
    with pytest.raises(DataError, match=r"000000.tar: 004.inst.png was cut or altered"):
        reader.read(4)


def test_a_shard_lost_during_a_run(packed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(packed.store.path, copy)
    shard_set = open_shards(copy)
    (copy / "000000.tar").unlink()
    with pytest.raises(DataError, match="000000.tar cannot be read .No such file"):
        Reader(shard_set).read(0)


def test_a_copy_opens_its_own_files(packed):
    reader = Reader(packed)
    reader.read(0)
    copy = ForkingPickler.loads(ForkingPickler.dumps(reader))
    packed.store.close()
    assert copy.read(1) == Reader(packed).read(1)


def test_few_files_are_open_at_a_time(large_set, monkeypatch):
    large_set.store.close()
    monkeypatch.setattr("shards.storage.local.MAX_OPEN_FILES", 4)
    before = len(os.listdir("/proc/self/fd"))
    reader = Reader(large_set)
    for sample in [*range(large_set.num_samples), 0]:
        reader.read(sample)
    assert len(os.listdir("/proc/self/fd")) - before == 4
    large_set.store.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_do_not_close_each_others_files(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.storage.local.MAX_OPEN_FILES", 2)
    for name in "abcd":
        (tmp_path / name).write_text(name)
    folder = Folder(str(tmp_path))

    def read(name: str) -> bool:
        return all(folder.read_range(name, 0, 1) == name.encode() for _ in range(10_000))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor() as threads:
            assert all(threads.map(read, "abcd"))
    finally:
        sys.setswitchinterval(interval)
