"""What a run reads: one packed set, or two domains that are drawn together but unpaired."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shards.read.annotated import Annotations
from shards.read.cache import Cache, cached
from shards.read.order import Order, Shuffle, order_of
from shards.records import DataError
from shards.sets.domains import has_domains, read_domains
from shards.sets.generations import current, generations
from shards.sets.manifest import MANIFEST_FILE, read_manifest
from shards.sets.shard_set import ShardSet, domain_set, only_set
from shards.storage.opening import open_store
from shards.storage.store import Store

MEMBERS = ("a", "b")
"""What the pictures of the first and of the second domain are called in a batch."""


@dataclass(frozen=True, eq=False)
class Source:
    """A packed set and the order in which it is drawn."""

    shard_set: ShardSet
    order: Order
    member: str | None = None
    """What its pictures are called in a batch; None keeps the names of the set."""
    channels: Mapping[str, int] = field(default_factory=dict)
    """Of pictures, by what they are called in a batch: 1, 3 or 4; 3 where nothing is said."""
    annotations: Annotations = Annotations()
    """What is read beside the pictures."""

    def channels_of(self, member: str) -> int:
        """Channels that the pictures of a member of the set are read with."""
        return self.channels.get(self.member or member, 3)


def open_sources(
    location: str | Path,
    layout: str,
    seed: int,
    domains: Sequence[str] = ("A", "B"),
    shuffle: Shuffle = Shuffle(),
    cache: Cache | None = None,
    fingerprint: str | None = None,
    channels: Mapping[str, int] = {},
    annotations: Annotations = Annotations(),
) -> tuple[Source, ...]:
    """The sets that a run of this layout reads at `location`, a folder or URL, maybe through a
    cache; channels, annotations: as in `Source`.

    layout: "labels", "pairs" or "images" for one set; "unpaired" for the two `domains` of a folder
    of domains, in this order; fingerprint: that of what a resumed run began with, whose generation
    is opened if it is still there, else the current one. Raises DataError if the folder holds
    something else, or if the cache is too small for the shuffle."""
    store = _generation(open_store(location), domains if layout == "unpaired" else (), fingerprint)
    opened = _sources(store, layout, seed, domains, shuffle)
    for source in opened:
        annotations.check(source.shard_set)
    sources = tuple(
        replace(source, channels=dict(channels), annotations=annotations) for source in opened
    )
    if cache is None:
        return sources
    _check_room(sources, shuffle, cache)
    return tuple(replace(source, shard_set=cached(source.shard_set, cache)) for source in sources)


def epoch_size(sources: Sequence[Source]) -> int:
    """Samples of a nominal epoch: it shows all images of the largest set once."""
    return max(source.shard_set.num_samples for source in sources)


def fingerprint(sources: Sequence[Source]) -> str:
    """sha256 over all that a run reads: a resumed run compares it."""
    return _combined([source.shard_set.fingerprint for source in sources])


def _generation(store: Store, domains: Sequence[str], wanted: str | None) -> Store:
    """The folder of the generation with this fingerprint, or the current one: what is wrong with
    that is for others to say."""
    for folder in generations(store) if wanted else ():
        if domains and has_domains(folder):
            listed = read_domains(folder)
            if _combined([listed.get(name, "") for name in domains]) == wanted:
                return folder
        elif (
            not domains
            and folder.size(MANIFEST_FILE) is not None
            and read_manifest(folder).fingerprint == wanted
        ):
            return folder
    return current(store)


def _combined(prints: list[str]) -> str:
    if len(prints) == 1:
        return prints[0]
    return hashlib.sha256("".join(prints).encode()).hexdigest()


def _sources(
    store: Store, layout: str, seed: int, domains: Sequence[str], shuffle: Shuffle
) -> tuple[Source, ...]:
    if layout != "unpaired":
        shard_set = only_set(store)
        shard_set.require(layout)
        return (Source(shard_set, _order(shard_set, shuffle, seed)),)
    if len(set(domains)) != len(MEMBERS) or len(domains) != len(MEMBERS):
        raise DataError(
            f"domains {', '.join(domains)}: an unpaired run reads two different domains, name two."
        )
    if not has_domains(store):
        raise DataError(
            f"{store} holds no domains.json, but this run reads two domains: give the folder of "
            f"domains that `pack` makes of a source with --layout=unpaired or classes."
        )
    return tuple(
        _domain(store, name, shuffle, seed, number, member)
        for number, (name, member) in enumerate(zip(domains, MEMBERS, strict=True))
    )


def _domain(
    store: Store, name: str, shuffle: Shuffle, seed: int, number: int, member: str
) -> Source:
    shard_set = domain_set(store, name)
    shard_set.require("images")
    return Source(shard_set, _order(shard_set, shuffle, seed, number), member)


def _order(shard_set: ShardSet, shuffle: Shuffle, seed: int, domain: int = 0) -> Order:
    sizes = [shard.num_samples for shard in shard_set.manifest.shards]
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    assert np.array_equal(shard_set.shard_numbers, numbers), "samples lie shard after shard"
    return order_of(shuffle, sizes, seed, domain)


def _check_room(sources: Sequence[Source], shuffle: Shuffle, cache: Cache) -> None:
    """Raise DataError if shards would be removed that are still needed, and fetched over and
    over."""
    count = _num_shards(shuffle, cache)
    needed = 0
    for source in sources:
        sizes = sorted(shard.num_bytes for shard in source.shard_set.manifest.shards)
        needed += sum(sizes if count is None else sizes[-count:])
    if needed > cache.limit:
        raise DataError(
            f"a {shuffle.kind} shuffle of {sources[0].shard_set.store} needs {needed / 2**30:.3f} "
            f"GiB of shards on each node at a time, but data.cache.limit_gib="
            f"{cache.limit / 2**30:.3f}: raise it, choose data.order.shuffle=windowed with a "
            f"smaller data.order.window or data.order.streams, data.cache.ahead=0, or no cache."
        )


def _num_shards(shuffle: Shuffle, cache: Cache) -> int | None:
    """How many shards a node needs at a time; None for all."""
    if shuffle.kind == "full":
        return None
    streams = -(-shuffle.streams // cache.num_nodes)
    # What is fetched ahead is the next group, shard by shard, and some more.
    return streams * (2 * shuffle.window + cache.ahead if cache.ahead else shuffle.window)
