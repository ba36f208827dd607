"""Which ending of the files in a foreign tar is which member of a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shards.indexing.tar_samples import TarSample
from shards.records import KINDS, LAYOUTS, DataError, fits
from shards.source.source_files import IMAGE_SUFFIXES
from shards.storage.tars import TarFile

_WORDS = {
    "label": ("label", "labels", "seg", "segmentation", "mask", "labelids"),
    "inst": ("inst", "instance", "instances", "instanceids"),
    "image": ("image", "img", "photo", "rgb"),
    "a": ("a",),
    "b": ("b",),
    "ab": ("ab",),
}
_CLASS = "cls"
"""Ending, and member, of the number of a class."""
"""Member -> what stands before the image's extension in endings that say so: seg.png."""


@dataclass(frozen=True)
class Members:
    """A layout, and which endings hold its members."""

    layout: str
    by_ending: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The members, in the order of the layout."""
        return tuple(name for name in LAYOUTS[self.layout] if name in self.by_ending.values())

    def pick(self, sample: TarSample, where: str) -> dict[str, TarFile]:
        """The file of each member; DataError if a sample has none or several for one of them."""
        picked: dict[str, TarFile] = {}
        for ending, found in sample.files.items():
            member = self.by_ending.get(ending)
            if member in picked:
                raise DataError(
                    f"{where}: {picked[member].name} and {found.name} could both be the member "
                    f"{member}: say which with --members={member}={ending}."
                )
            if member is not None:
                picked[member] = found
        for member in self.names:
            if member not in picked:
                endings = " or ".join(e for e, owner in self.by_ending.items() if owner == member)
                raise DataError(
                    f"{where}: {sample.key} has no {member} (.{endings}), but every sample needs "
                    f"the same members: remove the sample, add the file, or choose --members."
                )
        return {member: picked[member] for member in self.names}


def choose_members(endings: Counter[str], wanted: Mapping[str, str], where: str) -> Members:
    """The members among `endings` (ending -> files): those `wanted` (member -> ending), else what
    the endings say themselves.

    One image ending alone is member image. Raises DataError if that leaves a doubt, or if the
    members are those of no layout."""
    by_ending = _asked(wanted, endings, where) if wanted else _guessed(endings)
    members = set(by_ending.values())
    for layout in LAYOUTS:
        if fits(members, layout):
            return Members(layout, by_ending)
    known = (*KINDS, _CLASS)
    layouts = "; ".join(
        " + ".join(name for name in names if name in known) for names in LAYOUTS.values()
    )
    raise DataError(
        f"{where} holds files ending in {_listed(endings)}, which does not tell the members of one "
        f"layout ({layouts}; inst and feat may be absent): say which is which with "
        f"--members=label=ENDING,image=ENDING."
    )


def _asked(wanted: Mapping[str, str], endings: Counter[str], where: str) -> dict[str, str]:
    wanted = {member: ending.lower().removeprefix(".") for member, ending in wanted.items()}
    for member, ending in wanted.items():
        known = (*KINDS, _CLASS)
        if member not in known:
            raise DataError(f"--members: {member!r} is no member; choose from {', '.join(known)}.")
        if ending not in endings:
            raise DataError(
                f"--members={member}={ending}: no file in {where} ends so; there are "
                f"{_listed(endings)}."
            )
    by_ending = {ending: member for member, ending in wanted.items()}
    if len(by_ending) < len(wanted):
        raise DataError("--members gives one ending to two members: each needs its own.")
    return by_ending


def _guessed(endings: Counter[str]) -> dict[str, str]:
    """Ending -> member; empty if an image among them could be anything."""
    guessed, plain = {}, []
    for ending in endings:
        word, _, extension = ending.rpartition(".")
        if f".{extension}" not in IMAGE_SUFFIXES:
            continue
        member = next((name for name, words in _WORDS.items() if word in words), None)
        if member is not None:
            guessed[ending] = member
        elif word:
            return {}
        else:
            plain.append(ending)
    if plain and not set(guessed.values()) <= {"label", "inst"}:
        return {}
    guessed |= dict.fromkeys(plain, "image")
    if set(guessed.values()) == {"image"} and _CLASS in endings:
        guessed[_CLASS] = _CLASS
    return guessed


def _listed(endings: Counter[str]) -> str:
    return ", ".join(f".{ending} ({count})" for ending, count in endings.most_common(12)) or "none"
