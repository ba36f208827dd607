"""Lists of files as sources: what they give, and every mistake with its file and line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.shard_set import open_shards
from shards.source.lists import read_list
from tests.shards.sources import contents, label_source, save

PIXELS = np.zeros((4, 4), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("x/1.png", "x/2.v2.png", "y/1.jpg", "y/2.jpg"):
        save(tmp_path / name, PIXELS)
    return tmp_path


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def read(file: Path, layout: str = "auto", split: str = "train") -> dict[str, dict[str, str]]:
    """Key -> files, relative to the list."""
    records = read_list(file, layout, split).records
    root = file.parent.resolve()
    return {r.key: {m: str(p.relative_to(root)) for m, p in r.files.items()} for r in records}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "CSV"])
def test_a_list_packs_to_the_bytes_of_the_folders_that_it_names(kind, packed, tmp_path):
    source = label_source(tmp_path / "source", 13)
    rows = [
        {
            "image": f"train_img/{n:03d}.png",
            "label": f"train_label/{n:03d}.png",
            "key": f"{n:03d}",
            "inst": f"train_inst/{n:03d}.png",
        }
        for n in reversed(range(13))
    ]
    file = source / f"list.{kind}"
    with open(file, "w", newline="") as text:
        if kind == "jsonl":
            text.writelines(json.dumps(row) + "\n\n" for row in rows)
        else:
            writer = csv.DictWriter(text, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    pack(file, tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == contents(packed.store.path)


@pytest.mark.parametrize(
    "header, layout, members",
    [
        ("image,label", "labels", ["label", "image"]),
        ("b,a", "pairs", ["a", "b"]),
        ("ab", "side-by-side", ["ab"]),
        ("image", "images", ["image"]),
    ],
)
def test_the_columns_tell_the_layout(folder, header, layout, members):
    line = ",".join(["x/1.png", "y/1.jpg"][: header.count(",") + 1])
    file = write(folder, f"{header}\n{line}\n")
    found = read_list(file, "auto", "train")
    (record,) = found.records
    assert (found.layout, list(record.files)) == (layout, members)
    assert read_list(file, layout, "train").layout == layout
    with pytest.raises(DataError, match=f"has the columns of layout {layout}, not of classes"):
        read_list(file, "classes", "train")


def test_a_key_is_the_first_members_path_unless_given(folder):
    file = write(folder, "\ufeffb,a\ny/1.jpg,x/1.png\ny/2.jpg,x/2.v2.png\n")
    assert read(file) == {
        "x/1": {"a": "x/1.png", "b": "y/1.jpg"},
        "x/2_v2": {"a": "x/2.v2.png", "b": "y/2.jpg"},
    }
    file = write(folder, '{"ab": "x/1.png", "key": "é/v1.2"}', "list.jsonl")
    assert read(file) == {"é/v1_2": {"ab": "x/1.png"}}


def test_only_the_lines_of_the_split_are_taken(folder):
    file = write(folder, "split,image\ntrain,x/1.png\nval,y/1.jpg\nval,y/2.jpg\nodd,absent.png\n")
    assert list(read(file)) == ["x/1"] and list(read(file, split="val")) == ["y/1", "y/2"]
    with pytest.raises(DataError, match="no line of split test, but of odd, train, val"):
        read(file, split="test")
    with pytest.raises(DataError, match="has no column split, so it is all train"):
        read(write(folder, "image\nx/1.png\n"), split="test")


def test_a_single_set_of_images_is_packed_and_opened(folder):
    pack(write(folder, "image\nx/1.png\ny/2.jpg\n"), folder / "out", workers=1)
    assert tuple(open_shards(folder / "out").keys) == ("x/1", "y/2")
    open_shards(folder / "out").require("images")


BROKEN = {
    "an empty file": ("list.csv", "", "lists no files"),
    "a header alone": ("list.csv", "image\n", "lists no files"),
    "blank lines": ("list.jsonl", "\n \n", "lists no files"),
    "an unknown column": ("list.csv", "imge\nx/1.png\n", "line 2: the column 'imge' is unknown"),
    "an unknown name": ("list.jsonl", '\n{"photo": "x"}', "line 2: the column 'photo' is unknown"),
    "a missing column": ("list.csv", "label\nx/1.png\n", "2: the columns label make no sample"),
    "half a pair": ("list.csv", "key,a\nk,x/1.png\n", "line 2: the columns key, a make no sample"),
    "two layouts": ("list.csv", "ab,image\nx/1.png,x/1.png\n", "make no sample"),
    "a column twice": ("list.csv", "a,b,a\n1,2,3\n", "line 1 names a column twice"),
    "a name twice": ("list.jsonl", '{"ab": "1", "ab": "2"}', "line 1 is no JSON: a name is given"),
    "too few cells": ("list.csv", "a,b\nx/1.png,y/1.jpg\nx/1.png\n", "line 3 has 1 cells"),
    "another line's names": (
        "list.jsonl",
        '{"ab": "x/1.png"}\n{"image": "x/1.png"}',
        "line 2 has the columns image, but",
    ),
    "a nothing": ("list.csv", "a,b\nx/1.png,\n", "line 2: '' is no b"),
    "a number": ("list.jsonl", '{"ab": 5}', "line 1: 5 is no ab"),
    "a line break": ("list.csv", 'ab,key\nx/1.png,"a\nb"\n', r"line 3: 'a\nb' is no key"),
    "half a surrogate": ("list.jsonl", '{"ab": "\\ud800"}', "line 1: '\\ud800' is no ab"),
    "an open quote": ("list.csv", 'ab\n"x/1.png\n', "line 2 is broken"),
    "broken JSON": ("list.jsonl", '{"ab": "x/1.png"}\n{"ab"', "line 2 is no JSON: Expecting"),
    "no object": ("list.jsonl", '["x/1.png"]', "line 1 is no JSON object"),
    "a deep nest": ("list.jsonl", "[" * 100_000, "line 1 is no JSON"),
    "a key twice": (
        "list.csv",
        "ab\nx/1.png\ny/1.jpg\nx/1.png\n",
        "line 4: the key 'x/1' is that of line 2",
    ),
    "a key like another": (
        "list.csv",
        "ab,key\nx/1.png,a.b\nx/1.png,a_b\n",
        "line 3: the key 'a_b' is that of line 2",
    ),
    "a key that leads to the root": ("list.csv", "ab,key\nx/1.png,/a\n", "the key '/a' has"),
    "an absolute path": ("list.csv", "ab\n/etc/passwd\n", "line 2: '/etc/passwd' may lead out"),
    "a path upwards": ("list.csv", "ab\nx/../../y.png\n", "line 2: 'x/../../y.png' may lead out"),
    "an absent file": ("list.csv", "ab\nx/9.png\n", "there is no file 'x/9.png' in"),
    "a folder": ("list.csv", "ab\nx\n", "x is not a regular file"),
    "an endless name": ("list.csv", f"ab\n{'x' * 5000}\n", "cannot be followed"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_is_one_sentence_with_file_and_line(case, folder):
    name, text, expected = BROKEN[case]
    file = write(folder, text, name)
    with pytest.raises(DataError) as caught:
        read_list(file, "auto", "train")
    message = str(caught.value)
    assert message.startswith(str(file)) and expected in message, message
    assert "\n" not in message


def test_links_do_not_lead_out_of_the_lists_folder(folder, tmp_path_factory):
    outside = save(tmp_path_factory.mktemp("outside") / "secret.png", PIXELS)
    (folder / "linked").symlink_to(outside.parent, target_is_directory=True)
    (folder / "x/link.png").symlink_to(outside)
    (folder / "x/circle.png").symlink_to(folder / "x/circle.png")
    (folder / "x/inside.png").symlink_to(folder / "y/1.jpg")
    for name in ("linked/secret.png", "x/link.png"):
        with pytest.raises(DataError, match=r"list.csv, line 2: .* is a link that leads out of"):
            read(write(folder, f"ab\n{name}\n"))
    with pytest.raises(DataError, match="line 2: 'x/circle.png' cannot be followed"):
        read(write(folder, "ab\nx/circle.png\n"))
    assert list(read(write(folder, "ab\nx/inside.png\n"))) == ["x/inside"]


def test_a_pipe_does_not_stop_the_reading(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(DataError, match="line 2: .*pipe.png is not a regular file"):
        read(write(folder, "ab\npipe.png\n"))


def test_other_texts_and_absent_lists_are_sentences(folder):
    (folder / "list.csv").write_bytes("ab\né.png\n".encode("latin-1"))
    with pytest.raises(DataError, match="list.csv is no UTF-8 text"):
        read(folder / "list.csv")
    with pytest.raises(DataError, match="absent.jsonl cannot be read: No such file"):
        pack(folder / "absent.jsonl", folder / "out")


@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.text(alphabet='ab,"\n{}[]:\\ /.key\r\0', max_size=60).map(lambda text: text.encode()),
    ),
    suffix=st.sampled_from(["csv", "jsonl"]),
)
@settings(max_examples=150, deadline=None)
def test_no_bytes_give_another_error(data, suffix, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
    file.write_bytes(data)
    with pytest.raises(DataError, match="fuzz"):
        read_list(file, "auto", "train")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("sign", [";", "\t", ","])
def test_lists_as_spreadsheets_save_them(folder: Path, sign: str, mark: str):
    rows = [("a", "b", "key"), ("x/1.png", "y/1.jpg", "e;1" if sign != ";" else "e,1")]
    text = mark + "\r\n".join(sign.join(row) for row in rows)
    found = read(write(folder, text))
    assert found == {rows[1][2]: {"a": "x/1.png", "b": "y/1.jpg"}}
    line = mark + json.dumps({"a": "x/1.png", "b": "y/1.jpg", "key": "cafe\u0301"})
    assert list(read(write(folder, line, "list.jsonl"))) == ["caf\u00e9"]


def annotated(file: Path, split: str = "train") -> tuple[dict[str, dict[str, bytes]], dict]:
    """Key -> annotations; and what they stand for."""
    samples = read_list(file, "labelled", split)
    return {record.key: record.annotations for record in samples.records}, dict(samples.names)


def test_a_column_of_classes_numbers_them_alike_in_all_splits(folder):
    lines = "x/1.png,owl,train\nx/2.v2.png,cafe\u0301,test\ny/1.jpg,big ape,train\n"
    file = write(folder, f"image,class,split\n{lines}")
    names = {"cls": ("big ape", "caf\u00e9", "owl")}
    assert annotated(file) == ({"x/1": {"cls": b"2"}, "y/1": {"cls": b"0"}}, names)
    assert annotated(file, "test") == ({"x/2_v2": {"cls": b"1"}}, names)


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_column_of_attributes_becomes_a_row_of_flags(folder, name):
    own = {"x/1.png": ["young", "hat"], "y/1.jpg": [], "y/2.jpg": ["hat", "hat", "caf\u00e9"]}
    if name == "list.csv":
        text = "image;attributes\n" + "".join(f"{p};{' '.join(n)}\n" for p, n in own.items())
    else:
        rows = ({"image": p, "attributes": n} for p, n in own.items())
        text = "".join(json.dumps(row) + "\n" for row in rows)
    flags = {"x/1": b"[0,1,1]", "y/1": b"[0,0,0]", "y/2": b"[1,1,0]"}
    assert annotated(write(folder, text, name)) == (
        {key: {"attributes": content} for key, content in flags.items()},
        {"attributes": ("caf\u00e9", "hat", "young")},
    )


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("list.csv", "image,class\nx/1.png,\n", "line 2: '' is no class: give a text"),
        ("list.csv", "image,class\nx/1.png,  \n", "line 2: '  ' is no class: give a text"),
        ("list.csv", "image,class\nx/1.png,a\x07\n", r"line 2: 'a.x07' is no class: give a text"),
        ("list.csv", "image,attributes\nx/1.png,\n", "names no attribute in any line: fill"),
        ("list.csv", "image,attributes\nx/1.png,a\x07\n", "x07' is no attributes: give a text"),
        ("list.csv", "image,class,attributes\nx/1.png,a,b\n", "make no sample"),
        ("list.csv", "label,image,class\nx/1.png,x/1.png,a\n", "make no sample"),
        ("list.csv", "class\na\n", "make no sample"),
        ("list.csv", "image,cls\nx/1.png,1\n", "the column 'cls' is unknown; .* image and class"),
        ("list.jsonl", '{"image": "x/1.png", "attributes": "a b"}', "'a b' is no list: give the"),
        (
            "list.jsonl",
            '{"image": "x/1.png", "attributes": [1]}',
            "1 is no attributes: give a text",
        ),
        ("list.jsonl", '{"image": "x/1.png", "class": ["a"]}', "is no class: give a text"),
        ("list.jsonl", '{"image": "x/1.png", "class": 3}', "3 is no class: give a text"),
    ],
)
def test_what_is_no_class_or_attribute_is_refused(folder, name, text, expected):
    with pytest.raises(DataError, match=expected) as caught:
        read_list(write(folder, text, name), "auto", "train")
    assert "\n" not in str(caught.value)


def test_a_column_of_something_else_has_too_many_classes(folder):
    lines = "".join(f"x/1.png,{number},{number}\n" for number in range(2**16 + 1))
    with pytest.raises(DataError, match="list.csv has 65537 classes, but at most 65536 are taken"):
        read_list(write(folder, f"image,class,key\n{lines}"), "auto", "train")
