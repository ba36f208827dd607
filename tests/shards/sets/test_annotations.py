"""Classes and attributes in a set: their bytes, what stock readers make of them, and damage."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.annotations import read_annotations
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_shards
from shards.sets.verify import verify
from shards.storage.sealed import fingerprint_of
from tests.shards.sources import domain_source


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Three cats and two dogs; tests must not change it."""
    folder = tmp_path_factory.mktemp("classes")
    source = domain_source(folder / "source", cat=3, dog=2)
    (shard_set,) = pack(source, folder / "set", layout="labelled", workers=1)
    return shard_set


@pytest.fixture(scope="module")
def attributes(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Three pictures; the second has both attributes; tests must not change it."""
    folder = tmp_path_factory.mktemp("attributes")
    file = domain_source(folder / "source", x=3) / "list.csv"
    file.write_text("image,attributes\nx/x-0.png,hat\nx/x-1.png,young hat\nx/x-2.png,\n")
    (shard_set,) = pack(file, folder / "set", workers=1)
    return shard_set


def altered(shard_set: ShardSet, out: Path, **changes: Any) -> Path:
    """A copy whose manifest says something else, and is sealed anew."""
    shutil.copytree(shard_set.store.path, out)
    manifest = json.loads((out / "manifest.json").read_text()) | changes
    manifest["fingerprint"] = fingerprint_of(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def test_names_and_counts_are_in_the_manifest(classes, attributes):
    assert classes.layout == attributes.layout == "labelled"
    assert classes.members == ("image", "cls")
    assert classes.manifest.annotations == {"cls": {"cat": 3, "dog": 2}}
    content = json.loads((classes.store.path / "manifest.json").read_text())
    assert content["classes"] == [{"name": "cat", "samples": 3}, {"name": "dog", "samples": 2}]
    assert attributes.members == ("image", "attributes")
    assert attributes.manifest.annotations == {"attributes": {"hat": 2, "young": 1}}
    assert Reader(attributes).read(1)["attributes"] == b"[1,1]"
    assert [Reader(classes).read(n)["cls"] for n in range(5)] == [b"0"] * 3 + [b"1"] * 2
    assert [*Reader(classes, without=["cls"]).read(3)] == ["image"]


def test_stock_webdataset_decodes_both(classes, attributes):
    def stock(shard_set: ShardSet) -> list[dict[str, Any]]:
        tar = str(shard_set.store.path / "000000.tar")
        return [*webdataset.WebDataset(tar, shardshuffle=False).decode("rgb8")]

    found = stock(classes)
    assert [sample["cls"] for sample in found] == [0, 0, 0, 1, 1]
    assert [sample["__key__"] for sample in found[2:4]] == ["cat/cat-2", "dog/dog-0"]
    assert found[0]["image.png"].shape == (8, 10, 3)
    assert [sample["attributes.json"] for sample in stock(attributes)] == [[1, 0], [1, 1], [0, 0]]
    with tarfile.open(classes.store.path / "000000.tar") as tar:
        assert sorted(tar.getnames()[:2]) == ["cat/cat-0.cls", "cat/cat-0.image.png"]


@pytest.mark.parametrize(
    "content, number", [(b"0", 0), (b"9", 9), (b"07", 7), (b"00009", 9), (b"10", None)]
)
def test_a_class_is_a_number_below_their_count(content, number):
    if number is None:
        with pytest.raises(DataError, match="K.cls is '10', but a class is .* below 10: restore"):
            read_annotations({"cls": content}, {"cls": "K.cls"}, {"cls": 10})
    else:
        found = read_annotations({"cls": content}, {"cls": "K.cls"}, {"cls": 10})["cls"]
        assert found.dtype == np.int64 and found.shape == () and found == number


@pytest.mark.parametrize(
    "content",
    [b"", b"-1", b"+1", b"1 ", b"1\n", b"1.0", b"1e0", b"0x1", b"cat", b"\xff", b"1_0"]
    + [b"000001", b"9" * 10**6, "\u0661".encode()],
)
def test_what_is_no_plain_number_is_no_class(content):
    with pytest.raises(DataError, match="K.cls is '.*, but a class is a decimal number") as caught:
        read_annotations({"cls": content}, {"cls": "K.cls"}, {"cls": 2**16})
    assert len(str(caught.value)) < 250 and str(caught.value).isprintable()


@pytest.mark.parametrize("content, flags", [(b"[1,0,1]", (1, 0, 1)), (b"[0, 0, 1]", (0, 0, 1))])
def test_attributes_are_flags(content, flags):
    found = read_annotations({"attributes": content}, {"attributes": "K"}, {"attributes": 3})
    assert found["attributes"].dtype == np.float32 and tuple(found["attributes"]) == flags


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[1,0]", b"[1,0,1,0]", b"[1,0,2]", b"[1,0,true]", b"1,0,1", b"[1,0,1]\n"]
    + [b"[1,0,01]", b"[[1],0,1]", b"[1,  0, 1]", b"[" * 10**6, b"[1,0,1" + b" " * 10**6 + b"]"],
)
def test_what_is_no_list_of_flags_has_no_attributes(content):
    with pytest.raises(DataError, match=r"K is '.*, but attributes are a JSON list of 3") as caught:
        read_annotations({"attributes": content}, {"attributes": "K"}, {"attributes": 3})
    assert len(str(caught.value)) < 250 and str(caught.value).isprintable()


def test_verify_counts_classes_and_attributes(classes, attributes, tmp_path):
    assert verify(classes.store.path, workers=1).problems == ()
    assert verify(attributes.store.path, workers=1).problems == ()
    wrong = [{"name": "cat", "samples": 2}, {"name": "dog", "samples": 3}]
    (problem,) = verify(altered(classes, tmp_path / "a", classes=wrong), workers=1).problems
    assert "the totals in the manifest are not those of the shards" in problem
    wrong = [{"name": "hat", "samples": 2}, {"name": "young", "samples": 0}]
    (problem,) = verify(altered(attributes, tmp_path / "b", attributes=wrong), workers=1).problems
    assert "the totals in the manifest are not those of the shards" in problem


def test_verify_names_numbers_beyond_the_classes(classes, attributes, tmp_path):
    one = [{"name": "cat", "samples": 5}]
    first, second = verify(altered(classes, tmp_path / "a", classes=one), workers=1).problems
    assert "000000.tar: dog/dog-0.cls is '1', but a class is a decimal number below 1" in first
    assert "dog-1.cls" in second
    one = [{"name": "hat", "samples": 2}]
    problems = verify(altered(attributes, tmp_path / "b", attributes=one), workers=1).problems
    assert len(problems) == 3 and "x/x-0.attributes.json is '[1,0]', but" in problems[0]


@pytest.mark.parametrize(
    "listed",
    [None, [], {}, 3, ["cat", "dog"], [{"name": "cat"}], [{"name": "a\nb", "samples": 5}]]
    + [[{"name": "cat", "samples": 3}, {"name": "cat", "samples": 2}]],
)
def test_a_manifest_with_other_names_is_none(classes, tmp_path, listed):
    with pytest.raises(DataError, match="is no manifest of this format") as caught:
        open_shards(altered(classes, tmp_path / "set", classes=listed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "members", [["image"], ["cls"], ["image", "cls", "attributes"], ["image", "label", "cls"]]
)
def test_a_labelled_set_has_pictures_and_one_kind_of_annotations(classes, tmp_path, members):
    with pytest.raises(DataError, match="is no manifest of this format"):
        open_shards(altered(classes, tmp_path / "set", members=members))


def test_the_order_of_the_names_is_a_part_of_the_fingerprint(classes, tmp_path):
    swapped = [{"name": "dog", "samples": 3}, {"name": "cat", "samples": 2}]
    other = open_shards(altered(classes, tmp_path / "set", classes=swapped))
    assert other.fingerprint != classes.fingerprint


def test_a_set_has_the_classes_that_a_run_reads(classes, attributes):
    classes.require_classes(2)
    with pytest.raises(
        DataError, match=r"set holds 2 classes, .* reads 10: set model.num_classes=2"
    ):
        classes.require_classes(10)
    expected = r"holds no classes, .*\(model.num_classes=2\): pack .* --layout=labelled"
    with pytest.raises(DataError, match=expected):
        attributes.require_classes(2)
    attributes.require_attributes(["young", "hat"])
    with pytest.raises(DataError, match="holds no attribute 'old', but hat, young: choose among"):
        attributes.require_attributes(["hat", "old"])
    with pytest.raises(DataError, match="holds no attributes, but this run reads hat, old: pack a"):
        classes.require_attributes(["hat", "old"])
