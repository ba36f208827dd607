"""Photos stored in another format than they came in: smaller, and faster to decode than PNG.

Only pictures are encoded anew; label and instance maps are copied byte for byte, as all is without
this option. The same pixels give the same bytes, as long as the encoder is of the same version.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from shards.pixels.images import check_checksums, decode, extension
from shards.records import EXACT, KINDS, DataError

FORMATS = ("jpeg", "webp")
_EXTENSIONS = {"jpeg": "jpg", "webp": "webp"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"subsampling": "4:4:4"},  # a GAN would learn the blur of halved colour planes
    "webp": {"method": 4},
}


@dataclass(frozen=True)
class Photos:
    """How photos are stored: format "jpeg" or "webp" (which halves its colour planes), at a
    quality of 1 to 100."""

    format: str
    quality: int

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise DataError(f"photos={self.format}: choose keep, {' or '.join(FORMATS)}.")
        if not 1 <= self.quality <= 100:
            raise DataError(f"quality={self.quality}: choose 1 to 100.")

    def stored(self, data: bytes, member: str, where: str) -> bytes:
        """The file to pack for a member: `data` itself, unless it is a picture of another format.

        Then its RGB pixels are encoded, without EXIF or colour profile. Raises DataError, naming
        `where`, if it cannot be read or is too large for the format."""
        fixed = KINDS[member] != "rgb" or member in EXACT
        if fixed or extension(data, where) == _EXTENSIONS[self.format]:
            return data
        check_checksums(data, where)
        image, buffer = Image.fromarray(decode(data, member, where)), io.BytesIO()
        try:
            image.save(buffer, self.format, quality=self.quality, **_OPTIONS[self.format])
        except (OSError, ValueError) as error:
            raise DataError(
                f"{where} cannot be stored as {self.format} ({error}): choose --photos=keep."
            ) from error
        return buffer.getvalue()
