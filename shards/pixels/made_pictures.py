"""Pictures that commands make: marked as such, and the only files that a command replaces."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shards.records import DataError
from shards.storage.sealed import named

SOFTWARE = "Organza"
"""What the PNG keyword Software says of them."""


def check_replaceable(targets: Iterable[Path], sources: Iterable[Path] = ()) -> None:
    """Raise DataError, before anything is written, if a target is taken by a file that no command
    made, is one of the `sources` that are about to be read, or would lie among them; links are
    resolved."""
    sources = list(sources)
    read, folders = set(map(_identity, sources)), {source.parent.resolve() for source in sources}
    for target in targets:
        if target.parent.resolve() in folders:
            raise DataError(
                f"{target} would lie among the pictures that are to be read: choose another folder "
                "for the results."
            )
        if os.path.lexists(target) and not is_made(target):
            raise DataError(
                f"{target} is there already and was not made by this program, so it is not "
                "replaced: choose another folder for the results."
            )
        if target.exists() and _identity(target) in read:
            raise DataError(
                f"{target} is another name of a picture that is to be read: choose another folder "
                "for the results."
            )


def is_made(path: Path) -> bool:
    """Whether a file is a picture of ours: links are somebody else's, wherever they lead."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def save(image: Image.Image, path: Path) -> None:
    """Write a marked PNG, whole or not at all."""
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{secrets.token_hex(8)}.tmp")  # short: names have their limits
    try:
        with named(path):
            with open(draft, "xb") as file:
                image.save(file, format="PNG", pnginfo=mark)
            os.replace(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink()


def save_pixels(pixels: np.ndarray, path: Path) -> None:
    """The same of uint8 [H, W, 1, 3 or 4]."""
    save(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), path)


def _identity(path: Path) -> tuple[int, int]:
    """The file behind all of its names."""
    status = path.stat()
    return status.st_dev, status.st_ino
