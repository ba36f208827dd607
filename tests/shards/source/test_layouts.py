"""Which files of a folder belong together, and which folders are refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.indexing.index_domains import domain_folders
from shards.records import DataError
from shards.source.arrangements import arrangements
from shards.source.layouts import find_conditions, find_records, image_keys
from shards.source.source_files import links_followed
from tests.shards.sources import label_source, pair_source, save

PIXELS = np.zeros((4, 4), np.uint8)


def put(folder: Path, *names: str) -> Path:
    for name in names:
        save(folder / name, PIXELS)
    return folder


def test_labels_with_and_without_instances(tmp_path):
    with_inst, without = tmp_path / "a", tmp_path / "b"
    records = find_records(label_source(with_inst, 3))
    assert [record.key for record in records] == ["000", "001", "002"]
    assert list(records[1].files) == ["label", "inst", "image"]
    assert records[1].files["inst"] == with_inst / "train_inst/001.png"
    assert list(find_records(label_source(without, 1, inst=False))[0].files) == ["label", "image"]


def test_cityscapes_files_pair_up_in_nested_folders(tmp_path):
    stem = "aachen/aachen_000000_000019"
    endings = ("gtFine_labelIds", "gtFine_instanceIds", "gtFine_color", "gtFine_labelTrainIds")
    for folder in ("train_label", "train_inst"):  # both as copies of gtFine/train
        put(tmp_path / folder, *(f"{stem}_{ending}.png" for ending in endings))
    (tmp_path / "train_label/aachen/x_gtFine_polygons.json").write_text("{}")
    put(tmp_path / "train_img", f"{stem}_leftImg8bit.png")
    (record,) = find_records(tmp_path)
    assert record.key == stem
    assert record.files["inst"].name == "aachen_000000_000019_gtFine_instanceIds.png"
    assert record.files["label"].name == "aachen_000000_000019_gtFine_labelIds.png"


def test_pairs_keep_the_endings_of_cityscapes(tmp_path):
    names = ("x_gtFine_color", "x_leftImg8bit")
    put(tmp_path, *(f"train_{side}/{name}.png" for side in "AB" for name in names))
    assert [record.key for record in find_records(tmp_path)] == list(names)


@pytest.mark.parametrize(
    "split, names",
    [
        ("train", ("train_A/1.png", "train_B/1.png")),
        ("test", ("A/test/1.png", "B/test/1.png", "A/train/2.png", "B/train/2.png")),
        ("train", ("A/1.png", "B/1.png")),
    ],
)
def test_folder_pairs(tmp_path, split, names):
    (record,) = find_records(put(tmp_path, *names), split=split)
    assert record.key == "1" and list(record.files) == ["a", "b"]


def test_a_split_that_is_absent_is_not_replaced_by_another(tmp_path):
    put(tmp_path, "A/test/1.png", "B/test/1.png")
    with pytest.raises(DataError, match="does not hold the folders looked for"):
        find_records(tmp_path)
    put(tmp_path / "plain", "A/1.png", "B/1.png")
    with pytest.raises(DataError, match="does not hold the folders looked for"):
        find_records(tmp_path / "plain", split="test")


def test_dots_become_underscores(tmp_path):
    put(tmp_path, "train_A/v1.2/frame.0001.png", "train_B/v1.2/frame.0001.png")
    assert find_records(tmp_path)[0].key == "v1_2/frame_0001"
    put(tmp_path, "train_A/v1.2/frame_0001.png", "train_B/v1.2/frame_0001.png")
    with pytest.raises(DataError, match="share the key 'v1_2/frame_0001'"):
        find_records(tmp_path)


def test_accents_are_the_same_however_they_are_written(tmp_path):
    put(tmp_path, "train_A/caf\u00e9/z\u00fcrich.png", "train_B/cafe\u0301/zu\u0308rich.png")
    assert find_records(tmp_path)[0].key == "caf\u00e9/z\u00fcrich"
    put(tmp_path, "train_A/cafe\u0301/zu\u0308rich.png")
    with pytest.raises(DataError, match="share the key"):
        find_records(tmp_path)


def test_two_extensions_of_one_key_are_refused(tmp_path):
    source = pair_source(tmp_path, 1)
    put(source, "train_A/0.png")
    with pytest.raises(DataError, match="share the key '0'"):
        find_records(source)


def test_missing_partners_are_counted_and_named(tmp_path):
    source = label_source(tmp_path, 5)
    for number in (1, 3, 4):
        (source / f"train_img/{number:03d}.png").unlink()
    expected = (
        r"3 of 5 files in train_label/ have no partner of the same name in train_img/ "
        r"\(first: 001.png, 003.png, 004.png\)"
    )
    with pytest.raises(DataError, match=expected):
        find_records(source)


def test_a_misnamed_instance_map_is_refused(tmp_path):
    source = label_source(tmp_path, 3)
    (source / "train_inst/002.png").rename(source / "train_inst/2.png")
    with pytest.raises(DataError, match=r"1 of 3 files in train_label/ .* train_inst/ .*002.png"):
        find_records(source)


def test_a_wrong_source_says_what_was_looked_for(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError) as caught:
        find_records(tmp_path)
    for part in ("train_label/ + train_img/", "train_A/ + train_B/", "A/train/", "holds images"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="is not a folder"):
        find_records(tmp_path / "absent")
    with pytest.raises(DataError, match="'label' is unknown"):
        find_records(tmp_path, layout="label")


def test_empty_folders_are_refused(tmp_path):
    source = label_source(tmp_path, 1)
    for path in (source / "train_img").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="train_img holds no PNG, JPEG or WebP file"):
        find_records(source)


def test_both_layouts_at_once_need_a_choice(tmp_path):
    source = pair_source(label_source(tmp_path, 1), 2)
    with pytest.raises(DataError, match="holds folders of several layouts"):
        find_records(source)
    assert len(find_records(source, layout="pairs")) == 2


def test_other_image_formats_are_named_and_other_files_passed_over(tmp_path):
    source = label_source(tmp_path, 1)
    (source / "train_img/Thumbs.db").write_bytes(b"x")
    put(source, "train_img/.hidden.png", "train_img/.trash/9.png")
    assert len(find_records(source)) == 1
    (source / "train_img/001.tif").write_bytes(b"x")
    (source / "train_img/002.bmp").write_bytes(b"x")
    expected = r"001.tif \(and 1 more files\) is no PNG, JPEG or WebP"
    with pytest.raises(DataError, match=expected):
        find_records(source)


def test_links_are_not_followed_out_of_the_source(tmp_path):
    source = label_source(tmp_path / "source", 1)
    secret = save(tmp_path / "secret.png", PIXELS)
    link = source / "train_img/000.png"
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(DataError, match="link that leads out"):
        find_records(source)
    link.unlink()
    link.symlink_to(source / "train_label/000.png")
    assert find_records(source)[0].files["image"] == link
    (source / "train_img/more").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="link to a folder"):
        find_records(source)


def test_a_linked_member_folder_is_refused(tmp_path):
    outside = label_source(tmp_path / "outside", 1)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("train_label", "train_img"):
        (source / name).symlink_to(outside / name, target_is_directory=True)
    with pytest.raises(DataError, match="train_label is a link that leads out"):
        find_records(source)


def test_links_may_be_followed_but_not_in_circles(tmp_path):
    outside = label_source(tmp_path / "outside", 2)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("train_label", "train_img"):
        (source / name).symlink_to(outside / name, target_is_directory=True)
    with links_followed(True):
        assert [record.key for record in find_records(source)] == ["000", "001"]
        (outside / "train_img/deep").mkdir()
        for name in ("back", "deep/back"):
            circle = outside / "train_img" / name
            circle.symlink_to(outside / "train_img", target_is_directory=True)
            with pytest.raises(DataError, match="back leads to .*train_img, where other links"):
                find_records(source)
            circle.unlink()
    with pytest.raises(DataError, match="--links=follow"):
        find_records(source)


def test_a_pipe_is_not_opened(tmp_path):
    source = label_source(tmp_path, 1)
    os.mkfifo(source / "train_img/001.png")
    with pytest.raises(DataError, match="not a regular file"):
        find_records(source)


def test_unprintable_names_are_refused(tmp_path):
    source = label_source(tmp_path, 1)
    with open(os.fsencode(source) + b"/train_img/\xff\n.png", "wb"):
        pass
    with pytest.raises(DataError, match="unprintable"):
        find_records(source)


def test_conditions_need_no_target(tmp_path):
    source = label_source(tmp_path, 2)
    expected = ["label", "inst"]
    assert [list(r.files) for r in find_conditions(source, "labels", "train")] == [expected] * 2
    plain = find_conditions(source / "train_label", "labels")
    assert [(record.key, list(record.files)) for record in plain] == [
        ("000", ["label"]),
        ("001", ["label"]),
    ]
    pairs = pair_source(tmp_path / "pairs", 1)
    assert list(find_conditions(pairs, "pairs", "train")[0].files) == ["a"]


@pytest.mark.parametrize(
    "layout, looked_for", [("labels", "test_label/"), ("pairs", "testA/ or test_A/ or A/test/")]
)
def test_a_missing_split_is_not_replaced_by_all_there_is(tmp_path, layout, looked_for):
    label_source(tmp_path, 2)
    pair_source(tmp_path, 2)
    with pytest.raises(DataError, match=f"holds no {looked_for} .*it holds train_A, train_B"):
        find_conditions(tmp_path, layout, "test")


def test_a_plain_folder_of_conditions_is_taken_without_its_sub_folders(tmp_path):
    put(tmp_path, "1.png", "more/2.png", "test_B/1.png")
    assert [record.key for record in find_conditions(tmp_path, "pairs")] == ["1"]


def test_image_keys_follow_the_rule_of_their_member(tmp_path):
    put(tmp_path, "a/1_leftImg8bit.png", "a/1_gtFine_color.png", "v1.2.png")
    photo = tmp_path / "a/1_leftImg8bit.png"
    assert image_keys(tmp_path, "image") == {"a/1": photo, "v1_2": tmp_path / "v1.2.png"}
    assert set(image_keys(tmp_path, "b")) == {"a/1_leftImg8bit", "a/1_gtFine_color", "v1_2"}
    assert image_keys(put(tmp_path / "sub", "x_gtFine_color.png"), "image") == {}


@pytest.fixture()
def closed_folder() -> Iterator[Path]:
    """A source with a folder that this user may not look into."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        source.chmod(0o755)
        put(source / "train_A", "1.png", "night/2.png")
        put(source / "train_B", "1.png", "night/2.png")
        put(source / "gtFine" / "train", "aachen/1.png")
        closed = (source / "train_A" / "night", source / "gtFine" / "train" / "aachen")
        for folder in closed:
            folder.chmod(0)
        root = os.geteuid() == 0
        if root:  # whom no mode keeps out
            os.seteuid(65534)
        try:
            yield source
        finally:
            if root:
                os.seteuid(0)
            for folder in closed:
                folder.chmod(0o755)


def test_what_tells_cityscapes_maps_is_not_passed_over(closed_folder):
    with pytest.raises(DataError, match="cannot be read .Permission denied.: make it readable"):
        arrangements(closed_folder, "labels", "train")


def test_a_folder_that_cannot_be_looked_into_is_not_passed_over(closed_folder):
    for layout, closed in (("auto", "gtFine/train/aachen"), ("pairs", "train_A/night")):
        with pytest.raises(DataError, match=f"{closed} cannot be read .Permission denied."):
            find_records(closed_folder, layout)
    with pytest.raises(DataError, match="Permission denied"):
        find_conditions(closed_folder, "pairs", "train", member="a")
    with pytest.raises(OSError, match="Permission denied"):
        domain_folders([str(closed_folder / "train_A")])
