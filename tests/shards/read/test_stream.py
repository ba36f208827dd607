"""Batches: the same samples in any world, after any resume and with any workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.pack.packing import pack
from shards.pixels.augment import Preprocess
from shards.pixels.images import decode_sample
from shards.read.noise import Noise
from shards.read.order import FullOrder
from shards.read.sources import Source
from shards.read.stream import Batch, batches, check_shared_memory, collate
from shards.records import DataError
from shards.sets.reader import Reader
from shards.sets.shard_set import ShardSet, open_shards
from tests.processes import patience
from tests.shards.sources import (
    ROOT,
    alive,
    descendants,
    flip_byte,
    label_source,
    pair_source,
)

CROP = Preprocess("crop", crop_size=(6, 5))
SEED = 11


def load(shard_set: ShardSet, steps: int, *, world: int = 1, **options) -> list[list[Batch]]:
    """[rank][step * micro-batch]: the first steps of every rank."""
    options = {"global_batch": 4, "micro_batch": 1, "workers": 0, "seed": SEED} | options
    order = options.pop("order", FullOrder([shard_set.num_samples], SEED))
    sources = [Source(shard_set, order)]
    preprocess = options.pop("preprocess", CROP)
    num_micro = options["global_batch"] // world // options["micro_batch"]
    return [
        list(
            islice(
                batches(sources, preprocess, rank=rank, world=world, **options),
                steps * num_micro,
            )
        )
        for rank in range(world)
    ]


def samples_of(ranks: list[list[Batch]], steps: int) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """The samples in global order: step by step, rank by rank."""
    samples = []
    for step in range(steps):
        for rank in ranks:
            per_step = len(rank) // steps
            for batch in rank[step * per_step : (step + 1) * per_step]:
                for n, key in enumerate(batch["keys"]):
                    tensors = {m: t[n] for m, t in batch.items() if m != "keys"}
                    samples.append((key, tensors))
    return samples


def assert_same(one: list, two: list) -> None:
    assert [key for key, _ in one] == [key for key, _ in two]
    for (key, left), (_, right) in zip(one, two, strict=True):
        for member in left:
            assert torch.equal(left[member], right[member]), (key, member)


def test_types_and_shapes(packed):
    ((batch,),) = load(packed, 1, micro_batch=4)
    assert {m: (t.dtype, tuple(t.shape)) for m, t in batch.items() if m != "keys"} == {
        "label": (torch.uint8, (4, 1, 6, 5)),
        "inst": (torch.int32, (4, 1, 6, 5)),
        "image": (torch.uint8, (4, 3, 6, 5)),
    }
    assert batch["label"].is_contiguous() and batch["inst"].is_contiguous()
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["keys"] == [packed.keys[FullOrder([13], SEED).locate(n)[1]] for n in range(4)]


def test_mirrored_pictures_are_stacked_as_they_are(packed):
    pixels = [decode_sample(Reader(packed).read(n), packed.names(n)) for n in range(2)]
    mirrored = {member: array[:, ::-1] for member, array in pixels[1].items()}
    batch = collate([pixels[0], mirrored], ["one", "two"])
    for member, array in pixels[1].items():
        planes = torch.from_numpy(array.reshape(*array.shape[:2], -1).copy()).permute(2, 0, 1)
        assert torch.equal(batch[member][1], planes.flip(2)), member


def test_pixels_are_those_of_the_files(packed):
    order = FullOrder([packed.num_samples], SEED)
    plain = Preprocess("none", flip=False)
    for position, (key, tensors) in enumerate(
        samples_of(load(packed, 5, preprocess=plain), steps=5)
    ):
        sample = order.locate(position)[1]
        pixels = decode_sample(Reader(packed).read(sample), packed.names(sample))
        assert key == packed.keys[sample]
        assert (tensors["inst"][0].numpy() == pixels["inst"]).all()
        assert (tensors["image"].permute(1, 2, 0).numpy() == pixels["image"]).all()


def test_pairs(tmp_path):
    pack(pair_source(tmp_path / "source", 3), tmp_path / "out", workers=1)
    ((batch,),) = load(open_shards(tmp_path / "out"), 1, micro_batch=4)
    assert batch["a"].shape == batch["b"].shape == (4, 3, 6, 5)


@given(
    world=st.sampled_from([1, 2, 3, 4, 6]),
    micro_batch=st.sampled_from([1, 2]),
    start=st.integers(0, 60),
    skipped=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_any_world_and_any_resume_give_the_same_samples(packed, world, micro_batch, start, skipped):
    steps = 4
    whole = samples_of(load(packed, steps, global_batch=12, start=start), steps)
    resumed = load(
        packed,
        steps - skipped,
        world=world,
        global_batch=12,
        micro_batch=micro_batch if (12 // world) % micro_batch == 0 else 1,
        start=start + 12 * skipped,
    )
    assert len({len(rank) for rank in resumed}) == 1
    assert_same(samples_of(resumed, steps - skipped), whole[12 * skipped :])


@given(start_epoch=st.integers(0, 4), global_batch=st.integers(1, 7), world=st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_each_epoch_holds_each_sample_once_over_ranks(packed, start_epoch, global_batch, world):
    global_batch *= world
    steps = -(-2 * 13 // global_batch)
    ranks = load(packed, steps, world=world, global_batch=global_batch, start=13 * start_epoch)
    keys = [key for key, _ in samples_of(ranks, steps)]
    for epoch in range(2):
        assert Counter(keys[13 * epoch : 13 * (epoch + 1)]) == Counter(packed.keys)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(packed, workers):
    alone = samples_of(load(packed, 8, global_batch=6, micro_batch=3, start=5), 8)
    helped = load(packed, 8, world=2, global_batch=6, micro_batch=3, start=5, workers=workers)
    assert_same(samples_of(helped, 8), alone)


def test_the_draw_differs_by_epoch_and_seed(packed):
    def epoch(number: int, seed: int = SEED) -> dict[str, dict[str, torch.Tensor]]:
        ranks = load(packed, 1, start=13 * number, seed=seed, global_batch=13)
        return dict(samples_of(ranks, 1))

    first = epoch(0)
    for changed in (epoch(1), epoch(0, seed=SEED + 1)):
        assert changed.keys() == first.keys()
        same = [torch.equal(first[key]["inst"], changed[key]["inst"]) for key in first]
        assert sum(same) < 5


@pytest.mark.parametrize("workers", [0, 1])
def test_the_random_numbers_of_the_trainer_are_left_alone(packed, workers):
    # A resumed run restores torch's generator before it opens the stream.
    before = torch.get_rng_state()
    load(packed, 1, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"global_batch": 4, "micro_batch": 1, "world": 3}, "batch of 4 cannot be shared by 3"),
        ({"global_batch": 8, "micro_batch": 3, "world": 2}, "4 samples of each process cannot"),
    ],
)
def test_numbers_that_do_not_divide_are_refused_at_once(packed, options, expected):
    with pytest.raises(ValueError, match=expected):
        batches([Source(packed, FullOrder([13], 0))], CROP, rank=0, seed=0, **options)


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("sizes")
    label_source(folder / "source", 4, size=(16, 8))
    label_source(folder / "source", 2, size=(12, 8))
    pack(folder / "source", folder / "set", workers=1)
    return open_shards(folder / "set")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_two_sizes_is_refused_with_a_remedy(two_sizes, workers):
    order = FullOrder([4], 4)  # samples 0, 1, 3, 2
    with pytest.raises(DataError, match="000 is 12x8 and 003 is 16x8.*mode that crops"):
        load(two_sizes, 1, micro_batch=4, order=order, preprocess=Preprocess(), workers=workers)
    assert len(load(two_sizes, 1, micro_batch=1, order=order, preprocess=Preprocess())[0]) == 4
    load(two_sizes, 1, micro_batch=4, order=order)


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_reaches_the_trainer_as_one_sentence(packed, tmp_path, workers):
    copy = tmp_path / "copy"
    shutil.copytree(packed.store.path, copy)
    order = FullOrder([13], 0)
    *good, bad = (packed.keys[order.locate(position)[1]] for position in range(8))
    offset = packed.index["label"].offsets[packed.keys.index(bad)]
    flip_byte(copy / "000000.tar", int(offset) + 20)
    stream = batches(
        [Source(open_shards(copy), order)],
        CROP,
        global_batch=1,
        micro_batch=1,
        rank=0,
        world=1,
        workers=workers,
        seed=0,
    )
    assert [batch["keys"] for batch in islice(stream, 7)] == [[key] for key in good]
    with pytest.raises(DataError) as caught:
        next(stream)
    assert str(caught.value).startswith(f"{copy}/000000.tar: {bad}.label.png was cut or altered")
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_a_crop_that_is_too_large_names_the_sample(packed):
    with pytest.raises(DataError, match=r"000000.tar: \d+.label.png is 16x8 before the crop"):
        load(packed, 1, preprocess=Preprocess("crop", crop_size=9))


def test_shared_memory_is_measured():
    check_shared_memory(0)
    with pytest.raises(DataError, match="/dev/shm has .* MiB free, but .* --shm-size"):
        check_shared_memory(2**60)


def test_a_killed_worker_is_a_sentence(packed):
    before = descendants(os.getpid())
    stream = batches(
        [Source(packed, FullOrder([13], 0))],
        CROP,
        global_batch=1,
        micro_batch=1,
        rank=0,
        world=1,
        workers=1,
        seed=0,
    )
    next(stream)
    for pid in workers_among(descendants(os.getpid()) - before):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(DataError, match="a data worker was killed, probably for want of memory"):
        for _ in stream:
            pass


def workers_among(pids: set[int]) -> set[int]:
    """Those that are no helpers of multiprocessing: a worker has no child and is no tracker."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    return {
        pid
        for pid, command in commands.items()
        if not descendants(pid) and b"resource_tracker" not in command
    }


TRAINER_SCRIPT = """
import signal, sys, time
from pathlib import Path
from shards.pixels.augment import Preprocess
from shards.read.sources import open_sources
from shards.read.stream import batches
if __name__ == "__main__":
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
    signal.signal(signal.SIGINT, lambda *_: told.append("SIGINT"))
    sources = open_sources(Path(sys.argv[1]), "labels", seed=0)
    stream = batches(sources, Preprocess(), global_batch=1, micro_batch=1,
                     rank=0, world=1, workers=2, seed=0)
    print(next(stream)["keys"], flush=True)
    while len(told) < 2:
        time.sleep(0.01)
    for _ in range(50):
        next(stream)
    print("went on after", *told, flush=True)  # and leaves without closing the stream
"""


def start_trainer(packed: ShardSet, tmp_path: Path) -> subprocess.Popen[str]:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(packed.store.path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process.stdout.readline()
    return process


def test_signals_to_the_whole_group_are_left_to_the_trainer(packed, tmp_path):
    process = start_trainer(packed, tmp_path)
    family = descendants(process.pid)
    os.killpg(process.pid, signal.SIGTERM)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = patience.communicate(process)
    assert (output, errors, process.returncode) == ("went on after SIGTERM SIGINT\n", "", 0)
    patience.wait_for(lambda: not alive(family))


def test_workers_do_not_outlive_a_killed_trainer(packed, tmp_path):
    process = start_trainer(packed, tmp_path)
    family = descendants(process.pid)
    assert len(family) >= 3
    process.kill()
    patience.communicate(process)
    patience.wait_for(lambda: not alive(family))


def test_noise_belongs_to_the_position(packed):
    """Whatever the world size, the micro-batches and the start."""
    noise = (Noise("share", (1, 1, 1), "uniform"), Noise("z", (5,), "normal"))
    whole = samples_of(load(packed, 4, micro_batch=4, noise=noise), 4)
    for options in ({"world": 2, "micro_batch": 2}, {"world": 4, "workers": 1}):
        assert_same(whole, samples_of(load(packed, 4, noise=noise, **options), 4))
    assert_same(whole[8:], samples_of(load(packed, 2, noise=noise, start=8), 2))
    for position, (_, tensors) in enumerate(whole):
        for each in noise:
            assert tensors[each.name].dtype == torch.float32
            assert (tensors[each.name].numpy() == each.at(SEED, position)).all()
