"""Sets with classes or attributes are packed as others are: interrupted, repeated, replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards.pack.packing import LEFT_OUT_FILE, pack
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.verify import verify
from tests.shards.sources import contents, domain_source, png


def heavy_source(folder: Path) -> Path:
    """Three pictures of half a MiB in two classes, a shard each."""
    domain_source(folder, cat=2, dog=1)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        rows = np.full((8, 30), number, np.uint8)
        path.write_bytes(png(rows, 8, 2, (b"baLa", bytes(600_000))))
    return folder


def test_any_number_of_processes_gives_the_same_bytes(tmp_path):
    source = heavy_source(tmp_path / "source")
    for workers in (1, 2):
        out = tmp_path / str(workers)
        (shard_set,) = pack(source, out, layout="labelled", shard_mib=1, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert len(shard_set.manifest.shards) == 3
    assert shard_set.manifest.annotations == {"cls": {"cat": 2, "dog": 1}}
    pack(source, out, layout="labelled", shard_mib=1, workers=1)  # and changes nothing
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_an_interrupted_set_keeps_its_shards_and_counts_their_classes(tmp_path):
    source, out = heavy_source(tmp_path / "source"), tmp_path / "out"
    dog = source / "dog/dog-0.png"
    whole = dog.read_bytes()
    dog.write_bytes(whole[:100] + bytes(len(whole) - 100))
    with pytest.raises(DataError, match="dog-0.png is truncated or corrupt"):
        pack(source, out, layout="labelled", shard_mib=1, workers=1)
    kept = {path: path.stat().st_ino for path in out.glob("*.tar")}
    assert len(kept) == 2
    dog.write_bytes(whole)
    (shard_set,) = pack(source, out, layout="labelled", shard_mib=1, workers=1)
    assert all(path.stat().st_ino == inode for path, inode in kept.items())
    assert shard_set.manifest.annotations == {"cls": {"cat": 2, "dog": 1}}
    assert verify(out, workers=1).problems == ()


def test_a_class_keeps_its_number_if_all_of_its_pictures_are_left_out(tmp_path):
    source = domain_source(tmp_path / "source", ape=1, cat=2)
    (source / "ape/ape-0.png").write_bytes(b"?")
    options = {"layout": "labelled", "workers": 1, "leave_out_bad": True}
    (shard_set,) = pack(source, tmp_path / "out", **options)
    assert shard_set.manifest.annotations == {"cls": {"ape": 0, "cat": 2}}
    assert shard_set.manifest.left_out == ("ape/ape-0",)
    assert "ape-0.png is not a PNG" in (tmp_path / "out" / LEFT_OUT_FILE).read_text()
    assert Reader(shard_set).read(0)["cls"] == b"1"
    assert verify(tmp_path / "out", workers=1).problems == ()


def test_other_names_for_the_same_numbers_are_another_set(tmp_path):
    file, out = domain_source(tmp_path, x=2) / "list.csv", tmp_path / "out"
    file.write_text("image,class\nx/x-0.png,cat\nx/x-1.png,dog\n")
    pack(file, out, workers=1)
    file.write_text("image,class\nx/x-0.png,ape\nx/x-1.png,dog\n")
    with pytest.raises(DataError, match="already holds what was packed from other images"):
        pack(file, out, workers=1)
    (newer,) = pack(file, out, workers=1, replace=True)
    assert newer.manifest.annotations == {"cls": {"ape": 1, "dog": 1}}
    assert newer.store.path == out / "generation-000002"
