"""What a packed set contains: image sizes, conversions, label ids, classes and attributes, counted
while every image is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.pixels.images import conversion, size_of
from shards.records import HALVES, check_label_ids, pictures

FEW_LEVELS = 64
"""Of 8 bits: a 16-bit picture that stays below it has 14 significant bits or fewer."""
SHALLOW = "16-bit pictures with all values below 16384"
"""A note: the upper 8 bits hold little of them."""


@dataclass(frozen=True)
class LabelUse:
    """How much a label id is used, and where it is met first."""

    num_pixels: int
    first_key: str


@dataclass
class Census:
    """Counts over samples, added in the order of their keys."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    conversions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(member, what its picture was before it became 8-bit RGB) -> pictures."""
    label_ids: dict[int, LabelUse] = field(default_factory=dict)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(member, what was done to its files or should be known of them) -> files."""
    annotations: Counter[tuple[str, int]] = field(default_factory=Counter)
    """("cls", number of a class) or ("attributes", place of one) -> samples."""

    def add(self, key: str, files: dict[str, bytes], pixels: dict[str, np.ndarray]) -> None:
        """Count one sample: its files, and what they were decoded to."""
        self.sizes[size_of(next(iter(pixels.values())))] += 1
        for member in pictures(files):
            data, parts = files[member], HALVES.get(member, (member,))
            kind = conversion(data, member, key, any(is_transparent(pixels[p]) for p in parts))
            if kind is not None:
                self.conversions[member, kind] += 1
                if kind.startswith("16-bit") and all(
                    pixels[part][..., :3].max() < FEW_LEVELS for part in parts
                ):
                    self.notes[member, SHALLOW] += 1
        if "label" in pixels:
            self._add_labels(
                {i: LabelUse(n, key) for i, n in label_histogram(pixels["label"]).items()}
            )

    def add_annotations(self, annotations: Mapping[str, np.ndarray]) -> None:
        """Count the class, or the attributes, of one sample."""
        for member, values in annotations.items():
            numbers = np.flatnonzero(values) if values.ndim else [values]
            self.annotations.update((member, int(number)) for number in numbers)

    def listed_annotations(self, member: str, num_names: int) -> list[int]:
        """How many samples are of each class, or have each attribute."""
        return [self.annotations[member, number] for number in range(num_names)]

    def merge(self, later: Census) -> None:
        """Add the counts of samples that come after all those counted here."""
        self.sizes.update(later.sizes)
        self.conversions.update(later.conversions)
        self.notes.update(later.notes)
        self.annotations.update(later.annotations)
        self._add_labels(later.label_ids)

    def _add_labels(self, later: dict[int, LabelUse]) -> None:
        for label_id, use in later.items():
            known = self.label_ids.get(label_id, LabelUse(0, use.first_key))
            self.label_ids[label_id] = LabelUse(known.num_pixels + use.num_pixels, known.first_key)

    def listed_sizes(self) -> tuple[tuple[int, int, int], ...]:
        """The commonest sizes first: (width, height, samples)."""
        ordered = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        return tuple((*size, count) for size, count in ordered)

    def listed_conversions(self) -> dict[str, dict[str, int]]:
        """By member: what its pictures were, and how many; the commonest first."""
        return _by_member(self.conversions)

    def to_json(self) -> dict[str, Any]:
        """The same counts give the same JSON."""
        widths, heights = zip(*self.sizes, strict=True)
        conversions, notes = self.listed_conversions(), _by_member(self.notes)
        return {
            "sizes": self.listed_sizes(),
            "min_size": [min(widths), min(heights)],
            "max_size": [max(widths), max(heights)],
            # Left out where there are none: such sets keep the fingerprint that they always had.
            **({"conversions": conversions} if conversions else {}),
            **({"notes": notes} if notes else {}),
            "label_ids": {
                str(label_id): {"pixels": use.num_pixels, "first_key": use.first_key}
                for label_id, use in sorted(self.label_ids.items())
            },
        }


def _by_member(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    listed: dict[str, dict[str, int]] = {}
    for (member, words), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        listed.setdefault(member, {})[words] = count
    return listed


def is_transparent(pixels: np.ndarray) -> bool:
    """Whether a picture [H, W, C] was read with alpha that is not all opaque."""
    return pixels.ndim == 3 and pixels.shape[2] == 4 and bool(pixels[..., 3].min() < 255)


def label_histogram(label: np.ndarray) -> dict[int, int]:
    """id -> pixels of a uint8 label map."""
    counts = np.bincount(label.ravel(), minlength=256)
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}


def check_label_uses(label_ids: dict[int, LabelUse], num_labels: int, where: object) -> None:
    """Raise DataError if the set at `where` uses an id >= num_labels."""
    beyond = {i: use.num_pixels for i, use in label_ids.items() if i >= num_labels}
    if beyond:
        first_key = label_ids[min(beyond)].first_key
        place = f"{where}: the label map of {first_key} (and maybe others)"
        check_label_ids(beyond, num_labels, place)
