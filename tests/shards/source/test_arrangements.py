"""Layouts beyond labels and pairs: which folders become which sets, and what cannot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shards.records import DataError
from shards.source.arrangements import choose_layout
from shards.source.layouts import find_conditions, find_domains, find_records
from tests.shards.sources import save

PIXELS = np.zeros((4, 4), np.uint8)


def put(folder: Path, *names: str) -> Path:
    for name in names:
        save(folder / name, PIXELS)
    return folder


def keys_of(source: Path, layout: str, split: str = "train") -> dict[str, list[str]]:
    domains = find_domains(source, layout, split)
    for records in domains.values():
        assert all(list(record.files) == ["image"] for record in records)
    return {name: [record.key for record in records] for name, records in domains.items()}


@pytest.mark.parametrize(
    "split, names",
    [
        ("train", ("trainA/x.png", "trainA/y.png", "trainB/1.jpg", "testA/2.png", "testB/2.png")),
        ("train", ("train_A/x.png", "train_A/y.png", "train_B/1.jpg")),
        ("test", ("A/test/x.png", "A/test/y.png", "B/test/1.jpg", "A/train/3.png")),
        ("train", ("A/x.png", "A/y.png", "B/1.jpg")),
    ],
)
def test_unpaired_folders_need_no_common_names_or_sizes(tmp_path, split, names):
    source = put(tmp_path, *names)
    assert keys_of(source, "unpaired", split) == {"A": ["x", "y"], "B": ["1"]}


def test_the_folders_of_cyclegan_go_before_those_of_pairs(tmp_path):
    source = put(tmp_path, "train_A/1.png", "train_B/1.png", "trainA/2.png", "trainB/3.png")
    assert keys_of(source, "unpaired") == {"A": ["2"], "B": ["3"]}
    with pytest.raises(DataError, match="several layouts: choose --layout=pairs or unpaired"):
        choose_layout(source, "auto", "train")


def test_auto_takes_trainA_for_unpaired_and_train_A_for_pairs(tmp_path):
    unpaired = put(tmp_path / "unpaired", "trainA/1.png", "trainB/2.png")
    assert choose_layout(unpaired, "auto", "train") == "unpaired"
    pairs = put(tmp_path / "pairs", "train_A/1.png", "train_B/1.png")
    assert choose_layout(pairs, "auto", "train") == "pairs"
    (pairs / "train_B/1.png").rename(pairs / "train_B/2.png")
    assert choose_layout(pairs, "auto", "train") == "pairs"
    with pytest.raises(DataError, match="no partner .* rename files, or choose --layout=unpaired"):
        find_records(pairs)


def test_auto_takes_no_folder_for_classes_or_side_by_side(tmp_path):
    put(tmp_path, "train/cat/1.png", "train/2.png")
    with pytest.raises(DataError) as caught:
        choose_layout(tmp_path, "auto", "train")
    for part in (
        "trainA/ + trainB/",
        "it holds train",
        "--layout=side-by-side, images, classes or labelled",
    ):
        assert part in str(caught.value)


def test_pictures_of_domains_keep_their_names_and_their_nested_folders(tmp_path):
    put(tmp_path, "trainA/x_leftImg8bit.png", "trainB/aachen/x_gtFine_color.png", "trainB/v1.2.png")
    assert keys_of(tmp_path, "unpaired") == {
        "A": ["x_leftImg8bit"],
        "B": ["aachen/x_gtFine_color", "v1_2"],
    }


@pytest.mark.parametrize("folder", ["", "train/"])
def test_classes_are_domains_sorted_by_name(tmp_path, folder):
    put(tmp_path, f"{folder}dog/1.png", f"{folder}cat/1.png", f"{folder}Big cat-2/x/3.png")
    put(tmp_path, f"{folder}.git/4.png")
    (tmp_path / folder / "notes.txt").touch()
    found = keys_of(tmp_path, "classes")
    assert list(found.items()) == [("Big cat-2", ["x/3"]), ("cat", ["1"]), ("dog", ["1"])]


def test_a_picture_beside_the_classes_is_not_passed_over(tmp_path):
    put(tmp_path, "cat/1.png", "stray.png")
    with pytest.raises(DataError, match="stray.png lies beside the folders of the classes"):
        find_domains(tmp_path, "classes")


def test_another_split_is_no_class(tmp_path):
    put(tmp_path, "test/cat/1.png", "val/cat/1.png")
    for layout, looked_for in (("classes", "train/CLASS/"), ("side-by-side", "train/")):
        with pytest.raises(DataError, match=rf"looked for \({looked_for}\); it holds test, val"):
            (find_domains if layout == "classes" else find_records)(tmp_path, layout, "train")
    flat = put(tmp_path / "flat", "cat/1.png", "2.png")
    with pytest.raises(DataError, match=r"looked for \(test/CLASS/\); it holds cat"):
        find_domains(flat, "classes", "test")
    with pytest.raises(DataError, match=r"looked for \(test/\)"):
        find_records(flat, "side-by-side", "test")


@pytest.mark.parametrize(
    "name", ["-x", " x", "a,b", "manifest.json", "000000.tar", "a\nb", "\udcff"]
)
def test_class_names_that_are_no_folder_names_of_a_set_are_refused(tmp_path, name):
    folder = os.path.join(os.fsencode(tmp_path), b"train", os.fsencode(name))
    os.makedirs(folder)
    with pytest.raises(DataError, match="cannot be a domain: rename it") as caught:
        find_domains(tmp_path, "classes")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout, folder", [("unpaired", "trainB"), ("classes", "train/cat")])
def test_an_empty_domain_is_a_sentence(tmp_path, layout, folder):
    put(tmp_path, "trainA/1.png", "train/dog/1.png")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "notes.txt").write_text("x")
    name = folder.removeprefix("train").removeprefix("/")
    expected = f"{folder} holds no PNG, JPEG or WebP file: put the pictures of domain {name} there"
    with pytest.raises(DataError, match=expected):
        find_domains(tmp_path, layout)


def test_domains_are_not_linked_from_outside(tmp_path):
    outside = put(tmp_path / "outside", "1.png")
    source = put(tmp_path / "source", "train/cat/1.png", "trainA/1.png")
    (source / "train/dog").symlink_to(outside, target_is_directory=True)
    (source / "trainB").symlink_to(outside, target_is_directory=True)
    for layout in ("classes", "unpaired"):
        with pytest.raises(DataError, match="is a link that leads out of"):
            find_domains(source, layout)


@pytest.mark.parametrize("split, folder", [("test", "test/"), ("train", "train/"), ("train", "")])
def test_side_by_side_files_lie_in_the_split_or_in_the_source(tmp_path, split, folder):
    put(tmp_path, f"{folder}2.png", f"{folder}1.png", "more/3.png")
    records = find_records(tmp_path, "side-by-side", split)
    assert [(record.key, list(record.files)) for record in records] == [
        ("1", ["ab"]),
        ("2", ["ab"]),
    ]


def test_more_kinds_of_files_are_named_than_are_read(tmp_path):
    put(tmp_path, "trainA/1.png", "trainB/1.png")
    for name in ("2.npy", "2.exr", "2.TIFF", "2.heic"):
        (tmp_path / "trainA" / name).write_bytes(b"x")
        with pytest.raises(DataError, match=f"{name} is no PNG, JPEG or WebP: convert or remove"):
            find_domains(tmp_path, "unpaired")
        (tmp_path / "trainA" / name).unlink()


@pytest.mark.parametrize("layout", ["pairs", "unpaired"])
@pytest.mark.parametrize("pattern", ["{split}_{side}", "{split}{side}", "{side}/{split}"])
@pytest.mark.parametrize("member", ["a", "b"])
def test_either_side_is_translated_without_the_other(tmp_path, layout, pattern, member):
    folder = pattern.format(split="test", side=member.upper())
    put(tmp_path, f"{folder}/x.png", f"{folder}/deep/y.png")
    records = find_conditions(tmp_path, layout, member=member)
    assert [(record.key, record.files) for record in records] == [
        ("deep/y", {member: tmp_path / folder / "deep/y.png"}),
        ("x", {member: tmp_path / folder / "x.png"}),
    ]
    other = "b" if member == "a" else "a"
    with pytest.raises(DataError, match=f"holds no test{other.upper()}/ or .* the {other} images"):
        find_conditions(tmp_path, layout, member=other)


def test_conditions_are_the_first_member_unless_said(tmp_path):
    source = put(tmp_path, "testA/1.png", "testB/2.png", "9.png")
    (record,) = find_conditions(source, "unpaired")
    assert record.files == {"a": source / "testA/1.png"}
    (record,) = find_conditions(source, "unpaired", "val", member="b")
    assert record.files == {"b": source / "9.png"}


def test_photos_come_with_pairs_but_never_unpaired(tmp_path):
    source = put(tmp_path, "test_A/1.png", "test_B/1.png", "test_B/2.png")
    assert [r.key for r in find_conditions(source, "unpaired", photos=True)] == ["1"]
    assert [r.key for r in find_conditions(source, "pairs")] == ["1"]
    with pytest.raises(DataError, match="no partner of the same name"):
        find_conditions(source, "pairs", photos=True)
    (source / "test_B/2.png").unlink()
    (record,) = find_conditions(source, "pairs", member="b", photos=True)
    assert set(record.files) == {"a", "b"}


@pytest.mark.parametrize("folder", ["test/", ""])
def test_side_by_side_conditions_hold_both_pictures(tmp_path, folder):
    source = put(tmp_path, f"{folder}1.png", "more/2.png")
    for member in (None, "a", "b"):
        (record,) = find_conditions(source, "side-by-side", member=member)
        assert record.files == {"ab": source / f"{folder}1.png"}


def cityscapes(source: Path, split: str = "train", inst: bool = True) -> Path:
    """Two frames of one city, with all that comes with them."""
    endings = ["labelIds", "labelTrainIds", "instanceTrainIds", "color"]
    endings += ["instanceIds"] if inst else []
    for key in ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019"):
        put(source, *(f"gtFine/{split}/{key}_gtFine_{ending}.png" for ending in endings))
        put(source, f"leftImg8bit/{split}/{key}_leftImg8bit.png")
        (source / f"gtFine/{split}/{key}_gtFine_polygons.json").write_text("{}")
    return source


@pytest.mark.parametrize("inst", [True, False])
def test_cityscapes_own_tree_gives_the_records_of_labels(tmp_path, inst):
    source = cityscapes(cityscapes(tmp_path, "val", inst), "train", inst)
    assert choose_layout(source, "auto", "train") == "labels"
    records = find_records(source, "auto", "val")
    assert [record.key for record in records] == [
        "aachen/aachen_000000_000019",
        "aachen/aachen_000001_000019",
    ]
    names = {member: path.name for member, path in records[0].files.items()}
    stem = "aachen_000000_000019"
    expected = {"label": f"{stem}_gtFine_labelIds.png", "inst": f"{stem}_gtFine_instanceIds.png"}
    if not inst:
        del expected["inst"]
    assert names == {**expected, "image": f"{stem}_leftImg8bit.png"}
    assert list(names) == [*expected, "image"]


def test_cityscapes_frames_without_a_partner_are_named(tmp_path):
    source = cityscapes(tmp_path)
    frame = "train/aachen/aachen_000001_000019"
    lost = source / f"gtFine/{frame}_gtFine_instanceIds.png"
    lost.unlink()
    with pytest.raises(DataError, match="1 of 2 files in gtFine/train/ have no partner"):
        find_records(source)
    save(lost, PIXELS)
    (source / f"leftImg8bit/{frame}_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match=r"no partner of the same name in leftImg8bit/train/ "):
        find_records(source)


@pytest.mark.parametrize("inst", [True, False])
def test_cityscapes_maps_are_translated_with_or_without_photos(tmp_path, inst):
    source = cityscapes(tmp_path, "test", inst)
    maps = ["label", "inst"] if inst else ["label"]
    for photos in (False, True):
        records = find_conditions(source, "labels", photos=photos)
        assert [list(r.files) for r in records] == [[*maps, *(["image"] if photos else [])]] * 2
    assert records[0].key == "aachen/aachen_000000_000019"


@pytest.mark.parametrize("maps", ["annotations", "stuffthingmaps"])
@pytest.mark.parametrize(
    "split, folder",
    [
        ("train", "train"),
        ("train", "training"),
        ("train", "train2017"),
        ("val", "val"),
        ("val", "validation"),
        ("val", "val2017"),
        ("test", "test"),
        ("validation", "validation"),
        ("unlabeled2017", "unlabeled2017"),
    ],
)
def test_label_folders_of_ade20k_and_coco(tmp_path, maps, split, folder):
    source = put(tmp_path, f"{maps}/{folder}/1.png", f"images/{folder}/1.jpg")
    put(source, f"{maps}/other/2.png", "images/other/2.jpg")
    (record,) = find_records(source, "auto", split)
    files = {"label": f"{maps}/{folder}/1.png", "image": f"images/{folder}/1.jpg"}
    assert record.files == {member: source / name for member, name in files.items()}
    (condition,) = find_conditions(source, "labels", split)
    assert condition.files == {"label": record.files["label"]}


def test_a_split_by_its_own_name_goes_before_the_others(tmp_path):
    source = put(tmp_path, "annotations/train/1.png", "images/train/1.jpg")
    put(source, "annotations/training/2.png", "images/training/2.jpg")
    assert [record.key for record in find_records(source)] == ["1"]


def test_own_label_folders_go_before_the_trees(tmp_path):
    source = put(cityscapes(tmp_path), "train_label/x.png", "train_img/x.png")
    assert [record.key for record in find_records(source)] == ["x"]


def test_photos_are_found_by_more_kinds(tmp_path):
    source = put(tmp_path, "train/1.webp", "train/2.png")
    assert [record.key for record in find_records(source, "side-by-side")] == ["1", "2"]
