"""The folder that is packed into belongs to one packer, and only until it is finished."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shards.plans import make_plan
from shards.records import DataError
from shards.workplace import workplace
from tests.shards.sources import contents


def test_what_another_process_finished_meanwhile_is_not_touched(packed, labels_source, tmp_path):
    out = Path(shutil.copytree(packed.store.path, tmp_path / "set"))
    (out / ".pack").mkdir()  # as the other process removes it last
    plan = make_plan(
        labels_source, out, layout="auto", split="train", num_labels=None,
        shard_bytes=2**20, photos=None,
    )
    before = contents(out)
    with pytest.raises(DataError, match="was packed by another process meanwhile"):
        with workplace(plan):
            pass
    assert contents(out).items() >= before.items()
