"""What one sample is: its key, its images (members) and what each of them may hold.

A sample of layout "labels" (pix2pixHD) is KEY.label.png, optionally KEY.inst.png and KEY.feat.png
(features that were computed before), and KEY.image.png, .jpg or .webp; one of layout "pairs" is
KEY.a.* and KEY.b.*; one of layout "side-by-side" is KEY.ab.*, whose halves are a and b; one of
layout "images" (a domain) is KEY.image.*. Files are copied into the shards unchanged, unless
photos.py is asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

LAYOUTS: dict[str, tuple[str, ...]] = {
    "labels": ("label", "inst", "feat", "image"),
    "pairs": ("a", "b"),
    "side-by-side": ("ab",),
    "images": ("image",),
}
"""The members of a sample, by layout."""

HALVES = {"ab": ("a", "b")}
"""A member whose picture is cut in two once it is decoded: what its left and right half are."""

OPTIONAL_MEMBERS = frozenset({"inst", "feat"})
"""A data set holds such a member for every sample, or for none."""

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


def decoded_members(members: tuple[str, ...]) -> tuple[str, ...]:
    """The members that a sample has once its files are decoded."""
    return tuple(part for member in members for part in HALVES.get(member, (member,)))


def fits(members: Collection[str], layout: str) -> bool:
    """Whether samples of a layout may have just these members."""
    known = set(LAYOUTS[layout])
    return known - OPTIONAL_MEMBERS <= set(members) <= known


class DataError(Exception):
    """Something is wrong with the user's data: one sentence with the file and the remedy."""


class Unreachable(DataError):
    """The data may be whole, but cannot be had now: that is no reason to take others."""


@dataclass(frozen=True)
class Record:
    """One sample in a source folder: its key and, by member, its files."""

    key: str
    files: dict[str, Path]


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
