"""Folders of classes become the samples of one set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shards.records import DataError
from shards.source.labelled import find_labelled
from shards.source.layouts import find_records
from tests.shards.sources import save

PIXELS = np.zeros((4, 4, 3), np.uint8)


def put(folder: Path, *names: str) -> Path:
    for name in names:
        save(folder / name, PIXELS)
    return folder


def read(source: Path, split: str = "train") -> dict[str, tuple[str, bytes]]:
    """Key -> file, relative to the source, and number of the class."""
    return {
        record.key: (str(record.files["image"].relative_to(source)), record.annotations["cls"])
        for record in find_labelled(source, split).records
    }


def test_keys_tell_the_class_and_classes_are_numbered_by_name(tmp_path):
    names = ("dog/1.png", "cat/1.png", "cat/x/2.v2.jpg", "Big cat.2/1.png", ".hidden/1.png")
    put(tmp_path / "train", *names)
    put(tmp_path / "test", "cat/9.png")
    samples = find_labelled(tmp_path)
    assert samples.layout == "labelled" and samples.names == {"cls": ("Big cat.2", "cat", "dog")}
    assert read(tmp_path) == {
        "Big cat_2/1": ("train/Big cat.2/1.png", b"0"),
        "cat/1": ("train/cat/1.png", b"1"),
        "cat/x/2_v2": ("train/cat/x/2.v2.jpg", b"1"),
        "dog/1": ("train/dog/1.png", b"2"),
    }
    assert find_labelled(tmp_path, "test").names == {"cls": ("cat",)}


def test_a_source_without_splits_holds_the_classes_itself(tmp_path):
    put(tmp_path, "b/1.png", "a,c/1.png")  # no name of a domain
    assert read(tmp_path) == {"a,c/1": ("a,c/1.png", b"0"), "b/1": ("b/1.png", b"1")}
    with pytest.raises(DataError, match=r"looked for \(test/CLASS/\); it holds a,c, b"):
        find_labelled(tmp_path, "test")


def test_names_that_look_the_same_are_one_class(tmp_path):
    put(tmp_path, "cafe\u0301/1.png", "caf\u00e9/2.png")
    assert find_labelled(tmp_path).names == {"cls": ("caf\u00e9",)}
    put(tmp_path, "caf\u00e9/1.png")
    with pytest.raises(DataError, match="would share the key"):
        find_labelled(tmp_path)


def test_what_has_no_class_is_refused(tmp_path):
    put(tmp_path / "loose", "a/1.png", "2.png")
    with pytest.raises(DataError, match="2.png lies beside the folders of the classes"):
        find_labelled(tmp_path / "loose")
    put(tmp_path / "empty", "a/1.png")
    (tmp_path / "empty/b").mkdir()
    with pytest.raises(DataError, match="b holds no PNG, .* put the pictures of class b there"):
        find_labelled(tmp_path / "empty")
    with pytest.raises(DataError, match="does not hold the folders looked for"):
        find_labelled(put(tmp_path / "flat", "1.png"))


@pytest.mark.parametrize("name", ["a\nb", "\udcff"])
def test_classes_have_printable_names(tmp_path, name):
    os.makedirs(os.path.join(os.fsencode(tmp_path), os.fsencode(name)))
    with pytest.raises(DataError, match="has unprintable characters in its name") as caught:
        find_labelled(tmp_path)
    assert "\n" not in str(caught.value)


def test_classes_are_not_linked_from_outside(tmp_path):
    outside = put(tmp_path / "outside", "1.png")
    source = put(tmp_path / "source", "cat/1.png")
    (source / "dog").symlink_to(outside, target_is_directory=True)
    with pytest.raises(DataError, match="is a link to a folder: copy the folder there"):
        find_labelled(source)


@pytest.mark.parametrize("place, split", [("", "train"), ("train", "train"), ("val", "val")])
def test_pictures_alone_lie_in_one_folder(tmp_path, place, split):
    put(tmp_path / place, "1.png", "2.jpg")
    found = find_records(tmp_path, "images", split)
    assert [(record.key, [*record.files]) for record in found] == [
        ("1", ["image"]),
        ("2", ["image"]),
    ]
    with pytest.raises(DataError, match=r"looked for \(test/\)"):
        find_records(tmp_path, "images", "test")
