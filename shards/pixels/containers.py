"""What an image file holds beside its pixels: how it is turned, and what decoders choke on."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator

from PIL import ExifTags, Image

BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises for damaged files."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_IDLE_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Texts and colour profiles of a PNG: nothing reads them, and Pillow refuses long ones."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""
_CHANGES_SIDES = (5, 6, 7, 8)
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""What begins a part of a JPEG; none is in the bytes of pixels."""
_SCAN, _END = 0xDA, 0xD9


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts and colour profile, whose checksums are right; else the same."""
    if not any(name in _IDLE_CHUNKS for name, _, _ in _chunks(data)):
        return data
    kept, last = [PNG_MAGIC], len(PNG_MAGIC)
    for name, start, end in _chunks(data):
        if name not in _IDLE_CHUNKS or not _is_whole(data[start:end]):
            kept.append(data[start:end])
        last = end
    return b"".join([*kept, data[last:]])


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the whole chunks of a PNG, one after another; none of other files."""
    start = len(PNG_MAGIC)
    while data.startswith(PNG_MAGIC) and start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            return
        yield data[start + 4 : start + 8], start, end
        start = end


def _is_whole(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def num_scans(data: bytes) -> int:
    """How often the pixels of a JPEG are gone over: about ten times in a progressive one."""
    scans, start = 0, 2
    while found := _MARKER.search(data, start):
        kind = data[found.end() - 1]
        if kind == _END:  # a preview or a film may follow
            break
        scans += kind == _SCAN
        start = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


def orientation(image: Image.Image, data: bytes) -> int:
    """How an opened picture is turned, by its EXIF: 1 for upright, to 8."""
    if image.format == "PNG" and not any(name == b"eXIf" for name, _, _ in _chunks(data)):
        return 1  # Pillow would look for it in texts too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF, which means nothing
            if image.format == "PNG":
                image.load()  # the chunk may come last
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except BROKEN:
        return 1
    return found if found in _TURNS else 1


def upright(image: Image.Image, turned: int) -> Image.Image:
    """The picture as it is meant to be seen; ids and palettes keep their values."""
    return image if turned == 1 else image.transpose(_TURNS[turned])


def upright_size(image: Image.Image, turned: int) -> tuple[int, int]:
    """(width, height) of `upright`."""
    width, height = image.size
    return (height, width) if turned in _CHANGES_SIDES else (width, height)
