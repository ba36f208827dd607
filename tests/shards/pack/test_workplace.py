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


def test_a_tar_of_somebody_else_in_an_interrupted_set_is_not_deleted(labels_source, tmp_path):
    out = tmp_path / "set"
    (out / ".pack").mkdir(parents=True)
    (out / "2024-holiday.tar").write_bytes(b"mine")
    with pytest.raises(DataError, match="2024-holiday.tar was not packed here: move it elsewhere"):
        pack(labels_source, out, workers=1)
    assert contents(out)["2024-holiday.tar"] == b"mine"
    (out / "2024-holiday.tar").unlink()
    pack(labels_source, out, workers=1)


def test_tars_of_an_interrupted_run_on_other_sources_go(labels_source, tmp_path):
    out = tmp_path / "set"
    for number in (7, 8):  # one of them with its receipt, one only about to be written
        (out / ".pack").mkdir(parents=True, exist_ok=True)
        (out / f"{number:06d}.tar").write_bytes(b"left")
    (out / ".pack" / "000007.tar.json").write_text("{}")
    (out / ".pack" / "tars").write_text("000008.tar")
    pack(labels_source, out, workers=1)
    assert [path.name for path in sorted(out.glob("*.tar"))] == ["000000.tar"]
