"""Positions -> micro-batches of tensors, in one order for any number of ranks and workers.

Global batch k covers the positions start + k * global_batch and on, sorted by the order's streams;
rank r takes the r-th part of it, in micro-batches, and so reads the same streams in every step.
What is consumed is one integer, and a run may go on from it on another number of ranks. Several
sets share that integer, each with its own order, epochs and draws.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shards.pixels.augment import Preprocess
from shards.processes import check_shared_memory, context, enter_worker
from shards.read.draws import Allowance, Drawer, Substitution
from shards.read.noise import Noise
from shards.read.sources import Source
from shards.records import KINDS, DataError, decoded_members, size_text

Batch = dict[str, Any]
PREFETCH = 2
"""Micro-batches that each worker keeps ready."""
_BYTES_OF_IDS = {"label": 1, "inst": 4}
"""Per pixel."""


def batches(
    sources: Sequence[Source],
    preprocess: Preprocess,
    *,
    global_batch: int,
    micro_batch: int,
    rank: int,
    world: int,
    start: int = 0,
    workers: int = 2,
    pin: bool = False,
    seed: int,
    noise: Sequence[Noise] = (),
    substitutes: int = 0,
    report: Callable[[Substitution], None] = lambda substitution: None,
) -> Iterator[Batch]:
    """The micro-batches of one rank, from position `start` on, without end.

    Each is {"label": uint8 [N,1,H,W], "inst": int32 [N,1,H,W], "image": uint8 [N,3,H,W]} or
    {"a", "b": uint8 [N,3,H,W]} (or as many channels as the sources say), "class": int64 [N] or
    "attributes": float32 [N, K] if the sources read them, by their names what `noise` asks for,
    float32 [N, *shape], and "keys": list of N. A sample of several sources is one draw from each;
    its key is "KEY_A + KEY_B", and its a and b may differ in size. substitutes: how many damaged
    samples may be replaced, each of them told to `report`. Raises ValueError if the numbers do not
    divide each other, and DataError (at once, or while iterating) for what is wrong with the
    data."""
    if global_batch % world:
        raise ValueError(
            f"a global batch of {global_batch} cannot be shared by {world} processes: choose a "
            f"multiple of {world}"
        )
    if (global_batch // world) % micro_batch:
        raise ValueError(
            f"the {global_batch // world} samples of each process cannot be cut into "
            f"micro-batches of {micro_batch}: choose a divisor"
        )
    (streams,) = {source.order.streams for source in sources}
    if global_batch % streams:
        raise ValueError(
            f"data.order.streams={streams} does not divide a global batch of {global_batch}: "
            "choose a divisor of it"
        )
    positions = _Positions(start, global_batch, micro_batch, rank, world, streams)
    drawers = [Drawer(source, preprocess, seed, substitutes > 0) for source in sources]
    stream = _Stream(drawers, seed, noise)
    if workers:
        check_shared_memory(shared_memory_needed(sources, preprocess, micro_batch, workers))
    return _load(stream, positions, workers, pin, Allowance(substitutes, report))


def collate(samples: Sequence[dict[str, np.ndarray]], keys: Sequence[str]) -> Batch:
    """One batch of samples [H, W] or [H, W, C] of equal size; DataError if they differ."""
    batch: Batch = {}
    for member in samples[0]:
        arrays = [sample[member] for sample in samples]
        for key, array in zip(keys, arrays, strict=True):
            if array.shape != arrays[0].shape:
                raise DataError(
                    f"{keys[0]} is {size_text(arrays[0].shape[1::-1])} and {key} is "
                    f"{size_text(array.shape[1::-1])}, but the images of a batch need one size: "
                    f"choose a data.preprocess.mode that crops, or micro-batches of 1."
                )
        batch[member] = _stack(arrays)
    return batch | {"keys": list(keys)}


def shared_memory_needed(
    sources: Sequence[Source], preprocess: Preprocess, micro_batch: int, workers: int
) -> int:
    """Bytes of the batches that the workers of one process keep ready."""
    bytes_per_sample = 0
    for source in sources:
        manifest = source.shard_set.manifest
        width, height = preprocess.output_size(*manifest.max_size)
        for member in decoded_members(manifest.members):
            bytes_per_pixel = _BYTES_OF_IDS.get(KINDS[member], source.channels_of(member))
            bytes_per_sample += width * height * bytes_per_pixel
    return bytes_per_sample * micro_batch * workers * PREFETCH


@dataclass(frozen=True)
class _Positions(Iterable[list[int]]):
    """The positions of a rank's micro-batches."""

    start: int
    global_batch: int
    micro_batch: int
    rank: int
    world: int
    streams: int

    def __iter__(self) -> Iterator[list[int]]:
        share = self.global_batch // self.world
        base = self.start
        while True:
            batch = sorted(range(base, base + self.global_batch), key=lambda n: n % self.streams)
            mine = batch[self.rank * share : (self.rank + 1) * share]
            for begin in range(0, share, self.micro_batch):
                yield mine[begin : begin + self.micro_batch]
            base += self.global_batch


class _Loaded(NamedTuple):
    """What a worker hands over: pin_memory understands tuples."""

    batch: Batch
    substitutions: list[Substitution]


@dataclass(frozen=True)
class _Failure:
    """A DataError on its way out of a worker: DataLoader would wrap it in a traceback."""

    sentence: str


class _Stream(Dataset):
    """Maps the positions of a micro-batch to the batch."""

    def __init__(self, drawers: Sequence[Drawer], seed: int, noise: Sequence[Noise]) -> None:
        self.drawers = drawers
        self.seed = seed
        self.noise = noise

    def __getitem__(self, positions: list[int]) -> _Loaded | _Failure:
        try:
            for drawer in self.drawers:
                drawer.announce(positions)
            return self._batch(positions)
        except DataError as error:
            return _Failure(str(error))

    def _batch(self, positions: list[int]) -> _Loaded:
        keys, samples, annotations, substitutions = [], [], [], []
        for position in positions:
            draws = [drawer.draw(position) for drawer in self.drawers]
            keys.append(" + ".join(draw.key for draw in draws))
            samples.append({m: array for draw in draws for m, array in draw.pixels.items()})
            annotations += [draw.annotations for draw in draws if draw.annotations]
            substitutions += [found for draw in draws for found in draw.substitutions]
        drawn = {
            noise.name: torch.from_numpy(np.stack([noise.at(self.seed, n) for n in positions]))
            for noise in self.noise
        }
        named = {
            name: torch.from_numpy(np.stack([one[name] for one in annotations]))
            for name in (annotations[0] if annotations else ())
        }
        return _Loaded(collate(samples, keys) | named | drawn, substitutions)


def _load(
    stream: _Stream, positions: _Positions, workers: int, pin: bool, allowance: Allowance
) -> Iterator[Batch]:
    loader = DataLoader(
        stream,
        batch_size=None,
        sampler=positions,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context=context() if workers else None,
        worker_init_fn=enter_worker if workers else None,
        pin_memory=pin,
        generator=torch.Generator(),  # it draws a seed, by default from the trainer's generator
    )
    loaded = _unwrap(loader, allowance)
    # Workers that still wait for work at the interpreter's exit would never be joined.
    atexit.register(_close, weakref.ref(loaded))
    return loaded


def _unwrap(loader: DataLoader, allowance: Allowance) -> Iterator[Batch]:
    try:
        for loaded in loader:
            if isinstance(loaded, _Failure):
                raise DataError(loaded.sentence)
            allowance.spend(loaded.substitutions)
            yield loaded.batch
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error):
            raise
        raise DataError(
            "a data worker was killed, probably for want of memory or of room in /dev/shm: "
            "lower data.workers."
        ) from error


def _close(loaded: weakref.ref[Any]) -> None:
    if (generator := loaded()) is not None:
        generator.close()


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    """N x [H, W] -> [N, 1, H, W]; N x [H, W, C] -> [N, C, H, W], channels_last as it came.

    By numpy, which takes huge pages from the system, and mirrored views as they are."""
    batch = torch.from_numpy(np.stack(arrays))
    return batch[:, None] if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
