"""Source folders -> records: which files belong together, decided by names alone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from shards.records import LAYOUTS, OPTIONAL_MEMBERS, DataError, Record
from shards.source.arrangements import (
    DOMAIN_LAYOUTS,
    Folders,
    arrangement,
    arrangements,
    choose_layout,
    listed_folders,
)
from shards.source.source_files import checked_source, keyed_images

Files = dict[str, Path]
"""Key -> file."""


def find_records(source: Path, layout: str = "auto", split: str = "train") -> list[Record]:
    """The samples of a source folder that gives one set, sorted by key.

    Raises DataError if no known arrangement of folders is found, if a folder is empty, or if
    the members' keys differ."""
    source = checked_source(source)
    layout = choose_layout(source, layout, split)
    assert layout not in DOMAIN_LAYOUTS, layout
    return _matched(source, layout, arrangement(source, layout, split))


def find_domains(source: Path, layout: str, split: str = "train") -> dict[str, list[Record]]:
    """By domain, in order, the pictures of a source of layout "unpaired" or "classes", sorted by
    key.

    Raises DataError if no known arrangement of folders is found, or if a domain is empty."""
    assert layout in DOMAIN_LAYOUTS, layout
    source = checked_source(source)
    domains = {}
    for name, folder in arrangement(source, layout, split).items():
        files = keyed_images(source, folder)
        if not files:
            raise DataError(
                f"{folder} holds no PNG, JPEG or WebP file: put the pictures of domain {name} "
                "there."
            )
        domains[name] = [Record(key, {"image": files[key]}) for key in sorted(files)]
    return domains


def find_conditions(
    source: Path,
    layout: str,
    split: str = "test",
    *,
    member: str | None = None,
    photos: bool = False,
) -> list[Record]:
    """What a generator translates: records without the picture that it is to paint, unless
    `photos` asks for it where its folder exists (never in layout unpaired).

    layout: "labels", "pairs", "unpaired" or "side-by-side"; member: the one to translate, by
    default the layout's first. SOURCE holds the member's folder as for `pack`, those of the other
    members are not needed, or itself the files to translate. A side-by-side record holds both
    pictures in its one file `ab`. Raises DataError if there is nothing to translate."""
    source = checked_source(source)
    choices = _condition_choices(source, layout, split)
    first = next(iter(choices[0]))
    member = first if member is None or layout == "side-by-side" else member
    for folders in choices:
        if folders[member].is_dir():
            return _matched(source, layout, _wanted(folders, layout, member, photos))
    # Sub-folders stay out: they may be other splits, or the pictures to be painted.
    files = keyed_images(source, source, ending=_ending(layout, member), recursive=False)
    if not files:
        names = (f"{folders[member].relative_to(source)}/" for folders in choices)
        raise DataError(
            f"{source} holds no {' or '.join(names)} and no image itself (it holds "
            f"{listed_folders(source)}): give another split or the folder of the {member} images."
        )
    return [Record(key, {member: files[key]}) for key in sorted(files)]


def image_keys(folder: Path, member: str) -> Files:
    """Key -> file of a folder, and those below it, that holds one member of the samples.

    Files that are another member's are passed over, so it may be empty."""
    folder = checked_source(folder)
    ending = member if member in LAYOUTS["labels"] else None
    return keyed_images(folder, folder, ending=ending)


def _condition_choices(source: Path, layout: str, split: str) -> list[Folders]:
    if layout not in ("pairs", "unpaired"):
        return arrangements(source, layout, split)
    # What was trained on pairs may be tried on unpaired folders, and the other way round.
    domains = arrangements(source, "unpaired", split)
    return [{"a": folders["A"], "b": folders["B"]} for folders in domains]


def _wanted(folders: Folders, layout: str, member: str, photos: bool) -> Folders:
    """The folder of the condition, and those of other members that go with it."""
    companions: Collection[str] = OPTIONAL_MEMBERS
    if photos and layout != "unpaired":
        companions = folders.keys()
    return {
        name: folder
        for name, folder in folders.items()
        if name == member or (name in companions and folder.is_dir())
    }


def _ending(layout: str, member: str) -> str | None:
    """Whose endings of Cityscapes are dropped: pictures of other layouts may be called anything."""
    return member if layout == "labels" else None


def _matched(source: Path, layout: str, folders: Folders) -> list[Record]:
    """One sample per key, which all of the folders must have."""
    files = {
        member: _member_files(source, folder, layout, member) for member, folder in folders.items()
    }
    first, *others = folders
    for other in others:
        _check_same_keys(source, layout, folders, files, first, other)
    keys = sorted(files[first])
    return [Record(key, {member: files[member][key] for member in folders}) for key in keys]


def _check_same_keys(
    source: Path, layout: str, folders: Folders, files: dict[str, Files], one: str, two: str
) -> None:
    for here, there in ((one, two), (two, one)):
        alone = sorted(files[here].keys() - files[there].keys())
        if alone:
            names = ", ".join(files[here][key].name for key in alone[:3])
            unpaired = ", or choose --layout=unpaired" if layout == "pairs" else ""
            raise DataError(
                f"{len(alone)} of {len(files[here])} files in "
                f"{folders[here].relative_to(source)}/ have no partner of the same name in "
                f"{folders[there].relative_to(source)}/ (first: {names}): add or rename "
                f"files{unpaired}."
            )


def _member_files(source: Path, folder: Path, layout: str, member: str) -> Files:
    # A source that itself holds the files may hold other things in its folders.
    files = keyed_images(source, folder, ending=_ending(layout, member), recursive=folder != source)
    if not files:
        raise DataError(f"{folder} holds no PNG, JPEG or WebP file: put the {member} images there.")
    return files
