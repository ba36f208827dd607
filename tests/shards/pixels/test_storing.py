"""What pack stores anew: pictures over a colour, label ids with other numbers, the void label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.pack.packing import pack
from shards.pixels.augment import Preprocess
from shards.pixels.images import decode
from shards.pixels.label_ids import read_remap, void_label
from shards.pixels.photos import Photos
from shards.pixels.storing import Storing, colour_of
from shards.read.sources import open_sources
from shards.read.stream import batches
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet
from shards.sets.verify import verify
from tests.shards.sources import encoded, save

LABELS = np.random.default_rng(0).integers(0, 20, (6, 8), dtype=np.uint8)


def labels_source(folder: Path, *maps: np.ndarray) -> Path:
    for number, ids in enumerate(maps):
        save(folder / f"train_label/{number}.png", ids)
        save(folder / f"train_img/{number}.jpg", np.zeros((*ids.shape, 3), np.uint8))
    return folder


def with_void(ids: np.ndarray) -> np.ndarray:
    ids = ids.copy()
    ids[0] = 255
    return ids


def packed_labels(source: Path, out: Path, num_labels: int, **options: object) -> ShardSet:
    storing = Storing(**{"void": void_label("", num_labels)} | options)
    return pack(source, out, num_labels=num_labels, storing=storing, workers=1)[0]


def label(shard_set: ShardSet, number: int) -> np.ndarray:
    return decode(Reader(shard_set).read(number)["label"], "label", "F")


def test_the_void_label_becomes_the_last_and_is_told(tmp_path):
    source = labels_source(tmp_path / "s", LABELS, with_void(LABELS))
    found = packed_labels(source, tmp_path / "out", 21)
    assert (label(found, 0) == LABELS).all()
    assert (label(found, 1)[0] == 20).all() and (label(found, 1)[1:] == LABELS[1:]).all()
    same = (source / "train_label/0.png").read_bytes()
    assert Reader(found).read(0)["label"] == same  # what needs no change is not touched
    note = "label maps whose id 255 (no label) is stored as 20"
    assert found.manifest.notes == {"label": {note: 1}}
    assert max(found.label_ids) == 20
    assert verify(tmp_path / "out", workers=1).problems == ()
    again = packed_labels(source, tmp_path / "out", 21)
    assert again.manifest == found.manifest


@pytest.mark.parametrize("together", [True, False])
def test_the_void_label_is_not_mixed_with_a_label(tmp_path, together):
    maps = [LABELS, with_void(LABELS)]
    if together:
        maps = maps[1:]
    source = labels_source(tmp_path / "s", *maps)
    with pytest.raises(DataError, match="use id 19, and 255 for no label.*num_labels one more"):
        packed_labels(source, tmp_path / "out", 20)
    assert not (tmp_path / "out/manifest.json").exists()
    with pytest.raises(DataError, match="have label id 255"):
        packed_labels(source, tmp_path / "other", 20, void=void_label("none", 20))


def test_other_ids_can_be_void_and_larger_ids_stay_mistakes(tmp_path):
    ids = np.where(LABELS == 3, np.uint8(200), LABELS)
    source = labels_source(tmp_path / "s", ids)
    found = packed_labels(source, tmp_path / "out", 21, void=void_label("200", 21))
    assert ((label(found, 0) == 20) == (ids == 200)).all()
    with pytest.raises(DataError, match="have label id 200"):
        packed_labels(source, tmp_path / "other", 21)


@pytest.mark.parametrize(
    ("text", "num_labels", "message"),
    [
        ("255", None, "needs num_labels"),
        ("300", 10, "an id from 0 to 255, or none"),
        ("void", 10, "an id from 0 to 255, or none"),
    ],
)
def test_mistakes_in_the_void_label(text, num_labels, message):
    with pytest.raises(DataError, match=message):
        void_label(text, num_labels)


def test_where_255_has_a_place_it_is_a_label_like_any_other():
    assert void_label("", None) is None and void_label("", 256) is None
    assert void_label("", 255).becomes == 254


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.csv", "old,new\n0,4\n1,4\n2,0\n"),
        ("ids.csv", "\ufeff0,4\r\n1,4\r\n2, 0\r\n"),
        ("ids.json", '{"0": 4, "1": 4, "2": 0}'),
    ],
)
def test_ids_are_renumbered_by_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    ids = LABELS % 3
    source = labels_source(tmp_path / "s", ids)
    remap = read_remap(tmp_path / name)
    found = packed_labels(source, tmp_path / "out", 5, remap=remap)
    assert (label(found, 0) == np.array([4, 4, 0], np.uint8)[ids]).all()
    assert found.manifest.storing == {"remap": {"0": 4, "1": 4, "2": 0}}
    with pytest.raises(DataError, match="other images or with other options"):
        packed_labels(source, tmp_path / "out", 5)
    save(source / "train_label/0.png", ids + 1)
    with pytest.raises(DataError, match=rf"0.png has label id 3, which .*{name} does not list"):
        packed_labels(source, tmp_path / "other", 5, remap=remap)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ids.json", '{"0": 1, "0": 2}', "lists no id, or one twice"),
        ("ids.json", "[1, 2]", "must list old and new ids"),
        ("ids.json", '{"0": true}', "True is no id"),
        ("ids.csv", "0,256\n", "'256' is no id"),
        ("ids.csv", "0,1,2\n", "'0,1,2' has 3 cells"),
        ("ids.csv", "", "lists no id"),
        ("absent.csv", None, "cannot be read"),
    ],
)
def test_mistakes_in_that_file(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_remap(tmp_path / name)


SPRITE = np.zeros((4, 6, 4), np.uint8)
SPRITE[:2, :, 0] = 200
SPRITE[:2, :, 3] = 255
SPRITE[2, :, 3] = 51  # black, a fifth


def sprites(folder: Path) -> Path:
    for side in "AB":
        save(folder / f"train_{side}/0.png", SPRITE if side == "A" else SPRITE[..., :3])
    return folder


@pytest.mark.parametrize(
    ("background", "below", "faint"),
    [("white", 255, 204), ("black", 0, 0), ("#808080", 128, 102)],
)
def test_transparent_pictures_are_composed_over_a_colour(tmp_path, background, below, faint):
    source = sprites(tmp_path / "s")
    (found,) = pack(source, tmp_path / "out", storing=Storing(background=background), workers=1)
    pixels = decode(Reader(found).read(0)["a"], "a", "F")
    assert (pixels[0] == (200, 0, 0)).all() and (pixels[3] == below).all()
    assert np.abs(pixels[2].astype(int) - faint).max() <= 1
    note = f"transparent pictures composed over {background}"
    assert found.manifest.notes == {"a": {note: 1}}
    assert found.manifest.storing == {"background": background}
    assert verify(tmp_path / "out", workers=1).problems == ()


def test_without_a_background_they_are_refused_by_its_name(tmp_path):
    with pytest.raises(DataError, match="12 transparent pixels.*--background=white, black or #rr"):
        pack(sprites(tmp_path / "s"), tmp_path / "out", workers=1)


def test_a_palette_with_a_transparent_entry_turned_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(LABELS).convert("P")
    image.putpalette([10] * 768)
    (tmp_path / "s/train_A").mkdir(parents=True)
    image.save(tmp_path / "s/train_A/0.png", transparency=int(LABELS[0, 0]), exif=exif)
    save(tmp_path / "s/train_B/0.png", np.zeros((8, 6, 3), np.uint8))
    storing = Storing(background="white")
    (found,) = pack(tmp_path / "s", tmp_path / "out", storing=storing, workers=1)
    expected = np.where(LABELS[0, 0] == LABELS, 255, 10)
    pixels = decode(Reader(found).read(0)["a"], "a", "F")
    assert (pixels == np.rot90(expected, -1)[..., None]).all()


@pytest.mark.parametrize("text", ["green", "#12345", "#gggggg", "#1234567", ""])
def test_mistakes_in_the_colour(text):
    with pytest.raises(DataError, match="give white, black or #rrggbb"):
        colour_of(text)


def test_opaque_pictures_are_left_as_they_are():
    data = encoded(SPRITE[..., :3])
    assert Storing(background="white").stored(data, "a", "F") == (data, [])


def test_transparent_pictures_are_kept_for_four_channels(tmp_path):
    storing = Storing(background="keep")
    (found,) = pack(sprites(tmp_path / "s"), tmp_path / "out", storing=storing, workers=1)
    assert found.manifest.storing == {"background": "keep"}
    assert found.manifest.conversions == {"a": {"RGB with transparent pixels": 1}}
    assert verify(tmp_path / "out", workers=1).problems == ()
    (source,) = open_sources(tmp_path / "out", "pairs", 0, channels={"a": 4, "b": 1})
    numbers = {"global_batch": 1, "micro_batch": 1, "rank": 0, "world": 1, "workers": 0, "seed": 0}
    batch = next(batches([source], Preprocess(flip=False), **numbers))
    assert (batch["a"][0].permute(1, 2, 0).numpy() == SPRITE).all()
    assert batch["b"].shape == (1, 1, 4, 6)
    found.require_channels({"a": 4, "b": 1})
    with pytest.raises(DataError, match="1 transparent pictures, but this run reads 3 channels of"):
        found.require_channels({})
    with pytest.raises(DataError, match="no picture with an alpha channel, but .* of b: choose 3"):
        found.require_channels({"a": 4, "b": 4})


def test_keeping_and_storing_anew_contradict_each_other():
    with pytest.raises(DataError, match="background=keep leaves pictures as they are"):
        Storing(Photos("webp", 90), background="keep")
