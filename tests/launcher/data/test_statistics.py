"""`stats`, `index` and `dali` as commands: what they print, and the picture of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher.commands.cli import Commands
from launcher.data.contact_sheet import CELL, GAP, contact_sheet
from launcher.data.statistics import concerns, facts, label_concerns, label_rows, stats
from launcher.recipe.arguments import Plan
from launcher.recipe.config import ConfigError
from shards.pack.packing import pack
from shards.records import DataError
from shards.sets.shard_set import ShardSet, open_all, open_shards
from tests.launcher.sample import organza
from tests.shards.foreign import street_tars
from tests.shards.sources import domain_source, encoded, save


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Two samples, one of them 512x256 with label 1 left and 4 right, one grey; label 7 is rare."""
    folder = tmp_path_factory.mktemp("stats")
    wide = np.repeat(np.array([[1, 4]], np.uint8), 256, axis=1).repeat(256, axis=0)
    wide[0, 0] = 7
    for key, label in (("0", wide), ("1", np.full((20, 30), 4, np.uint8))):
        save(folder / f"source/train_label/{key}.png", label)
        save(folder / f"source/train_img/{key}.png", np.full((*label.shape, 3), 99, np.uint8))
    grey = folder / "source/train_img/1.png"
    grey.write_bytes(encoded(np.zeros((20, 30), np.uint8)))
    (shard_set,) = pack(folder / "source", folder / "set", workers=1)
    return shard_set


def test_the_table_tells_what_there_is(streets) -> None:
    told = dict(facts(streets))
    assert told["samples"] == "2" and told["layout"] == "labels"
    assert told["commonest sizes"] == "30x20 (1), 512x256 (1)"
    assert (told["least sides"], told["greatest sides"]) == ("30x20", "512x256")
    sizes = streets.index["label"].sizes
    assert told["label"] == f"2 png; {sizes.mean():.3g} bytes each"
    assert told["converted"].startswith("image: 1 of 2 pictures are grey")
    assert label_rows(streets) == [
        ("1", "49.8 %", "0"),
        ("4", "50.2 %", "0"),
        ("7", "0.000759 %", "0"),
    ]


def test_what_hurts_training_is_said(streets):
    told = "\n".join(concerns(streets))
    assert "label ids 0, 2, 3, 5, 6 are nowhere" in told
    assert "label ids 7 have less than 0.01% of the pixels" in told
    assert "2 sizes: micro-batches" in told
    assert "1 of 2 pictures (image) are grey" in told
    assert label_concerns({0: 0.5, 1: 0.5}) == []
    assert "label id 255 is there" in "".join(label_concerns({0: 0.5, 255: 0.5}))
    assert "and 3 more are nowhere" in "".join(label_concerns({11: 1.0}))


def test_the_picture_shows_labels_in_colours_beside_photos(streets):
    sheet = np.asarray(contact_sheet([streets]))
    assert sheet.shape == (128 + GAP + 128, CELL + GAP + CELL, 3)
    left, right, photo = sheet[64, 10], sheet[64, 200], sheet[64, CELL + GAP + 10]
    assert tuple(left) == (128, 0, 0) and tuple(right) == (0, 0, 128)  # the PASCAL VOC colours
    assert tuple(photo) == (99, 99, 99)
    assert tuple(sheet[128 + GAP + 10, 10]) == (0, 0, 128)  # the small sample, not scaled up
    assert tuple(sheet[128 + GAP + 30, 10]) == (0, 0, 0)


def test_domains_stand_side_by_side(tmp_path):
    pack(domain_source(tmp_path / "source", trainA=3, trainB=20), tmp_path / "set", workers=1)
    sets = open_all(tmp_path / "set")
    assert list(sets) == ["A", "B"]
    sheet = contact_sheet(list(sets.values()))
    assert sheet.size == (2 * CELL + GAP, 16 * (8 + GAP) - GAP)
    last = sets["B"].store.path.parents[1] / "source/trainB/trainB-9.png"  # the last in order
    shown = np.asarray(sheet)[-8:, CELL + GAP : CELL + GAP + 10]
    assert (shown == np.asarray(Image.open(last))).all()


def test_tars_of_others_from_index_to_picture(tmp_path: Path, capsys) -> None:
    shards = sorted(street_tars(tmp_path / "tars").iterdir())  # as a shell expands a pattern
    asked = ("--members=label=seg.png,image=jpg", "--num_labels=9", "--workers=1")
    status, output = organza("index", *shards, *asked)
    assert status == 0, output
    assert "6 samples in 2 shards, layout labels (label = .seg.png, image = .jpg)." in output
    assert "Other files are not read: 6 .json." in output
    commands, tars = Commands(), str(tmp_path / "tars")
    run(commands.index(tars, workers="1"))
    assert "The same index was there already." in capsys.readouterr().out
    run(commands.dali(tars))
    assert (tmp_path / "tars/train-0001.idx").exists()
    run(commands.stats(tars, out=str(tmp_path / "samples.png")))
    assert "6 jpg; " in capsys.readouterr().out
    assert Image.open(tmp_path / "samples.png").width == 2 * CELL + GAP
    assert open_shards(tars).num_samples == 6


def run(plan: Plan) -> None:
    plan._run()


def test_the_picture_lies_beside_the_set_or_where_it_is_asked_for(
    streets, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = Path(str(streets.store))
    stats(str(packed), None)
    (packed.parent / "set-samples.png").unlink()
    stats(str(packed), tmp_path)
    stats(str(packed), tmp_path)  # its own it may replace
    assert [path.name for path in tmp_path.iterdir()] == ["set-samples.png"]


def test_a_picture_of_the_user_is_not_replaced(streets, tmp_path) -> None:
    drawn = tmp_path / "set-samples.png"
    Image.new("RGB", (4, 4)).save(drawn)
    before = drawn.read_bytes()
    with pytest.raises(DataError, match="set-samples.png is there already and was not made"):
        stats(str(streets.store), tmp_path)
    assert drawn.read_bytes() == before


def test_mistakes_are_sentences() -> None:
    with pytest.raises(ConfigError, match="index: --members=jpg must be NAME=VALUE"):
        Commands().index("tars", members="jpg")
    with pytest.raises(ConfigError, match="--members=a=jpg,a=png names one twice"):
        Commands().index("tars", members="a=jpg,a=png")
    with pytest.raises(ConfigError, match="--out=a.jpg is no folder, so it must end in .png"):
        stats("tars", Path("a.jpg"))


def test_classes_and_attributes_are_counted_by_name(tmp_path, capsys):
    source = domain_source(tmp_path / "source", cat=3, dog=1)
    pack(source, tmp_path / "classes", layout="labelled", workers=1)
    stats(str(tmp_path / "classes"), None)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["layout", "labelled"] in told and ["classes", "samples"] in told
    assert ["0", "cat", "3"] in told and ["1", "dog", "1"] in told
    (source / "list.csv").write_text("image,attributes\ncat/cat-0.png,old hat\n")
    pack(source / "list.csv", tmp_path / "attributes", workers=1)
    stats(str(tmp_path / "attributes"), None)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["attributes", "samples"] in told and ["1", "old", "1"] in told
