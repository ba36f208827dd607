"""What a run reads beside the pictures: their classes, or attributes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.hashing import hash64
from shards.records import ANNOTATIONS
from shards.sets.annotations import read_annotations
from shards.sets.shard_set import ShardSet

NO_CLASS = -1
"""The class of samples that are given without one."""


@dataclass(frozen=True)
class Annotations:
    """What every sample of a batch comes with; nothing by default."""

    classes: int | None = None
    """The number of classes that the set must have; None: they are not read."""
    unlabelled: float = 0
    """Share of the samples whose class is given as NO_CLASS, in every epoch the same ones."""
    attributes: tuple[str, ...] = ()
    """Names of those that are read, in the order in which a batch gives them."""

    @property
    def unread(self) -> tuple[str, ...]:
        """Annotations that are left where they are."""
        read = {"cls": self.classes is not None, "attributes": bool(self.attributes)}
        return tuple(member for member in ANNOTATIONS if not read[member])

    def check(self, shard_set: ShardSet) -> None:
        """Raise DataError unless the set has what is read."""
        if self.classes is not None:
            shard_set.require_classes(self.classes)
        if self.attributes:
            shard_set.require_attributes(self.attributes)

    def read(
        self, shard_set: ShardSet, number: int, files: Mapping[str, bytes], seed: int
    ) -> dict[str, np.ndarray]:
        """`class`, int64, and `attributes`, float32 [K], of a sample that was read; DataError if
        they are not as they were packed."""
        manifest = shard_set.manifest
        found = read_annotations(files, shard_set.names(number), manifest.num_names)
        given = {}
        if "cls" in found:
            hidden = self.hides(shard_set.keys[number], seed)
            given["class"] = np.array(NO_CLASS) if hidden else found["cls"]
        if "attributes" in found:
            names = [*manifest.annotations["attributes"]]
            given["attributes"] = found["attributes"][[names.index(n) for n in self.attributes]]
        return given

    def hides(self, key: str, seed: int) -> bool:
        """Whether the class of a sample is not told."""
        sample = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        return hash64(seed, sample) < self.unlabelled * 2**64
