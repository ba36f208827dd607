"""Open a packed or indexed set, and what is known of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shards.pixels.augment import Preprocess
from shards.pixels.census import LabelUse, check_label_uses
from shards.pixels.images import WITH_TRANSPARENT
from shards.records import HALVES, DataError, size_text
from shards.sets.domains import check_domain, has_domains, read_domains
from shards.sets.generations import current
from shards.sets.index_file import MemberIndex, read_index_file
from shards.sets.manifest import Manifest, read_manifest
from shards.sets.texts import Texts
from shards.storage.opening import open_store
from shards.storage.store import Store

_PACKED_AS = {
    "labels": ("labels",),
    "pairs": ("pairs", "side-by-side"),
    "images": ("images", "labelled"),
}
"""Layout that a run reads -> layouts of the sets that give it."""
_HOW_TO_PACK = {
    "labels": "labels",
    "pairs": "pairs or side-by-side",
    "images": "images, labelled or classes",
}
"""Layout that a run reads -> layouts of `pack` that make such a set."""


@dataclass(frozen=True, eq=False)
class ShardSet:
    """A packed set that was opened: a small value that may travel to other processes."""

    store: Store
    manifest: Manifest
    keys: Texts
    shard_numbers: np.ndarray
    index: dict[str, MemberIndex]

    @property
    def layout(self) -> str:
        """Name of the layout: labels, pairs, side-by-side, images or labelled."""
        return self.manifest.layout

    @property
    def members(self) -> tuple[str, ...]:
        """The files that every sample has."""
        return self.manifest.members

    @property
    def num_samples(self) -> int:
        """Samples in all shards together."""
        return self.manifest.num_samples

    @property
    def fingerprint(self) -> str:
        """sha256 over all content: a resumed run compares it."""
        return self.manifest.fingerprint

    @property
    def label_ids(self) -> dict[int, LabelUse]:
        """The label ids present, with their pixels and the first key that has them."""
        return self.manifest.label_ids

    @property
    def sizes(self) -> tuple[tuple[int, int, int], ...]:
        """The commonest image sizes: (width, height, samples)."""
        return self.manifest.sizes

    def shard_name(self, sample: int) -> str:
        """The tar that holds a sample."""
        return self.manifest.shards[int(self.shard_numbers[sample])].name

    def entry_name(self, sample: int, member: str) -> str:
        """The name of a member inside its tar."""
        return f"{self.keys[sample]}.{self.index[member].suffixes[sample]}"

    def names(self, sample: int) -> dict[str, str]:
        """What errors call the files of a sample, by member."""
        shard = self.store.where(self.shard_name(sample))
        return {member: f"{shard}: {self.entry_name(sample, member)}" for member in self.members}

    def only(self, number: int) -> ShardSet:
        """The samples of one shard: a value as small as they are few."""
        shard = self.manifest.shards[number]
        first, end = map(int, np.searchsorted(self.shard_numbers, (number, number + 1)))
        return ShardSet(
            self.store,
            replace(self.manifest, shards=(shard,), num_samples=shard.num_samples),
            self.keys[first:end],
            np.zeros(end - first, dtype=np.int64),
            {member: column.part(first, end) for member, column in self.index.items()},
        )

    def require(
        self,
        layout: str,
        *,
        num_labels: int | None = None,
        inst: bool = False,
        features: bool = False,
    ) -> None:
        """Raise DataError unless a run of this layout (labels, pairs or images), number of labels
        and use of instance maps and pictures of features can read the set."""
        if self.layout not in _PACKED_AS[layout]:
            raise DataError(
                f"{self.store} was packed with layout {self.layout}, but this run reads layout "
                f"{layout}: give another set or pack it with --layout={_HOW_TO_PACK[layout]}."
            )
        if inst and "inst" not in self.members:
            raise DataError(
                f"{self.store} holds no instance maps, but this run uses them: pack a source "
                f"with a *_inst/ folder or switch instance edges and features off."
            )
        if features and "feat" not in self.members:
            raise DataError(
                f"{self.store} holds no pictures of features, but this run reads them "
                "(model.load_features=true): pack a source with a *_feat/ folder, which "
                "`organza features --maps=yes` makes."
            )
        if num_labels is not None:
            check_label_uses(self.label_ids, num_labels, self.store)

    def require_classes(self, num_classes: int) -> None:
        """Raise DataError unless the set has just so many classes."""
        classes = self.manifest.annotations.get("cls", {})
        if not classes:
            raise DataError(
                f"{self.store} holds no classes, but this run reads them (model.num_classes="
                f"{num_classes}): pack a folder for each class with --layout=labelled, or a list "
                "with the column class."
            )
        if len(classes) != num_classes:
            raise DataError(
                f"{self.store} holds {len(classes)} classes, but this run reads {num_classes}: set "
                f"model.num_classes={len(classes)}, or pack others with --layout=labelled."
            )

    def require_attributes(self, wanted: Collection[str]) -> None:
        """Raise DataError unless the samples are marked with all of the attributes `wanted`."""
        known = self.manifest.annotations.get("attributes", {})
        absent = [name for name in wanted if name not in known]
        if absent and not known:
            raise DataError(
                f"{self.store} holds no attributes, but this run reads {', '.join(wanted)}: pack a "
                "list with the columns image and attributes."
            )
        if absent:
            raise DataError(
                f"{self.store} holds no attribute {absent[0]!r}, but {', '.join(known)}: choose "
                "among these, or pack a list that names it."
            )

    def require_channels(self, channels: Mapping[str, int]) -> None:
        """Raise DataError unless the pictures can be read with so many channels, by decoded
        member; 3 where nothing is said."""
        for member in self.members:
            kinds = self.manifest.conversions.get(member, {})
            wanted = {channels.get(part, 3) for part in HALVES.get(member, (member,))}
            transparent = sum(n for kind, n in kinds.items() if WITH_TRANSPARENT in kind)
            if 4 in wanted and not transparent and not any("alpha" in kind for kind in kinds):
                raise DataError(
                    f"{self.store} holds no picture with an alpha channel, but this run reads "
                    f"four channels of {member}: choose 3, or pack pictures that have one with "
                    f"--background=keep."
                )
            if transparent and wanted != {4}:
                raise DataError(
                    f"{self.store} holds {transparent} transparent pictures, but this run reads "
                    f"{min(wanted)} channels of {member}: choose 4 (model.input_nc, "
                    f"model.output_nc), or pack them with --background=white."
                )

    def require_sizes(self, preprocess: Preprocess, micro_batch: int) -> tuple[int, int]:
        """The least width and the least height, maybe of two images, that come out of
        `preprocess`.

        Raises DataError if a crop exceeds an image, or if the images of a micro-batch would
        differ in size."""
        resized = {preprocess.resized(width, height) for width, height, _ in self.sizes}
        least = (min(width for width, _ in resized), min(height for _, height in resized))
        preprocess.check_crop(least, f"{self.store}: the least width x height")
        if micro_batch > 1 and len(resized) > 1 and not preprocess.crops:
            examples = ", ".join(map(size_text, sorted(resized)[:3]))
            raise DataError(
                f"{self.store} gives images of {len(resized)} sizes ({examples}), but "
                f"micro-batches of {micro_batch} need one size: choose a data.preprocess.mode "
                f"that crops, or batch.micro=1."
            )
        return preprocess.output_size(*least)

    def one_size(self, preprocess: Preprocess) -> bool:
        """Whether all images come out of `preprocess` with the same width and height."""
        return len({preprocess.output_size(w, h) for w, h, _ in self.sizes}) == 1


def open_shards(location: str | Path) -> ShardSet:
    """Open the set at `location`, its current generation, after the cheap checks: manifest, index,
    sizes of all files.

    Raises DataError at the first thing that is wrong; `verify` also reads every byte."""
    return only_set(current(open_store(location)))


def only_set(store: Store) -> ShardSet:
    """The set in this very folder, if it holds one rather than domains."""
    if has_domains(store):
        names = list(read_domains(store))
        raise DataError(
            f"{store} holds the domains {', '.join(names)}, but one set is needed here: give one "
            f"of its domains: {store.below(names[0])}."
        )
    return open_set(store)


def open_domain(location: str | Path, name: str) -> ShardSet:
    """Open the set of one domain as open_shards() does, if it was packed with the others."""
    return domain_set(current(open_store(location)), name)


def domain_set(store: Store, name: str) -> ShardSet:
    """One of the domains in this very folder."""
    check_domain(store, name)
    return open_set(store.below(name))


def open_all(location: str | Path) -> dict[str, ShardSet]:
    """The sets at `location`: by domain, or under its own name the only one."""
    store = open_store(location)
    newest = current(store)
    if has_domains(newest):
        return {name: domain_set(newest, name) for name in read_domains(newest)}
    return {Path(str(store)).name: open_set(newest)}


def open_set(store: Store) -> ShardSet:
    """A set that is whole, as far as names and sizes tell.

    Over a network this is left to the reads, each of which is checked by its length and crc32: all
    processes of a run would ask for the size of every shard at once."""
    manifest = read_manifest(store)
    problems = [] if store.remote else shard_file_problems(store, manifest)
    for problem in problems:
        raise DataError(problem)
    return read_index(store, manifest)


def shard_file_problems(store: Store, manifest: Manifest) -> list[str]:
    """Sentences about shards that are missing, of a wrong size, or not in the manifest."""
    problems = []
    for shard in manifest.shards:
        file, size = store.where(shard.name), store.size(shard.name)
        if size is None:
            problems.append(f"{file} is missing: restore it or pack the set anew.")
        elif size != shard.num_bytes:
            problems.append(
                f"{file} has {size} bytes, the manifest says {shard.num_bytes}: it was cut or "
                f"altered; restore it, or pack or index the set anew."
            )
    expected = {shard.name for shard in manifest.shards}
    for name in store.tars():
        if name not in expected:
            file = store.where(name)
            problems.append(f"{file} is missing from the manifest: move it out of this folder.")
    return problems


def read_index(store: Store, manifest: Manifest) -> ShardSet:
    """A set, its shards unseen; DataError if the index is not the packed one."""
    index = read_index_file(store, manifest)
    return ShardSet(store, manifest, index.keys, index.shard_numbers, index.members)
