"""A set that is opened: what it holds, what fits it, and what is wrong with it."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from shards.pack.packing import pack
from shards.pixels.augment import Preprocess
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_shards
from tests.shards.sources import flip_byte, label_source, pair_source, save


@pytest.fixture
def copy(packed: ShardSet, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.store.path, tmp_path / "copy"))


def test_the_set_says_what_it_holds(packed):
    assert packed.layout == "labels" and packed.members == ("label", "inst", "image")
    assert packed.num_samples == 13 == len(packed.keys)
    assert packed.sizes == ((16, 8, 13),)
    assert sum(use.num_pixels for use in packed.label_ids.values()) == 13 * 16 * 8
    assert set(packed.label_ids) <= set(range(30))


def test_it_travels_to_other_processes(packed):
    travelled = ForkingPickler.loads(ForkingPickler.dumps(packed))
    assert list(travelled.keys) == list(packed.keys) and travelled.fingerprint == packed.fingerprint
    assert len(ForkingPickler.dumps(packed)) < 10_000


def test_the_index_points_at_the_bytes_in_the_tar(packed):
    with tarfile.open(packed.store.path / packed.shard_name(0)) as tar:
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
    expected = f"label map of {use.first_key} (and maybe others): {use.num_pixels} pixels"
    assert expected in str(caught.value)
    assert f"label id {highest}," in str(caught.value)
    pack(label_source(tmp_path / "source", 1, inst=False), tmp_path / "out", workers=1)
    with pytest.raises(DataError, match="holds no instance maps"):
        open_shards(tmp_path / "out").require("labels", inst=True)


def packed_sizes(folder: Path, *sizes: tuple[int, int]) -> ShardSet:
    """A set with one sample of each (width, height)."""
    for number, (width, height) in enumerate(sizes):
        pixels = np.zeros((height, width, 3), np.uint8)
        for side in "AB":
            save(folder / f"source/train_{side}/{number:03d}.png", pixels)
    pack(folder / "source", folder / "set", workers=1)
    return open_shards(folder / "set")


@pytest.mark.parametrize(
    "options, least",
    [
        ({"mode": "none"}, (30, 16)),
        ({"mode": "crop", "crop_size": (16, 30)}, (30, 16)),
        ({"mode": "resize_and_crop", "load_size": 50, "crop_size": (50, 40)}, (40, 50)),
        ({"mode": "scale_width", "load_size": 20}, (20, 8)),
        ({"mode": "scale_width_and_crop", "load_size": 20, "crop_size": (8, 20)}, (20, 8)),
    ],
)
def test_the_least_size_that_comes_out(tmp_path, options, least):
    shard_set = packed_sizes(tmp_path, (40, 16), (30, 60))
    assert shard_set.require_sizes(Preprocess(**options), micro_batch=1) == least


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"mode": "crop", "crop_size": 17}, "30x16 before .*crop_size=17x17: lower crop_size"),
        ({"mode": "resize_and_crop", "load_size": 20, "crop_size": 21}, "20x20 before the crop"),
        ({"mode": "scale_width_and_crop", "load_size": 20, "crop_size": 9}, "20x8 before .*=9x9:"),
    ],
)
def test_a_crop_beyond_the_smallest_image_is_refused(tmp_path, options, expected):
    shard_set = packed_sizes(tmp_path, (40, 16), (30, 60))
    with pytest.raises(DataError, match=expected) as caught:
        shard_set.require_sizes(Preprocess(**options), micro_batch=1)
    assert str(caught.value).startswith(f"{shard_set.store}: ")


def test_a_micro_batch_needs_one_size(tmp_path):
    shard_set = packed_sizes(tmp_path, (40, 16), (30, 60), (20, 8))
    with pytest.raises(DataError, match="20x8, 30x60, 40x16.*of 2 need.*crops, or batch.micro=1"):
        shard_set.require_sizes(Preprocess("none"), micro_batch=2)
    with pytest.raises(DataError, match="40x16, 40x80.*micro-batches of 2"):
        shard_set.require_sizes(Preprocess("scale_width", load_size=40), micro_batch=2)
    assert shard_set.require_sizes(Preprocess("crop", crop_size=8), micro_batch=2) == (8, 8)
    assert shard_set.one_size(Preprocess("crop", crop_size=8))
    assert not shard_set.one_size(Preprocess("none"))


def test_sizes_of_one_aspect_ratio_may_share_a_batch(tmp_path):
    shard_set = packed_sizes(tmp_path, (40, 16), (20, 8))
    scaled = Preprocess("scale_width", load_size=10)
    assert shard_set.require_sizes(scaled, micro_batch=2) == (10, 4)


def test_no_size_is_too_rare_to_be_looked_at(tmp_path):
    sizes = [(8 + number, 8) for number in range(80)]
    shard_set = packed_sizes(tmp_path, *sizes, (90, 4))
    assert (90, 4, 1) in shard_set.sizes
    with pytest.raises(DataError, match="8x4 before the crop"):
        shard_set.require_sizes(Preprocess("crop", crop_size=6), micro_batch=1)


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
    with pytest.raises(DataError, match="format version 9, but this program reads 2"):
        open_shards(copy)


def test_one_shard_alone_is_as_small_as_its_samples(large_set):
    only, last = large_set.only(26), large_set.only(27)
    assert [*only.keys, *last.keys] == list(large_set.keys[26:])
    assert only.names(0) == large_set.names(26)
    assert Reader(only).read(0) == Reader(large_set).read(26)
    assert len(pickle.dumps(only)) < len(pickle.dumps(large_set)) / 3
