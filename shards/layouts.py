"""Source folders -> records: which files belong together, decided by names alone.

    labels  SOURCE/{split}_label/  SOURCE/{split}_inst/ (optional)  SOURCE/{split}_img/
    pairs   SOURCE/{split}_A/ SOURCE/{split}_B/, or A/{split}/ B/{split}/, or A/ B/

A key is the file's path below its folder, without extension and, in layout labels, without the
endings that the files of Cityscapes carry. webdataset splits names at the first dot, so dots
become underscores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from shards.records import LAYOUTS, OPTIONAL_MEMBERS, DataError, Record

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
OTHER_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
SPLITS = frozenset({"train", "val", "test"})

CITYSCAPES_ENDINGS = {
    "_gtFine_labelIds": "label",
    "_gtFine_instanceIds": "inst",
    "_leftImg8bit": "image",
    "_gtFine_labelTrainIds": "",
    "_gtFine_color": "",
}
"""Ending of a stem -> the member of layout labels that it marks; others' files are passed over."""


def find_records(source: Path, layout: str = "auto", split: str = "train") -> list[Record]:
    """The samples of a source folder, sorted by key.

    Raises DataError if no known arrangement of folders is found, if a folder is empty, or if
    the members' keys differ."""
    source = _source(source)
    return _pair_up(source, *_arrangement(source, layout, split))


def find_conditions(
    source: Path, layout: str, split: str = "test", photos: bool = False
) -> list[Record]:
    """What a generator translates: records without the picture that it is to paint, unless
    `photos` asks for it where its folder exists.

    SOURCE holds {split}_label/ and optionally {split}_inst/ (labels), {split}_A/ or A/{split}/
    (pairs), or itself the files to translate. Raises DataError if it holds none of these."""
    source = _source(source)
    condition = LAYOUTS[layout][0]
    choices = _arrangements(source, split)[layout]
    for folders in choices:
        if folders[condition].is_dir():
            wanted = {member: path for member, path in folders.items() if path.is_dir()}
            if not photos:
                wanted.pop(LAYOUTS[layout][-1], None)
            return _pair_up(source, layout, wanted)
    # Sub-folders stay out: they may be other splits, or the pictures to be painted.
    files = _keyed_files(_image_files(source, source, recursive=False), source, condition)
    if not files:
        names = (f"{folders[condition].relative_to(source)}/" for folders in choices)
        raise DataError(
            f"{source} holds no {' or '.join(names)} and no image itself (it holds "
            f"{_sub_folders(source)}): give another split or the folder of the {condition} images"
        )
    return [Record(key, {condition: files[key]}) for key in sorted(files)]


def image_keys(folder: Path, member: str) -> dict[str, Path]:
    """Key -> file of a folder, and those below it, that holds one member of the samples.

    Files that are another member's are passed over, so it may be empty."""
    folder = _source(folder)
    return _keyed_files(_image_files(folder, folder), folder, member)


def _source(source: Path) -> Path:
    if not source.is_dir():
        raise DataError(f"{source} is not a folder: give the folder that holds the images")
    return source.resolve()


def _arrangements(source: Path, split: str) -> dict[str, list[dict[str, Path]]]:
    labels = {"label": f"{split}_label", "inst": f"{split}_inst", "image": f"{split}_img"}
    pairs = [
        {"a": f"{split}_A", "b": f"{split}_B"},
        {"a": f"A/{split}", "b": f"B/{split}"},
    ]
    if split == "train" and not any((source / "A" / other).is_dir() for other in SPLITS):
        pairs.append({"a": "A", "b": "B"})
    return {
        layout: [{member: source / name for member, name in names.items()} for names in choices]
        for layout, choices in (("labels", [labels]), ("pairs", pairs))
    }


def _arrangement(source: Path, layout: str, split: str) -> tuple[str, dict[str, Path]]:
    """(layout, member -> folder): the first arrangement whose folders are all there."""
    if layout != "auto" and layout not in LAYOUTS:
        raise DataError(f"layout {layout!r} is unknown: choose auto, {', '.join(LAYOUTS)}")
    candidates = _arrangements(source, split)
    if layout != "auto":
        candidates = {layout: candidates[layout]}
    found = []
    for name, choices in candidates.items():
        for folders in choices:
            present = {m: f for m, f in folders.items() if f.is_dir()}
            if folders.keys() - present.keys() <= OPTIONAL_MEMBERS:
                found.append((name, present))
                break
    if len(found) > 1:
        raise DataError(f"{source} holds folders of both layouts: choose --layout=labels or pairs")
    if not found:
        raise DataError(f"{source} {_looked_for(source, candidates)}")
    return found[0]


def _looked_for(source: Path, candidates: dict[str, list[dict[str, Path]]]) -> str:
    choices = [
        " + ".join(
            f"{folder.relative_to(source)}/"
            for member, folder in folders.items()
            if member not in OPTIONAL_MEMBERS
        )
        for choices in candidates.values()
        for folders in choices
    ]
    return (
        f"does not hold the folders looked for ({', or '.join(choices)}); "
        f"it holds {_sub_folders(source)}"
    )


def _sub_folders(source: Path) -> str:
    present = sorted(path.name for path in source.iterdir() if path.is_dir())[:8]
    return ", ".join(present) or "no folders"


def _pair_up(source: Path, layout: str, folders: dict[str, Path]) -> list[Record]:
    files = {member: _member_files(source, folders[member], member) for member in folders}
    first, *others = folders
    for other in others:
        _check_same_keys(source, folders, files, first, other)
    order = [member for member in LAYOUTS[layout] if member in folders]
    keys = sorted(files[first])
    return [Record(key, {member: files[member][key] for member in order}) for key in keys]


def _check_same_keys(
    source: Path,
    folders: dict[str, Path],
    files: dict[str, dict[str, Path]],
    one: str,
    two: str,
) -> None:
    for here, there in ((one, two), (two, one)):
        alone = sorted(files[here].keys() - files[there].keys())
        if alone:
            names = ", ".join(files[here][key].name for key in alone[:3])
            raise DataError(
                f"{len(alone)} of {len(files[here])} files in "
                f"{folders[here].relative_to(source)}/ have no partner of the same name in "
                f"{folders[there].relative_to(source)}/ (first: {names}): add or rename files"
            )


def _member_files(source: Path, folder: Path, member: str) -> dict[str, Path]:
    _check_contained(source, folder)
    files = _keyed_files(_image_files(source, folder), folder, member)
    if not files:
        raise DataError(f"{folder} holds no PNG or JPEG file: put the {member} images there")
    return files


def _keyed_files(paths: Iterable[Path], folder: Path, member: str) -> dict[str, Path]:
    keyed: dict[str, Path] = {}
    for path in paths:
        key = _key(path, folder, member)
        if key is None:
            continue
        if key in keyed:
            raise DataError(
                f"{path} and {keyed[key]} would share the key {key!r} (extensions are dropped, "
                f"dots become underscores): rename one"
            )
        keyed[key] = path
    return keyed


def _key(path: Path, folder: Path, member: str) -> str | None:
    """Key of a file, or None where its ending marks it as another member's."""
    stem = path.relative_to(folder).with_suffix("").as_posix()
    endings = CITYSCAPES_ENDINGS if member in LAYOUTS["labels"] else {}
    for ending, owner in endings.items():
        if stem.endswith(ending):
            if owner != member:
                return None
            stem = stem.removesuffix(ending)
    key = stem.replace(".", "_")
    if not key.isprintable():
        raise DataError(f"{str(path)!r} has unprintable characters in its name: rename it")
    return key


def _image_files(source: Path, folder: Path, recursive: bool = True) -> Iterator[Path]:
    """Image files below a folder, in no fixed order; hidden and other files are passed over."""
    for parent, folder_names, file_names in os.walk(folder):
        folder_names[:] = [name for name in folder_names if recursive and name[0] != "."]
        for name in folder_names:
            if os.path.islink(os.path.join(parent, name)):
                raise DataError(f"{parent}/{name} is a link to a folder: copy the folder there")
        for name in file_names:
            path = Path(parent, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                continue
            if suffix in OTHER_IMAGE_SUFFIXES:
                raise DataError(f"{path} is neither PNG nor JPEG: convert or remove it")
            if suffix in IMAGE_SUFFIXES:
                yield _regular_file(source, path)


def _regular_file(source: Path, path: Path) -> Path:
    if path.is_symlink():
        _check_contained(source, path)
    if not path.is_file():
        raise DataError(f"{path} is not a regular file: remove it")
    return path


def _check_contained(source: Path, path: Path) -> None:
    # A link could lead to any file of this machine, whose bytes would then be packed.
    if not path.resolve().is_relative_to(source):
        raise DataError(f"{path} is a link that leads out of {source}: copy its target there")
