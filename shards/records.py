"""What one sample is: its key, its images (members) and what each of them may hold.

A sample of layout "labels" (pix2pixHD) is KEY.label.png, optionally KEY.inst.png and KEY.feat.png
(features that were computed before), and KEY.image.png, .jpg or .webp; one of layout "pairs" is
KEY.a.* and KEY.b.*; one of layout "side-by-side" is KEY.ab.*, whose halves are a and b; one of
layout "images" (a domain) is KEY.image.*; one of layout "labelled" is KEY.image.* and either
KEY.cls, the number of its class, or KEY.attributes.json, which attributes it has. Files are copied
into the shards unchanged, unless photos.py is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LAYOUTS: dict[str, tuple[str, ...]] = {
    "labels": ("label", "inst", "feat", "image"),
    "pairs": ("a", "b"),
    "side-by-side": ("ab",),
    "images": ("image",),
    "labelled": ("image", "cls", "attributes"),
}
"""The members of a sample, by layout."""

HALVES = {"ab": ("a", "b")}
"""A member whose picture is cut in two once it is decoded: what its left and right half are."""

OPTIONAL_MEMBERS = frozenset({"inst", "feat"})
"""A data set holds such a member for every sample, or for none."""

ANNOTATIONS = ("cls", "attributes")
"""Members without pixels, which say what a picture shows; a labelled sample has one of them."""

KINDS = {
    "label": "label",
    "inst": "inst",
    "feat": "rgb",
    "image": "rgb",
    "a": "rgb",
    "b": "rgb",
    "ab": "rgb",
}
"""What a member holds: 8-bit label ids, 8- or 16-bit instance ids, or an RGB picture."""


RGBA = dict.fromkeys(("image", "a", "b"), 4)
"""Channels of pictures of which nothing is to be lost, by decoded member."""


EXACT = frozenset({"feat"})
"""Pictures whose colours are numbers: never mixed with their neighbours, nor stored with loss."""


def pictures(members: Iterable[str]) -> tuple[str, ...]:
    """Those of some members that hold pixels."""
    return tuple(member for member in members if member not in ANNOTATIONS)


def decoded_members(members: tuple[str, ...]) -> tuple[str, ...]:
    """The members that a sample has once its pictures are decoded."""
    return tuple(part for member in pictures(members) for part in HALVES.get(member, (member,)))


def fits(members: Collection[str], layout: str) -> bool:
    """Whether samples of a layout may have just these members."""
    known, given = set(LAYOUTS[layout]), set(members)
    if known.intersection(ANNOTATIONS) and len(given.intersection(ANNOTATIONS)) != 1:
        return False
    return known.difference(OPTIONAL_MEMBERS, ANNOTATIONS) <= given <= known


class DataError(Exception):
    """Something is wrong with the user's data: one sentence with the file and the remedy."""


class Unreachable(DataError):
    """The data may be whole, but cannot be had now: that is no reason to take others."""


@dataclass(frozen=True)
class Record:
    """One sample in a source: its key and, by member, its files."""

    key: str
    files: dict[str, Path]
    annotations: dict[str, bytes] = field(default_factory=dict)
    """By member, the content of those that are in no file of the source."""

    @property
    def members(self) -> tuple[str, ...]:
        """What is packed of it, in the order of the layout."""
        return (*self.files, *self.annotations)


Names = Mapping[str, tuple[str, ...]]
"""By annotation (cls, attributes), what its numbers or places stand for."""


@dataclass(frozen=True)
class Samples:
    """The samples of a set that is to be packed, sorted by key."""

    layout: str
    records: list[Record]
    names: Names = field(default_factory=dict)


def size_text(size: tuple[int, int]) -> str:
    """(width, height) as users write it: 2048x1024."""
    return f"{size[0]}x{size[1]}"


def check_label_ids(histogram: dict[int, int], num_labels: int, where: str) -> None:
    """Raise DataError if `histogram` (id -> pixels) of the file `where` has an id >= num_labels."""
    for label_id in sorted(histogram):
        if label_id >= num_labels:
            raise DataError(
                f"{where}: {histogram[label_id]} pixels have label id {label_id}, but with "
                f"num_labels={num_labels} ids end at {num_labels - 1}: raise num_labels to at "
                f"least {max(histogram) + 1} or remap the ids."
            )
