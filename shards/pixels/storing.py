"""How the files of a source are stored: as they are, or anew where an option asks for it.

Transparent pictures are composed over a colour, photos encoded in another format, and label ids
renumbered. All else is copied byte for byte; readers of a packed set need to know nothing of it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from shards.pixels.images import check_checksums, composed, decode
from shards.pixels.label_ids import Remap, VoidLabel
from shards.pixels.photos import Photos
from shards.records import KINDS, DataError

Colour = tuple[int, int, int]
KEEP = "keep"
"""In place of a colour: pictures keep what is transparent, for networks of four channels."""
NAMED_COLOURS: dict[str, Colour] = {"white": (255, 255, 255), "black": (0, 0, 0)}


def colour_of(text: str) -> Colour:
    """white, black or #rrggbb -> RGB; DataError for anything else."""
    if text in NAMED_COLOURS:
        return NAMED_COLOURS[text]
    try:
        if text[0] != "#" or len(text) != 7:
            raise ValueError(text)
        red, green, blue = bytes.fromhex(text[1:])
    except (ValueError, IndexError) as error:
        raise DataError(f"background={text}: give white, black or #rrggbb, or keep.") from error
    return red, green, blue


@dataclass(frozen=True)
class Storing:
    """What is stored anew, and how; nothing by default."""

    photos: Photos | None = None
    """Format of pictures; None: the one that they have."""
    background: str = ""
    """Colour below transparent pixels, as users write it, or KEEP; "": they are refused."""
    remap: Remap | None = None
    """Other numbers for label ids."""
    void: VoidLabel | None = None
    """The id of unlabelled pixels, where it is beyond num_labels."""

    def __post_init__(self) -> None:
        if self.background == KEEP and self.photos:
            raise DataError(
                f"background={KEEP} leaves pictures as they are, photos={self.photos.format} "
                f"does not: leave one of them out."
            )
        if self.background not in ("", KEEP):
            colour_of(self.background)

    def stored(self, data: bytes, member: str, where: str) -> tuple[bytes, list[tuple[str, str]]]:
        """The file to pack for a member, and notes of what was changed: (member, words).

        Raises DataError, naming `where`, if it cannot be read, or stored so."""
        if KINDS[member] == "rgb":
            return self._picture(data, member, where)
        if KINDS[member] == "label" and (self.remap or self.void):
            return self._label(data, member, where)
        return data, []

    def _picture(self, data: bytes, member: str, where: str) -> tuple[bytes, list[tuple[str, str]]]:
        notes = []
        if self.background not in ("", KEEP):
            pixels = composed(data, where, colour_of(self.background))
            if pixels is not None:
                check_checksums(data, where)
                data = png_of(pixels)
                notes.append((member, f"transparent pictures composed over {self.background}"))
        return (self.photos.stored(data, member, where) if self.photos else data), notes

    def _label(self, data: bytes, member: str, where: str) -> tuple[bytes, list[tuple[str, str]]]:
        before = ids = decode(data, member, where)
        notes: list[tuple[str, str]] = []
        if self.remap:
            ids = self.remap.applied(ids, where)
        if self.void:
            ids, found = self.void.applied(ids)
            notes = [(member, note) for note in found]
        if np.array_equal(ids, before):
            return data, notes
        check_checksums(data, where)
        return png_of(ids), notes

    def to_json(self) -> dict[str, Any]:
        """For the manifest, where nothing stands for nothing: such sets keep the fingerprint that
        they always had. The void label is noted where it is met."""
        content: dict[str, Any] = {}
        if self.photos:
            content["photos"] = vars(self.photos)
        if self.background:
            content["background"] = self.background
        if self.remap:
            content["remap"] = self.remap.to_json()
        return content


def png_of(pixels: np.ndarray) -> bytes:
    """uint8 [H, W] or [H, W, 3] -> a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
