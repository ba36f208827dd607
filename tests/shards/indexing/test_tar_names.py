"""How users name the tars of a set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shards.indexing.tar_names import MAX_NAMES, expand, locate
from shards.records import DataError
from tests.shards.foreign import street_tars, write_tar


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    return street_tars(tmp_path / "streets", num_samples=1)


def test_the_shards_may_be_named_in_any_way(streets, monkeypatch):
    names = ["train-0000.tar", "train-0001.tar"]
    one, two = (str(streets / name) for name in names)
    pattern = f"{streets}/train-{{0001,0000}}.tar"
    for shards in ([two, one], [pattern], [str(streets)], [one, one, two]):
        assert locate(shards) == (streets, names)
    monkeypatch.chdir(streets)
    for shards in (["train-000{0..1}.tar"], names, ["."]):
        assert locate(shards) == (Path(), names)


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("a.tar", ["a.tar"]),
        ("t-{08..11}.tar", ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{x}{}", ["{x}{}"]),
        ("{a..b}", ["{a..b}"]),
    ],
)
def test_braces_stand_for_what_they_do_in_bash(pattern, names):
    assert expand(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..99999999999}", "{1..1000}{1..1000}"])
def test_too_many_names_are_refused_at_once(pattern):
    with pytest.raises(DataError, match=f"more than {MAX_NAMES} names"):
        expand(pattern)


def test_wrong_places_are_refused(streets, tmp_path):
    other = write_tar(tmp_path / "other/a.tar", [("0.jpg", b"")])
    for given, expected in (
        ((), "no shards are named"),
        ((tmp_path / "absent.tar",), "absent.tar is no file"),
        ((streets / "train-{0000..0002}.tar",), "train-0002.tar is no file"),
        ((streets / "train-0000.tar",), "also holds train-0001.tar"),
        ((tmp_path,), "holds no .*tar"),
        (("http://host/a.tar",), "must be on a disk"),
        ((streets, other), "are several folders"),
    ):
        with pytest.raises(DataError, match=expected):
            locate([str(name) for name in given])
    os.rename(other, tmp_path / "other/a b.tar")
    with pytest.raises(DataError, match="'a b.tar' cannot be a shard"):
        locate([str(tmp_path / "other")])
