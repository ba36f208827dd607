"""The image files below a source folder, found without following links out of it, and their keys.

A key is the file's path below its folder, without extension, its accents composed. webdataset
splits names at the first dot, so dots become underscores.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

from shards.records import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
OTHER_IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".npy", ".npz"}
    | {".exr", ".hdr", ".jp2", ".heic", ".avif"}
)
"""Refused by name: passed over in silence, they would be missed only after the training."""

CITYSCAPES_ENDINGS = {
    "_gtFine_labelIds": "label",
    "_gtFine_instanceIds": "inst",
    "_leftImg8bit": "image",
    "_gtFine_labelTrainIds": "",
    "_gtFine_instanceTrainIds": "",
    "_gtFine_color": "",
}
"""Ending of a stem -> the member of layout labels that it marks; others' files are passed over."""


_follow: ContextVar[bool] = ContextVar("follow links", default=False)


@contextmanager
def links_followed(follow: bool) -> Iterator[None]:
    """Inside, links may lead out of a source, if the user said so: to another disk, say."""
    token = _follow.set(follow)
    try:
        yield
    finally:
        _follow.reset(token)


def checked_source(source: Path) -> Path:
    """The folder with its links resolved; DataError if it is none."""
    if not source.is_dir():
        raise DataError(f"{source} is not a folder: give the folder that holds the images.")
    return source.resolve()


def sub_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are passed over."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def keyed_images(
    source: Path, folder: Path, *, ending: str | None = None, recursive: bool = True
) -> dict[str, Path]:
    """Key -> image file of a folder inside `source`, and of those below it; maybe empty.

    ending: the member of layout labels whose Cityscapes endings are dropped from keys while the
    files of others are passed over; None takes all files, and keys with their endings."""
    check_contained(source, folder)
    return _keyed(image_files(source, folder, recursive), folder, ending)


def image_files(source: Path, folder: Path, recursive: bool = True) -> Iterator[Path]:
    """Image files below a folder, in no fixed order; hidden and other files are passed over."""
    others, seen = [], {folder.resolve()}
    walk = os.walk(folder, followlinks=_follow.get(), onerror=_refuse)
    for parent, folder_names, file_names in walk:
        folder_names[:] = [name for name in folder_names if recursive and name[0] != "."]
        for name in folder_names:
            _check_folder(Path(parent, name), seen)
        for name in file_names:
            path = Path(parent, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                continue
            if suffix in OTHER_IMAGE_SUFFIXES:
                others.append(path)
            if suffix in IMAGE_SUFFIXES:
                yield _regular_file(source, path)
    if others:
        more = f" (and {len(others) - 1} more files)" if len(others) > 1 else ""
        raise DataError(f"{min(others)}{more} is no PNG, JPEG or WebP: convert or remove it.")


def _refuse(error: OSError) -> NoReturn:
    """What cannot be looked into would be missing without a word."""
    raise DataError(
        f"{error.filename} cannot be read ({error.strerror}): make it readable, or move it out of "
        "the source."
    ) from error


def _check_folder(path: Path, seen: set[Path]) -> None:
    """A link to a folder is followed if the user said so, but to no folder twice."""
    if path.is_symlink() and not _follow.get():
        raise DataError(
            f"{path} is a link to a folder: copy the folder there, or `pack --links=follow`."
        )
    if _follow.get():
        target = path.resolve()
        if target in seen:
            raise DataError(f"{path} leads to {target}, where other links lead too: remove one.")
        seen.add(target)


def check_contained(source: Path, path: Path) -> None:
    """Raise DataError if a link leads out of the source."""
    # It could lead to any file of this machine, whose bytes would then be packed.
    if not (_follow.get() or path.resolve().is_relative_to(source)):
        raise DataError(
            f"{path} is a link that leads out of {source}: copy its target there, or "
            "`pack --links=follow`."
        )


def check_regular(path: Path) -> None:
    """Raise DataError for a pipe or a device, which might never end, and for a dead link."""
    if not path.is_file():
        raise DataError(f"{path} is not a regular file: remove it.")


def path_key(path: Path, folder: Path) -> str:
    """The key of a file in a folder; DataError if its name could break messages and tars."""
    return _checked_key(path.relative_to(folder).with_suffix("").as_posix(), path)


def dotted_key(key: str, path: Path) -> str:
    """The key of a file with the dots that its name has, for results that are called like it."""
    *folders, name = key.split("/")
    for stem in (path.stem, *(path.stem.removesuffix(ending) for ending in CITYSCAPES_ENDINGS)):
        if normal_key(stem) == name:
            return "/".join([*folders, stem])
    return key


def _regular_file(source: Path, path: Path) -> Path:
    if path.is_symlink():
        check_contained(source, path)
    check_regular(path)
    return path


def _keyed(paths: Iterable[Path], folder: Path, ending: str | None) -> dict[str, Path]:
    keyed: dict[str, Path] = {}
    for path in paths:
        key = _key(path, folder, ending)
        if key is None:
            continue
        if key in keyed:
            raise DataError(
                f"{path} and {keyed[key]} would share the key {key!r} (extensions are dropped, "
                f"dots become underscores): rename one."
            )
        keyed[key] = path
    return keyed


def _key(path: Path, folder: Path, ending: str | None) -> str | None:
    """Key of a file, or None where its ending marks it as another member's."""
    stem = path.relative_to(folder).with_suffix("").as_posix()
    for known, owner in CITYSCAPES_ENDINGS.items() if ending else ():
        if stem.endswith(known):
            if owner != ending:
                return None
            stem = stem.removesuffix(known)
    return _checked_key(stem, path)


def normal_key(text: str) -> str:
    """A key as it is stored: without dots, and with accents composed, as Linux writes them and
    macOS does not: names that look the same are the same."""
    return unicodedata.normalize("NFC", text).replace(".", "_")


def _checked_key(stem: str, path: Path) -> str:
    key = normal_key(stem)
    if not key.isprintable():
        raise DataError(f"{str(path)!r} has unprintable characters in its name: rename it.")
    return key
