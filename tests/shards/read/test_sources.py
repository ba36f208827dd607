"""What a run reads, and two domains drawn under one counter."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.pack.packing import pack
from shards.pixels.augment import Preprocess
from shards.pixels.images import decode_sample
from shards.read.sources import Source, epoch_size, fingerprint, open_sources
from shards.read.stream import Batch, batches
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_shards
from shards.sets.verify import verify
from tests.shards.sources import domain_source, pair_source, save

SEED = 5
WHOLE = Preprocess("none", flip=False)
CROP = Preprocess("crop", crop_size=(5, 6))
SIZES = range(1, 8)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Domains a1, b1, a2, b2 ... with 1, 1, 2, 2 ... pictures; tests must not change them."""
    folder = tmp_path_factory.mktemp("domains")
    sizes = {f"{side}{size}": size for size in SIZES for side in "ab"}
    pack(domain_source(folder / "source", **sizes), folder / "set", layout="classes", workers=1)
    return folder / "set"


def unpaired(domains: Path, num_a: int, num_b: int) -> tuple[Source, ...]:
    return open_sources(domains, "unpaired", SEED, (f"a{num_a}", f"b{num_b}"))


def load(sources: tuple[Source, ...], steps: int, *, world: int = 1, **options) -> list[Batch]:
    """The micro-batches of the first steps in global order: step by step, rank by rank."""
    options = {"global_batch": 1, "micro_batch": 1, "workers": 0, "seed": SEED} | options
    preprocess = options.pop("preprocess", WHOLE)
    num_micro = options["global_batch"] // world // options["micro_batch"]
    ranks = [
        list(
            islice(
                batches(sources, preprocess, rank=rank, world=world, **options), steps * num_micro
            )
        )
        for rank in range(world)
    ]
    return [
        batch
        for step in range(steps)
        for rank in ranks
        for batch in rank[step * num_micro : (step + 1) * num_micro]
    ]


def samples_of(loaded: list[Batch]) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    columns = ((batch["keys"], batch["a"], batch["b"]) for batch in loaded)
    return [sample for batch in columns for sample in zip(*batch, strict=True)]


def keys_of(loaded: list[Batch]) -> list[tuple[str, str]]:
    return [tuple(key.split(" + ")) for batch in loaded for key in batch["keys"]]


def test_one_set_is_one_source_with_its_own_names(packed):
    (source,) = sources = open_sources(packed.store.path, "labels", SEED)
    assert (source.order.num_samples, source.order.seed, source.order.domain) == (13, SEED, 0)
    assert source.member is None
    assert epoch_size(sources) == 13
    assert fingerprint(sources) == packed.fingerprint
    (batch,) = load(sources, 1)
    assert set(batch) == {"label", "inst", "image", "keys"} and " + " not in batch["keys"][0]


def test_a_domain_alone_is_a_source_of_images(domains):
    (source,) = sources = open_sources(domains / "a3", "images", SEED)
    assert source.shard_set.num_samples == 3 and source.order.domain == 0
    assert set(load(sources, 1)[0]) == {"image", "keys"}


def test_two_domains_are_a_and_b_of_a_sample(domains):
    sources = unpaired(domains, 3, 5)
    assert [source.member for source in sources] == ["a", "b"]
    assert [source.order.domain for source in sources] == [0, 1]
    assert epoch_size(sources) == epoch_size(sources[::-1]) == 5
    for position, batch in enumerate(load(sources, 12)):
        assert set(batch) == {"a", "b", "keys"}
        for source, key in zip(sources, keys_of([batch])[0], strict=True):
            sample = source.order.locate(position)[1]
            shard_set = source.shard_set
            assert shard_set.keys[sample] == key
            pixels = decode_sample(Reader(shard_set).read(sample), shard_set.names(sample))
            assert (batch[source.member][0].permute(1, 2, 0).numpy() == pixels["image"]).all()


def test_the_fingerprint_tells_sets_and_their_order(domains):
    sources = unpaired(domains, 3, 5)
    prints = "".join(source.shard_set.fingerprint for source in sources)
    assert fingerprint(sources) == hashlib.sha256(prints.encode()).hexdigest()
    others = (sources[::-1], unpaired(domains, 3, 4), unpaired(domains, 2, 5), sources[:1])
    assert len({fingerprint(sources), *map(fingerprint, others)}) == 5


@given(
    num_a=st.sampled_from(SIZES),
    num_b=st.sampled_from(SIZES),
    epoch=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_a_nominal_epoch_shows_the_larger_set_once(domains, num_a, num_b, epoch):
    sources = unpaired(domains, num_a, num_b)
    nominal = epoch_size(sources)
    assert nominal == max(num_a, num_b)
    keys = keys_of(load(sources, nominal, start=epoch * nominal))
    for side, source in enumerate(sources):
        counts = Counter(pair[side] for pair in keys)
        num_samples = source.shard_set.num_samples
        if num_samples == nominal:
            assert counts == Counter(source.shard_set.keys)
        # The smaller set goes round: no picture is ever two ahead of another.
        assert max(counts.values()) <= -(-nominal // num_samples) + 1


@given(num_a=st.sampled_from(SIZES), num_b=st.sampled_from(SIZES), start=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_each_set_runs_through_its_own_epochs(domains, num_a, num_b, start):
    keys = keys_of(load(unpaired(domains, num_a, num_b), 4 * max(SIZES)))
    for side, size in enumerate((num_a, num_b)):
        drawn = [pair[side] for pair in keys][start * size : (start + 3) * size]
        for first in range(0, len(drawn) // size * size, size):
            assert len(set(drawn[first : first + size])) == size


@given(
    num_a=st.sampled_from(SIZES),
    num_b=st.sampled_from(SIZES),
    world=st.sampled_from([1, 2, 3, 6]),
    micro_batch=st.sampled_from([1, 2]),
    start=st.integers(0, 50),
    skipped=st.integers(0, 2),
)
@settings(max_examples=30, deadline=None)
def test_any_world_and_any_resume_give_the_same_pairs(
    domains, num_a, num_b, world, micro_batch, start, skipped
):
    sources = unpaired(domains, num_a, num_b)
    options = {"global_batch": 12, "preprocess": CROP}
    whole = samples_of(load(sources, 3, start=start, **options))
    resumed = load(
        sources,
        3 - skipped,
        world=world,
        micro_batch=micro_batch,
        start=start + 12 * skipped,
        **options,
    )
    assert_same(samples_of(resumed), whole[12 * skipped :])


def assert_same(one: list, two: list) -> None:
    assert [key for key, *_ in one] == [key for key, *_ in two]
    for (key, *left), (_, *right) in zip(one, two, strict=True):
        assert all(map(torch.equal, left, right)), key


def test_workers_change_nothing(domains):
    sources = unpaired(domains, 4, 7)
    options = {"global_batch": 6, "micro_batch": 3, "start": 5, "preprocess": CROP}
    alone = samples_of(load(sources, 5, **options))
    assert_same(samples_of(load(sources, 5, world=2, workers=2, **options)), alone)


def test_sets_of_one_size_meet_in_other_pairs_every_epoch(domains):
    keys = keys_of(load(unpaired(domains, 7, 7), 20 * 7))
    epochs = [keys[7 * n : 7 * (n + 1)] for n in range(20)]
    assert all(len({a for a, _ in epoch}) == len({b for _, b in epoch}) == 7 for epoch in epochs)
    # 140 draws of 49 pairs: were they independent, 46.2 would be met (standard deviation 1.5).
    assert len(set(keys)) > 40
    assert len({tuple(a for a, _ in epoch) for epoch in epochs}) == 20
    numbers = [(a.split("-")[1], b.split("-")[1]) for a, b in keys]
    same = sum(a == b for a, b in numbers)
    assert same < 40, "a and b follow one permutation"  # 20 expected, standard deviation 4.2


def test_each_set_has_its_own_draw(domains):
    first, second = sources = unpaired(domains, 6, 6)
    other = unpaired(domains, 6, 5)[1]
    drawn = samples_of(load(sources, 24, preprocess=CROP))
    changed = samples_of(load((first, other), 24, preprocess=CROP))
    assert all(torch.equal(a, b) for (_, a, _), (_, b, _) in zip(drawn, changed, strict=True))
    places: list[dict[tuple[int, int], tuple]] = [{}, {}]  # (epoch, sample) -> place, by set
    for position, (keys, *crops) in enumerate(drawn):
        for found, source, key, crop in zip(places, sources, keys.split(" + "), crops, strict=True):
            found[source.order.locate(position)] = place_of(source, key, crop)
    assert places[0].keys() == places[1].keys() and len(places[0]) == 24
    # Of 4 x 5 places and two directions.
    assert sum(places[0][number] == places[1][number] for number in places[0]) < 8


def place_of(source: Source, key: str, crop: torch.Tensor) -> tuple[int, int, bool]:
    """(top, left, mirrored) of a crop: no value occurs twice in a picture."""
    sample = source.shard_set.keys.index(key)
    picture = decode_sample(Reader(source.shard_set).read(sample), {"image": key})["image"]
    corners = [np.argwhere(picture == int(crop[0, 0, x]))[0][:2] for x in (0, -1)]
    mirrored = bool(corners[0][1] > corners[1][1])
    return int(corners[0][0]), int(min(corners[0][1], corners[1][1])), mirrored


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A of 12 x 8; B of 6 x 10, and one of 6 x 9."""
    folder = tmp_path_factory.mktemp("sizes")
    shapes = {"trainA": [(8, 12, 3)] * 3, "trainB": [(10, 6, 3)] * 3 + [(9, 6, 3)]}
    for name, sizes in shapes.items():
        for number, shape in enumerate(sizes):
            save(folder / "source" / name / f"{number}.png", np.zeros(shape, np.uint8))
    pack(folder / "source", folder / "set", workers=1)
    return folder / "set"


def test_a_and_b_may_differ_in_size_but_each_is_of_one_size_in_a_micro_batch(two_sizes):
    sources = open_sources(two_sizes, "unpaired", SEED)
    shapes = {(*batch["a"].shape, *batch["b"].shape) for batch in load(sources, 12)}
    assert shapes == {(1, 3, 8, 12, 1, 3, 10, 6), (1, 3, 8, 12, 1, 3, 9, 6)}
    with pytest.raises(DataError, match=r"\d \+ \d is 6x\d+ and \d \+ \d is 6x.*mode that crops"):
        load(sources, 1, global_batch=4, micro_batch=4)
    first, second = (source.shard_set for source in sources)
    assert first.require_sizes(WHOLE, micro_batch=2) == (12, 8)
    with pytest.raises(DataError, match="trainB|B gives images of 2 sizes"):
        second.require_sizes(WHOLE, micro_batch=2)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Five side-by-side pictures of 16 x 8 whose bytes a and b came from; not to be changed."""
    folder = tmp_path_factory.mktemp("halves")
    for number, picture in enumerate(side_by_side_pictures()):
        save(folder / f"source/train/{number}.png", picture)
    pack(folder / "source", folder / "set", layout="side-by-side", workers=1)
    return open_shards(folder / "set")


def side_by_side_pictures() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (5, 8, 16, 3), dtype=np.uint8)


def test_side_by_side_files_are_pairs_from_the_decoder_on(halves):
    assert (halves.layout, halves.members) == ("side-by-side", ("ab",))
    assert halves.sizes == ((8, 8, 5),)
    assert halves.entry_name(0, "ab") == "0.ab.png"
    assert verify(halves.store.path, workers=1).problems == ()
    (source,) = sources = open_sources(halves.store.path, "pairs", SEED)
    pictures = side_by_side_pictures()
    for position, batch in enumerate(load(sources, 5, workers=1)):
        picture = pictures[source.order.locate(position)[1]]
        assert set(batch) == {"a", "b", "keys"}
        for member, half in (("a", picture[:, :8]), ("b", picture[:, 8:])):
            assert (batch[member][0].permute(1, 2, 0).numpy() == half).all()


def test_halves_share_their_draw(tmp_path):
    rows, columns = np.indices((8, 10))
    half = np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)
    save(tmp_path / "source/0.png", np.concatenate([half, half], axis=1))
    pack(tmp_path / "source", tmp_path / "set", layout="side-by-side", workers=1)
    drawn = load(open_sources(tmp_path / "set", "pairs", SEED), 20, preprocess=CROP)
    assert all(torch.equal(batch["a"], batch["b"]) for batch in drawn)
    assert len({batch["a"].numpy().tobytes() for batch in drawn}) > 10


def test_a_side_by_side_file_of_odd_width_is_not_packed(tmp_path):
    save(tmp_path / "source/train/1.png", np.zeros((8, 15, 3), np.uint8))
    with pytest.raises(DataError, match="train/1.png is 15 pixels wide.*halved.*crop or resize"):
        pack(tmp_path / "source", tmp_path / "set", layout="side-by-side", workers=1)


def test_what_holds_something_else_is_refused_with_a_remedy(domains, packed, halves, tmp_path):
    pack(pair_source(tmp_path / "source", 1), tmp_path / "pairs", workers=1)
    cases = [
        (domains, "pairs", (), rf"holds the domains a1, .* give one of its domains: {domains}/a1"),
        (domains / "a2", "labels", (), "packed with layout images, .* with --layout=labels"),
        (
            packed.store.path,
            "images",
            (),
            "packed with layout labels, .* with --layout=images, labelled or classes",
        ),
        (tmp_path / "pairs", "images", (), "packed with layout pairs, but .* reads .* images"),
        (halves.store.path, "labels", (), "packed with layout side-by-side, but .* labels"),
        (packed.store.path, "pairs", (), "pack it with --layout=pairs or side-by-side"),
        (
            packed.store.path,
            "unpaired",
            ("A", "B"),
            "set holds no domains.json, .* --layout=unpaired or",
        ),
        (tmp_path / "none", "unpaired", ("A", "B"), "none holds no domains.json"),
        (domains, "unpaired", ("a3", "bb4"), "holds no domain 'bb4', but a1, .*: did you mean b4?"),
        (domains, "unpaired", ("a3", "X"), "holds no domain 'X', .*: name two with data.domains="),
        (domains, "unpaired", ("a3", "a3"), "domains a3, a3: an unpaired run reads two different"),
        (domains, "unpaired", ("a3",), "domains a3: an unpaired run reads two different"),
    ]
    for path, layout, names, expected in cases:
        with pytest.raises(DataError, match=expected) as caught:
            open_sources(path, layout, SEED, names)
        assert "\n" not in str(caught.value)
