"""The folder that is packed into belongs to one packer, and only until it is finished."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from shards.indexing.index_tars import index_shards
from shards.pack.packing import pack
from shards.pack.plans import make_plan
from shards.pack.workplace import workplace
from shards.pixels.storing import Storing
from shards.records import DataError
from tests.shards.sources import contents


def test_what_another_process_finished_meanwhile_is_not_touched(packed, labels_source, tmp_path):
    out = Path(shutil.copytree(packed.store.path, tmp_path / "set"))
    (out / ".pack").mkdir()  # as the other process removes it last
    plan = make_plan(
        labels_source,
        out,
        layout="auto",
        split="train",
        num_labels=None,
        shard_bytes=2**20,
        storing=Storing(),
    )
    before = contents(out)
    refused = pytest.raises(DataError, match="was packed by another process meanwhile")
    with refused, workplace(plan):
        pass
    assert contents(out).items() >= before.items()


def test_no_file_of_a_work_folder_is_open_when_it_is_removed(labels_source, tmp_path, monkeypatch):
    removed = []

    def rmtree(folder: Path) -> None:  # NFS keeps open files under other names, and the folder
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert not [link for link in links if os.readlink(link).startswith(str(folder))]
        removed.append(folder.name)
        really_remove(folder)

    really_remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    pack(labels_source, tmp_path / "set", workers=1)
    index_shards([str(tmp_path / "set")], members={}, workers=1)
    assert removed == [".pack", ".index"]
