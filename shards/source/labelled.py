"""Folders of classes -> the samples of one set that know their class."""

from __future__ import annotations

from pathlib import Path

from shards.records import DataError, Record, Samples
from shards.sets.annotations import class_bytes, normal_name, sorted_names
from shards.source.arrangements import arrangement
from shards.source.source_files import checked_source, keyed_images


def find_labelled(source: Path, split: str = "train") -> Samples:
    """The pictures of a source of layout "labelled"; their keys are CLASS/NAME, and the classes
    are numbered in the order of their names.

    Raises DataError if there are no folders of classes, or if one of them is empty."""
    source = checked_source(source)
    folders = arrangement(source, "labelled", split)
    for folder in folders.values():
        if not folder.name.isprintable():
            raise DataError(f"{str(folder)!r} has unprintable characters in its name: rename it.")
    root = next(iter(folders.values())).parent
    files = keyed_images(source, root)
    names = {key: _class_of(path, root) for key, path in files.items()}
    found = set(names.values())
    for name, folder in folders.items():
        if normal_name(name) not in found:
            raise DataError(
                f"{folder} holds no PNG, JPEG or WebP file: put the pictures of class {name} there."
            )
    classes = sorted_names(found, "cls", root)
    records = [
        Record(key, {"image": files[key]}, {"cls": class_bytes(names[key], classes)})
        for key in sorted(files)
    ]
    return Samples("labelled", records, {"cls": classes})


def _class_of(path: Path, root: Path) -> str:
    return normal_name(path.relative_to(root).parts[0])
