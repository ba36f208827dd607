from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest

from shards.index import ShardSet, open_shards
from shards.pack import pack
from shards.records import DataError
from tests.shards.sources import flip_byte, label_source, pair_source


@pytest.fixture
def copy(packed: ShardSet, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.path, tmp_path / "copy"))


def test_the_set_says_what_it_holds(packed):
    assert packed.layout == "labels" and packed.members == ("label", "inst", "image")
    assert packed.num_samples == 13 == len(packed.keys)
    assert packed.sizes == ((16, 8, 13),)
    assert sum(use.num_pixels for use in packed.label_ids.values()) == 13 * 16 * 8
    assert set(packed.label_ids) <= set(range(30))


def test_it_travels_to_other_processes(packed):
    travelled = pickle.loads(pickle.dumps(packed))
    assert travelled.keys == packed.keys and travelled.fingerprint == packed.fingerprint
    assert len(pickle.dumps(packed)) < 10_000


def test_the_index_points_at_the_bytes_in_the_tar(packed):
    with tarfile.open(packed.shard_path(0)) as tar:
        entries = {entry.name: (entry.offset_data, entry.size) for entry in tar}
    for sample in range(packed.num_samples):
        for member in packed.members:
            column = packed.index[member]
            place = (column.offsets[sample], column.sizes[sample])
            assert entries.pop(packed.entry_name(sample, member)) == place
    assert not entries


def test_wrong_needs_are_refused(packed, tmp_path):
    packed.require("labels", num_labels=30, inst=True)
    with pytest.raises(DataError, match="packed with layout labels, but this run reads .* pairs"):
        packed.require("pairs")
    highest = max(packed.label_ids)
    use = packed.label_ids[highest]
    with pytest.raises(DataError) as caught:
        packed.require("labels", num_labels=highest)
    expected = f"{use.first_key}.label.png (and maybe others): {use.num_pixels} pixels"
    assert expected in str(caught.value)
    assert f"label id {highest}," in str(caught.value)
    pack(label_source(tmp_path / "source", 1, inst=False), tmp_path / "out", workers=1)
    with pytest.raises(DataError, match="holds no instance maps"):
        open_shards(tmp_path / "out").require("labels", inst=True)


def test_pairs_open_as_pairs(tmp_path):
    pack(pair_source(tmp_path / "source", 2), tmp_path / "out", workers=1)
    shard_set = open_shards(tmp_path / "out")
    assert shard_set.layout == "pairs" and shard_set.entry_name(1, "b") == "1.b.jpg"
    assert shard_set.label_ids == {}


def test_without_a_manifest_it_is_no_set(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(DataError, match="holds no manifest.json"):
        open_shards(copy)
    with pytest.raises(DataError, match="holds no manifest.json"):
        open_shards(copy / "absent")


def test_a_missing_shard(copy):
    (copy / "000000.tar").unlink()
    with pytest.raises(DataError, match="000000.tar is missing"):
        open_shards(copy)


@pytest.mark.parametrize("num_bytes", [100, 10240])
def test_a_cut_shard(copy, num_bytes):
    with open(copy / "000000.tar", "r+b") as shard:
        shard.truncate(num_bytes)
    with pytest.raises(DataError, match=f"000000.tar has {num_bytes} bytes, the manifest says"):
        open_shards(copy)


def test_a_shard_cut_between_two_members(copy):
    # Here tar readers see a shorter archive, and no error.
    with tarfile.open(copy / "000000.tar") as tar:
        boundary = tar.getmembers()[6].offset
    with open(copy / "000000.tar", "r+b") as shard:
        shard.truncate(boundary)
    assert len(tarfile.open(copy / "000000.tar").getnames()) == 6
    with pytest.raises(DataError, match="cut or altered"):
        open_shards(copy)


def test_a_shard_that_the_manifest_does_not_know(copy):
    shutil.copy(copy / "000000.tar", copy / "000001.tar")
    with pytest.raises(DataError, match="000001.tar is missing from the manifest"):
        open_shards(copy)


def test_an_altered_manifest_or_index(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    original = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_text(json.dumps(manifest | {"num_samples": 12}))
    with pytest.raises(DataError, match="altered after packing"):
        open_shards(copy)
    (copy / "manifest.json").write_bytes(original[:-40])
    with pytest.raises(DataError, match="manifest.json cannot be read"):
        open_shards(copy)
    (copy / "manifest.json").write_bytes(original)
    flip_byte(copy / "index.json", 50)
    with pytest.raises(DataError, match="index.json was cut or altered"):
        open_shards(copy)


def test_foreign_manifests(copy):
    (copy / "manifest.json").write_text('{"name": "web app"}')
    with pytest.raises(DataError, match="not the manifest of a packed set"):
        open_shards(copy)
    (copy / "manifest.json").write_text('{"format": "organza-shards", "version": 9}')
    with pytest.raises(DataError, match="format version 9, but this program reads 1"):
        open_shards(copy)
