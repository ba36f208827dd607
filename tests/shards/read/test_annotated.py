"""Classes and attributes in batches: those of their pictures, in any world and with any workers."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.pack.packing import pack
from shards.pixels.augment import Preprocess
from shards.read.annotated import Annotations
from shards.read.sources import Source, open_sources
from shards.read.stream import Batch, batches, shared_memory_needed
from shards.records import DataError
from shards.sets.shard_set import ShardSet, open_shards
from tests.shards.sources import domain_source, encoded, flip_byte

WHOLE = Preprocess(flip=False)
AUGMENTED = Preprocess("crop", crop_size=(6, 5))
SEED = 5
NAMES = ("ape", "bee", "cat")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return domain_source(tmp_path_factory.mktemp("source"), ape=20, bee=12, cat=8)


@pytest.fixture(scope="module")
def classes(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """40 pictures; tests must not change it."""
    (shard_set,) = pack(source, tmp_path_factory.mktemp("set") / "s", layout="labelled", workers=1)
    return shard_set


@pytest.fixture(scope="module")
def attributes(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Eight pictures, marked with the bits of their number; tests must not change it."""
    file = source / "list.csv"
    bits = {n: " ".join(name for i, name in enumerate(NAMES) if n >> i & 1) for n in range(8)}
    lines = (f"ape/ape-{n}.png,{own}\n" for n, own in bits.items())
    file.write_text("image,attributes\n" + "".join(lines))
    (shard_set,) = pack(file, tmp_path_factory.mktemp("set") / "s", workers=1)
    return shard_set


def load(location: ShardSet, steps: int, *, channels: int = 3, **options) -> list[Batch]:
    """The batches of all ranks, step by step."""
    annotations = options.pop("annotations", Annotations())
    location = location.store.path
    sources = open_sources(
        location, "images", SEED, channels={"image": channels}, annotations=annotations
    )
    options = {"global_batch": 8, "world": 1, "workers": 0} | options
    world, preprocess = options["world"], options.pop("preprocess", AUGMENTED)
    share = options["global_batch"] // world
    ranks = [
        islice(batches(sources, preprocess, micro_batch=share, rank=r, seed=SEED, **options), steps)
        for r in range(world)
    ]
    return [batch for step in zip(*ranks, strict=True) for batch in step]


def by_key(found: list[Batch], name: str) -> dict[str, list]:
    """Key -> what it comes with, each time."""
    given: dict[str, list] = {}
    for batch in found:
        for key, value in zip(batch["keys"], batch[name].tolist(), strict=True):
            given.setdefault(key, []).append(value)
    return given


@pytest.mark.parametrize("preprocess", [WHOLE, AUGMENTED])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_picture_comes_with_its_class(classes, preprocess, workers):
    options = {"annotations": Annotations(3), "preprocess": preprocess, "workers": workers}
    found = load(classes, 10, **options)
    assert found[0]["class"].dtype == torch.int64 and found[0]["class"].shape == (8,)
    given = by_key(found, "class")
    assert given == {key: [NAMES.index(key[:3])] * 2 for key in classes.keys}
    assert set(found[0]) == {"image", "class", "keys"}


def test_attributes_come_in_the_order_of_the_run(attributes):
    (batch,) = load(attributes, 1, annotations=Annotations(attributes=("cat", "ape")))
    assert batch["attributes"].dtype == torch.float32 and batch["attributes"].shape == (8, 2)
    for key, (cat, ape) in zip(batch["keys"], batch["attributes"].tolist(), strict=True):
        number = int(key.rpartition("-")[2])
        assert (cat, ape) == (number >> 2 & 1, number & 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_same_samples_have_no_class_in_every_epoch_and_world(classes, share):
    annotations = Annotations(3, share)
    one = by_key(load(classes, 15, annotations=annotations), "class")
    assert one == by_key(load(classes, 15, annotations=annotations, world=4, workers=1), "class")
    hidden = {key for key, given in one.items() if given == [-1] * 3}
    assert all(key in hidden or given == [NAMES.index(key[:3])] * 3 for key, given in one.items())
    assert share in (0.0, 1.0) or 4 <= len(hidden) <= 20
    assert share not in (0.0, 1.0) or len(hidden) == 40 * share


def test_another_seed_hides_other_classes():
    hidden = [{n for n in range(999) if Annotations(3, 0.5).hides(str(n), s)} for s in (1, 2)]
    assert all(430 < len(own) < 570 for own in hidden)
    assert 180 < len(hidden[0] & hidden[1]) < 320


def test_what_is_not_asked_for_is_not_read(classes, tmp_path):
    shutil.copytree(classes.store.path, tmp_path / "set")
    flip_byte(tmp_path / "set/000000.tar", int(classes.index["cls"].offsets[3]))
    damaged = open_shards(tmp_path / "set")
    for batch, whole in zip(load(damaged, 5), load(classes, 5), strict=True):
        assert set(batch) == {"image", "keys"} and torch.equal(batch["image"], whole["image"])
    with pytest.raises(DataError, match=r"ape-11.cls was cut or altered after packing"):
        load(damaged, 5, annotations=Annotations(3))


def test_a_substitute_brings_its_own_class(classes, tmp_path):
    shutil.copytree(classes.store.path, tmp_path / "set")
    for sample in (3, 17):
        flip_byte(tmp_path / "set/000000.tar", int(classes.index["image"].offsets[sample]) + 30)
    told = []
    options = {"annotations": Annotations(3), "substitutes": 2, "report": told.append}
    given = by_key(load(open_shards(tmp_path / "set"), 5, **options), "class")
    assert {substitution.sample for substitution in told} == {3, 17} and len(given) == 38
    assert all(set(own) == {NAMES.index(key[:3])} for key, own in given.items())


@pytest.mark.parametrize("layout", ["images", "classes", "labelled"])
def test_pictures_are_read_from_each_of_their_layouts(source, tmp_path, layout):
    names = source / "ape" if layout == "images" else source
    pack(names, tmp_path / "set", layout=layout, workers=1)
    place = tmp_path / "set" / ("ape" if layout == "classes" else "")
    (opened,) = open_sources(place, "images", SEED)
    assert opened.shard_set.members[0] == "image"
    (batch,) = load(opened.shard_set, 1)
    assert set(batch) == {"image", "keys"}


def test_runs_that_the_set_does_not_suit_are_refused(classes, attributes, source, tmp_path):
    (plain,) = pack(source / "ape", tmp_path / "set", layout="images", workers=1)
    for shard_set, wanted, expected in (
        (classes, Annotations(10), "holds 3 classes, but this run reads 10: set model.num_classes"),
        (plain, Annotations(10), r"no classes, .*num_classes=10\).*--layout=labelled"),
        (attributes, Annotations(attributes=("dog",)), "no attribute 'dog', but ape, bee, cat"),
        (plain, Annotations(attributes=("dog",)), "holds no attributes, but this run reads dog"),
    ):
        with pytest.raises(DataError, match=expected):
            load(shard_set, 1, annotations=wanted)
    for layout in ("labels", "pairs"):
        with pytest.raises(
            DataError, match=f"packed with layout labelled, but .* reads .* {layout}"
        ):
            open_sources(classes.store.path, layout, SEED)


def test_shared_memory_is_asked_for_pictures_alone(classes):
    (with_classes,) = open_sources(classes.store.path, "images", SEED, annotations=Annotations(3))
    without = Source(classes, with_classes.order)
    needed = [shared_memory_needed([s], WHOLE, 8, 2) for s in (with_classes, without)]
    assert needed == [10 * 8 * 3 * 8 * 2 * 2] * 2


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_pictures_are_read_with_one_channel_or_three(tmp_path, channels):
    grey = np.random.default_rng(0).integers(0, 256, (8, 10), dtype=np.uint8)
    (tmp_path / "source/a").mkdir(parents=True)
    (tmp_path / "source/a/1.png").write_bytes(encoded(grey))
    (shard_set,) = pack(tmp_path / "source", tmp_path / "set", layout="labelled", workers=1)
    options = {"global_batch": 1, "preprocess": WHOLE, "annotations": Annotations(1)}
    (batch,) = load(shard_set, 1, channels=channels, **options)
    assert batch["image"].shape == (1, channels, 8, 10)
    assert all(np.array_equal(channel, grey) for channel in batch["image"][0])
    shard_set.require_channels({"image": channels})
