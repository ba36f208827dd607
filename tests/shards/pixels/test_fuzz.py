"""Random damage to sets, tars and images: every outcome is a sentence, or nothing was lost.

Each case is drawn from its number, so that one that fails can be run again alone."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards.indexing.index_tars import index_shards
from shards.pack.packing import pack
from shards.pixels.images import (
    check_checksums,
    check_header,
    conversion,
    decode,
    decode_sample,
    extension,
)
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_shards
from shards.sets.verify import verify
from shards.storage.sealed import fingerprint_of, seal
from tests.shards.foreign import street_tars, write_tar
from tests.shards.sources import encoded, label_source

pytestmark = pytest.mark.usefixtures("in_time")
Damage = Callable[[random.Random, bytearray], bytearray]


def flips(draw: random.Random, data: bytearray) -> bytearray:
    for _ in range(draw.choice((1, 1, 8))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def cut(draw: random.Random, data: bytearray) -> bytearray:
    step = draw.choice((1, 512))
    return data[: draw.randrange(len(data)) // step * step]


def zeros(draw: random.Random, data: bytearray) -> bytearray:
    start, size = some_block(draw, data)
    data[start : start + size] = bytes(len(data[start : start + size]))
    return data


def removed(draw: random.Random, data: bytearray) -> bytearray:
    start, size = some_block(draw, data)
    return data[:start] + data[start + size :]


def doubled(draw: random.Random, data: bytearray) -> bytearray:
    start, size = some_block(draw, data)
    return data[: start + size] + data[start:]


def inserted(draw: random.Random, data: bytearray) -> bytearray:
    start, size = some_block(draw, data)
    return data[:start] + draw.randbytes(size) + data[start:]


def digits(draw: random.Random, data: bytearray) -> bytearray:
    """Other digits where digits are: sizes and counts stay readable and become wrong."""
    places = [i for i, byte in enumerate(data) if chr(byte).isdigit()] or [0]
    for place in draw.sample(places, min(3, len(places))):
        data[place] = ord(draw.choice("01789-"))
    return data


DAMAGES: tuple[Damage, ...] = (flips, cut, zeros, removed, doubled, inserted, digits)


def some_block(draw: random.Random, data: bytearray) -> tuple[int, int]:
    """Start and size of a part, often of whole tar blocks."""
    unit = draw.choice((1, 512, 512))
    return draw.randrange(max(1, len(data) // unit)) * unit, draw.choice((1, 3, 40)) * unit


def damaged(case: int, data: bytes) -> bytes:
    draw = random.Random(case)
    damage = DAMAGES[case % len(DAMAGES)]
    return bytes(damage(draw, bytearray(data)))


Pixels = list[dict[str, np.ndarray]]


def read_all(shard_set: ShardSet) -> Pixels:
    reader = Reader(shard_set)
    return [
        decode_sample(reader.read(sample), shard_set.names(sample))
        for sample in range(shard_set.num_samples)
    ]


def same(one: Pixels, two: Pixels) -> bool:
    """Whether all pixels are equal; a set without instance maps is one, too."""
    return len(one) == len(two) and all(
        a.keys() | {"inst"} == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pixels]:
    """A packed set of two samples, and their pixels."""
    folder = tmp_path_factory.mktemp("fuzz")
    # Of all formats a JPEG, which has no checksum, loses most in silence.
    source = label_source(folder / "source", 2, size=(48, 32), suffix=".jpg")
    (shard_set,) = pack(source, folder / "set", workers=1)
    return folder / "set", read_all(shard_set)


@pytest.mark.parametrize("name", ["000000.tar", "index.json", "manifest.json"])
def test_a_damaged_set_gives_its_pixels_or_a_sentence(name, small, tmp_path):
    folder, pixels = small
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    whole = (copy / name).read_bytes()
    refused = 0
    for case in range(70):
        (copy / name).write_bytes(damaged(case, whole))
        try:
            assert same(read_all(open_shards(copy)), pixels), case
        except DataError as error:
            assert str(copy) in str(error) and "\n" not in str(error), case
            refused += 1
        if (copy / name).read_bytes() == whole or name == "manifest.json":
            continue  # blanks in it may change
        try:
            assert verify(copy, workers=1).problems, case
        except DataError:
            continue
    assert refused > 30


def reseal(folder: Path, content: dict[str, object]) -> None:
    content["fingerprint"] = fingerprint_of(content)
    (folder / "manifest.json").write_text(json.dumps(content))


VALUES = (None, -1, 0, 2**70, 0.5, "x", "../x.tar", "\ud800", [], [1], {}, {"a": 1}, True)


def altered(draw: random.Random, content: object) -> object:
    """Somewhere in a JSON value, another value; or an entry less."""
    if isinstance(content, (dict, list)) and content and draw.random() < 0.9:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = draw.choice(keys)
        if draw.random() < 0.1:
            del content[key]
        else:
            content[key] = altered(draw, content[key])
        return content
    return draw.choice(VALUES)


@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_files_of_a_wrong_shape_with_right_checksums(name, small, tmp_path):
    """As another program, or an enemy, might write them."""
    folder, pixels = small
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    texts = {n: (copy / n).read_bytes() for n in ("manifest.json", "index.json")}
    for case in range(250):
        manifest = json.loads(texts["manifest.json"])
        content = altered(random.Random(case), json.loads(texts[name]))
        if name == "index.json":
            text = json.dumps(content).encode()
            (copy / name).write_bytes(text)
            manifest["index_sha256"] = hashlib.sha256(text).hexdigest()
            reseal(copy, manifest)
        elif isinstance(content, dict):
            reseal(copy, content)
        try:
            shard_set = open_shards(copy)
            shard_set.require("labels", num_labels=30)
            assert same(read_all(shard_set), pixels), case
            verify(copy, workers=1)
        except DataError as error:
            assert "\n" not in str(error), case


@pytest.mark.parametrize("content", [{}, {"domains": 3}, {"domains": [{"name": 3}]}])
def test_domains_of_a_wrong_shape(content, tmp_path):
    (tmp_path / "domains.json").write_bytes(seal(content, "organza-domains", 1))
    with pytest.raises(DataError, match="domains.json is no list of domains"):
        verify(tmp_path, workers=1)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tar of two samples in pax format, and one in GNU format with a long name."""
    folder = street_tars(tmp_path_factory.mktemp("street"), num_shards=1, num_samples=2)
    return (folder / "train-0000.tar").read_bytes()


def test_a_damaged_foreign_tar_is_refused_or_becomes_a_sound_set(street, tmp_path):
    (tmp_path / "set").mkdir()
    shard = tmp_path / "set/a.tar"
    refused = 0
    for case in range(200):
        data = damaged(case, street)
        shard.write_bytes(data)
        try:
            shard_set = index_shards([str(shard)], members={}, workers=1).shard_set
            read_all(shard_set)
            assert verify(shard_set.store.path, workers=1).problems == (), case
            (tmp_path / "set/manifest.json").unlink()
            (tmp_path / "set/index.json").unlink()
        except DataError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error), case
            refused += 1
        assert shard.read_bytes() == data
        assert [path.name for path in shard.parent.iterdir()] == ["a.tar"], case
    assert refused > 60


def test_a_long_name_that_is_damaged(tmp_path):
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        shard = write_tar(tmp_path / f"{form}.tar", [("n" * 150 + ".jpg", b"x" * 9)], format=form)
        whole = shard.read_bytes()
        for case in range(140):
            shard.write_bytes(damaged(case, whole[:2048]) + whole[2048:])
            with pytest.raises(DataError):
                index_shards([str(tmp_path)], members={}, workers=1)
        shard.unlink()


def test_damaged_sources_are_packed_or_refused(tmp_path):
    source = label_source(tmp_path / "source", 1)
    files = {path: path.read_bytes() for path in source.rglob("*.png")}
    for case in range(84):
        path = sorted(files)[case % 3]
        path.write_bytes(damaged(case // 3, files[path]))
        try:
            (shard_set,) = pack(source, tmp_path / f"out-{case}", workers=1)
            read_all(shard_set)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error), case
        path.write_bytes(files[path])


PHOTO = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "original",
    [
        encoded(PHOTO),
        encoded(PHOTO[..., 0]),
        encoded(PHOTO[..., 0].astype(np.uint16) * 200),
        encoded(PHOTO, mode="P"),
        encoded(PHOTO, mode="RGBA"),
        encoded(PHOTO, "JPEG"),
        encoded(PHOTO, "JPEG", mode="L"),
        encoded(PHOTO, "JPEG", mode="CMYK"),
        encoded(PHOTO, "WEBP"),
    ],
    ids=["rgb", "grey", "deep", "palette", "alpha", "jpeg", "grey-jpeg", "cmyk", "webp"],
)
def test_damaged_images_are_pixels_or_sentences(original):
    for case in range(150):
        data = damaged(case, original)
        for member in ("label", "inst", "image", "ab"):
            for look in (
                lambda: decode(data, member, "F"),
                lambda: check_header(data, member, "F"),
                lambda: check_checksums(data, "F"),
                lambda: conversion(data, "a", "F"),
                lambda: extension(data, "F"),
            ):
                try:
                    look()
                except DataError as error:
                    assert str(error).startswith("F") and "\n" not in str(error), case
